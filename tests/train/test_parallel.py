"""One device, eight simulated devices and two processes give the same results and can share checkpoints."""

import shutil
import socket
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import train
from cnn_jax.errors import UsageError
from tests.launch.process import Fork, environment
from tests.train import small_network

PROCESSES = 2
EIGHT = train.DataParallel(num_devices=8)


def assert_same(have: train.Trained | dict[str, np.ndarray], want: train.Trained) -> None:
    have = small_network.numbers(have) if isinstance(have, train.Trained) else have
    expected = small_network.numbers(want)
    assert have.keys() >= expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(have[name], array, rtol=2e-3, atol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> train.Trained:
    return small_network.run(tmp_path_factory.mktemp("alone"), train.ONE_DEVICE)


@pytest.fixture(scope="module")
def half_way_on_eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    small_network.run(folder, EIGHT, steps=3)
    return folder


def test_eight_devices_learn_what_one_learns(half_way_on_eight: Path, alone: train.Trained, tmp_path: Path) -> None:
    """Batch statistics are also those of the whole batch."""
    shutil.copytree(half_way_on_eight, tmp_path / "run")
    together = small_network.run(tmp_path / "run", EIGHT)
    assert_same(together, alone)
    assert together.scores["test/loss"] == pytest.approx(alone.scores["test/loss"], rel=1e-3)


def test_sharded_parameters_learn_the_same_and_stay_sharded(alone: train.Trained) -> None:
    parallel = train.DataParallel(num_devices=8, shard_parameters=True)
    task = small_network.task(parallel)
    program = train.Program(task, small_network.plan(), parallel=parallel)
    state, examples = program.first_state(0), parallel.replicate(small_network.examples())
    for _ in range(2):
        state, _ = program.steps(state, examples, 3)
    kernels = [leaf for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.shape == (128, 1)]
    assert len(kernels) == 3, "the kernel and Adam's two moments"
    for kernel in kernels:
        assert {shard.data.shape for shard in kernel.addressable_shards} == {(16, 1)}
    assert_same(train.Trained(parallel.on_one_device(state), {}), alone)


def test_pmap_learns_what_jit_learns_without_batch_statistics(tmp_path: Path) -> None:
    by_jit = small_network.run(tmp_path / "jit", train.ONE_DEVICE, batch_norm=False)
    by_pmap = small_network.run(tmp_path / "pmap", train.DataParallel("pmap", num_devices=8), batch_norm=False)
    assert_same(by_pmap, by_jit)
    assert by_pmap.scores["test/loss"] == pytest.approx(by_jit.scores["test/loss"], rel=1e-3)


def test_random_numbers_do_not_depend_on_the_number_of_devices() -> None:
    def draw(key: jax.Array) -> jax.Array:
        return EIGHT.split(jax.random.uniform(EIGHT.local_key(key), (16, 3)))

    key = jax.random.key(5)
    np.testing.assert_array_equal(jax.jit(draw)(key), jax.random.uniform(key, (16, 3)))


def test_checkpoint_of_eight_devices_continues_on_one(
    half_way_on_eight: Path, alone: train.Trained, tmp_path: Path
) -> None:
    shutil.copytree(half_way_on_eight, tmp_path / "run")
    assert_same(small_network.run(tmp_path / "run", train.ONE_DEVICE), alone)


def test_two_processes_learn_what_one_learns(half_way_on_eight: Path, alone: train.Trained, tmp_path: Path) -> None:
    shutil.copytree(half_way_on_eight, tmp_path / "of_eight")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.train.one_of_several_processes", str(port), str(PROCESSES)]
    running = [Fork([*command, str(number), str(tmp_path)], env=environment()) for number in range(PROCESSES)]
    try:
        printed = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * PROCESSES, "\n".join(printed)
    for name in ("fresh", "of_eight"):
        for number in range(PROCESSES):
            assert_same(dict(np.load(tmp_path / f"{name}-{number}.npz")), alone)
        rows = train.read_records(tmp_path / name)
        assert [(row["step"], row["split"]) for row in rows] == [
            (step, split) for step in (3, 6) for split in ("train", "test")
        ], "scores are written once"


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: train.DataParallel("pmp"), ["'pmp'", "'pmap'"]),
        (lambda: train.DataParallel("pmap", shard_parameters=True), ["'pmap'", "parallel='jit'"]),
        (lambda: EIGHT.check_batch(20), ["batch_size=20", "8 devices", "16 or 24"]),
        (lambda: EIGHT.check_batch(3), ["batch_size=3", "use 8"]),
    ],
)
def test_mistakes_are_named(call, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts)
