"""Checkpoints of the whole run: written in the background, atomic and verified. The latest and the best are kept."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, CustomSteps, LatestN

from cnn_jax.errors import UsageError
from cnn_jax.train.parallel import agreed, is_primary
from cnn_jax.train.state import TrainState, digest, evaluated

_LATEST_KEPT = 2  # the newest, and the one before it as a fallback if the newest is damaged

_REPLACED = ".replaced"  # suffix of an old checkpoint while its replacement is written

_DIGESTS = ("digest", "weights_digest")
_WRONG_DIGEST = "its contents do not have the recorded SHA-256"
_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class NoWholeCheckpointError(UsageError):
    """There are checkpoints, and all of them are damaged."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A restored checkpoint: the state and the JSON values that were saved with it."""

    state: TrainState
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run directory, a context manager.

    Saving returns as soon as the state is copied and continues in the background. A checkpoint appears under its name
    only when it is complete; the files of an interrupted save are removed when the directory is next opened for
    writing. Each checkpoint contains the SHA-256 of its contents, so a damaged one is detected and not used.

    Args:
      directory: The folder. It is created if it is missing.
      read_only: Change nothing on disk; for evaluation.
      keep: Steps whose checkpoints are kept, besides the latest and the best.
    """

    def __init__(self, directory: Path, *, read_only: bool = False, keep: Sequence[int] = ()) -> None:
        self.directory = directory
        self._read_only = read_only

        if not read_only:
            self._settle_replaced()

        def score(metrics: dict[str, float]) -> float:
            return metrics["score"]

        # Orbax logs each save and folder through absl. It also logs each failure that it then raises.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._manager = _Manager(
            directory.absolute(),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                best_fn=score,  # without it the metrics are not stored, and a continued run forgets its best
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(_LATEST_KEPT), BestN(get_metric_fn=score, n=1), CustomSteps(list(keep))]
                ),
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
        """Saves the whole state in the background, then removes an earlier checkpoint of the same step.

        Args:
          state: The state to save. It may be donated to the next step as soon as this returns.
          score: The number by which the best checkpoint is chosen; higher is better.
          notes: JSON values to save with the arrays.

        Raises:
          OSError: The disk was full during this save or the previous one.
        """
        # A copy, because on a CPU the writer would otherwise read the buffers that the next step overwrites.
        arrays = jax.tree.map(jnp.copy, _with_key_data(state))
        self.wait()
        _require_room(self.directory, 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)))
        step = int(state.step)
        if step in self.steps():
            self._set_aside(step)
        with _os_errors(self.directory):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays),
                    notes=ocp.args.JsonSave({**notes, **_digests(arrays, score, notes)}),
                ),
                metrics={"score": score},
                force=True,
            )

    def wait(self) -> None:
        """Waits until every save is on disk; raises OSError if the disk was full."""
        with _os_errors(self.directory):
            self._manager.wait_until_finished()
        self._settle_replaced()

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the checkpoint with the highest score; None if there is no checkpoint."""
        return self._manager.best_step()

    def restore(self, template: TrainState, *, step: int | None = None) -> Checkpoint | None:
        """Restores one checkpoint, or the newest that is not damaged.

        Args:
          template: A state or its ``ShapeDtypeStruct``s: the expected structure, shapes and dtypes, and the shardings
            of the restored arrays, whatever devices they were saved from.
          step: The step of the checkpoint. By default the newest; if that is damaged the one before it, with a warning.

        Returns:
          The checkpoint, or None if the directory contains none.

        Raises:
          NoWholeCheckpointError: All checkpoints are damaged.
          UsageError: The checkpoint of ``step`` is damaged, or a checkpoint is of another network.
        """
        return self._newest_whole(lambda candidate: self._read(candidate, template), step)

    def restore_evaluated(self, params: PyTree, model_state: PyTree, *, step: int | None = None) -> TrainState | None:
        """Restores what evaluation needs, without the optimiser's state.

        Args:
          params: The expected parameters, or their shapes.
          model_state: The expected model state, or its shapes. A parameter may be in either of the two: frozen
            parameters are saved in the model state.
          step: The step of the checkpoint, see :meth:`restore`.

        Returns:
          A state without an optimiser state. Its weights are the moving average if one was saved. None if the
          directory contains no checkpoint.

        Raises:
          NoWholeCheckpointError: All checkpoints are damaged.
          UsageError: The checkpoint of ``step`` is damaged, or a checkpoint is of another network.
        """
        return self._newest_whole(lambda candidate: self._read_evaluated(candidate, params, model_state), step)

    def _newest_whole(self, read: Callable[[int], _T], step: int | None) -> _T | None:
        """Returns ``read(step)``; without a step, that of the newest checkpoint that is not damaged."""
        candidates = self.steps()[::-1] if step is None else [step]
        damaged: list[str] = []
        for candidate in candidates:
            try:
                found = read(candidate)
            except _DamagedError as error:
                damaged.append(f"checkpoint {self.directory / str(candidate)} is damaged ({error})")
                continue
            for line in damaged:
                logger.warning("%s; falling back to the one of step %d", line, candidate)
            self._discard(candidates[: len(damaged)])
            return found
        if damaged and step is None:
            raise NoWholeCheckpointError(
                f"{damaged[0]}, and no other is whole; remove {self.directory} to train again from the start"
            )
        if damaged:
            raise UsageError(damaged[0])
        return None

    def remove_all(self) -> None:
        """Removes every checkpoint, for a run that starts again."""
        self._discard(self.steps())

    def _read(self, step: int, template: TrainState) -> Checkpoint:
        expected, path = _expected(template), self.directory / str(step)
        with _unreadable_is_damaged():
            _check_readable(path / "state")
            stored = self._manager.item_metadata(step)["state"].tree
        _check_same_network(path, _shapes(stored), _shapes(expected))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(expected), notes=ocp.args.JsonRestore())
        with _unreadable_is_damaged():
            restored = self._manager.restore(step, args=arguments)
        notes = restored["notes"]
        score = (self._manager.metrics(step) or {}).get("score")
        recorded = {name: notes.pop(name) for name in _DIGESTS if name in notes}
        if len(recorded) == 1:  # saved by a version without restore_evaluated
            computed = {"digest": _digest_of(digest(restored["state"]), score, notes)}
        else:
            computed = _digests(restored["state"], score, notes)
        if recorded != computed:
            raise _DamagedError(_WRONG_DIGEST)
        return Checkpoint(_with_typed_key(restored["state"]), notes)

    def _read_evaluated(self, step: int, params: PyTree, model_state: PyTree) -> TrainState:
        path = self.directory / str(step)
        with _unreadable_is_damaged():
            names = _array_names(path / "state")
            parts = (
                ("ema.0.", "ema.1.") if any(name.startswith("ema.") for name in names) else ("params.", "model_state.")
            )
            saved_as = {name.removeprefix(part): name for part in parts for name in names if name.startswith(part)}
            shapes = {name: tuple(_open_array(path / "state", full).shape) for name, full in saved_as.items()}
        _check_same_network(path, shapes, {**_shapes(params), **_shapes(model_state)})
        with _unreadable_is_damaged():
            saved_as |= {name: name for name in ("step", "key")}
            arrays = {name: _open_array(path / "state", full).read().result() for name, full in saved_as.items()}
            notes = self._manager.restore(step, args=ocp.args.Composite(notes=ocp.args.JsonRestore()))["notes"]
        computed = digest(arrays)
        if notes.get("weights_digest", computed) != computed:  # earlier versions saved none
            raise _DamagedError(_WRONG_DIGEST)

        def filled(template: PyTree) -> PyTree:
            return jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(arrays[_name(path)]), template)

        key = jax.random.wrap_key_data(jnp.asarray(arrays["key"]))
        return TrainState(jnp.asarray(arrays["step"]), key, filled(params), filled(model_state), None)

    def _set_aside(self, step: int) -> None:
        """Renames the checkpoint of a step before it is replaced, so that there is always one to continue from."""
        if is_primary():
            path = self.directory / str(step)
            path.rename(path.with_name(f"{path.name}{_REPLACED}"))
        agreed(0)  # waits until it is renamed
        self._manager.reload()

    def _settle_replaced(self) -> None:
        """Removes checkpoints that were replaced; renames one back if the process ended before its replacement."""
        for path in self.directory.glob(f"*{_REPLACED}") if is_primary() else ():
            new = path.with_suffix("")
            if new.exists():
                shutil.rmtree(path)
            else:
                path.rename(new)
        agreed(0)

    def _discard(self, steps: list[int]) -> None:
        if steps and not self._read_only:
            for step in steps if is_primary() else ():  # orbax's own delete would read the damaged files first
                shutil.rmtree(self.directory / str(step))
            agreed(0)  # waits until they are gone
            self._manager.reload()


