"""What a page asks of the server behind it, which computes with the real network: for networks too large for a page.

The server is :mod:`cnn_jax.explorer.server`, whose packages are optional.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped

from cnn_jax.runtime import extras

LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A computation that a page can ask for: one array in, one array back.

    Attributes:
      shape: Of the array that a client sends.
      dtype: The same, ``'uint8'`` for images or ``'<f4'``.
      compute: Gives the array that is sent back as float32.
    """

    shape: tuple[int, ...]
    dtype: str
    compute: Callable[[Shaped[np.ndarray, "..."]], Shaped[np.ndarray, "..."]]

    @property
    def size(self) -> int:
        """How many bytes a client sends.

        >>> Answer((28, 28, 1), "uint8", np.negative).size
        784
        """
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Live:
    """What the server answers.

    Attributes:
      page: Makes the page from the query of its address, ``''`` or ``'?token=...'``.
      weights: The arrays of the graph, see :meth:`cnn_jax.explorer.Graph.stored`.
      answers: Path -> computation: ``'run'`` gives the values of all nodes of an image, one after the other,
        ``'decode'`` the same of a code, and ``'gradients/<method>'`` an attribution of an image.
    """

    page: Callable[[str], str]
    weights: bytes
    answers: Mapping[str, Answer]


def require_server() -> None:
    """Raises a ``UsageError`` that says what to install if the packages of the server are missing."""
    for module in ("starlette", "uvicorn"):
        extras.require(module, "explore", "--mode=explore without --output")
