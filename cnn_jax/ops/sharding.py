"""Support for arrays that are sharded over devices, where ops need more than JAX does automatically.

On meshes with JAX's automatic axes nothing needs to be done. Under ``jax.shard_map`` the operands of a function with
custom derivatives must vary over the same axes. On meshes with explicit axes, which ``jax.make_mesh`` makes, a reshape
or a product of sharded arrays must specify the sharding of its result. Ops specify it for their result only and leave
the rest to the compiler.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from cnn_jax.ops.arguments import Shape


def over_batches(
    function: Callable[..., Shaped[Array, "batch ..."]], *arrays: Shaped[Array, "..."]
) -> Shaped[Array, "batch ..."]:
    """Calls a function whose result has the batch axis of its first argument and is sharded like it along that axis.

    Args:
      function: A function of arrays that does not handle sharding.
      *arrays: Its arguments; the first starts with the batch axis.
    """
    types = [jax.typeof(array) for array in arrays]
    varying = [kind.manual_axis_type.varying for kind in types]
    everywhere = frozenset[str]().union(*varying)
    arrays = tuple(
        lax.pcast(array, tuple(everywhere - own), to="varying") if own < everywhere else array
        for array, own in zip(arrays, varying, strict=True)
    )
    explicit = _explicit_mesh(*types)
    if explicit is None:
        return function(*arrays)
    result = NamedSharding(explicit, PartitionSpec(types[0].sharding.spec[0]))
    return jax.sharding.auto_axes(function, axes=explicit.explicit_axes, out_sharding=result)(*arrays)


def whole_in_space(
    array: Shaped[Array, "*batch_and_space channels"], devices: int, *, rank: int
) -> Shaped[Array, "..."]:
    """Prevents the compiler from sharding an array along its ``rank`` spatial axes; it may shard the other axes.

    If an image is sharded along a spatial axis and replicated over another mesh axis, XLA's partitioner multiplies the
    kernel gradient by the number of replicas.
    """
    if devices == 1:
        return array
    free = PartitionSpec.UNCONSTRAINED
    mesh = jax.sharding.AbstractMesh((devices,), ("all",), axis_types=(AxisType.Auto,))
    split = PartitionSpec(*[free] * (array.ndim - 1 - rank), *[None] * rank, free)
    return lax.with_sharding_constraint(array, NamedSharding(mesh, split))


def first_entry(array: Shaped[Array, "batch ..."]) -> Shaped[Array, "first ..."]:
    """The first entry along the batch axis, which may be sharded; the result is not sharded along it.

    >>> import jax.numpy as jnp
    >>> first_entry(jnp.arange(3))
    Array([0], dtype=int32)
    """

    def cut(array: Array) -> Array:
        return array[:1]

    kind = jax.typeof(array)
    explicit = _explicit_mesh(kind)
    if explicit is None:
        return cut(array)
    result = NamedSharding(explicit, PartitionSpec(None, *kind.sharding.spec[1:]))
    return jax.sharding.auto_axes(cut, axes=explicit.explicit_axes, out_sharding=result)(array)


def split_alike(array: Shaped[Array, "..."], shape: Shape) -> NamedSharding | None:
    """The sharding of an array for a shape that broadcasts to it; None if the compiler decides."""
    kind = jax.typeof(array)
    explicit = _explicit_mesh(kind)
    if explicit is None:
        return None
    spec = [axes if size > 1 else None for axes, size in zip(kind.sharding.spec, shape, strict=True)]
    return NamedSharding(explicit, PartitionSpec(*spec))


def _explicit_mesh(*types: Any) -> Any:
    """The explicit mesh that one of several arrays is sharded over, or None."""
    return next((kind.sharding.mesh for kind in types if kind.sharding.mesh.explicit_axes), None)


def is_local(*arrays: Shaped[Array, "..."]) -> bool:
    """Whether arrays are neither sharded over an explicit mesh nor vary over mapped axes (``jax.shard_map``)."""
    types = [jax.typeof(array) for array in arrays]
    return _explicit_mesh(*types) is None and not any(kind.manual_axis_type.varying for kind in types)


def zeros(shape: Shape, array: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Zeros with the dtype of an array, varying over the same mapped axes (``jax.shard_map``).

    >>> import jax.numpy as jnp
    >>> zeros((2,), jnp.ones(3))
    Array([0., 0.], dtype=float32)
    """
    return lax.full_like(array, 0, shape=tuple(shape))


def like(shape: Shape, array: Shaped[Array, "..."]) -> jax.ShapeDtypeStruct:
    """The ``jax.ShapeDtypeStruct`` of :func:`zeros`, for ``jax.linear_transpose``."""
    return jax.eval_shape(partial(zeros, shape), array)
