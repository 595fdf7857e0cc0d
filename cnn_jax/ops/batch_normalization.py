"""Batch normalisation in training, with an addend and ReLU, as one operation that a CPU computes by a native kernel.

With ``n = (x - mean) / sqrt(variance + epsilon)`` the result is ``relu(n * scale + bias + addend)``. Derivatives of
first order are written by hand: the tangent is linear in those of ``x``, scale, bias and addend, and its transpose, the
gradients, is the second kernel. Derivatives of higher order are those of the functions below.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float32

from cnn_jax.native import calls, is_enabled
from cnn_jax.ops.primitives import LoweringContext, substitutable
from cnn_jax.ops.sharding import first_entry

_STATIC = ("epsilon", "relu")


def normalize(
    x: Float32[Array, "*batch_and_space channels"],
    scale: Float32[Array, " channels"],
    bias: Float32[Array, " channels"],
    addend: Float32[Array, "*batch_and_space channels"] | None,
    *,
    epsilon: float,
    relu: bool,
) -> tuple[Float32[Array, "..."], Float32[Array, " channels"], Float32[Array, " channels"]]:
    """The result, the mean and the variance of the batch."""
    operands = (x, scale, bias) if addend is None else (x, scale, bias, addend)
    y, mean, variance, _ = _normalize.bind(*operands, epsilon=epsilon, relu=relu)
    return y, mean, variance


def shifted_statistics(x: Array, average: Any, *, whole: bool) -> tuple[Array, Array, Array, Array]:
    """The distances from a first estimate of the mean, the estimate, their mean and variance.

    The estimate is the mean of the first example. It is one of n examples, so it differs from the overall mean by at
    most sqrt(n) standard deviations, and the variance loses at most a factor of n in precision. Except for rounding,
    any shift gives the same result, so it needs no gradient. In a masked batch the first example may be masked out.

    Args:
      x: The input, in at least float32.
      average: Averages over all axes except the channels.
      whole: Whether all entries are averaged.
    """
    shift = lax.stop_gradient(average(first_entry(x) if whole else x))
    distances = x - lax.broadcast_to_rank(shift, x.ndim)
    rest = average(distances)
    return distances, shift, rest, jnp.maximum(average(jnp.square(distances)) - jnp.square(rest), 0)


def _mean(array: Array) -> Array:
    return array.mean(range(array.ndim - 1))


def _along(x: Array, *vectors: Array) -> list[Array]:
    """Vectors of the channels with as many axes as ``x``: ranks are not promoted, which JAX can be set to refuse."""
    return [lax.broadcast_to_rank(vector, x.ndim) for vector in vectors]


def _normalize_as_written(x: Array, scale: Array, bias: Array, *addend: Array, epsilon: float, relu: bool) -> Any:
    distances, shift, rest, variance = shifted_statistics(x, _mean, whole=True)
    factor = lax.rsqrt(variance + epsilon) * scale
    slope, offset = _along(x, factor, bias - rest * factor)
    y = sum(addend, distances * slope + offset)
    mean = shift + rest
    return [jax.nn.relu(y) if relu else y, mean, variance, lax.stop_gradient(rest - (mean - shift))]


def _normalize_on_cpu(*operands: Array, program: LoweringContext, epsilon: float, relu: bool) -> Any:
    if program.may_call and is_enabled():
        return calls.batch_norm(*operands, epsilon=epsilon, relu=relu)
    return _normalize_as_written(*operands, epsilon=epsilon, relu=relu)


def _normalized(x: Array, mean: Array, variance: Array, remainder: Array, epsilon: float) -> tuple[Array, Array]:
    """The normalised input and one over the standard deviation."""
    mean, remainder, inverse = _along(x, mean, remainder, lax.rsqrt(variance + epsilon))
    return (x - mean - remainder) * inverse, inverse


def _tangent(*operands: Array, epsilon: float, relu: bool) -> Any:
    """The tangent of y from those of the operands, linear in them, and what they are multiplied by."""
    *tangents, x, y, scale, mean, variance, remainder = operands
    dx, dscale, dbias, *daddend = tangents
    scale, dscale, dbias = _along(x, scale, dscale, dbias)
    n, inverse = _normalized(x, mean, variance, remainder, epsilon)
    mean_of_dx, mean_of_products = _along(x, _mean(dx), _mean(n * dx))
    dn = (dx - mean_of_dx - n * mean_of_products) * inverse
    dy = sum(daddend, dn * scale + n * dscale + dbias)
    return [jnp.where(y > 0, dy, 0) if relu else dy]


def _gradients_as_written(*operands: Array, epsilon: float, relu: bool, add: bool) -> Any:
    """The transpose of the tangent: the gradients of the operands from that of y."""
    dy, x, y, scale, mean, variance, remainder = operands
    if relu:
        dy = jnp.where(y > 0, dy, 0)
    n, inverse = _normalized(x, mean, variance, remainder, epsilon)
    axes = range(x.ndim - 1)
    scale, mean_of_dy, mean_of_products = _along(x, scale, _mean(dy), _mean(n * dy))
    dx = (dy - mean_of_dy - n * mean_of_products) * (inverse * scale)
    return [dx, (n * dy).sum(axes), dy.sum(axes), *[dy] * add]


def _gradients_on_cpu(*operands: Array, program: LoweringContext, epsilon: float, relu: bool, add: bool) -> Any:
    if program.may_call and is_enabled():
        return calls.batch_norm_gradients(*operands, epsilon=epsilon, relu=relu, add=add)
    return _gradients_as_written(*operands, epsilon=epsilon, relu=relu, add=add)


_normalize = substitutable("batch_norm", _normalize_as_written, on_cpu=_normalize_on_cpu, static=_STATIC)
_gradients = substitutable(
    "batch_norm_gradients", _gradients_as_written, on_cpu=_gradients_on_cpu, static=(*_STATIC, "add")
)


def _tangent_on_cpu(*operands: Array, program: LoweringContext, **static: Any) -> Any:
    return _tangent(*operands, **static)


_linear = substitutable("batch_norm_tangent", _tangent, on_cpu=_tangent_on_cpu, static=_STATIC)


def _derivative(primals: Sequence[Any], tangents: Sequence[Any], *, epsilon: float, relu: bool) -> Any:
    x, scale, *_ = primals
    y, mean, variance, remainder = _normalize.bind(*primals, epsilon=epsilon, relu=relu)
    dx, *others = map(ad.instantiate_zeros, tangents)
    # Without ReLU the output is not needed; in its place the input takes no memory.
    constants = (x, y if relu else x, scale, mean, variance, remainder)
    (dy,) = _linear.bind(dx, *others, *constants, epsilon=epsilon, relu=relu)
    center, rest = _along(x, mean, remainder)
    of_statistics = _mean(dx), 2 * _mean((x - center - rest) * dx), ad.Zero(jax.typeof(remainder).to_tangent_aval())
    return [y, mean, variance, remainder], [dy, *of_statistics]


def _transposed(cotangents: Sequence[Any], *operands: Any, epsilon: float, relu: bool) -> Any:
    (dy,) = cotangents
    *linear, x, y, scale, mean, variance, remainder = operands
    if type(dy) is ad.Zero:
        return [None] * len(operands)
    add = len(linear) > 3
    gradients = _gradients.bind(dy, x, y, scale, mean, variance, remainder, epsilon=epsilon, relu=relu, add=add)
    wanted = zip(linear, gradients, strict=True)
    return [gradient if ad.is_undefined_primal(operand) else None for operand, gradient in wanted] + [None] * 6


ad.primitive_jvps[_normalize] = _derivative
ad.primitive_transposes[_linear] = _transposed
