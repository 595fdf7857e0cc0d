"""The ways to compute a convolution."""

from collections.abc import Callable

import jax

from cnn_jax.ops import direct
from cnn_jax.ops.arguments import check_option
from cnn_jax.ops.padding import Windows

METHODS = ("direct",)


def resolve(op: str, method: str, x: jax.Array, kernel: jax.Array, geometry: Windows, groups: int) -> str:
    """The method to use."""
    check_option(op, "method", method, ("auto", *METHODS))
    return "direct"


def function(method: str, derivatives: str) -> Callable[..., jax.Array]:
    """The function that computes a method."""
    return direct.conv_jax if derivatives == "jax" else direct.conv
