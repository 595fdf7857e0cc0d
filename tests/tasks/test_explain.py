"""``--mode=explain`` and the explanations in a report, of a network that has learned real digits."""

import dataclasses
import re
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import attribution, data, tasks
from cnn_jax.errors import UsageError
from cnn_jax.tasks import run
from cnn_jax.tasks.responses import Explained, explained_mistakes
from cnn_jax.tasks.saved import load_run, saved_steps


def small_config() -> ConfigDict:
    config = tasks.default_config()
    config.model.name, config.input_shape = "small_cnn", (16, 16, 1)
    config.model.width = 0.25
    config.duration, config.evaluate_every, config.report.explain, config.keep_history = "60 steps", "20 steps", True, 4
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.01
    return config


@pytest.fixture(autouse=True, scope="module")
def short_optimization() -> Iterator[None]:
    """Fantasy images of few steps; tests/attribution compares complete ones with their optimum."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cnn_jax.tasks.responses._STEPS", 16)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    run.train(small_config(), directory)
    return directory


def test_the_report_shows_what_the_network_responds_to(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    for title in ("What channels respond to", "Fantasy images", "Why the worst mistakes were made"):
        assert f">{title}</h2>" in page


@pytest.fixture(scope="module")
def explanation(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an explanation of the first test examples."""
    folder = tmp_path_factory.mktemp("explanation") / "new/why"
    methods = ["guided_backpropagation", "saliency", "occlusion"]
    run.explain(small_config(), trained, methods=methods, target="3", output=str(folder))
    return folder


def test_the_page_the_figures_and_the_arrays(trained: Path, explanation: Path) -> None:
    page = (explanation / "explain.html").read_text()
    assert "guided: 4 rectifiers replaced" in page
    assert 'src="http' not in page
    with np.load(explanation / "explain.npz") as arrays:
        assert arrays["inputs"].shape == (8, 16, 16, 1)
        network, state = load_run(small_config(), trained)
        explained = Explained.of(network, state)
        assert (explained.which, dataclasses.replace(explained, networks=3).which) == ("", "network 1 of 3")
        model = explained.model
        expected = attribution.guided_backpropagation(model, arrays["inputs"], 3)
        np.testing.assert_allclose(arrays["guided_backpropagation"], expected, atol=1e-5)
        assert arrays["saliency"].shape == arrays["occlusion"].shape == (8, 16, 16, 1)
    assert len(list((explanation / "figures").glob("*.png"))) == 7
    assert re.search(r"shuffled</td>", page), "the table of the falsification"


def test_checkpoints_over_training_are_kept_and_shown(trained: Path, explanation: Path) -> None:
    logarithmic = {1, 4, 15, 60}  # 60^(n/3)
    assert logarithmic <= set(saved_steps(trained)) <= logarithmic | {20, 40}  # and the best
    page = (explanation / "explain.html").read_text()
    for title in ("First-layer filters", "Strongest crops", "Fantasy images"):
        assert f">{title} over training</h2>" in page
    _, state = load_run(small_config(), trained, checkpoint=15)
    assert int(state.step) == 15


