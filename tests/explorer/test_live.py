"""The live page: what its server answers and refuses, and a real browser that draws on it."""

import dataclasses
import html
import http.client
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from cnn_jax import explorer, tasks
from cnn_jax.errors import UsageError
from cnn_jax.explorer.server import Server
from cnn_jax.tasks import run
from cnn_jax.tasks.explore import explored, live
from tests.explorer.networks import filled
from tests.report.browser import Tab

SHAPE = (12, 12, 1)


@pytest.fixture(scope="module")
def answers() -> Any:
    config = tasks.default_config()
    config.model.name, config.input_shape = "conv_stack", SHAPE
    config.model.options = {"kernel_sizes": (3,), "channels": 3, "blocks": 1}
    network = run.untrained(config)
    model = filled(lambda rngs: network.create(rngs.params()))
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)
    page = explored(network, model, images, ["one", "two"], title="live", subtitle="", ink_extent=0.7)
    params, model_state = nnx.split(model, nnx.Param, ...)[1:]
    state = dataclasses.replace(
        network.init(jax.random.key(0), optax.identity()), params=params, model_state=model_state
    )
    return live(network, state, model, page), page


def served(found: explorer.Live, host: str) -> Iterator[Server]:
    server = Server(found, host)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(answers: Any) -> Iterator[Server]:
    yield from served(answers[0], explorer.LOOPBACK)


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """A server of another address, which computes nothing."""
    image = explorer.Answer(SHAPE, "uint8", lambda image: image)
    yield from served(explorer.Live(lambda query: f"page {query}", b"", {"run": image}), "127.0.0.2")


def ask(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    host = server.url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=20)
    headers = {"Host": host, "Origin": f"http://{host}", **headers}
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def test_answers(server: Server, answers: Any) -> None:
    found, page = answers
    image = page.images[1].tobytes()
    status, text = ask(server, "/")
    assert status == 200
    assert "worker-src blob:; connect-src 'self'; " in html.unescape(text.decode())
    status, values = ask(server, "/run", image)
    expected = np.concatenate([page.activations[node.name][1].ravel() for node in page.graph.nodes])
    np.testing.assert_allclose(np.frombuffer(values, np.float32), expected, rtol=1e-4, atol=1e-5)
    for method in ("saliency", "guided_backpropagation", "grad_cam"):
        status, gradient = ask(server, f"/gradients/{method}", image)
        assert (status, len(gradient)) == (200, 4 * 144)
    assert ask(server, "/weights")[1] == found.weights
    assert ask(server, "/", Host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    ("status", "path", "body", "headers"),
    [
        (403, "/", None, {"Host": "evil.example"}),
        (403, "/", None, {"Host": "127.0.0.1:1"}),
        (403, "/run", bytes(144), {"Origin": "http://evil.example"}),
        (403, "/run", bytes(144), {"Origin": "https://127.0.0.1"}),
        (403, "/run", bytes(144), {"Origin": ""}),
        (413, "/run", bytes(100_000), {}),
        (413, "/run", b"garbage", {}),
        (413, "/run", b"", {}),
        (413, "/run", bytes(144), {"Content-Length": "9" * 20}),
        (400, "/run", bytes(144), {"Content-Length": "-1"}),
        (404, "/gradients/own", bytes(144), {}),
        (404, "/../../etc/passwd", bytes(144), {}),
        (405, "/../../etc/passwd", None, {}),
        (405, "/run", None, {}),
        (404, "/", bytes(144), {}),
    ],
)
def test_refusals(server: Server, status: int, path: str, body: bytes | None, headers: dict[str, str]) -> None:
    assert ask(server, path, body, **headers)[0] == status


def test_two_clients_and_one_that_vanishes(server: Server, answers: Any) -> None:
    found, page = answers
    request = f"POST /run HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: http://127.0.0.1:{server.port}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as vanishes:
        vanishes.sendall(f"{request}Content-Length: 144\r\n\r\nhalf".encode())
    results: list[Any] = [None, None]

    def client(number: int) -> None:
        results[number] = [ask(server, "/run", page.images[number].tobytes()) for _ in range(5)]

    clients = [threading.Thread(target=client, args=(number,)) for number in range(2)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    for result, image in zip(results, page.images, strict=True):
        expected = found.answers["run"].compute(image).astype("<f4").tobytes()
        assert result == [(200, expected)] * 5


def test_another_address_needs_the_token(elsewhere: Server) -> None:
    assert elsewhere.url == f"http://127.0.0.2:{elsewhere.port}/{elsewhere.query}"
    token = elsewhere.query.removeprefix("?token=")
    assert len(token) > 20
    for query in ("", "?token=", f"?token={token[:-1]}", f"?token={token}x", f"?taken={token}"):
        assert ask(elsewhere, f"/{query}")[0] == 403
        assert ask(elsewhere, f"/run{query}", bytes(144))[0] == 403
    mine = {"Host": "my-machine:1", "Origin": "http://my-machine:1"}
    assert ask(elsewhere, f"/{elsewhere.query}", **mine) == (200, f"page {elsewhere.query}".encode())
    assert ask(elsewhere, f"/run{elsewhere.query}", bytes(144), **mine)[0] == 200
    assert ask(elsewhere, f"/run{elsewhere.query}", bytes(144), Origin="http://evil.example")[0] == 403


def test_an_address_that_is_not_here() -> None:
    with pytest.raises(UsageError, match=r"^--host=192\.0\.2\.1: cannot listen there: "):
        Server(explorer.Live(lambda query: "", b"", {}), "192.0.2.1")


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match=r"^--mode=explore without --output needs uvicorn: pip install .*\[explore\]"):
        explorer.require_server()


def test_a_burst_of_drawings_in_a_browser(browser: Tab, server: Server, answers: Any) -> None:
    found, page = answers
    browser.errors.clear()
    browser.open(server.url)
    values = browser.run(
        """explorer.then(async ({explorer}) => {
          for (let i = 0; i < 200; i += 1) explorer.compute(new Float32Array(144).fill(i / 255));
          while (explorer.busy) await new Promise((done) => setTimeout(done, 5));
          return [explorer.frames, Array.from(explorer.values)];
        })"""
    )
    assert values[0] < 50, "drawings in between are left out"
    expected = found.answers["run"].compute(np.full(SHAPE, 199, np.uint8))
    np.testing.assert_allclose(values[1], expected, rtol=1e-5, atol=1e-6)
    unit = "explorer.then(({explorer}) => explorer.ask({do: 'unit', index: 2, unit: 31}).then((one) => one.value))"
    names = [node.name for node in page.graph.nodes]
    offset = sum(int(np.prod(node.shape)) for node in page.graph.nodes[:2])
    assert names[2] == "conv1_1"
    assert browser.run(unit) == pytest.approx(expected[offset + 31], rel=1e-5)
    for method in ("saliency", "guided_backpropagation", "grad_cam"):  # while drawing: of the latest image
        colours = browser.run(
            f"""document.getElementById('method').value = '{method}';
            explorer.then(async ({{explorer}}) => {{
              await explorer.compute(Float32Array.from({{length: 144}}, (_, i) => (i * 37 % 101) / 101));
              while (explorer.busy) await new Promise((done) => setTimeout(done, 5));
              const {{ width, height }} = explorer.picture;
              const data = explorer.picture.getContext('2d').getImageData(0, 0, width, height).data;
              return [width, new Set(new Uint32Array(data.buffer)).size];
            }})"""
        )
        assert colours[0] == 168
        assert colours[1] > 3, method
    assert browser.errors == []
