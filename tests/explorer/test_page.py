"""Whole pages in a real browser: drawing, every activation, and where a value comes from."""

import base64
import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import data, explorer, nn, ops, tasks
from cnn_jax.data.ink import frame_ink
from cnn_jax.errors import UsageError
from cnn_jax.explorer.page import render
from cnn_jax.tasks import run
from cnn_jax.tasks.explore import explored, live
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.segmentation import Segmentation
from cnn_jax.tasks.task import Examples
from tests.explorer.networks import filled
from tests.report.browser import Tab

SEVEN = [(0.25, 0.22), (0.5, 0.2), (0.75, 0.22), (0.66, 0.45), (0.52, 0.82)]  # parts of the drawing area


def page_of(name: str, shape: tuple[int, ...], *, ink: float | None = None, **options: Any) -> explorer.Explored:
    """What a page shows of an untrained network and three random images."""
    config = tasks.default_config()
    config.model.name, config.input_shape = name, shape
    config.model.update(options)
    network = run.untrained(config)
    model = filled(lambda rngs: network.create(rngs.params()))
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    titles = ["<one>", "two", "three"]
    return explored(network, model, images, titles, title=name, subtitle="<untrained>", ink_extent=ink)


@pytest.fixture(scope="module")
def lenet(browser: Tab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tab, explorer.Explored, Path]:
    page, path = page_of("lenet_5", (32, 32, 1), ink=0.6), tmp_path_factory.mktemp("page") / "lenet.html"
    explorer.write(path, page)
    browser.requests.clear()
    browser.open(path)
    browser.run("explorer.then(() => 0)")
    settled(browser)
    return browser, page, path


def settled(browser: Tab) -> None:
    """Waits until the last image is computed and drawn."""
    browser.run(
        """explorer.then(({explorer, pad}) => new Promise((done) => {
          const look = () => explorer.busy || pad.due || !explorer.values ? setTimeout(look, 5) : done(0);
          look();
        }))"""
    )


def values_on(browser: Tab, page: explorer.Explored) -> dict[str, np.ndarray]:
    """Every value that the page shows, by node."""
    found = browser.run(
        """explorer.then(({explorer}) => {
          const bytes = new Uint8Array(explorer.values.buffer, explorer.values.byteOffset, explorer.values.byteLength);
          let text = "";
          for (const byte of bytes) text += String.fromCharCode(byte);
          return btoa(text);
        })"""
    )
    values, arrays = np.frombuffer(base64.b64decode(found), np.float32), {}
    for node in page.graph.nodes:
        size = int(np.prod(node.shape))
        arrays[node.name], values = values[:size].reshape(node.shape), values[size:]
    return arrays


def check_values(found: dict[str, np.ndarray], forward: Callable[[Any], dict[str, Any]]) -> None:
    for name, expected in forward(found["image"][None]).items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[name] / scale, expected[0] / scale, atol=1e-4, err_msg=name)


def test_the_badge_and_no_request(lenet: tuple[Tab, explorer.Explored, Path]) -> None:
    browser, _, path = lenet
    text = path.read_text()
    assert not re.search(r"https?:|//[a-z]+\.|@import|<link(?! rel=\"icon\" href=\"data:)|<iframe", text)
    assert "Content-Security-Policy\" content=\"default-src 'none'; img-src data: blob:;" in text
    assert "<one>" not in text
    assert "&lt;one&gt;" in text
    badge = browser.run("[document.getElementById('badge').className, document.getElementById('badge').textContent]")
    assert badge[0] == "badge good"
    assert float(browser.run("document.getElementById('badge').dataset.difference")) < 1e-4
    assert browser.errors == []
    assert {address.partition(":")[0] for address in browser.requests} <= {"file", "blob", "about", "data"}
    assert browser.run("fetch('data:,x').then(() => 'sent', () => 'refused')") == "refused"
    browser.errors.clear()  # of the refused request


