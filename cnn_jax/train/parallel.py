"""Data parallelism over several devices and processes: the shardings of arrays, and the reductions over devices.

The loop and the step are written for one device and call :class:`DataParallel` where devices matter. With
``mode='jit'`` a mesh has all devices on one axis, ``'data'``, and every array has a ``NamedSharding``: batches are
split over the axis, parameters are replicated. XLA derives the communication from these. All sums and means, also those
of batch normalisation, are over the whole batch, and random numbers do not depend on the number of devices. With
``mode='pmap'``, the older way, each device runs the step on its part of the batch with its own batch statistics and
random numbers, and gradients are averaged.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree, Shaped

from cnn_jax.errors import UsageError, nearest

_AXIS = "data"
_MODES = ("jit", "pmap")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """Which devices a run uses, and how.

    Attributes:
      mode: ``'jit'`` or ``'pmap'``, see the module. Both give the same parameters, up to rounding, for networks without
        batch statistics and random numbers. ``'pmap'`` works with one process only.
      num_devices: The number of devices; the first ones are used. None for all devices of all processes.
      shard_parameters: Whether to shard the parameters and the optimiser's state over the devices, each array along its
        longest axis that divides, and gather them for use (FSDP: Zhao et al., 2023); for ``'jit'``.

    Raises:
      UsageError: The mode is unknown, or another option does not work with it.
    """

    mode: str = "jit"
    num_devices: int | None = None
    shard_parameters: bool = False

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise UsageError(f"parallel={self.mode!r} is unknown; {nearest(self.mode, _MODES)}")
        if self.mode == "pmap" and self.shard_parameters:
            raise UsageError("parallel='pmap' keeps parameters whole; for shard_parameters=True use parallel='jit'")
        if self.mode == "pmap" and jax.process_count() > 1:
            raise UsageError(f"parallel='pmap' is for one process, not {jax.process_count()}; use parallel='jit'")

    @functools.cached_property
    def mesh(self) -> Mesh:
        """A mesh of all devices on one axis."""
        return Mesh(np.array(jax.devices()[: self.num_devices]), (_AXIS,), axis_types=(AxisType.Auto,))

    def describe(self) -> str:
        """The devices in a few words.

        >>> "core" in DataParallel(num_devices=1).describe() or jax.default_backend() != "cpu"
        True
        """
        device, count = self.mesh.devices[0], self.mesh.size
        if device.platform == "cpu":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            kind = f"cpu, {cores} cores"
        else:
            kind = device.device_kind
        processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return (f"{count} x " if count > 1 else "") + kind + processes

    def check_batch(self, batch_size: int) -> None:
        """Raises a UsageError, with the nearest valid sizes, for a batch that the devices do not divide."""
        devices = self.mesh.size
        if batch_size % devices:
            below = batch_size // devices * devices
            choice = f"{below} or {below + devices}" if below else f"{devices}"
            raise UsageError(f"batch_size={batch_size} does not split over {devices} devices; use {choice}")

    # --- inside compiled programs -------------------------------------------------------------------------------------

    def split(self, rows: Shaped[Array, "batch ..."]) -> Shaped[Array, "part ..."]:
        """The batch as the step sees it: for ``'jit'`` the whole, sharded batch; for ``'pmap'`` the device's part."""
        if self.mesh.size == 1:
            return rows
        if self.mode == "pmap":
            return rows.reshape(self.mesh.size, -1, *rows.shape[1:])[jax.lax.axis_index(_AXIS)]
        return jax.lax.with_sharding_constraint(rows, self._sharding(_AXIS))

    def local_key(self, key: Key[Array, ""]) -> Key[Array, ""]:
        """The key of a device; for ``'pmap'`` each device has its own."""
        return jax.random.fold_in(key, jax.lax.axis_index(_AXIS)) if self.mode == "pmap" else key

    def mean(self, tree: PyTree) -> PyTree:
        """The means over the devices; integers, such as counts, are returned unchanged."""
        if self.mode == "jit":
            return tree
        return jax.tree.map(
            lambda leaf: jax.lax.pmean(leaf, _AXIS) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree
        )

    def sum(self, tree: PyTree) -> PyTree:
        """The sums over the devices."""
        return tree if self.mode == "jit" else jax.lax.psum(tree, _AXIS)

    def together(self, tree: PyTree) -> PyTree:
        """The parts of a batch that the devices have, one behind the other: the opposite of :meth:`split`."""
        if self.mode == "jit":
            return tree
        return jax.tree.map(lambda part: jax.lax.all_gather(part, _AXIS, tiled=True), tree)

    def first_example(self, part: int) -> int | Array:
        """The index in the whole batch of the first example in the result of :meth:`split`."""
        return jax.lax.axis_index(_AXIS) * part if self.mode == "pmap" else 0

    # --- compilation --------------------------------------------------------------------------------------------------

    def compile_steps(self, steps: Callable[..., tuple[_T, PyTree]]) -> Any:
        """Compiles ``steps(state, *others) -> (state, metrics)``; the state is donated and keeps its sharding."""
        if self.mode == "pmap":
            return self._mapped(steps)

        def pinned(state: _T, *others: Any) -> tuple[_T, PyTree]:
            state, metrics = steps(state, *others)
            return jax.lax.with_sharding_constraint(state, self.shardings(state)), metrics

        return jax.jit(pinned, donate_argnames="state")

    def compile_evaluation(self, evaluation: Callable[..., PyTree]) -> Any:
        """Compiles a function of a state and other arguments."""
        return self._mapped(evaluation) if self.mode == "pmap" else jax.jit(evaluation)

    def _mapped(self, function: Callable[..., Any]) -> "_Mapped":
        mapped = jax.pmap(
            lambda _, given: function(*given),
            axis_name=_AXIS,
            in_axes=(0, None),
            out_axes=None,
            devices=self.mesh.devices.tolist(),
        )
        return _Mapped(mapped, np.arange(self.mesh.size))

    # --- arrays on devices --------------------------------------------------------------------------------------------

    def shardings(self, state: PyTree) -> PyTree:
        """The sharding of each array of a state: replicated, or split over the devices."""

        def sharding(leaf: Any) -> NamedSharding:
            axes = [axis for axis, size in enumerate(leaf.shape) if size and size % self.mesh.size == 0]
            if not self.shard_parameters or not axes:
                return self._sharding()
            longest = max(axes, key=lambda axis: leaf.shape[axis])
            return self._sharding(*[None] * longest, _AXIS)

        return jax.tree.map(sharding, state)

    def abstract(self, init: Callable[[], _T]) -> _T:
        """Shapes, dtypes and shardings of the state that ``init()`` returns, without computing it."""
        shapes = jax.eval_shape(init)
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            shapes,
            self.shardings(shapes),
        )

    def replicate(self, arrays: PyTree) -> PyTree:
        """Replicates host arrays, the same in every process, to all devices."""

        def place(array: Any) -> Array:
            if jax.process_count() == 1:
                return jax.device_put(array, self._sharding())
            host = np.asarray(array)
            return jax.make_array_from_callback(host.shape, self._sharding(), lambda index: host[index])

        return jax.tree.map(place, arrays)

    def rows_of_process(self, batch_size: int) -> slice:
        """The rows of a batch that this process passes to :meth:`place_batch`: those of its devices."""
        part = batch_size // jax.process_count()
        return slice(jax.process_index() * part, (jax.process_index() + 1) * part)

    def place_batch(self, rows: PyTree) -> PyTree:
        """Places a batch on the devices as :meth:`split` expects it; each process passes its own rows."""
        if self.mode == "pmap":
            return self.replicate(rows)
        if jax.process_count() == 1:
            return jax.device_put(rows, self._sharding(_AXIS))
        return jax.tree.map(lambda own: jax.make_array_from_process_local_data(self._sharding(_AXIS), own), rows)

    def on_one_device(self, tree: _T) -> _T:
        """A copy on this process's first device, for use after training; every process must call it."""
        if self.mesh.size == 1:
            return tree
        whole = jax.jit(_same, out_shardings=self._sharding())(tree)
        here = jax.local_devices()[0]
        return jax.tree.map(lambda leaf: jax.device_put(leaf.addressable_data(0), here), whole)

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))


@dataclasses.dataclass(frozen=True)
class _Mapped:
    """``jax.pmap`` of a function whose arguments and results are the same on all devices."""

    mapped: Any
    numbers: np.ndarray

    def __call__(self, *given: Any) -> Any:
        return self.mapped(self.numbers, given)

    def lower(self, *given: Any) -> Any:
        return self.mapped.lower(self.numbers, given)


def _same(tree: _T) -> _T:  # always the same function, so that it is compiled once
    return tree


ONE_DEVICE = DataParallel(num_devices=1)


# --- processes --------------------------------------------------------------------------------------------------------


def is_primary() -> bool:
    """Whether this process writes the files of the run."""
    return jax.process_index() == 0


def agreed(number: int) -> int:
    """The maximum over the processes of the number that each calls this with."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())
