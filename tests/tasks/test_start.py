"""Sources of initial weights: a run's folder, a file of weights, PyTorch's normalisation, and the data."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import data, models, weights
from cnn_jax.errors import UsageError
from cnn_jax.models.airbench import whitening_kernel
from cnn_jax.tasks import Classification, Examples, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.start import Start, find_start

MODEL = models.create("lenet_5_modern", num_classes=10, width=0.5, rngs=nnx.Rngs(7))


def config(**changes) -> ConfigDict:
    result = default_config()
    result.model.width = 0.5
    result.data.train, result.data.test, result.data.validation = "train[:256]", "test[:50]", ""
    result.batch_size, result.duration = 32, "2 steps"
    result.update_from_flattened_dict(changes)
    return result


def start(settings: ConfigDict, names: tuple[str, ...] = tuple("0123456789")) -> Start:
    task = Classification(settings, Examples("mine", {"label": data.Field("label", class_names=names)}))
    return find_start(settings, task, data.load("digits", "train[:256]"))


def layers(found: Start) -> set[str]:
    return {name.partition("/")[0] for name in found.values}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("weights") / "lenet.safetensors")
    about = weights.About("lenet_5_modern", mean=(0.25,), std=(0.5,), class_names=tuple("0123456789"))
    weights.save(MODEL, path, about=about)
    return path


def test_a_file_gives_its_values_and_its_normalisation(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = start(config(**{"model.weights": file}))
    assert layers(found) == {"c1", "c3", "c5", "f6", "output"}
    np.testing.assert_array_equal(found.values["c3/kernel"], MODEL.c3.kernel[...])
    assert (found.preprocess.mean, found.preprocess.std) == ((0.25,), (0.5,))
    assert capsys.readouterr().out == f"starting from {file}\n"


@pytest.mark.parametrize("names", [tuple("abcdefghij"), tuple("abc")], ids=["other names", "another number"])
def test_other_classes_get_a_new_output_layer(
    names: tuple[str, ...], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layers(start(config(**{"model.weights": file}), names)) == {"c1", "c3", "c5", "f6"}
    assert capsys.readouterr().out.endswith("with a new output\n")


def test_a_pixel_range_contradicts_the_normalisation_of_weights(file: str) -> None:
    with pytest.raises(UsageError, match=r"data.pixel_range=\(-1.0, 1.0\).*use data.pixel_range=\(\)"):
        start(config(**{"model.weights": file, "data.pixel_range": (-1.0, 1.0)}))


def test_weights_of_another_width_are_rejected(file: str) -> None:
    with pytest.raises(UsageError, match="c1/kernel"):
        start(config(**{"model.weights": file, "model.width": 1.0}))


def test_a_run_is_continued_on_other_data_from_its_weights(tmp_path: Path) -> None:
    source = config()
    runs.train(source, tmp_path / "source", report=False)
    target = config(**{"model.weights": str(tmp_path / "source"), "data.classes": (3, 5, 8), "freeze": ("c*", "f6")})
    runs.train(target, tmp_path / "target", report=False)
    (network, before), (other, after) = (
        runs.load_run(settings, tmp_path / name) for settings, name in ((source, "source"), (target, "target"))
    )
    old, new = network.parameters(before), other.parameters(after)
    for layer in ("c1", "c3", "c5", "f6"):
        jax.tree.map(np.testing.assert_array_equal, old[layer], new[layer])
    assert new["output"]["kernel"].shape == (42, 3)
    assert other.preprocess == network.preprocess


def test_data_dependent_initialisation_of_the_first_layer() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40, dtype=np.int32) % 2
    train_set = data.Dataset.of_images("noise", "train", images, labels, ("a", "b"))
    settings = config(**{"model.name": "airbench", "input_shape": (32, 32, 3)})
    task = Classification(settings, Examples("noise", train_set.spec))
    found = find_start(settings, task, train_set)
    kernel = whitening_kernel(found.preprocess(images))
    np.testing.assert_array_equal(found.values["whiten/kernel"], kernel)