def test_a_seven_that_is_drawn(lenet: tuple[Tab, explorer.Explored, Path]) -> None:
    browser, page, _ = lenet
    left, top, side = browser.run(
        "(() => { scrollTo(0, 0); const box = document.getElementById('pad').getBoundingClientRect();"
        " return [box.left, box.top, box.width]; })()"
    )
    frames = browser.run("explorer.then(({explorer}) => explorer.frames)")
    browser.drag([(left + x * side, top + y * side) for x, y in SEVEN])
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 0)")
    settled(browser)
    assert browser.run("explorer.then(({explorer}) => explorer.frames)") > frames
    found = values_on(browser, page)
    drawn = browser.run("explorer.then(({pad}) => Array.from(pad.context.getImageData(0, 0, 200, 200).data))")
    ink = np.array(drawn).reshape(200, 200, 4)[..., 0] / 255
    assert 0.03 < ink.mean() < 0.3
    assert ink[40:48, 60:140].min() > 0.9, "the bar of the seven"
    framed = frame_ink(ink, height=32, width=32, extent=0.6)
    np.testing.assert_allclose(found["image"][..., 0] * 255, framed, atol=1.01)
    model = lenet_5()
    check_values(found, jax.jit(lambda x: model(x, return_activations=True)[1]))
    bars = browser.run("[...document.querySelectorAll('#bars li > span:last-child')].map((one) => one.textContent)")
    np.testing.assert_allclose([float(bar.split()[0]) for bar in bars], 100 * found["probabilities"], atol=0.051)


@functools.cache
def lenet_5() -> nn.Sequence:
    """The network of the page."""
    config = tasks.default_config()
    config.model.name, config.input_shape = "lenet_5", (32, 32, 1)
    return filled(lambda rngs: run.untrained(config).create(rngs.params()))


