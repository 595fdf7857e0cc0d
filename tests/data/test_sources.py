"""Sources against published arrays and numbers: scikit-learn, MNIST's counts, files written by hand."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cnn_jax import data
from cnn_jax.data.sources import SOURCES
from cnn_jax.errors import UsageError
from tests.data.tfds_files import write_tfds_set
from tests.requirements import require_data

REPOSITORY = Path(__file__).parents[2]
MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def sorted_rows(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.column_stack([images.reshape(len(images), -1), labels])
    return rows[np.lexsort(rows.T)]


class TestDigits:
    def test_every_grey_value_can_be_recovered_and_every_digit_is_there(self):
        bunch = load_digits()
        digits = data.load("digits", "all")
        assert digits.images.dtype == np.uint8
        assert digits.images.shape == (1797, 8, 8, 1)
        recovered = np.round(digits.images[..., 0] * (16 / 255))
        np.testing.assert_array_equal(sorted_rows(recovered, digits.labels), sorted_rows(bunch.images, bunch.target))
        assert digits.images.max() == 255
        assert digits.class_names == tuple("0123456789")

    @pytest.mark.parametrize(("split", "size"), [("train", 1297), ("validation", 200), ("test", 300)])
    def test_the_parts_are_stratified(self, split, size):
        everything = np.bincount(load_digits().target)
        part = data.load("digits", split)
        assert len(part) == size
        np.testing.assert_allclose(np.bincount(part.labels), everything * size / 1797, atol=1)

    def test_the_split_is_the_same_in_every_run(self):
        # The published scores of the digits depend on it, so a change of scikit-learn's splitter must be detected.
        np.random.seed(123)  # noqa: NPY002
        first = data.load("digits", "test")
        np.random.seed(4)  # noqa: NPY002
        second = data.load("digits", "test")
        assert first.fingerprint() == second.fingerprint()
        assert first.labels[:20].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2, 0, 7, 4, 8, 1, 5, 3, 9]

    @pytest.mark.parametrize(
        ("split", "reference"),
        [
            ("train+validation", lambda part: np.concatenate([part("train"), part("validation")])),
            ("train[:90%]", lambda part: part("train")[:1167]),
            ("test[-10:]", lambda part: part("test")[-10:]),
            ("train[100:200]+test[:5]", lambda part: np.concatenate([part("train")[100:200], part("test")[:5]])),
        ],
    )
    def test_split_expressions(self, split, reference):
        expected = reference(lambda name: data.load("digits", name).images)
        np.testing.assert_array_equal(data.load("digits", split).images, expected)


class TestTfds:
    images = np.random.default_rng(0).integers(0, 256, (1100, 5, 4, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, 1100)

    def write(self, data_dir, **options):
        splits = {"train": (self.images, self.labels.tolist()), "test": (self.images[:7], [0] * 7)}
        write_tfds_set(data_dir, "made", splits, class_names=["ant", "bee", "cat"], **options)

    def test_reads_what_was_written_in_order(self, tmp_path):
        self.write(tmp_path)
        made = data.load("made", "train", data_dir=tmp_path)
        np.testing.assert_array_equal(made.images, self.images)
        np.testing.assert_array_equal(made.labels, self.labels)
        assert made.images.dtype == np.uint8
        assert made.labels.dtype == np.int32
        assert made.class_names == ("ant", "bee", "cat")
        assert len(data.load("made", "test", data_dir=tmp_path)) == 7
        sliced = data.load("made", "test[2:4]+train[1000:]", data_dir=tmp_path)
        np.testing.assert_array_equal(sliced.images, np.concatenate([self.images[2:4], self.images[1000:]]))

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"shape": (None, None, 3)}, "different sizes (None, None, 3)"),
            ({"dtype": "uint16"}, "has uint16 images"),
            ({"file_format": "tfrecord"}, "stored as tfrecord"),
            ({"supervised_keys": ()}, "TFDS does not declare one input and one target"),
        ],
    )
    def test_sets_of_another_kind_are_rejected(self, tmp_path, options, complaint):
        self.write(tmp_path, **options)
        with pytest.raises(UsageError) as caught:
            data.load("made", "train", data_dir=tmp_path)
        assert complaint in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_split_without_labels_is_rejected(self, tmp_path):
        write_tfds_set(tmp_path, "made", {"test": (self.images[:3], [0, -1, 1])}, class_names=["ant", "bee"])
        with pytest.raises(UsageError, match="split 'test' is published without labels"):
            data.load("made", "test", data_dir=tmp_path)

    def test_reading_is_quiet_and_needs_no_tensorflow(self, tmp_path):
        self.write(tmp_path)
        code = (
            f"from cnn_jax import data; import sys; data.load('made', 'train', data_dir={str(tmp_path)!r});"
            "sys.exit('tensorflow' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_a_slow_load_shows_its_progress_on_a_terminal(self, tmp_path):
        pty = pytest.importorskip("pty")
        self.write(tmp_path)
        code = (
            "from cnn_jax.data import load, records; records.PROGRESS_AFTER_SECONDS = 0;"
            f"load('made', 'train', data_dir={str(tmp_path)!r})"
        )
        terminal, end = pty.openpty()
        with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=end) as process:
            os.close(end)
            shown = b""
            while True:
                try:
                    piece = os.read(terminal, 4096)
                except OSError:  # raised on Linux when the other end is closed
                    piece = b""
                if not piece:
                    break
                shown += piece
            assert process.wait(60) == 0
        os.close(terminal)
        assert b"reading made train" in shown


def test_a_new_source_is_one_small_function(monkeypatch):
    def stripes(path: str, split: str, **_) -> data.Dataset:
        width = int(path)
        images = np.stack([np.full((width, width, 1), 255 * (number % 2), np.uint8) for number in range(10)])
        return data.Dataset.of_images(
            f"stripes:{path}", split, images, np.arange(10, dtype=np.int32) % 2, ("dark", "light")
        )

    monkeypatch.setitem(data.SOURCES, "stripes", stripes)
    assert data.load("stripes:6", "train").image_shape == (6, 6, 1)
    assert len(data.as_records(data.open_set("stripes:6", "train")).take([1, 3])["image"]) == 2


@pytest.mark.parametrize(
    ("name", "split", "fragments"),
    [
        ("mnits", "train", ["unknown data set 'mnits'", "'mnist'"]),
        ("digit", "train", ["unknown data set 'digit'", "'digits'"]),
        ("", "train", ["give a TFDS name"]),
        ("huggingface:mnist", "train", ["give a TFDS name"]),
        ("../mnist", "train", ["give a TFDS name"]),
        ("mnist/nope", "train", ["cannot open", "nope"]),
        ("mnist:9.9.9", "train", ["cannot open", "9.9.9"]),
        ("mnist", "train", ["not prepared in", "python -m cnn_jax.data.prepare mnist --data_dir="]),
        ("imagenet2012", "train", ["different sizes"]),
        ("digits", "tset", ["no split 'tset'", "'train' (1297), 'validation' (200), 'test' (300)"]),
        ("digits", "train[:0]", ["split 'train[:0]' is empty"]),
        ("digits", "train[:5000]", ["no split 'train[:5000]'", "1297"]),
        ("digits", "train[", ["no split 'train['"]),
        ("digits", "", ["no split ''"]),
    ],
)
def test_bad_names_get_one_line_within_seconds(tmp_path, name, split, fragments):
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        data.load(name, split, data_dir=tmp_path)
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("source", sorted({*SOURCES} - {"digits", "mnist1d", "photographs"}))
def test_a_source_of_files_needs_a_path(source):
    with pytest.raises(UsageError, match=f"^data set '{source}:' has no path; write it behind the colon, as"):
        data.load(f"{source}:", "train")


def test_mnist_test_set_has_the_published_counts():
    require_data("mnist")
    mnist = data.load("mnist", "test")
    assert mnist.image_shape == (28, 28, 1)
    assert np.bincount(mnist.labels).tolist() == MNIST_TEST_COUNTS


def test_mnist_training_set_has_the_published_counts_and_statistics():
    require_data("mnist")
    mnist = data.load("mnist", "train")
    assert np.bincount(mnist.labels).tolist() == MNIST_TRAIN_COUNTS
    # 0.1307 and 0.3081: the figures in every MNIST example since Torch's.
    preprocess = data.Preprocess.measure(mnist, (28, 28, 1))
    assert (round(preprocess.mean[0], 4), round(preprocess.std[0], 4)) == (0.1307, 0.3081)


def test_fashion_mnist_has_a_thousand_test_images_of_each_class():
    require_data("fashion_mnist")
    fashion = data.load("fashion_mnist", "test")
    assert np.bincount(fashion.labels).tolist() == [1000] * 10
    assert fashion.class_names[9] == "Ankle boot"
