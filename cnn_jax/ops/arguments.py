"""What every op asks of its arguments before any array is touched, in one place and in one style of message.

Each function takes the name of the calling op first, because each error line starts with it.
"""

import math
import operator
from collections.abc import Collection, Iterable, Sequence
from functools import reduce
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax.errors import UsageError, nearest

AnyArray = jax.Array | np.ndarray  # what public functions take; they return jax.Array
PRECISIONS = ("bfloat16", "bfloat16_3x", "default", "fastest", "float32", "high", "highest", "tensorfloat32")  # lax's
Number = int | float | Shaped[Array, ""]  # an array where it may be a traced value, see is_traced
Shape = tuple[Any, ...]  # ints, but that jax.export may leave the size of the batch open, as a symbol
DERIVATIVES = ("custom", "jax")  # accepted for a release, and without effect: all derivatives are fast now
FLOATS = ("bfloat16", "float16", "float32", "float64")
INEXACT = (*FLOATS, "complex64", "complex128")


def by(sizes: Sequence[int]) -> str:
    """Sizes as they stand in error lines.

    >>> by((5, 5)), by((7,))
    ('5x5', '7')
    """
    return "x".join(str(size) for size in sizes)


def is_traced(value: Any) -> bool:
    """Whether a number is a value of the program that is being compiled, as in a sweep of many trials in one program.

    What it will be is not known, so that no range can be checked and no special case be made of zero.

    >>> is_traced(0.5), jax.eval_shape(lambda rate: is_traced(rate) * rate, 0.5).shape
    (False, ())
    """
    return isinstance(value, jax.core.Tracer)


def may_differ_from_zero(number: Any) -> bool:
    """Whether the part of a program that a number of 0 would leave out is needed; a traced number may be any.

    >>> may_differ_from_zero(0.0), may_differ_from_zero(0.1)
    (False, True)
    >>> jax.eval_shape(lambda rate: rate if may_differ_from_zero(rate) else None, 0.0).shape
    ()
    """
    return is_traced(number) or bool(number)


def check_option(op: str, name: str, value: str, options: Collection[str]) -> None:
    """Raises a ``UsageError`` naming the nearest real option unless ``value`` is one of them."""
    if value not in options:
        raise UsageError(f"{op}: unknown {name}={value!r}; {nearest(str(value), options)}")


def check_precision(op: str, precision: Any) -> None:
    """Raises a ``UsageError`` for a name that is none of those which ``jax.lax`` has for a precision."""
    for name in precision if isinstance(precision, tuple) else (precision,):
        if isinstance(name, str):
            check_option(op, "precision", name, PRECISIONS)


def check_array(op: str, name: str, value: Any, *, empty: bool = False, dtypes: Sequence[str] = FLOATS) -> jax.Array:
    """The argument as a JAX array, or a ``UsageError`` if it is of another dtype or has an axis of size 0.

    Args:
      op: The calling op, for the error line.
      name: What the caller calls the array; for the error line.
      value: The argument.
      empty: Whether axes may have size 0, as that of a batch without images. :func:`split_batch` and
        :func:`check_filled` refuse the others.
      dtypes: The names of the dtypes that the op supports.
    """
    array = as_array(op, name, value)
    if array.dtype.name not in dtypes:
        raise UsageError(
            f"{op}: {name} has dtype {array.dtype.name}, but this op is for {', '.join(dtypes)}; "
            f"convert it, e.g. {name}.astype('float32')"
        )
    if not empty:
        check_filled(op, name, array, range(array.ndim))
    return array


def check_filled(op: str, name: str, array: jax.Array, axes: Iterable[int]) -> None:
    """Raises a ``UsageError`` if one of the axes has size 0."""
    for axis in axes:
        if array.shape[axis] == 0:
            raise UsageError(
                f"{op}: {name} of shape {array.shape} is empty: axis {axis} has size 0, but must be >= 1; "
                f"only the batch may be empty"
            )


