"""Layers that follow the convolutions: flattening, linear layers, LeNet-5's radial basis functions, a fixed factor."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, wider
from cnn_jax.ops.wide import affine


class Linear(nnx.Linear):
    """``nnx.Linear`` with a clear error for inputs of the wrong size, and accurate gradients in half precision.

    >>> Linear(400, 120, rngs=nnx.Rngs(0))(jnp.ones((8, 256)))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: Linear: inputs of shape (8, 256) have 256 features, but in_features=400
    """

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch in_features"], out_sharding: Any = None
    ) -> Shaped[Array, "*batch out_features"]:
        """Maps ``(*batch, in_features)`` to ``(*batch, out_features)``; for ``out_sharding`` see ``nnx.Linear``."""
        if inputs.ndim < 1 or inputs.shape[-1] != self.in_features:
            raise UsageError(
                f"Linear: inputs of shape {inputs.shape} have {inputs.shape[-1] if inputs.ndim else 0} features, "
                f"but in_features={self.in_features}"
            )
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        options: dict[str, Any] = {"precision": self.precision, "out_sharding": out_sharding}
        if self.preferred_element_type is not None:
            options["preferred_element_type"] = self.preferred_element_type
        y = self.dot_general(inputs, kernel, (((inputs.ndim - 1,), (0,)), ((), ())), **options)
        return affine(y, bias=bias)


def flatten(x: Shaped[AnyArray, "batch ..."]) -> Shaped[Array, "batch features"]:
    """Flattens all axes except the first in row-major order, so that channels vary fastest.

    Args:
      x: ``(N, ...)``, of any dtype.

    Returns:
      ``(N, features)``.

    >>> flatten(jnp.ones((8, 5, 5, 16))).shape
    (8, 400)
    """
    return jnp.asarray(x).reshape(x.shape[0], math.prod(x.shape[1:]))


class Flatten(nnx.Module):
    """:func:`flatten` that checks the input shape, which the following ``Linear`` depends on.

    Args:
      input_shape: The shape of one input, without the batch axis.

    Raises:
      UsageError: In a call, the inputs have another shape.

    >>> Flatten((5, 5, 16))(jnp.ones((8, 5, 5, 16))).shape
    (8, 400)
    >>> Flatten((28, 28, 1))(jnp.ones((8, 1, 28, 28)))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: Flatten: inputs of shape (8, 1, 28, 28) do not have the shape (batch, 28, 28, 1), ...
    """

    def __init__(self, input_shape: Sequence[int]) -> None:
        self.input_shape = tuple(input_shape)

    def __call__(self, inputs: Shaped[AnyArray, "..."]) -> Shaped[Array, "batch features"]:
        """Flattens all axes except the first."""
        if inputs.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            channels_first = inputs.shape[1:] == (self.input_shape[-1], *self.input_shape[:-1])
            raise UsageError(
                f"Flatten: inputs of shape {inputs.shape} do not have the shape (batch, {expected}), "
                "which the next layer expects; "
                + (
                    "they look channels-first, use jnp.moveaxis(x, 1, -1)"
                    if channels_first
                    else "create the network with your input_shape"
                )
            )
        return flatten(inputs)


class RBFOutput(nnx.Module):
    """LeNet-5's output layer: the squared distance between the features and a fixed centre for each class.

    Args:
      centers: ``(classes, features)``. They are not trained, because their ``nnx.Variable`` is not an ``nnx.Param``.

    References:
      LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, section II.B.

    >>> RBFOutput(jnp.eye(10, 84))(jnp.ones((8, 84))).shape
    (8, 10)
    """

    def __init__(self, centers: Shaped[AnyArray, "classes features"]) -> None:
        self.centers = nnx.Variable(jnp.asarray(centers))

    def __call__(self, inputs: Shaped[AnyArray, "*batch features"]) -> Shaped[Array, "*batch classes"]:
        """Maps ``(*batch, features)`` to distances ``(*batch, classes)``; the smallest is that of the nearest class."""
        dtype = wider(inputs.dtype, self.centers[...].dtype)
        return ops.rbf_output(jnp.asarray(inputs, dtype), self.centers[...].astype(dtype))


class Scale(nnx.Module):
    """Multiplies its input by a fixed number, which is not trained.

    Args:
      factor: The number.

    >>> Scale(0.5)(jnp.ones(2))
    Array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, factor: float | int) -> None:
        self.factor = factor

    def __call__(self, inputs: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
        """Multiplies all entries."""
        return jnp.asarray(inputs) * self.factor