def test_where_a_value_comes_from(lenet: tuple[Tab, explorer.Explored, Path]) -> None:
    browser, page, _ = lenet
    names = [node.name for node in page.graph.nodes]
    index = names.index("c3")
    unit = (4 * 10 + 7) * 16 + 5
    browser.run(f"explorer.then(({{explorer}}) => explorer.select({index}, {unit}))")
    found = values_on(browser, page)
    model = lenet_5()
    table = model.c3.table[5]
    text = browser.run("document.getElementById('inspector').innerText")
    assert text.startswith("c3: channel 5, row 4, column 7")
    value = found["c3"][4, 7, 5]
    assert float(minus(browser.run("document.getElementById('value').textContent"))) == pytest.approx(value, rel=1e-3)
    terms = browser.run(
        "[...document.querySelectorAll('.terms tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert {name for name, _ in terms} == {*(f"channel {channel}" for channel in table), "bias", "sum"}
    kernel = np.zeros((5, 5, 6))
    first = sum(len(row) for row in model.c3.table[:5])
    kernel[..., list(table)] = model.c3.kernel[..., first : first + len(table)]
    sums = (found["s2_tanh"][4:9, 7:12] * kernel).sum(axis=(0, 1))
    for name, term in terms:
        if name.startswith("channel"):
            assert float(minus(term)) == pytest.approx(sums[int(name.split()[1])], rel=2e-3, abs=1e-4)
    assert "sees rows 8 to 21 and columns 14 to 27 of the image: 14 by 14 pixels" in text


def test_keyboard_and_narrow_window(lenet: tuple[Tab, explorer.Explored, Path]) -> None:
    browser, page, _ = lenet
    index = [node.name for node in page.graph.nodes].index("c1")
    browser.run(f"explorer.then(({{explorer}}) => explorer.select({index}, 0))")
    browser.run(f"document.querySelector('[data-node=\"{index}\"]').focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "PageDown"):
        browser.press(key)
    wait = "explorer.then(({explorer}) => explorer.ask({do: 'unit', index: 1, unit: 0})).then(() => 0)"
    browser.run(wait)
    assert browser.run("document.querySelector('#inspector h2').textContent") == "c1: channel 1, row 2, column 1"
    browser.press("Enter")
    assert browser.run("document.getElementById('large').open")
    browser.run("document.getElementById('large').close()")
    for width, dark in ((390, False), (1440, True)):
        browser.resize(width, 844, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.getElementById('kernels-tab').click()")
    browser.resize(390, 844)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("getComputedStyle(document.getElementById('network')).display") == "none"
    assert browser.errors == []


def test_the_stack_turns(lenet: tuple[Tab, explorer.Explored, Path]) -> None:
    browser, _, _ = lenet
    browser.resize(1440, 900)
    browser.run("document.getElementById('network-tab').click(); document.getElementById('stack').open = true")
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 0)")
    names = browser.run("[...document.querySelectorAll('.plane')].map((plane) => plane.innerText)")
    assert [name for name in names if "tanh" not in name] == names, "layers that only apply a function are left out"
    assert {"network input", "c1", "s2", "c3", "c5", "f6", "probabilities"} <= {*names}
    turn = "document.querySelector('.world').style.transform"
    left, top = browser.run(
        "(() => { const it = document.querySelector('.scene'); it.scrollIntoView();"
        " const box = it.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; })()"
    )
    assert browser.run(turn) == "scale3d(1, 1, 1) rotateX(-14deg) rotateY(58deg)"
    browser.drag([(left, top), (left + 30, top - 60), (left + 60, top - 60)])
    assert browser.run(turn) == "scale3d(1, 1, 1) rotateX(6deg) rotateY(78deg)"
    browser.run("document.querySelector('.scene').focus()")
    browser.press("ArrowDown")
    assert browser.run(turn) == "scale3d(1, 1, 1) rotateX(0deg) rotateY(78deg)"
    browser.run("document.getElementById('stack').open = false")
    assert browser.errors == []


def test_the_webcam_is_filtered(lenet: tuple[Tab, explorer.Explored, Path]) -> None:
    browser, _, _ = lenet
    browser.resize(1440, 900)
    browser.run("document.getElementById('kernels-tab').click()")
    sides = browser.run("document.querySelector('.sides').innerText")
    assert "144\N{MULTIPLICATION SIGN}96 pixels" in sides, "no camera without a click"
    browser.run("document.getElementById('webcam').click()")
    frames = browser.run(
        """(async () => {
          const before = document.getElementById('photograph');
          const seen = new Set();
          for (let i = 0; i < 500 && seen.size < 3; i += 1) {
            await new Promise((done) => setTimeout(done, 20));
            if (document.querySelector('.sides').innerText.includes('160\u00d7120'))
              seen.add(before.toDataURL() + document.getElementById('filtered').toDataURL());
          }
          return seen.size;
        })()"""
    )
    assert frames == 3, "moving images"
    button = "(() => { const it = document.getElementById('webcam'); it.click(); return it.textContent; })()"
    assert browser.run(button) == "Webcam"
    browser.run("navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }; 0")
    browser.run(button)
    message = "new Promise((done) => setTimeout(() => done(document.getElementById('products').innerText), 50))"
    assert browser.run(message) == "no webcam: there is none"
    browser.run("document.getElementById('network-tab').click()")
    assert browser.errors == []


def minus(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-")


def everything() -> nn.Sequence:
    """A network with skips, branches and a layer of each kind."""
    return filled(
        lambda rngs: nn.Sequence(
            {
                "conv": nn.Conv(3, 8, (3, 3), strides=2, boundary="mirror", rngs=rngs),
                "bn": nn.BatchNorm(8, rngs=rngs),
                "relu": ops.relu,
                "block": nn.Residual(
                    {"conv": nn.Conv(8, 8, (3, 3), feature_group_count=4, kernel_dilation=2, rngs=rngs)},
                    {"pool": nn.AvgPool((3, 3), strides=1, padding=1)},
                ),
                "norm": nn.LocalResponseNorm(3),
                "inception": nn.Parallel(
                    {"1x1": nn.Conv(8, 4, (1, 1), rngs=rngs), "pool": nn.MaxPool((3, 3), strides=1, padding=1)}
                ),
                "pool": nn.MaxPool((2, 2), rounding="ceil"),
                "flatten": nn.flatten,
                "fc": nn.Linear(192, 10, rngs=rngs),
                "tanh": ops.scaled_tanh,
                "rbf": nn.RBFOutput(jnp.eye(5, 10)),
                "negative": jnp.negative,
            }
        )
    )


def test_a_network_with_every_kind_of_layer_and_the_winner_of_a_max_pool(browser: Tab, tmp_path: Path) -> None:
    config = tasks.default_config()
    config.model.name, config.input_shape = "logistic_regression", (16, 14, 3)
    network, model = run.untrained(config), everything()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 14, 3), np.uint8)
    page = explored(network, model, images, ["one", "two"], title="all", subtitle="")
    path = tmp_path / "all.html"
    path.write_text(render(page))
    browser.open(path, width=390)
    browser.run("explorer.then(() => 0)")
    settled(browser)
    assert browser.run("document.getElementById('badge').className") == "badge good"
    found = values_on(browser, page)
    for name, expected in page.activations.items():
        np.testing.assert_allclose(found[name], expected[0], rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    index = [node.name for node in page.graph.nodes].index("inception/pool")
    browser.run(f"explorer.then(({{explorer}}) => explorer.select({index}, (2 * 7 + 3) * 8 + 6))")
    winner = browser.run("document.querySelector('#inspector td.winner').textContent")
    assert float(minus(winner)) == pytest.approx(found["norm"][1:4, 2:5, 6].max(), abs=0.006)


def test_the_square_of_an_autoencoder(browser: Tab, tmp_path: Path) -> None:
    config = tasks.default_config("autoencoder")
    config.input_shape, config.model.name = (8, 8, 1), "conv_autoencoder"
    config.model.options = {"channels": (4,)}
    network = run.untrained(config)
    model = filled(lambda rngs: network.create(rngs.params()))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    codes = explorer.Codes("latent", np.array([[-2.0, 1.0], [2.0, 3.0]], np.float32), np.array([0, 1]), ("a", "b"))
    page = explored(network, model, images, ["one", "two"], title="square", subtitle="", codes=codes)
    path = tmp_path / "square.html"
    path.write_text(render(page))
    browser.errors.clear()
    browser.open(path)
    browser.run("explorer.then(() => 0)")
    settled(browser)
    assert float(browser.run("document.getElementById('badge').dataset.difference")) < 1e-4
    reconstruction = "explorer.then(({explorer}) => explorer.output.canvas.toDataURL())"
    before = browser.run(reconstruction)
    left, top, side = browser.run(
        "(() => { const it = document.getElementById('square'); it.scrollIntoView();"
        " const box = it.getBoundingClientRect(); return [box.left, box.top, box.width]; })()"
    )
    browser.point(left + 0.25 * side, top + 0.4 * side)
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 0)")
    settled(browser)
    found = values_on(browser, page)
    code = np.array([-2.2 + 0.25 * 4.4, 0.9 + 0.6 * 2.2])  # the sides are 10 % longer than the codes reach
    np.testing.assert_allclose(found["latent"], code, atol=0.02)
    y = np.maximum(found["latent"] @ model.expand.kernel[...] + model.expand.bias[...], 0).reshape(1, 4, 4, 4)
    expected = jax.nn.sigmoid(model.output(y))[0]
    np.testing.assert_allclose(found["reconstruction"], expected, atol=1e-5)
    assert browser.run(reconstruction) != before
    assert found["image"].std() > 0.1, "the image stays"
    unit = "explorer.then(({explorer}) => explorer.ask({do: 'unit', index: explorer.square.index, unit: 1}))"
    assert browser.run(unit)["formula"] == "chosen in the square"
    browser.run("document.getElementById('square').focus()")
    browser.press("ArrowUp")
    settled(browser)
    np.testing.assert_allclose(values_on(browser, page)["latent"] - found["latent"], [0, 2.2 / 40], atol=1e-5)
    state = network.init(jax.random.key(0), optax.identity())
    answer = live(network, state, model, page).answers["decode"]
    decoded = answer.compute(found["latent"])[-64:].reshape(8, 8, 1)
    np.testing.assert_allclose(decoded, found["reconstruction"], atol=1e-5)
    assert browser.errors == []


def test_the_classes_of_pixels(browser: Tab, tmp_path: Path) -> None:
    config = tasks.default_config("segmentation")
    config.input_shape, config.model.name, config.model.width = (24, 24, 1), "u_net", 0.05
    config.model.options = {"depth": 1}
    names = ("paper", "ink", "line")
    fields = {"image": data.Field("image", (24, 24, 1)), "mask": data.Field("mask", class_names=names)}
    task = Segmentation(config, Examples("sheets", fields))
    network = TaskNetwork(config, task, data.Preprocess.scaled((24, 24, 1)))
    model = filled(lambda rngs: network.create(rngs.params()))
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 1), np.uint8)
    page = explored(network, model, images, ["one", "two"], title="classes", subtitle="")
    path = tmp_path / "classes.html"
    path.write_text(render(page))
    browser.errors.clear()
    browser.open(path)
    browser.run("explorer.then(() => 0)")
    settled(browser)
    assert float(browser.run("document.getElementById('badge').dataset.difference")) < 1e-4
    found = values_on(browser, page)["probabilities"]
    classes = page.activations["output"][0].argmax(axis=-1)
    np.testing.assert_array_equal(found.argmax(axis=-1), classes)
    width = classes.shape[1]
    colours = browser.run(
        f"""explorer.then(({{explorer: {{output}}}}) => [...Array({classes.size}).keys()].map((at) =>
          output.canvas.getContext('2d').getImageData((at % {width} + 0.5) * output.scale,
            (Math.floor(at / {width}) + 0.5) * output.scale, 1, 1).data.slice(0, 3).join()))"""
    )
    assert len(set(zip(classes.ravel(), colours, strict=True))) == len(set(classes.ravel())) == len(set(colours))
    legend = browser.run("[...document.querySelectorAll('#bars li')].map((it) => it.innerText.split('\\n'))")
    assert [name for name, _ in legend] == [*names]
    shares = [100 * np.mean(classes == number) for number in range(3)]
    np.testing.assert_allclose([float(share.split()[0]) for _, share in legend], shares, atol=0.051)
    left, top, scale = browser.run(
        "(() => { const it = document.getElementById('output'); it.scrollIntoView();"
        f" const box = it.getBoundingClientRect(); return [box.left, box.top, box.width / {width}]; }})()"
    )
    browser.point(left + 3.5 * scale, top + 1.5 * scale)
    text = browser.run("document.getElementById('pixel').textContent")
    best = classes[1, 3]
    assert text == f"row 1, column 3: {names[best]}, {100 * found[1, 3, best]:.1f} %"
    assert browser.errors == []


