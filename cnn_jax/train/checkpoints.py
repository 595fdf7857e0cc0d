"""Checkpoints that are the whole run: written in the background, atomic, verified, the latest and the best kept."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from cnn_jax.errors import UsageError
from cnn_jax.train.parallel import agreed, is_primary
from cnn_jax.train.state import TrainState, digest

_LATEST_KEPT = 2  # the newest, and the one to fall back on when the newest turns out damaged

logger = logging.getLogger(__name__)


class NoWholeCheckpointError(UsageError):
    """There are checkpoints, and all of them are damaged."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: the state and the JSON values that were noted beside it."""

    state: TrainState
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run directory, a context manager.

    Saving returns as soon as the state is copied and goes on in the background; a checkpoint appears under its name
    only when it is complete, and the remains of a killed save are removed when the directory is next opened for
    writing. Each carries the SHA-256 of all that is in it, so that one damaged on disk is noticed and not used.

    Args:
      directory: the folder, made if it is missing.
      read_only: for evaluation: change nothing on disk.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self.directory = directory
        self._read_only = read_only

        def score(metrics: dict[str, float]) -> float:
            return metrics["score"]

        # Orbax tells of each save and folder through absl, and of each failure too, which it then raises as well.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._manager = _Manager(
            directory.absolute(),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                best_fn=score,  # without it the metrics are not stored, and a resumed run forgets its best
                preservation_policy=AnyPreservationPolicy([LatestN(_LATEST_KEPT), BestN(get_metric_fn=score, n=1)]),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, *, score: float, notes: dict[str, Any]) -> None:
        """Saves the whole state in the background.

        Args:
          state: what to save; it may be donated to the next step at once.
          score: what the best checkpoint is chosen by; higher is better.
          notes: JSON values kept beside the arrays.

        Raises:
          OSError: the save before this one, or this one, found the disk full.
        """
        # A copy, because on a CPU the writer would otherwise read the very buffers that the next step overwrites.
        arrays = jax.tree.map(jnp.copy, _with_key_data(state))
        self.wait()
        _require_room(self.directory, 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)))
        with _os_errors(self.directory):
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays),
                    notes=ocp.args.JsonSave({**notes, "digest": _digest(arrays, score, notes)}),
                ),
                metrics={"score": score},
                force=True,
            )

    def wait(self) -> None:
        """Returns when every save is on disk; raises OSError if one found it full."""
        with _os_errors(self.directory):
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest score; None if there is no checkpoint."""
        return self._manager.best_step()

    def restore(self, template: TrainState, *, step: int | None = None) -> Checkpoint | None:
        """Reads one checkpoint, or the newest that is whole.

        Args:
          template: a state, or the shapes of one, with the structure, shapes and dtypes to expect, and the shardings
            to give the arrays, wherever they were saved from.
          step: which checkpoint; by default the newest, and if that is damaged the one before it, with a warning.

        Returns:
          The checkpoint, or None if the directory holds none.

        Raises:
          NoWholeCheckpointError: every candidate is damaged.
          UsageError: the one that was asked for is damaged, or it belongs to another network.
        """
        candidates = self.steps()[::-1] if step is None else [step]
        damaged: list[str] = []
        for candidate in candidates:
            try:
                checkpoint = self._read(candidate, template)
            except _DamagedError as error:
                damaged.append(f"checkpoint {self.directory / str(candidate)} is damaged ({error})")
                continue
            for line in damaged:
                logger.warning("%s; falling back to the one of step %d", line, candidate)
            self._discard(candidates[: len(damaged)])
            return checkpoint
        if damaged and step is None:
            raise NoWholeCheckpointError(
                f"{damaged[0]}, and no other is whole; remove {self.directory} to train again from the start"
            )
        if damaged:
            raise UsageError(damaged[0])
        return None

    def remove_all(self) -> None:
        """Removes every checkpoint, for a run that begins again."""
        self._discard(self.steps())

    def _read(self, step: int, template: TrainState) -> Checkpoint:
        expected = _expected(template)
        with _unreadable_is_damaged():
            _read_arrays(self.directory / str(step) / "state")
            stored = self._manager.item_metadata(step)["state"].tree
        _check_same_network(self.directory / str(step), stored, expected)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(expected), notes=ocp.args.JsonRestore())
        with _unreadable_is_damaged():
            restored = self._manager.restore(step, args=arguments)
        notes = restored["notes"]
        score = (self._manager.metrics(step) or {}).get("score")
        if notes.pop("digest", None) != _digest(restored["state"], score, notes):
            raise _DamagedError("its contents do not have the recorded SHA-256")
        return Checkpoint(_with_typed_key(restored["state"]), notes)

    def _discard(self, steps: list[int]) -> None:
        if steps and not self._read_only:
            for step in steps if is_primary() else ():  # by hand: orbax's own delete reads the damaged files first
                shutil.rmtree(self.directory / str(step))
            agreed(0)  # waits until they are gone
            self._manager.reload()


class _Manager(ocp.CheckpointManager):
    """Takes a score that cannot be read for one that is missing: orbax reads all scores when it opens the folder."""

    def metrics(self, step: int) -> Any:
        try:
            return super().metrics(step)
        except ValueError:
            return None


class _DamagedError(Exception):
    """A checkpoint that cannot be read or does not match its SHA-256."""


def _digest(arrays: PyTree, score: float | None, notes: dict[str, Any]) -> str:
    beside = json.dumps([score, notes], sort_keys=True)
    return hashlib.sha256(f"{digest(arrays)} {beside}".encode()).hexdigest()


@contextlib.contextmanager
def _unreadable_is_damaged() -> Iterator[None]:
    """Orbax and TensorStore raise bare Exceptions of many lines for files that are missing or cut short."""
    try:
        yield
    except Exception as error:
        raise _DamagedError("its files are missing or cut short") from error


def _read_arrays(folder: Path) -> None:
    """Decodes every array, and what orbax notes of them, once, or raises.

    Orbax reads all arrays at a time: when one cannot be read it raises, and those still under way print their own
    tracebacks later, from threads and abandoned coroutines that nothing here can catch.
    """
    store = {"driver": "ocdbt", "base": f"file://{folder.absolute()}/"}
    keys = tensorstore.KvStore.open(store).result().list().result()
    arrays = [key.decode().removesuffix(".zarray") for key in keys if key.endswith(b".zarray")]
    if not arrays:
        raise FileNotFoundError(f"no arrays in {folder}")
    for name in arrays:
        specification = {"driver": "zarr", "kvstore": {**store, "path": name}, "fill_missing_data_reads": False}
        tensorstore.open(specification).result().read().result()
    for path in folder.glob("array_metadatas/*"):
        json.loads(path.read_text())


def _require_room(directory: Path, size: int) -> None:
    """Asks the disk for the room of a checkpoint, and gives it back: orbax would find out half-way, in its threads."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(directory)) from error


