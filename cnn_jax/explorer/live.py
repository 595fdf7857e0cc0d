"""The page with a server behind it, which computes with the real network: for networks too large for a page.

The server listens on the loopback interface unless a host is given; then the address has a token, which every request
must bring. Requests of other pages are refused by their ``Host`` and ``Origin``, and nothing but the page, the weights
and two computations can be asked for. A client keeps one request under way and sends the latest drawing next.
"""

import dataclasses
import hmac
import secrets
import webbrowser
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from jaxtyping import Shaped

from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import say

LOOPBACK = "127.0.0.1"
_LOOPBACKS = (LOOPBACK, "localhost")
_PATIENCE = 20  # seconds for a client to send what it announced

Compute = Callable[[Shaped[np.ndarray, "height width channels"]], Shaped[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Live:
    """What the server answers.

    Attributes:
      page: Makes the page from the query of its address, ``''`` or ``'?token=...'``.
      weights: The arrays of the graph, see :meth:`cnn_jax.explorer.Graph.to_json`.
      image_shape: Of the images that clients send, uint8 (height, width, channels).
      forward: The values of all nodes of an image, one after the other.
      methods: Attribution methods: name -> picture of an image.
    """

    page: Callable[[str], str]
    weights: bytes
    image_shape: tuple[int, ...]
    forward: Compute
    methods: Mapping[str, Compute]


class Server(ThreadingHTTPServer):
    """The server on a free port.

    Args:
      live: What it answers.
      host: The address to listen on. Any other than the loopback interface needs a token.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, live: Live, host: str = LOOPBACK) -> None:
        self.live = live
        self.token = "" if host in _LOOPBACKS else secrets.token_urlsafe(16)
        try:
            super().__init__((host, 0), _Handler)
        except OSError as error:
            raise UsageError(f"--host={host}: cannot listen there: {error.strerror or error}") from error
        port = self.server_address[1]
        self.hosts = frozenset(f"{name}:{port}" for name in _LOOPBACKS)
        self.query = f"?token={self.token}" if self.token else ""
        self.url = f"http://{host}:{port}/{self.query}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that vanishes is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """The page and its weights."""
        path = self._checked()
        if path is None:
            return
        if path == "/":
            self._send(self.server.live.page(self.server.query).encode(), "text/html; charset=utf-8")
        elif path == "/weights":
            self._send(self.server.live.weights)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """The values of all nodes, or a picture, of the image in the body."""
        path = self._checked(changes=True)
        if path is None:
            return None
        live, method = self.server.live, path.removeprefix("/gradients/")
        compute = live.forward if path == "/run" else live.methods.get(method)
        if compute is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such method")
        size = int(np.prod(live.image_shape))
        if self.headers.get("Content-Length") != str(size):
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an image has {size} bytes")
        body = self.rfile.read(size)
        if len(body) == size:  # less where the client vanished
            image = np.frombuffer(body, np.uint8).reshape(live.image_shape)
            self._send(np.ascontiguousarray(compute(image), "<f4").tobytes())
        return None

    def _checked(self, *, changes: bool = False) -> str | None:
        """The path of a request; None for one that was refused."""
        asked, host, server = urlsplit(self.path), self.headers.get("Host"), self.server
        hosts = {host} if server.token else server.hosts  # elsewhere a machine has many names, and the token protects
        given = parse_qs(asked.query).get("token", [""])[0]
        if host is None or host not in hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "unknown host")
        elif changes and (self.headers.get("Origin") or "").removeprefix("http://") not in hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "requests of other pages are refused")
        elif not hmac.compare_digest(given.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the address lacks its token")
        else:
            return asked.path
        return None

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # what the client sent is not read
        self._send(f"{reason}\n".encode(), "text/plain; charset=utf-8", status)

    def _send(self, content: bytes, kind: str = "application/octet-stream", status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""


def serve(live: Live, *, host: str = LOOPBACK, open_browser: bool = False) -> None:
    """Answers until it is interrupted.

    Args:
      live: What to answer.
      host: The address to listen on.
      open_browser: Whether to open the page.

    Raises:
      UsageError: It cannot listen on this address.
    """
    with Server(live, host) as server:
        say(f"the explorer is at {server.url}; Ctrl-C ends it")
        if open_browser:
            webbrowser.open(server.url)
        server.serve_forever()