def test_a_wrong_network_says_so(browser: Tab, tmp_path: Path) -> None:
    config = tasks.default_config()
    config.model.name, config.input_shape = "logistic_regression", (4, 4, 1)
    network = run.untrained(config)
    model = filled(lambda rngs: network.create(rngs.params()))
    images = np.full((1, 4, 4, 1), 200, np.uint8)
    page = explored(network, model, images, ["one"], title="t", subtitle="")
    right = page.activations["output"]
    wrong = right + 0.01 * np.abs(right).max() * (np.arange(right.shape[1]) == 3)
    page = dataclasses.replace(page, activations={**page.activations, "output": wrong.astype(np.float32)})
    path = tmp_path / "wrong.html"
    path.write_text(render(page))
    browser.open(path)
    browser.run("explorer.then(() => 0)")
    assert browser.run("document.getElementById('badge').className") == "badge bad"
    assert "differs from Python by 0.0" in browser.run("document.getElementById('badge').textContent")


GOOGLENET = {"width": 0.07, "options": {"auxiliary_heads": False}}


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        pytest.param("resnet_20", (16, 16, 3), {"width": 0.25}, marks=pytest.mark.slow),
        pytest.param("googlenet", (64, 64, 3), GOOGLENET, marks=pytest.mark.slow),
        pytest.param("airbench", (32, 32, 3), {"width": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_skips_and_branches(browser: Tab, tmp_path: Path, name: str, shape: Any, options: Any) -> None:
    page = page_of(name, shape, **options)
    path = tmp_path / "page.html"
    path.write_text(render(page))
    browser.open(path)
    browser.run("explorer.then(() => 0)")
    assert float(browser.run("document.getElementById('badge').dataset.difference")) < 1e-4
    settled(browser)
    found = values_on(browser, page)
    for node, expected in page.activations.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[node] / scale, expected[0] / scale, atol=1e-4, err_msg=node)


def test_a_page_is_not_larger_than_a_browser_opens_quickly() -> None:
    model = nn.Sequence({"flatten": nn.flatten, "fc": filled(lambda rngs: nn.Linear(3000, 3000, rngs=rngs))})
    graph = explorer.export(model, (30, 100, 1))
    page = explorer.Explored(
        "t", "", graph, [0.0], [1.0], [], "bars", False, np.zeros((1, 30, 100, 1), np.uint8), ["a"], {}
    )
    with pytest.raises(UsageError, match="36 MB of weights"):
        render(page)


def test_the_values_that_are_compared_come_from_every_node() -> None:
    shapes = {"image": (32, 32, 3), **{f"n{i}": (64, 64, 16) for i in range(5)}}
    nodes = tuple(explorer.Node(name, None, (), shape) for name, shape in shapes.items())
    arrays = {name: np.ones((1, *shape), np.float32) for name, shape in shapes.items()}
    images = np.zeros((1, 32, 32, 3), np.uint8)
    text = render(
        explorer.Explored("t", "", explorer.Graph(nodes), [0.0], [1.0], [], "bars", False, images, ["a"], arrays)
    )
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    reference = json.loads(found.group(1))["check"]["reference"]
    counts = [len(base64.b64decode(entry["values"])) // 4 for entry in reference]
    assert 9_000 < sum(counts) < 11_000
    assert min(counts) >= 32
    assert all(entry["stride"] % 2 for entry in reference)