def test_own_images_and_a_unit(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.full((40, 40), 255, np.uint8)
    image[8:32, 18:22] = 0
    Image.fromarray(image).save(tmp_path / "one.png")
    (tmp_path / "bad.png").touch()
    output = tmp_path / "out"
    run.explain(
        small_config(), trained, images=[str(tmp_path)], methods=["saliency"], target="conv2/1", output=str(output)
    )
    assert "bad.png is left out" in capsys.readouterr().out
    with np.load(output / "explain.npz") as arrays:
        (title,) = arrays["titles"]
        place = tuple(map(int, re.fullmatch(r"one\.png: conv2/1 at (\d+), (\d+)", title).groups()))
        network, state = load_run(small_config(), trained)
        explained = Explained.of(network, state)
        assert (explained.which, dataclasses.replace(explained, networks=3).which) == ("", "network 1 of 3")
        model = explained.model
        maps = np.asarray(model(arrays["inputs"], return_activations=True)[1]["conv2"])[0, ..., 1]
        assert maps[place] == maps.max()
        expected = attribution.saliency(model, arrays["inputs"], ("conv2", place, 1))
        np.testing.assert_allclose(arrays["saliency"], expected, atol=1e-6)


def test_own_images_get_the_style_of_another(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnn_jax.tasks.styles._STEPS", 3)
    monkeypatch.setattr("cnn_jax.tasks.styles._LONGEST", 40)
    noise = np.random.default_rng(0).integers(0, 256, (30, 50)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "style.png")
    Image.fromarray(np.eye(64, 48, dtype=np.uint8) * 255).save(tmp_path / "photo.png")
    options = {"images": [str(tmp_path / "photo.png")], "methods": ["style"], "style": str(tmp_path / "style.png")}
    run.explain(small_config(), trained, **options, output=str(tmp_path / "out"))
    page = (tmp_path / "out/style.html").read_text()
    assert "photo.png in the style of style.png" in page
    assert "After 3 steps" in page
    with Image.open(tmp_path / "out/photo.png") as image:
        assert image.size == (30, 40)  # 48 x 64, reduced


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("--methods=style, .* needs --images", {"methods": ["style"], "images": [__file__]}),
        ("--methods=style, .* --style", {"style": __file__, "images": [__file__]}),
        ("--style=.*test_explain.py: ", {"methods": ["style"], "style": __file__, "images": [__file__]}),
        ("--methods=saliancy is not a method of attribution; .*'saliency'", {"methods": ["saliancy"]}),
        ("--target=11 is neither a class nor a unit", {"target": "11"}),
        ("--target=conv9/1: no activation is called 'conv9'; .*'conv", {"target": "conv9/1"}),
        ("--target=conv1/99: conv1 has channels 0 to", {"target": "conv1/99"}),
        ("is a file; give the name of a folder", {"output": __file__}),
    ],
)
def test_mistakes(trained: Path, message: str, options: dict) -> None:
    with pytest.raises(UsageError, match=message) as error:
        run.explain(small_config(), trained, **options)
    assert "\n" not in str(error.value)


def test_unlabelled_examples_do_not_count_as_mistakes(trained: Path) -> None:
    digits = data.load("digits", "test")
    labels = np.full(len(digits), 255, np.int32)
    labels[5:8] = (digits.labels[5:8] + 1) % 10
    spec = {"image": "image", "label": data.Field("label", class_names=digits.class_names, ignored=255)}
    test_set = data.Dataset("mine", "test", {"image": digits.images, "label": labels}, spec)
    predictions = np.eye(10, dtype=np.float32)[digits.labels]
    results = tasks.Results(small_config(), test_set, len(test_set), predictions, {})
    (section,) = explained_mistakes(Explained.of(*load_run(small_config(), trained)), results)
    titles = [text.get_text() for text in section.figure.texts if text.get_text().startswith("#")]
    assert [title.partition(":")[0] for title in titles] == ["#5", "#6", "#7"]


def test_inputs_as_images_and_back(trained: Path) -> None:
    network, state = load_run(small_config(), trained)
    explained = Explained.of(network, state)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
    shown = explained.shown(network.preprocess(pixels))
    np.testing.assert_allclose(
        shown, network.preprocess(pixels) * network.preprocess.std[0] + network.preprocess.mean[0], atol=1e-6
    )
    low, high = explained.value_range
    np.testing.assert_allclose(explained.shown(np.array([[low], [high]])), [[0], [1]], atol=1e-6)
    assert isinstance(explained.model, nnx.Module)


def test_the_explorer_of_a_run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.explore(small_config(), trained, output=str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 300_000
    assert "small_cnn, layer by layer" in page
    assert re.search(r"latest checkpoint, step 60, [\d,]+ weights, float32 weights", page)
    assert '<option value="0">0 (image' in page
    for output, message in {
        str(tmp_path / "page.png"): "page.png must end in .html",
        str(tmp_path / "no/page.html"): "there is no folder",
    }.items():
        with pytest.raises(UsageError, match=message):
            run.explore(small_config(), trained, output=output)
    with pytest.raises(UsageError, match="holds no trained run"):
        run.explore(small_config(), tmp_path, output=str(tmp_path / "page.html"))
    with monkeypatch.context() as patched:
        patched.setattr("cnn_jax.tasks.explore.examples_of", lambda _: types.SimpleNamespace(input_kind="signal"))
        with pytest.raises(UsageError, match="was trained on signals"):
            run.explore(small_config(), trained, output=str(tmp_path / "page.html"))
    monkeypatch.setattr("cnn_jax.explorer.layers.FUNCTIONS", {})
    with pytest.raises(UsageError, match=r"cannot compute layer 'relu1' \(relu\)"):
        run.explore(small_config(), trained, output=str(tmp_path / "page.html"))
