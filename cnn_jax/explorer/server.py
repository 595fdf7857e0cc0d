"""The server of a live page: Starlette and uvicorn, on the loopback interface unless a host is given.

Requests of other pages are refused by their ``Host`` and ``Origin``. Elsewhere than on the loopback interface every
request must bring the token of the printed address. Nothing but the page, the weights and some computations can be
asked for, and no file is read. A client keeps one request under way and sends the latest drawing next.
"""

import asyncio
import hmac
import secrets
import socket
import webbrowser

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cnn_jax.errors import UsageError
from cnn_jax.explorer.live import LOOPBACK, Live
from cnn_jax.runtime.terminal import say

_LOOPBACKS = (LOOPBACK, "localhost")
_PATIENCE = 20  # seconds for a client to send what it announced
_HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")]


class Server:
    """The server on a free port.

    Args:
      live: What it answers.
      host: The address to listen on. Any other than the loopback interface needs a token.

    Attributes:
      port: Where it listens.
      query: The token as a part of an address, ``''`` without one.
      url: The address of the page.

    Raises:
      UsageError: It cannot listen on this address.
    """

    def __init__(self, live: Live, host: str = LOOPBACK) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, 0), family=family, backlog=64)
        except OSError as error:
            raise UsageError(f"--host={host}: cannot listen there: {error.strerror or error}") from error
        self.port = self._socket.getsockname()[1]
        token = "" if host in _LOOPBACKS else secrets.token_urlsafe(16)
        self.query = f"?token={token}" if token else ""
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{self.query}"
        # Elsewhere a machine has many names, and the token protects.
        hosts = None if token else frozenset(f"{name}:{self.port}" for name in _LOOPBACKS)
        config = uvicorn.Config(
            _application(live, self.query, Middleware(_Guard, hosts=hosts, token=token)),
            loop="asyncio",  # uvloop would take over the signals that end a run
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            headers=_HEADERS,
            limit_concurrency=64,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Answers until it is stopped or interrupted."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Ends :meth:`run`; from any thread."""
        self._server.should_exit = True


def serve(live: Live, *, host: str = LOOPBACK, open_browser: bool = False) -> None:
    """Answers until it is interrupted.

    Args:
      live: What to answer.
      host: The address to listen on. Any other than the loopback interface needs a token, which the address has.
      open_browser: Whether to open the page.

    Raises:
      UsageError: It cannot listen on this address.
    """
    server = Server(live, host)
    say(f"the explorer is at {server.url}; Ctrl-C ends it")
    if open_browser:
        webbrowser.open(server.url)
    server.run()


class _Guard:
    """Lets a request through if it is for this server, of its own page, and has the token."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None, token: str) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._refusal(scope)
        app = self._app if reason is None else PlainTextResponse(f"{reason}\n", 403, {"Connection": "close"})
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers, given = Headers(scope=scope), QueryParams(scope["query_string"]).get("token", "")
        host = headers.get("host")
        if not host or (self._hosts is not None and host not in self._hosts):
            return "unknown host"
        if scope["method"] == "POST" and headers.get("origin") != f"http://{host}":
            return "requests of other pages are refused"
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return "the address lacks its token"
        return None


def _application(live: Live, query: str, guard: Middleware) -> Starlette:
    async def page(request: Request) -> Response:
        return HTMLResponse(live.page(query))

    async def weights(request: Request) -> Response:
        return Response(live.weights, media_type="application/octet-stream")

    async def computed(request: Request) -> Response:
        answer = live.answers.get(request.path_params["name"])
        if answer is None:
            return PlainTextResponse("there is no such method\n", 404)
        if request.headers.get("content-length") != str(answer.size):
            reason = f"this needs {answer.size} bytes\n"
            return PlainTextResponse(reason, 413, {"Connection": "close"})  # what the client sends is not read
        try:
            body = await asyncio.wait_for(request.body(), _PATIENCE)
        except (ClientDisconnect, TimeoutError):  # the client has vanished
            return PlainTextResponse("the request ended early\n", 400, {"Connection": "close"})
        array = np.frombuffer(body, answer.dtype).reshape(answer.shape)
        found = await run_in_threadpool(answer.compute, array)
        return Response(np.ascontiguousarray(found, "<f4").tobytes(), media_type="application/octet-stream")

    routes = [
        Route("/", page),
        Route("/weights", weights),
        Route("/{name:path}", computed, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[guard])
