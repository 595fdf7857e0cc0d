"""Every config: its header, and a complete run of its smoke variant."""

import re
import runpy
from pathlib import Path

import pytest
from sklearn.svm import SVC

from cnn_jax import data
from cnn_jax.config import load_config
from cnn_jax.data.sources import SOURCES
from cnn_jax.runtime.objects import is_reference
from tests.launch.process import ROOT, train
from tests.requirements import require_data

CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.py"))


# Compiling their 8 to 59 convolutions takes 10 s or more at any size.
_LARGE = (
    "airbench_cifar10",
    "alexnet_imagenet",
    "googlenet_imagenet",
    "resnet18_fashion_mnist",
    "resnet20_cifar10",
    "resnet50_imagenet",
)
# The code of other configs here (hog_digits, lenet5_mnist, finetune_mnist_halves), or of runs in tests/tasks.
_ALIKE = (
    *("caption_digits", "caption_fashion_mnist"),
    *("autoencoder_digits", "autoencoder_mnist", "digits_multi_label", "digits_regression", "invariance_digits"),
    *("segment_digits", "segment_digits_methods", "segnet_digits"),
    *("hog_fashion_mnist", "lenet5_fashion_mnist", "lenet5_mnist_distorted", "small_cnn_fashion_mnist"),
    *("finetune_mnist_to_fashion_mnist", "inpaint_digits", "colorize_cifar10", "pretrain_digits", "pretrain_mnist"),
    *("pix2pix_digits", "pix2pix_fashion_mnist", "cyclegan_digits", "dcgan_digits", "dcgan_fashion_mnist"),
    *("detect_digits", "detect_blood_cells", "localize_blood_cells"),
)
LONG = [f"configs/{name}.py" for name in (*_LARGE, "moving_digits", "vgg_imagenet", *_ALIKE)]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if str(path) in LONG else ()) for path in CONFIGS],
    ids=str,
)
def test_smoke_variant_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    about = runpy.run_path(str(ROOT / path))["get_config"]("smoke").data
    source, _, place = (name := about.name).partition(":")
    place = about.data_dir or place  # of a function that reads the files of a folder
    if about.data_dir or (source in SOURCES and place):
        if not (ROOT / place.partition("{")[0]).exists():
            pytest.skip(f"{place} is not there: see the header of {path}")
    elif source not in SOURCES and not is_reference(name):
        require_data(name)
    if path.stem == "lenet5_digits":
        workdir = request.getfixturevalue("trained")
    else:
        workdir = tmp_path / "run"
        train(workdir, config=f"{path}:smoke")
    assert (workdir / "report.html").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_header_states_command_time_and_score(path: Path) -> None:
    header = (ROOT / path).read_text().split('"""')[1]
    assert f"python launch.py --config={path}" in header
    not_run = re.search(r"^Time: +not run here", header, re.M) is not None
    assert not_run or re.search(r"^Time: +\d", header, re.M), header
    measured = r".*\d+\.\d+ % (± \d\.\d+ .*mean ± std over \d+ seeds|.*\(1 seed)"
    score = r"not run here; published .*\d+\.\d+ %" if not_run else measured
    assert re.search(rf"^Expected: {score}", header, re.M), header


def test_reference_of_the_digits_is_the_score_of_the_support_vector_machine() -> None:
    train_set, test_set = (data.load("digits", split) for split in ("train", "test"))
    pixels = [dataset.images.reshape(len(dataset), -1) / 255 * 16 for dataset in (train_set, test_set)]
    score = SVC(gamma=0.001, C=10).fit(pixels[0], train_set.labels).score(pixels[1], test_set.labels)
    assert score == pytest.approx(load_config("lenet5_digits").reference.accuracy, abs=1e-4)