class _Manager(ocp.CheckpointManager):
    """Treats an unreadable score as missing: orbax reads all scores when it opens the folder."""

    def metrics(self, step: int) -> Any:
        try:
            return super().metrics(step)
        except ValueError:
            return None


class _DamagedError(Exception):
    """A checkpoint that cannot be read or does not match its SHA-256."""


def _digests(arrays: TrainState, score: float | None, notes: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of the arrays used in evaluation, and that of everything."""
    used = evaluated(arrays)
    weights = digest({"step": used.step, "key": used.key, **_named(used.params), **_named(used.model_state)})
    others = (arrays.params, arrays.model_state) if arrays.ema is not None else None
    return {
        "weights_digest": weights,
        "digest": _digest_of(f"{weights} {digest((others, arrays.opt_state))}", score, notes),
    }


def _digest_of(of_arrays: str, score: float | None, notes: dict[str, Any]) -> str:
    beside = json.dumps([score, notes], sort_keys=True)
    return hashlib.sha256(f"{of_arrays} {beside}".encode()).hexdigest()


@contextlib.contextmanager
def _unreadable_is_damaged() -> Iterator[None]:
    """Raises _DamagedError instead of the long bare Exceptions of Orbax and TensorStore for missing or cut files."""
    try:
        yield
    except Exception as error:
        raise _DamagedError("its files are missing or cut short") from error


def _check_readable(folder: Path) -> None:
    """Decodes every array and its metadata once; raises if one cannot be read.

    Orbax reads all arrays at the same time. If one fails, it raises, and the other reads print their own tracebacks
    later, from threads and abandoned coroutines where nothing here can catch them.
    """
    for name in _array_names(folder):
        _open_array(folder, name).read().result()
    for path in folder.glob("array_metadatas/*"):
        json.loads(path.read_text())


def _array_names(folder: Path) -> list[str]:
    """The names of all arrays, such as ``'params.c1.kernel.value'``."""
    keys = tensorstore.KvStore.open(_key_value_store(folder)).result().list().result()
    names = [key.decode().removesuffix("/.zarray") for key in keys if key.endswith(b"/.zarray")]
    if not names:
        raise FileNotFoundError(f"no arrays in {folder}")
    return names


def _open_array(folder: Path, name: str) -> Any:
    store = {**_key_value_store(folder), "path": f"{name}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": store, "fill_missing_data_reads": False}).result()


def _key_value_store(folder: Path) -> dict[str, str]:
    return {"driver": "ocdbt", "base": f"file://{folder.absolute()}/"}


def _require_room(directory: Path, size: int) -> None:
    """Checks that the disk has room for a checkpoint: orbax would fail in the middle of it, in its own threads."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(directory)) from error


@contextlib.contextmanager
def _os_errors(directory: Path) -> Iterator[None]:
    """Raises OSError instead of the ValueError that TensorStore raises for a full disk."""
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
    """What orbax restores: the shapes and shardings of the template, with the key as plain integers."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or here)

    key = placed(jax.eval_shape(jax.random.key_data, template.key), getattr(template.key, "sharding", None))
    shapes = jax.tree.map(lambda leaf: placed(leaf, getattr(leaf, "sharding", None)), template)
    return dataclasses.replace(shapes, key=key)


def _with_typed_key(state: TrainState) -> TrainState:
    return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))


def _name(path: tuple[Any, ...]) -> str:
    """The name that orbax gives a saved array."""
    return ".".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)


def _named(tree: PyTree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in _named(tree).items()}


def _check_same_network(path: Path, have: dict[str, tuple[int, ...]], want: dict[str, tuple[int, ...]]) -> None:
    """Compares names and shapes before any array is read, so that the error names the array that differs."""
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) == want.get(name):
            continue
        if any(other.startswith("opt_state.inner_states.trained.") for other in have):
            raise UsageError(
                f"checkpoint {path} has frozen parameters as an earlier version saved them: it can be evaluated and "
                "predicted from, but not trained further; train again in another folder"
            )
        raise UsageError(
            f"checkpoint {path} is of another network or optimiser: {name} has shape {have.get(name, 'none')} "
            f"in it and {want.get(name, 'none')} in this config; use the config it was trained with"
        )
