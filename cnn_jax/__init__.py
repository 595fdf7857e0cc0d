"""Convolutional networks in JAX: exact layers with fast gradients, the historical networks, runs that can be resumed.

Subpackages are imported on first use. ``import cnn_jax`` is therefore fast and XLA flags can still be set after it:

>>> import cnn_jax
>>> import jax.numpy as jnp
>>> cnn_jax.ops.conv(jnp.ones((28, 28, 1)), jnp.ones((5, 5, 1, 6))).shape
(24, 24, 6)
"""

import importlib
from typing import TYPE_CHECKING, Any

from cnn_jax.runtime.xla import recommended_xla_flags

if TYPE_CHECKING:
    from cnn_jax import data, filters, geometry, models, nn, ops, report, tasks, train, weights
    from cnn_jax.native import enable as enable_native

__version__ = "0.1.0"
__all__ = [
    "data",
    "enable_native",
    "filters",
    "geometry",
    "models",
    "nn",
    "ops",
    "recommended_xla_flags",
    "report",
    "tasks",
    "train",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name == "enable_native":
        return importlib.import_module("cnn_jax.native").enable
    if name in __all__:
        return importlib.import_module(f"cnn_jax.{name}")
    raise AttributeError(f"module 'cnn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