def wider(*dtypes: DTypeLike) -> jnp.dtype:
    """The dtype that two or more promote to, also where JAX's rules of promotion are set to be strict.

    >>> with jax.numpy_dtype_promotion("strict"):
    ...     wider("bfloat16", "float32")
    dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return reduce(jnp.promote_types, map(jnp.dtype, dtypes))


def as_dtype(array: jax.Array, dtype: DTypeLike) -> jax.Array:
    """``array.astype(dtype)``, or the array itself if there is nothing to convert.

    Outside ``jit`` JAX differentiates a conversion to the same dtype as an operation, which takes as long as any other.

    >>> x = jnp.ones(3)
    >>> as_dtype(x, jnp.float32) is x
    True
    """
    return array if array.dtype == dtype and not array.weak_type else array.astype(dtype)


def as_array(op: str, name: str, value: Any) -> jax.Array:
    """The argument as a JAX array of any type, or a ``UsageError``."""
    if isinstance(value, jax.Array):  # jnp.asarray would be an operation to differentiate
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        shown = f"{value!r:.60}".replace("\n", " ")
        raise UsageError(f"{op}: {name} must be an array of numbers, got {type(value).__name__} {shown}") from None


def check_number(op: str, name: str, value: Any) -> None:
    """Raises a ``UsageError`` unless the value is one number, which may be a scalar array and may be traced."""
    scalar = jnp.shape(value) == () if isinstance(value, AnyArray) else isinstance(value, Real)
    if isinstance(value, bool) or not scalar:
        raise UsageError(f"{op}: {name}={value!r} must be a number")


def per_axis(op: str, name: str, value: int | Sequence[int], rank: int, *, least: int = 1) -> tuple[int, ...]:
    """An int for every axis, or one int per axis, as a tuple of ``rank`` ints that are all at least ``least``."""
    entries = [value] * rank if isinstance(value, int) or not isinstance(value, Sequence) else list(value)
    if len(entries) != rank:
        raise UsageError(
            f"{op}: {name}={value!r} has {len(entries)} entries for {rank} spatial axes; give one int, or {rank}"
        )
    numbers = tuple(integer(op, name, entry) for entry in entries)
    if min(numbers, default=least) < least:
        raise UsageError(f"{op}: {name}={value!r} must be at least {least} on every axis, got {min(numbers)}")
    return numbers


def one_or_several(op: str, name: str, value: int | Sequence[int]) -> int | tuple[int, ...]:
    """An int, which stands for every spatial axis, or one int per axis as a tuple; all at least 1."""
    if not isinstance(value, Sequence):
        return per_axis(op, name, value, 1)[0]
    if not value:
        raise UsageError(f"{op}: {name}={value!r} must have one int per spatial axis, e.g. (2, 2)")
    return per_axis(op, name, value, len(value))


def window_sizes(op: str, name: str, value: int | Sequence[int], array: jax.Array) -> tuple[int, ...]:
    """One int per spatial axis of an array, whose number of spatial axes they give.

    An int stands for every axis but the first, which is the batch, and the last, the channels.

    >>> window_sizes("max_pool", "window", 2, jnp.ones((8, 28, 28, 6)))
    (2, 2)
    """
    sizes = one_or_several(op, name, value)
    if isinstance(sizes, tuple):
        return sizes
    if array.ndim < 3:
        raise UsageError(
            f"{op}: {name}={sizes} is for every spatial axis of (N, *space, C), but the array of shape {array.shape} "
            f"has {array.ndim} axes; write {name}=({sizes},) for one spatial axis without a batch"
        )
    return (sizes,) * (array.ndim - 2)


def integer(op: str, name: str, value: Any) -> int:
    """The value as a Python int, or a ``UsageError`` (bools and traced values are not ints)."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except (TypeError, jax.errors.JAXTypeError):
        raise UsageError(f"{op}: {name} must be made of Python ints, known before compiling; got {value!r}") from None


def check_axes(op: str, x: jax.Array, rank: int, noun: str, *, name: str = "x") -> None:
    """Raises a ``UsageError`` if ``x`` has too few axes; the arguments are those of :func:`split_batch`."""
    if x.ndim < rank + 1:
        raise UsageError(
            f"{op}: {name} of shape {x.shape} has {x.ndim} axes, but {noun} has {rank} spatial axes and needs at least "
            f"{rank + 1} (space, then channels); reshape it, e.g. {name}[..., None] for a single channel"
        )


def split_batch(op: str, x: jax.Array, rank: int, noun: str, *, name: str = "x") -> tuple[jax.Array, Shape]:
    """``x`` with its leading axes merged into one, ``(N, *space, C)``, and the shape of those leading axes.

    The batch may be empty, or of a size that ``jax.export`` leaves open.

    Args:
      op: The calling op, for the error line.
      x: ``(*batch, *space, C)`` with any number of batch axes, also none.
      rank: The number of spatial axes.
      noun: What gave the rank, with its shape, e.g. ``'kernel of shape (3, 3, 8, 16)'``; for the error line.
      name: What the caller calls ``x``; for the error line.
    """
    check_axes(op, x, rank, noun, name=name)
    batch, rest = x.shape[: x.ndim - rank - 1], x.shape[x.ndim - rank - 1 :]
    check_filled(op, name, x, range(len(batch), x.ndim))
    return (x if len(batch) == 1 else x.reshape(math.prod(batch), *rest)), batch
