"""Checks of arguments that all ops share. They run before any computation and raise errors in one style.

The first argument of each check is the name of the calling op, because each error message starts with it.
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
Number = int | float | Shaped[Array, ""]  # an array if it may be a traced value, see is_traced
Shape = tuple[Any, ...]  # ints; under jax.export the batch size may be symbolic
DERIVATIVES = ("custom", "jax")  # has no effect, accepted for one more release: all derivatives are fast now
FLOATS = ("bfloat16", "float16", "float32", "float64")
INEXACT = (*FLOATS, "complex64", "complex128")


def by(sizes: Sequence[int]) -> str:
    """Formats sizes for an error message.

    >>> by((5, 5)), by((7,))
    ('5x5', '7')
    """
    return "x".join(str(size) for size in sizes)


def is_traced(value: Any) -> bool:
    """Whether a number is traced by JAX, as in a sweep that runs many trials in one program.

    The value of a traced number is unknown, so its range cannot be checked and zero cannot be a special case.

    >>> is_traced(0.5), jax.eval_shape(lambda rate: is_traced(rate) * rate, 0.5).shape
    (False, ())
    """
    return isinstance(value, jax.core.Tracer)


def concrete(array: Shaped[AnyArray, "..."]) -> np.ndarray | None:
    """The values of an array, or None where they are not known: while compiling, or on other hosts' devices."""
    if is_traced(array) or (isinstance(array, jax.Array) and not array.is_fully_addressable):
        return None
    return np.asarray(array)  # of NumPy, because operations of jax.numpy are traced under jit


def may_differ_from_zero(number: Any) -> bool:
    """Whether a number may differ from 0, so that code which a 0 makes unnecessary is needed. True for a traced number.

    >>> may_differ_from_zero(0.0), may_differ_from_zero(0.1)
    (False, True)
    >>> jax.eval_shape(lambda rate: rate if may_differ_from_zero(rate) else None, 0.0).shape
    ()
    """
    return is_traced(number) or bool(number)


def check_option(op: str, name: str, value: str, options: Collection[str]) -> None:
    """Raises a ``UsageError`` that suggests the closest option unless ``value`` is one of the options."""
    if value not in options:
        raise UsageError(f"{op}: unknown {name}={value!r}; {nearest(str(value), options)}")


def check_precision(op: str, precision: Any) -> None:
    """Raises a ``UsageError`` for a name that is not a precision of ``jax.lax``."""
    for name in precision if isinstance(precision, tuple) else (precision,):
        if isinstance(name, str):
            check_option(op, "precision", name, PRECISIONS)


