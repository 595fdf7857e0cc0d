"""The page with a server behind it, which computes with the real network: for networks too large for a page."""

import dataclasses
import webbrowser
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped

from cnn_jax.runtime import extras
from cnn_jax.runtime.terminal import say

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


def serve(live: Live, *, host: str = LOOPBACK, open_browser: bool = False) -> None:
    """Answers until it is interrupted.

    Args:
      live: What to answer.
      host: The address to listen on. Any other than the loopback interface needs a token, which the address has.
      open_browser: Whether to open the page.

    Raises:
      UsageError: It cannot listen on this address, or the packages of the extra ``explore`` are missing.
    """
    require_server()
    from cnn_jax.explorer.server import Server  # which imports these packages

    server = Server(live, host)
    say(f"the explorer is at {server.url}; Ctrl-C ends it")
    if open_browser:
        webbrowser.open(server.url)
    server.run()
