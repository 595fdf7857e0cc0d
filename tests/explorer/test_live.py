"""The live page: what its server answers and refuses, and a real browser that draws on it."""

import contextlib
import dataclasses
import html
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from cnn_jax import tasks
from cnn_jax.explorer import Server
from cnn_jax.tasks import run
from cnn_jax.tasks.explore import explored, live
from tests.explorer.networks import filled
from tests.report.browser import Tab

SHAPE = (12, 12, 1)


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
        assert not thread.is_alive()


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


def ask(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    port = server.server_address[1]
    headers = {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}", **headers}
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def test_requests(answers: Any) -> None:
    found, page = answers
    image = page.images[1].tobytes()
    with served(Server(found)) as server:
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
        for status, path, body, headers in [
            (403, "/", None, {"Host": "evil.example"}),
            (403, "/run", image, {"Origin": "http://evil.example"}),
            (403, "/run", image, {"Origin": ""}),
            (413, "/run", b"x" * 100_000, {}),
            (413, "/run", b"garbage", {}),
            (404, "/../../etc/passwd", None, {}),
            (404, "/gradients/own", image, {}),
        ]:
            assert ask(server, path, body, **headers)[0] == status, path
        with socket.create_connection(server.server_address[:2]) as vanishes:
            vanishes.sendall(
                f"POST /run HTTP/1.1\r\nHost: 127.0.0.1:{server.server_address[1]}\r\nOrigin: "
                f"http://127.0.0.1:{server.server_address[1]}\r\nContent-Length: {len(image)}\r\n\r\nhalf".encode()
            )
        results: list[Any] = [None, None]

        def client(number: int) -> None:
            results[number] = [ask(server, "/run", page.images[number].tobytes())[1] for _ in range(5)]

        clients = [threading.Thread(target=client, args=(number,)) for number in range(2)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert [len(set(result)) for result in results] == [1, 1]
        assert results[1][0] == values


def test_another_address_needs_the_token(answers: Any) -> None:
    with served(Server(answers[0], "127.0.0.2")) as server:
        port = server.server_address[1]
        assert server.url.startswith(f"http://127.0.0.2:{port}/?token=")
        connection = http.client.HTTPConnection("127.0.0.2", port, timeout=20)
        connection.request("GET", "/", headers={"Host": f"127.0.0.2:{port}"})
        assert connection.getresponse().status == 403
        connection.close()
        connection = http.client.HTTPConnection("127.0.0.2", port, timeout=20)
        connection.request("GET", f"/{server.query}", headers={"Host": f"my-machine:{port}"})
        response = connection.getresponse()
        assert (response.status, f'"query":"{server.query}"'.encode() in response.read()) == (200, True)
        body, path = bytes(144), f"/run{server.query}"
        connection.request("POST", path, body, {"Host": f"my-machine:{port}", "Origin": "http://evil.example"})
        assert connection.getresponse().status == 403
        connection.close()


def test_a_burst_of_drawings_in_a_browser(browser: Tab, answers: Any) -> None:
    found, page = answers
    with served(Server(found)) as server:
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
        expected = found.forward(np.full(SHAPE, 199, np.uint8))
        np.testing.assert_allclose(values[1], expected, rtol=1e-5, atol=1e-6)
        unit = "explorer.then(({explorer}) => explorer.ask({do: 'unit', index: 2, unit: 31}).then((one) => one.value))"
        names = [node.name for node in page.graph.nodes]
        offset = sum(int(np.prod(node.shape)) for node in page.graph.nodes[:2])
        assert names[2] == "conv1_1"
        assert browser.run(unit) == pytest.approx(expected[offset + 31], rel=1e-5)
        browser.run(
            "document.getElementById('method').value = 'saliency';"
            "explorer.then(({explorer}) => explorer.drawGradients()).then(() => 0)"
        )
        assert browser.run("document.getElementById('picture').width") > 100
        assert browser.errors == []