def check_array(op: str, name: str, value: Any, *, empty: bool = False, dtypes: Sequence[str] = FLOATS) -> jax.Array:
    """Converts an argument to a JAX array; raises a ``UsageError`` for an unsupported dtype or an axis of size 0.

    Args:
      op: The calling op, for the error message.
      name: The name of the argument, for the error message.
      value: The argument.
      empty: Whether axes may have size 0, as the batch axis of an empty batch. :func:`split_batch` and
        :func:`check_filled` then reject other axes of size 0.
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
    """Raises a ``UsageError`` if one of the given axes has size 0."""
    for axis in axes:
        if array.shape[axis] == 0:
            raise UsageError(
                f"{op}: {name} of shape {array.shape} is empty: axis {axis} has size 0, but must be >= 1; "
                f"only the batch may be empty"
            )


def wider(*dtypes: DTypeLike) -> jnp.dtype:
    """The dtype that two or more dtypes promote to, even if strict promotion is enabled in JAX.

    >>> with jax.numpy_dtype_promotion("strict"):
    ...     wider("bfloat16", "float32")
    dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return reduce(jnp.promote_types, [jnp.dtype(dtype) for dtype in dtypes])


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which sums are computed: at least float32."""
    return wider(dtype, jnp.float32)


def as_dtype(array: jax.Array, dtype: DTypeLike) -> jax.Array:
    """``array.astype(dtype)``, or the array itself if there is nothing to convert.

    Outside ``jit`` JAX differentiates a conversion to the same dtype as an operation, which takes as long as any other.

    >>> x = jnp.ones(3)
    >>> as_dtype(x, jnp.float32) is x
    True
    """
    return array if array.dtype == dtype and not array.weak_type else array.astype(dtype)


def as_array(op: str, name: str, value: Any) -> jax.Array:
    """Converts an argument to a JAX array of any dtype, or raises a ``UsageError``."""
    if isinstance(value, jax.Array):  # Outside jit, jnp.asarray is one more operation to differentiate.
        return value
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        shown = f"{value!r:.60}".replace("\n", " ")
        raise UsageError(f"{op}: {name} must be an array of numbers, got {type(value).__name__} {shown}") from None


def check_number(op: str, name: str, value: Any, *, least: int | float | None = None) -> None:
    """Raises a ``UsageError`` unless the value is one number: a Python number or a scalar array, traced or not.

    Args:
      op: The calling op, for the error message.
      name: The name of the argument, for the error message.
      value: The argument.
      least: The smallest number that is accepted; all numbers by default. A traced number is not compared with it.
    """
    scalar = jnp.shape(value) == () if isinstance(value, AnyArray) else isinstance(value, Real)
    if isinstance(value, bool) or not scalar:
        raise UsageError(f"{op}: {name}={value!r} must be a number")
    if least is not None and not is_traced(value) and not value >= least:
        raise UsageError(f"{op}: {name}={value!r} must be at least {least}")


def per_axis(op: str, name: str, value: int | Sequence[int], rank: int, *, least: int = 1) -> tuple[int, ...]:
    """Converts an int (for all axes) or one int per axis to a tuple of ``rank`` ints, each at least ``least``."""
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
    """Checks an int (for all spatial axes), or converts one int per axis to a tuple; each is at least 1."""
    if not isinstance(value, Sequence):
        return per_axis(op, name, value, 1)[0]
    if not value:
        raise UsageError(f"{op}: {name}={value!r} must have one int per spatial axis, e.g. (2, 2)")
    return per_axis(op, name, value, len(value))


def window_sizes(op: str, name: str, value: int | Sequence[int], array: jax.Array) -> tuple[int, ...]:
    """Converts window sizes to one int per spatial axis. A sequence determines the number of spatial axes.

    One int applies to every axis except the first (the batch) and the last (the channels).

    >>> window_sizes("max_pool", "window", 2, jnp.ones((8, 28, 28, 6)))
    (2, 2)
    """
    sizes = one_or_several(op, name, value)
    if isinstance(sizes, tuple):
        return sizes
    if array.ndim < 3:
        raise UsageError(
            f"{op}: {name}={sizes} applies to every spatial axis of (N, *space, C), but the array of shape "
            f"{array.shape} has {array.ndim} axes; write {name}=({sizes},) for one spatial axis without a batch"
        )
    return (sizes,) * (array.ndim - 2)


def integer(op: str, name: str, value: Any, *, least: int | None = None) -> int:
    """Converts a value to a Python int, or raises a ``UsageError``. Bools and traced values are not ints.

    Args:
      op: The calling op, for the error message.
      name: The name of the argument, for the error message.
      value: The argument.
      least: The smallest int that is accepted; all ints by default.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, jax.errors.JAXTypeError):
        raise UsageError(
            f"{op}: {name} must consist of Python ints that are known at compile time; got {value!r}"
        ) from None
    if least is not None and number < least:
        raise UsageError(f"{op}: {name}={number} must be at least {least}")
    return number


def check_axes(op: str, x: jax.Array, rank: int, noun: str, *, name: str = "x") -> None:
    """Raises a ``UsageError`` if ``x`` has too few axes; for the arguments see :func:`split_batch`."""
    if x.ndim < rank + 1:
        raise UsageError(
            f"{op}: {name} of shape {x.shape} has {x.ndim} axes, but {noun} has {rank} spatial axes and needs at least "
            f"{rank + 1} (space, then channels); reshape it, e.g. {name}[..., None] for a single channel"
        )


def split_batch(op: str, x: jax.Array, rank: int, noun: str, *, name: str = "x") -> tuple[jax.Array, Shape]:
    """Merges the leading axes of ``x`` into one.

    The batch may be empty, or have a symbolic size under ``jax.export``.

    Args:
      op: The calling op, for the error message.
      x: ``(*batch, *space, C)`` with any number of batch axes, including none.
      rank: The number of spatial axes.
      noun: The argument that determines the rank, with its shape, e.g. ``'kernel of shape (3, 3, 8, 16)'``; for the
        error message.
      name: The name of ``x`` in the calling op; for the error message.

    Returns:
      ``x`` with shape ``(N, *space, C)``, and the shape of its leading axes.
    """
    check_axes(op, x, rank, noun, name=name)
    batch, rest = x.shape[: x.ndim - rank - 1], x.shape[x.ndim - rank - 1 :]
    check_filled(op, name, x, range(len(batch), x.ndim))
    return (x if len(batch) == 1 else x.reshape(math.prod(batch), *rest)), batch