@contextlib.contextmanager
def _os_errors(directory: Path) -> Iterator[None]:
    """Turns TensorStore's own exceptions about a full disk, raised as ValueError, into the OSError that they are."""
    try:
        yield
    except ValueError as error:
        for code, phrase in (
            (errno.ENOSPC, "No space left on device"),
            (errno.EDQUOT, "Disk quota exceeded"),
            (errno.EFBIG, "File too large"),
        ):
            if phrase in str(error):
                raise OSError(code, phrase, str(directory)) from error
        raise


def _with_key_data(state: TrainState) -> TrainState:
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


def _expected(template: TrainState) -> TrainState:
    """What orbax is to read: shapes and shardings of the template, with the key as plain numbers."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or here)

    key = placed(jax.eval_shape(jax.random.key_data, template.key), getattr(template.key, "sharding", None))
    shapes = jax.tree.map(lambda leaf: placed(leaf, getattr(leaf, "sharding", None)), template)
    return dataclasses.replace(shapes, key=key)


def _with_typed_key(state: TrainState) -> TrainState:
    return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    def name(path: tuple[Any, ...]) -> str:
        return ".".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)

    return {name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_same_network(path: Path, stored: PyTree, expected: PyTree) -> None:
    """Compares names and shapes before anything is read, to name the parameter that differs."""
    have, want = _shapes(stored), _shapes(expected)
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise UsageError(
                f"checkpoint {path} is of another network or optimiser: {name} has shape {have.get(name, 'none')} "
                f"in it and {want.get(name, 'none')} in this config; use the config it was trained with"
            )
