"""A wrong value in a config is reported in one line before training, and a wrong output before any computation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from cnn_jax import experiments, schema
from cnn_jax.config import load_config
from cnn_jax.errors import UsageError
from cnn_jax.report import arithmetic, summary
from cnn_jax.tasks import run

SMOKE = load_config("lenet5_digits:smoke")


def check_and_train(config: ConfigDict, directory: Path) -> None:
    """Trains like the command line."""
    experiments.check(config)
    run.train(config, directory)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"experiment": "clasification"}, ["'clasification'", "'classification'"]),
        ({"model.name": "lenet_5_moden"}, ["'lenet_5_moden'", "'lenet_5_modern'"]),
        ({"optimizer.name": "sdg"}, ["'sdg'", "'sgd'"]),
        ({"optimizer.schedule": "cosin"}, ["'cosin'", "'cosine'"]),
        ({"optimizer.warmup": "9 epochs"}, ["warm-up", "360"]),
        ({"early_stopping": "5"}, ["early_stopping='5'", "'5 epochs'"]),
        ({"freeze": ("c2/*",)}, ["'c2/*'", "'c1'"]),
        ({"parallel": "pmp"}, ["'pmp'", "'pmap'"]),
        ({"accumulate": 5}, ["accumulate=5", "batch_size=32"]),
        ({"batch_size": 0}, ["batch_size=0", "1"]),
        ({"experiment": "series"}, ["config.experiment='series' is unknown", "'baselines'"]),
        ({"experiment": "nowhere.py:Mine"}, ["there is no file nowhere.py"]),
        ({"experiment": "cnn_jax.tasks:Tsk"}, ["has no 'Tsk'", "'Task'"]),
        ({"experiment": "cnn_jax.tasks:Examples"}, ["not a subclass of cnn_jax.tasks.Task"]),
        ({"model.weights": "nowhere.pth"}, ["nowhere.pth"]),
        ({"target": 99}, ["target=99", "0.99"]),
        ({"data.size": (0, 0)}, ["data.size=(0, 0)", "(height, width)"]),
        ({"optimizer.rate_factors": ("*/bias", 2.0)}, ["rate_factors", "(('*/bias', 2.0),)"]),
        ({"batch_size": 5000}, ["batch_size=5000", "training examples"]),
        ({"input_shape": (12, 12, 1)}, ["12x12x1", "'c3'", "5x5", "4x4"]),
        ({"data.name": "digit"}, ["'digit'", "'digits'"]),
        ({"data.name": "cifar10_1", "data.data_dir": "/nonexistent"}, ["data.prepare cifar10_1"]),
        ({"data.augment": ("flop",)}, ["'flop'", "'flip'"]),
        ({"data.augment": ("cutout(size=0)",)}, ["cutout: size=0"]),
        ({"data.test_time": "miror"}, ["data.test_time='miror'", "'mirror'"]),
        ({"data.test": "tset"}, ["'tset'", "'test'"]),
        ({"data.augment": ("random_crop",)}, ["random_crop needs the option 'size'", "'random_crop(size=...)'"]),
        ({"data.augment": ("affine(mode=3)",)}, ["affine: mode=3 must be a text, like the default 'zero'"]),
        ({"data.augment": ("flip(twice=1)",)}, ["flip has no option 'twice'"]),
        ({"data.augment": ("cutout(size=2, size=3)",)}, ["is not an augmentation with options"]),
        ({"data.train_part": (5,)}, ["data.train_part=(5,) must be (start, stop)"]),
        ({"input_shape": (32,)}, ["input_shape=(32,)", "(height, width, channels)"]),
        ({"freeze": (None,)}, ["config.freeze=(None,): expected a tuple of texts"]),
        ({"data.classes": ("3", "5")}, ["config.data.classes=('3', '5'): expected a tuple of whole numbers"]),
    ],
    ids=str,
)
def test_mistake_in_a_config(changes: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        check_and_train(schema.override(SMOKE, changes), tmp_path / "run")
    for part in expected:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists(), "something was begun"


@pytest.mark.parametrize(
    ("output", "expected"),
    [("no/x.csv", "there is no folder 'no'; create it first"), ("x.txt", "must end in .csv"), (".csv", "must end in")],
)
def test_outputs_are_checked_before_anything_is_computed(output: str, expected: str, tmp_path: Path) -> None:
    """There is neither a run nor an image, which would be the next errors."""
    with pytest.raises(UsageError, match=expected):
        run.evaluate(SMOKE, tmp_path, checkpoint="latest", output=output)
    with pytest.raises(UsageError, match=expected):
        run.predict(SMOKE, tmp_path, images=["no.png"], output=output, checkpoint="latest")
    with pytest.raises(UsageError, match=expected.removesuffix(".csv")):
        run.summary(SMOKE, output=output)


def test_output_that_is_a_folder_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(UsageError, match=r"x.csv is a folder"):
        summary.check_path(tmp_path / "x.csv")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/x.csv: there is no folder"):
        summary.check_path(tmp_path / "file/x.csv")
    with pytest.raises(UsageError, match=r"run cannot be written \(.*file is a file\)"):
        run.train(SMOKE, tmp_path / "file/run")
    for folder in accept_nothing(tmp_path, monkeypatch):
        with pytest.raises(UsageError, match=r"--output=.*y.csv cannot be written \("):
            run.evaluate(SMOKE, tmp_path, checkpoint="latest", output=str(folder / "y.csv"))
        with pytest.raises(UsageError, match=r"--output=.* cannot be written \("):
            run.explain(SMOKE, tmp_path, output=str(folder / "explain"))
        with pytest.raises(UsageError, match=r"--output=.*y.html cannot be written \("):
            run.explore(SMOKE, tmp_path, output=str(folder / "y.html"))
        with pytest.raises(UsageError, match=r"the run's folder .*run cannot be written \("):
            run.train(SMOKE, folder / "run")
        assert arithmetic.main([f"--output={folder / 'y.gif'}"]) == 2


def accept_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that takes no files although root may write there, and one on a full disk."""
    yield Path("/proc")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    yield tmp_path
