"""Checkpoints on disk are restored, and every kind of damage is detected."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.train.checkpoints import Checkpoints
from cnn_jax.train.state import TrainState, create_state, digest, evaluated


def state_of(step: int) -> TrainState:
    """Three parameters of different sizes; the largest is more than one of orbax's inline values."""
    generator = np.random.default_rng(step)
    params = {name: jnp.asarray(generator.normal(size=(size, 16))) for name, size in (("a", 2), ("b", 50), ("c", 300))}
    state = create_state(jax.random.key(step), params, {}, optax.trace(0.9))
    return TrainState(jnp.asarray(step, jnp.int32), state.key, state.params, state.model_state, state.opt_state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state_of(step), score=float(step), notes={"step": step})
    return folder


def assert_equal(state: TrainState, expected: TrainState) -> None:
    def numbers(tree: TrainState) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in (*jax.tree.leaves(tree.params), *jax.tree.leaves(tree.opt_state))]

    for have, want in zip(numbers(state), numbers(expected), strict=True):
        np.testing.assert_array_equal(have, want)
    assert int(state.step) == int(expected.step)
    assert bool(state.key == expected.key)


def test_saved_state_is_restored(saved: Path) -> None:
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        for step in (1, 2):
            checkpoint = checkpoints.restore(state_of(0), step=step)
            assert checkpoint is not None
            assert checkpoint.notes == {"step": step}
            assert_equal(checkpoint.state, state_of(step))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    for place in range(len(damaged) // 3, len(damaged), max(1, len(damaged) // 7)):
        damaged[place] ^= 0x5A
    path.write_bytes(bytes(damaged))


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damage_to_any_file_falls_back_silently(
    saved: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = sorted(path.relative_to(saved) for path in (saved / "2").rglob("*") if path.is_file())
    assert {str(file) for file in files} >= {"2/metrics/metrics", "2/notes/metadata", "2/state/manifest.ocdbt"}
    for index, file in enumerate(files):
        folder = tmp_path / str(index)
        shutil.copytree(saved, folder)
        damage(folder / file)
        caplog.clear()
        with Checkpoints(folder) as checkpoints:
            checkpoint = checkpoints.restore(state_of(0))
        assert checkpoint is not None
        if int(checkpoint.state.step) == 1:
            (line,) = [record.getMessage() for record in caplog.records]
            assert f"{folder / '2'} is damaged" in line
            assert "falling back to the one of step 1" in line
            assert not (folder / "2").exists()
        assert_equal(checkpoint.state, state_of(int(checkpoint.state.step)))
    assert capfd.readouterr().err == ""


def test_every_file_of_the_newest_checkpoint_truncated(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for path in (folder / "2").rglob("*"):
        if path.is_file():
            cut(path)
    with Checkpoints(folder) as checkpoints:
        checkpoint = checkpoints.restore(state_of(0))
        assert checkpoint is not None
        assert_equal(checkpoint.state, state_of(1))
        assert checkpoints.best_step() == 1


def test_a_changed_note_is_damage(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for name in ("notes/metadata", "metrics/metrics"):
        path = folder / "2" / name
        whole = path.read_text()
        path.write_text(whole.replace("2", "3", 1))
        with Checkpoints(folder, read_only=True) as checkpoints, pytest.raises(UsageError, match="SHA-256"):
            checkpoints.restore(state_of(0), step=2)
        path.write_text(whole)


def test_all_damaged_is_one_line_of_error(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for path in folder.rglob("d/*"):
        cut(path)
    with Checkpoints(folder) as checkpoints, pytest.raises(UsageError, match="no other is whole") as caught:
        checkpoints.restore(state_of(0))
    assert "\n" not in str(caught.value)
    assert (folder / "1").exists(), "nothing is removed that may still be rescued"
    assert (folder / "2").exists()


def network_of(state: TrainState) -> tuple[dict, dict]:
    return evaluated(state).params, evaluated(state).model_state


def frozen_like(state: TrainState) -> TrainState:
    """The same state with its second parameter frozen: it is in the model state."""
    params, optimizer = dict(state.params), optax.trace(0.9)
    model_state = {"b": params.pop("b")}
    new = create_state(state.key, params, model_state, optimizer, ema=state.ema is not None)
    return dataclasses.replace(new, step=state.step)


def saved_alone(folder: Path, state: TrainState, *, without: str = "") -> Path:
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, score=0.0, notes={"step": int(state.step)})
    if without:
        path = folder / str(int(state.step)) / "notes/metadata"
        notes = json.loads(path.read_text())
        del notes[without]
        path.write_text(json.dumps(notes))
    return folder


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_are_restored_without_an_optimiser(averaged: bool, tmp_path: Path) -> None:
    state = state_of(3)
    if averaged:
        state = dataclasses.replace(state, ema=jax.tree.map(lambda leaf: leaf / 2, (state.params, state.model_state)))
    with Checkpoints(saved_alone(tmp_path / "whole", state), read_only=True) as checkpoints:
        found = checkpoints.restore_evaluated(*network_of(state_of(0)))
    assert found is not None
    assert (found.opt_state, found.ema) == (None, None)
    assert (int(found.step), bool(found.key == state.key)) == (3, True)
    assert digest(found.params) == digest(evaluated(state).params)
    if averaged:
        assert digest(found.params) != digest(state.params)


def test_a_parameter_is_found_whether_saved_as_trained_or_frozen(tmp_path: Path) -> None:
    """Earlier versions saved frozen parameters with the others, and one SHA-256 less."""
    state = state_of(3)
    template = frozen_like(state_of(0))
    with Checkpoints(saved_alone(tmp_path / "old", state, without="weights_digest"), read_only=True) as checkpoints:
        found = checkpoints.restore_evaluated(template.params, template.model_state)
        assert found is not None
        assert list(found.params) == ["a", "c"]
        assert digest({**found.params, **found.model_state}) == digest(state.params)
        with pytest.raises(UsageError, match=r"of another network or optimiser: .*b has shape"):
            checkpoints.restore(template)
        with pytest.raises(UsageError, match=r"d has shape none in it and \(2, 16\)"):
            checkpoints.restore_evaluated({**template.params, "d": template.params["a"]}, template.model_state)


def test_damaged_weights_are_detected_when_only_weights_are_read(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    path = folder / "2/notes/metadata"
    path.write_text(
        path.read_text()
        .replace('"weights_digest":"', '"weights_digest":"0')
        .replace('"weights_digest": "', '"weights_digest": "0')
    )
    with Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.restore_evaluated(*network_of(state_of(0)))
        assert found is not None
        assert int(found.step) == 1
        with pytest.raises(UsageError, match="SHA-256"):
            checkpoints.restore_evaluated(*network_of(state_of(0)), step=2)


def test_an_interrupted_replacement_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """The process was killed before the new one was complete."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_of(1), score=-1.0, notes={"which": "old"})
    (tmp_path / "1").rename(tmp_path / "1.replaced")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        checkpoints.save(state_of(1), score=0.5, notes={"which": "new"})
        checkpoints.wait()
        found = checkpoints.restore(state_of(1))
        assert found is not None
        assert found.notes == {"which": "new"}
        assert checkpoints.best_step() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
