"""Arrays that are spread over devices: what JAX asks of code that handles them, where an op would not comply by itself.

With meshes of JAX's automatic kind there is nothing to do. Under ``jax.shard_map`` the operands of a function with
custom derivatives must vary over the same axes. On explicit meshes, which ``jax.make_mesh`` makes, a reshape or a
product of split arrays must say how its result is split; that is left to the compiler, except for the result.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from cnn_jax.ops.arguments import Shape


def over_batches(
    function: Callable[..., Shaped[Array, "batch ..."]], *arrays: Shaped[Array, "..."]
) -> Shaped[Array, "batch ..."]:
    """Calls a function whose result has the batch axis of its first argument, and is split over devices as that.

    Args:
      function: A function of arrays that knows nothing of devices.
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
    """Has the compiler keep images of that rank whole where it spreads a program over devices; the rest it may split.

    XLA's partitioner makes the kernel gradient of an image that is split along a spatial axis, with copies of it on
    the devices of another mesh axis, too large by the number of copies.
    """
    if devices == 1:
        return array
    free = PartitionSpec.UNCONSTRAINED
    mesh = jax.sharding.AbstractMesh((devices,), ("all",))
    split = PartitionSpec(*[free] * (array.ndim - 1 - rank), *[None] * rank, free)
    return lax.with_sharding_constraint(array, NamedSharding(mesh, split))


def first_entry(array: Shaped[Array, "batch ..."]) -> Shaped[Array, "1 ..."]:
    """The first entry along the batch axis, which may be split over devices; the result is not split along it.

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
    """How something of that shape, which broadcasts to an array, is split as it is; None where the compiler decides."""
    kind = jax.typeof(array)
    explicit = _explicit_mesh(kind)
    if explicit is None:
        return None
    spec = [axes if size > 1 else None for axes, size in zip(kind.sharding.spec, shape, strict=True)]
    return NamedSharding(explicit, PartitionSpec(*spec))


def _explicit_mesh(*types: Any) -> Any:
    """The explicit mesh that one of several arrays is spread over, if one is."""
    return next((kind.sharding.mesh for kind in types if kind.sharding.mesh.explicit_axes), None)


def zeros(shape: Shape, array: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Zeros in the dtype of an array, which vary over the mapped axes that it varies over.

    >>> import jax.numpy as jnp
    >>> zeros((2,), jnp.ones(3))
    Array([0., 0.], dtype=float32)
    """
    return lax.full_like(array, 0, shape=tuple(shape))


def like(shape: Shape, array: Shaped[Array, "..."]) -> jax.ShapeDtypeStruct:
    """The description of :func:`zeros`, for ``jax.linear_transpose``."""
    return jax.eval_shape(partial(zeros, shape), array)
