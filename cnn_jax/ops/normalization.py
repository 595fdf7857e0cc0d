"""Batch normalisation, and local response normalisation over neighbouring channels or positions."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax import native
from cnn_jax.errors import UsageError
from cnn_jax.ops import batch_normalization
from cnn_jax.ops.arguments import (
    DERIVATIVES,
    AnyArray,
    accumulator,
    as_array,
    as_dtype,
    check_array,
    check_filled,
    check_option,
    per_axis,
)
from cnn_jax.ops.batch_normalization import shifted_statistics
from cnn_jax.ops.padding import Pairs
from cnn_jax.ops.primitives import one_program
from cnn_jax.ops.reductions import window_sums
from cnn_jax.ops.sharding import is_local
from cnn_jax.ops.taps import Axes, Axis


def batch_statistics(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    *,
    axis_name: str | Sequence[str] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    mask: Shaped[AnyArray, "..."] | None = None,
) -> tuple[Shaped[Array, " channels"], Shaped[Array, " channels"]]:
    """Computes the mean and variance of each channel over all other axes.

    The variance is biased (divided by n). The fast formula, mean of squares minus square of mean, loses all digits if
    the mean is much larger than the standard deviation. Here it is applied to the distances from a first estimate of
    the mean.

    Args:
      x: ``(*batch, *space, C)``; the two half-precision types are summed in float32.
      axis_name: Mapped axes (``shard_map``, ``vmap``, ``pmap``) to average over as well.
      axis_index_groups: Groups of indices along the mapped axis; averages are taken within each group. By default all
        indices form one group.
      mask: Booleans that broadcast to ``x`` and select the entries to average over; all entries by default.

    Returns:
      Mean ``(C,)`` and variance ``(C,)``, float32 or float64; both 0 for an empty batch.

    >>> mean, variance = batch_statistics(jnp.array([[10001.0], [10003.0]]))
    >>> mean.item(), variance.item()
    (10002.0, 1.0)
    """
    op = "batch_statistics"
    average = _average(op, axis_name, axis_index_groups, mask)
    x = check_array(op, "x", x, empty=True)
    _, shift, rest, variance = shifted_statistics(as_dtype(x, accumulator(x.dtype)), average, whole=mask is None)
    return shift + rest, variance


def normalize_by_batch(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    *,
    scale: Shaped[AnyArray, "..."] | None = None,
    bias: Shaped[AnyArray, "..."] | None = None,
    epsilon: int | float = 1e-5,
    axis_name: str | Sequence[str] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    mask: Shaped[AnyArray, "..."] | None = None,
    addend: Shaped[AnyArray, "..."] | None = None,
    relu: bool = False,
) -> tuple[Shaped[Array, "*batch_and_space channels"], Shaped[Array, " channels"], Shaped[Array, " channels"]]:
    """Batch normalisation in training: :func:`batch_norm` with the :func:`batch_statistics` of the batch.

    It reads the input fewer times than the two functions together: the distances from the first estimate of the mean
    are computed once, for the statistics, the output and the gradient.

    Args:
      x: ``(*batch, *space, C)``; the two half-precision types are computed in float32 and cast back.
      scale: ``(C,)``; 1 by default.
      bias: ``(C,)``; 0 by default.
      epsilon: Added to the variance, so that the square root is not 0.
      axis_name: Mapped axes to average over as well.
      axis_index_groups: The same as in :func:`batch_statistics`.
      mask: The entries that the statistics are computed from. All entries are normalised.
      addend: An array with the shape of ``x`` that is added to the output, such as the shortcut of a residual block.
      relu: Whether to apply ReLU, after the addend. With ``cnn_jax.enable_native()`` all of this is one operation.

    Returns:
      The output, with shape and dtype of ``x``; mean and variance ``(C,)``, float32 or float64.

    Raises:
      UsageError: See :func:`batch_norm`.

    >>> y, mean, variance = normalize_by_batch(jnp.array([[10001.0], [10003.0]]), epsilon=0.0)
    >>> y[:, 0], mean.item(), variance.item()
    (Array([-1.,  1.], dtype=float32), 10002.0, 1.0)
    """
    op = "normalize_by_batch"
    x = check_array(op, "x", x, empty=True)
    vectors = _vectors(op, x, scale=scale, bias=bias)
    check_at_least(op, "epsilon", epsilon, 0)
    average = _average(op, axis_name, axis_index_groups, mask)
    if addend is not None:
        addend = check_array(op, "addend", addend, empty=True)
        if addend.shape != x.shape:
            raise UsageError(f"{op}: addend has shape {addend.shape}, but x has {x.shape}; they must be equal")
    if axis_name is None and mask is None and _suits_the_kernel(x, addend):
        ones, zeros = (jnp.full(x.shape[-1:], value, x.dtype) for value in (1, 0))
        scale, bias = vectors.get("scale", ones), vectors.get("bias", zeros)
        return batch_normalization.normalize(x, scale, bias, addend, epsilon=float(epsilon), relu=relu)
    distances, shift, rest, variance = shifted_statistics(
        as_dtype(x, accumulator(x.dtype)), average, whole=mask is None
    )
    factor = lax.rsqrt(variance + epsilon)
    if scale is not None:
        factor = factor * vectors["scale"]
    offset = -rest * factor if bias is None else vectors["bias"] - rest * factor
    factor, offset = (lax.broadcast_to_rank(vector, x.ndim) for vector in (factor, offset))
    y = as_dtype(distances * factor + offset, x.dtype)
    if addend is not None:
        y = y + addend
    return jax.nn.relu(y) if relu else y, shift + rest, variance


def _suits_the_kernel(x: Array, addend: Array | None) -> bool:
    """Whether the kernel of ``cnn_jax.native`` may be used, if the program is for one CPU device."""
    arrays = [x] if addend is None else [x, addend]
    fits = all(array.dtype == jnp.float32 and array.ndim > 1 and 0 not in array.shape for array in arrays)
    return native.is_wanted() and fits and is_local(*arrays)


def _average(
    op: str,
    axis_name: str | Sequence[str] | None,
    axis_index_groups: Sequence[Sequence[int]] | None,
    mask: Shaped[AnyArray, "..."] | None,
) -> Callable[[Array], Array]:
    """Returns a function that averages over all axes except the channels and over the mapped axes, within the mask."""

    def mean(values: Array) -> Array:
        axes = tuple(range(values.ndim - 1))
        mean = values.sum(axis=axes) if 0 in values.shape else values.mean(axis=axes)
        return mean if axis_name is None else lax.pmean(mean, axis_name, axis_index_groups=axis_index_groups)

    def masked(values: Array) -> Array:
        where = jnp.broadcast_to(as_array(op, "mask", mask).astype(bool), values.shape)
        axes = tuple(range(values.ndim - 1))
        sums = values.sum(axes, where=where), where.sum(axes, dtype=values.dtype)
        if axis_name is not None:  # devices may have different numbers of entries
            sums = lax.psum(sums, axis_name, axis_index_groups=axis_index_groups)
        return sums[0] / sums[1]

    return mean if mask is None else masked


def _vectors(op: str, x: Array, **given: Shaped[AnyArray, "..."] | None) -> dict[str, Array]:
    """The given vectors that are not None, in at least float32; each must have one entry per channel."""
    vectors = {name: as_array(op, name, vector) for name, vector in given.items() if vector is not None}
    for name, vector in vectors.items():
        if vector.shape != x.shape[-1:]:
            raise UsageError(
                f"{op}: {name} has shape {vector.shape}, but x of shape {x.shape} has {x.shape[-1]} channels; "
                f"channels come last"
            )
    return {name: as_dtype(vector, accumulator(x.dtype)) for name, vector in vectors.items()}


def batch_norm(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    *,
    mean: Shaped[AnyArray, "..."],
    variance: Shaped[AnyArray, "..."],
    scale: Shaped[AnyArray, "..."] | None = None,
    bias: Shaped[AnyArray, "..."] | None = None,
    epsilon: int | float = 1e-5,
) -> Shaped[Array, "*batch_and_space channels"]:
    """Computes ``(x - mean) / sqrt(variance + epsilon) * scale + bias`` per channel.

    Args:
      x: ``(*batch, *space, C)``; the two half-precision types are computed in float32 and cast back.
      mean: ``(C,)``: in training the mean of the batch (:func:`batch_statistics`), otherwise a running average of it.
      variance: ``(C,)``: the variance, as for the mean.
      scale: ``(C,)``; 1 by default.
      bias: ``(C,)``; 0 by default.
      epsilon: Added to the variance, so that the square root is not 0.

    Returns:
      An array with the shape and dtype of ``x``.

    Raises:
      UsageError: The length of a vector is not the number of channels, or epsilon is below 0.

    References:
      Ioffe and Szegedy, Batch normalization, 2015.

    >>> x = jnp.array([[10001.0], [10003.0]])
    >>> mean, variance = batch_statistics(x)
    >>> batch_norm(x, mean=mean, variance=variance, epsilon=0.0)[:, 0]
    Array([-1.,  1.], dtype=float32)
    """
    op = "batch_norm"
    x = check_array(op, "x", x, empty=True)
    vectors = _vectors(op, x, mean=mean, variance=variance, scale=scale, bias=bias)
    check_at_least(op, "epsilon", epsilon, 0)
    wide = as_dtype(x, accumulator(x.dtype))
    factor = lax.rsqrt(vectors["variance"] + epsilon)
    if scale is not None:
        factor = factor * vectors["scale"]
    mean, factor = (lax.broadcast_to_rank(vector, x.ndim) for vector in (vectors["mean"], factor))
    y = (wide - mean) * factor
    return as_dtype(y if bias is None else y + lax.broadcast_to_rank(vectors["bias"], x.ndim), x.dtype)


CONVENTIONS = ("paper", "torch", "onnx")


def local_response_norm(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    *,
    size: int | Sequence[int] = 5,
    alpha: int | float = 1e-4,
    beta: int | float = 0.75,
    k: int | float = 2.0,
    convention: str = "paper",
    derivatives: str = "custom",
) -> Shaped[Array, "*batch_and_space channels"]:
    """Local response normalisation: ``x / (k + alpha * sum of squares of the neighbours) ** beta``.

    Three conventions share the formula. They differ in the meaning of ``alpha`` and in the neighbours for an even size:

    ==========  =======================  ===========================  ================================================
    convention  sum is multiplied by     even size has one more       used by
    ==========  =======================  ===========================  ================================================
    ``paper``   ``alpha``                before                       AlexNet (k=2, size=5, alpha=1e-4), TensorFlow
    ``torch``   ``alpha / size``         before                       PyTorch (k=1 by default), Caffe
    ``onnx``    ``alpha / size``         after                        ONNX (k, there ``bias``, 1 by default)
    ==========  =======================  ===========================  ================================================

    TensorFlow and Caffe only support odd sizes.

    Args:
      x: ``(*batch, *space, C)``; bfloat16, float16, float32 or float64. The two half-precision types are computed in
        float32 and cast back.
      size: One int is the number of neighbouring channels at the same position (across channels). One int per spatial
        axis is the window of neighbouring positions in the same channel (within channels); ``'torch'`` and ``'onnx'``
        then divide alpha by the number of positions in the window, as Caffe does. Neighbours outside the array count as
        0.
      alpha: The factor of the sum of squares, at least 0.
      beta: The exponent.
      k: The constant in the denominator, greater than 0.
      convention: One of the conventions in the table.
      derivatives: Has no effect; still accepted for one release.

    Returns:
      An array with the shape and dtype of ``x``.

    Raises:
      UsageError: A number is out of range, or the convention is unknown.

    References:
      Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012, s. 3.3.

    >>> x = jnp.array([1.0, 1.0, 1.0, 1.0])
    >>> local_response_norm(x, size=3, alpha=1.0, beta=1.0, k=1.0)  # 1/(1+1+1), 1/(1+1+1+1), ...
    Array([0.33333334, 0.25      , 0.25      , 0.33333334], dtype=float32)
    """
    op = "local_response_norm"
    check_option(op, "convention", convention, CONVENTIONS)
    check_option(op, "derivatives", derivatives, DERIVATIVES)
    for name, value in {"alpha": alpha, "beta": beta}.items():
        check_at_least(op, name, value, 0)
    if not isinstance(k, int | float) or not k > 0:
        raise UsageError(f"{op}: k={k!r} must be a number greater than 0; otherwise the denominator can be 0")
    x = check_array(op, "x", x, empty=True)
    within = isinstance(size, Sequence)
    if isinstance(size, Sequence) and not size:
        raise UsageError(f"{op}: size=() must be one int for channels, or one int per spatial axis, e.g. (3, 3)")
    window = per_axis(op, "size", size, len(size) if isinstance(size, Sequence) else 1)
    first = x.ndim - len(window) - within
    if first < 0:
        raise UsageError(f"{op}: x of shape {x.shape} has too few axes for size={size!r}, one int per spatial axis")
    check_filled(op, "x", x, range(first, x.ndim))
    if first == 0:  # windows over all axes: the array has no batch axis
        return local_response_norm(x[None], size=size, alpha=alpha, beta=beta, k=k, convention=convention)[0]
    axes = tuple(
        Axis(index, x.shape[index], span, 1, 1, low, high, x.shape[index])
        for index, (span, (low, high)) in enumerate(
            zip(window, neighbourhood(window, convention), strict=True), start=first
        )
    )
    weight = float(alpha) if convention == "paper" else alpha / math.prod(window)
    return _local_response_norm(x, axes=axes, alpha=weight, beta=float(beta), k=float(k))


@one_program("axes", "alpha", "beta", "k")
def _local_response_norm(x: Array, *, axes: Axes, alpha: float, beta: float, k: float) -> Array:
    wide = x.astype(accumulator(x.dtype))
    return (wide * _power(k + alpha * window_sums(axes, wide * wide), -beta)).astype(x.dtype)


def neighbourhood(size: Sequence[int], convention: str) -> Pairs:
    """The numbers of neighbours before and after an entry, for each size.

    >>> neighbourhood((5, 2), "paper"), neighbourhood((5, 2), "onnx")
    (((2, 2), (1, 0)), ((2, 2), (0, 1)))
    """
    pairs = [(span // 2, (span - 1) // 2) for span in size]
    return tuple((high, low) if convention == "onnx" else (low, high) for low, high in pairs)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _power(base: Array, exponent: float) -> Array:
    """A power whose derivative reuses the power. JAX's rule computes a second power, which is equally expensive.

    The base must be greater than 0.
    """
    return base**exponent


@_power.defjvp
def _power_jvp(exponent: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    power = _power(*primals, exponent)
    return power, exponent * power / primals[0] * tangents[0]


def check_at_least(op: str, name: str, value: int | float, least: int | float) -> None:
    """Raises a ``UsageError`` unless the value is a Python number of at least ``least``; arrays are not accepted."""
    if not isinstance(value, int | float) or not value >= least:
        raise UsageError(f"{op}: {name}={value!r} must be a number, at least {least}")
