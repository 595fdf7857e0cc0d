"""Characters that are drawn or photographed differently from the training set must be classified correctly."""

import functools

import numpy as np
import pytest
from PIL import Image
from sklearn.svm import SVC

from cnn_jax import data
from cnn_jax.data.images import read_image
from cnn_jax.data.ink import as_ink, count_pieces, find_ink, frame_ink, measure_ink_extent, measure_ink_pieces
from cnn_jax.errors import UsageError
from tests.requirements import require_data

NOISE = np.random.default_rng(0).normal(0, 3, (2000, 2000))


@functools.cache
def classifier() -> SVC:
    digits = data.load("digits", "train")
    return SVC(gamma=0.5).fit(digits.images.reshape(len(digits), -1) / 255 / 4, digits.labels)


def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
    return (classifier().predict(images.reshape(len(images), -1) / 255 / 4) == labels).mean()


def drawn(digit: np.ndarray) -> np.ndarray:
    """The digit enlarged, in the light ink of the data set."""
    return np.asarray(Image.fromarray(digit).resize((160, 160), Image.Resampling.BICUBIC))


def on_paper(ink: np.ndarray, *, paper: float, contrast: float, shade: float) -> np.ndarray:
    """The digit in dark ink on paper that is lit from one side, with the noise of a camera."""
    rows, columns = ink.shape
    light = 1 - shade * np.linspace(0, 1, columns) + shade / 2 * np.linspace(0, 1, rows)[:, None]
    image = (paper - contrast * ink.astype(float)) * light + NOISE[:rows, :columns]
    return np.clip(image, 0, 255).astype(np.uint8)


WAYS = {
    "drawn on a large white sheet": lambda ink: 255 - np.pad(ink, ((40, 400), (300, 90))),
    "light on dark, off centre": lambda ink: np.pad(ink, ((5, 50), (100, 10))),
    "pencil on grey paper": lambda ink: on_paper(np.pad(ink, 60), paper=180, contrast=0.35, shade=0),
    "uneven light, off centre": lambda ink: on_paper(
        np.pad(ink, ((20, 160), (10, 140))), paper=190, contrast=0.5, shade=0.3
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_real_digits_are_read_however_they_were_drawn(tmp_path, way):
    digits = data.load("digits", "test[:100]")
    as_published = accuracy(digits.images, digits.labels)
    assert as_published >= 0.98
    extent = measure_ink_extent(digits.images)
    framed, whole, hints = [], [], []
    for digit in digits.images[..., 0]:
        Image.fromarray(WAYS[way](drawn(digit))).save(tmp_path / "drawn.png", compress_level=0)
        read = functools.partial(read_image, tmp_path / "drawn.png", height=8, width=8, channels=1)
        pixels, assumed, hint = read(ink_extent=extent)
        assert "ink framed in 8x8 as in the training set" in assumed
        hints.append(hint)
        framed.append(pixels)
        whole.append(read().pixels)
    assert hints.count("") >= 97
    assert accuracy(np.stack(framed), digits.labels) >= 0.9
    assert accuracy(np.stack(whole), digits.labels) <= 0.6  # without framing accuracy is low


def test_mnist_takes_20_of_28_pixels_as_published():
    require_data("mnist")
    assert measure_ink_extent(data.load("mnist", "test[:1000]").images) == 20 / 28


def test_sets_without_ink_on_a_dark_background_have_no_extent():
    digits = data.load("digits", "test").images
    assert measure_ink_extent(255 - digits) is None
    assert measure_ink_extent(np.repeat(digits, 3, axis=-1)) is None
    assert measure_ink_extent(np.random.default_rng(0).integers(0, 256, (50, 9, 9, 1), np.uint8)) is None


def test_a_square_is_placed_as_expected():
    image = np.zeros((100, 300), np.uint8)
    image[10:50, 200:240] = 180
    framed = frame_ink(find_ink(image), height=28, width=28, extent=20 / 28)
    expected = np.zeros((28, 28), bool)
    expected[4:24, 4:24] = True
    np.testing.assert_array_equal(framed >= 128, expected)
    assert framed.max() == 255


def test_the_centre_of_mass_is_in_the_middle_as_far_as_the_ink_stays_inside():
    # A heavy bar on top of a long stem: the centre of mass is above that of the box.
    letter = np.zeros((200, 200), np.uint8)
    letter[20:60, 40:160] = 255
    letter[60:180, 95:105] = 255
    small = frame_ink(find_ink(letter), height=40, width=40, extent=0.5)
    rows = np.arange(40) + 0.5
    assert abs(np.average(rows, weights=small.sum(axis=1)) - 20) < 1
    full = frame_ink(find_ink(letter), height=40, width=40, extent=1.0)
    assert (full[0] > 100).any()
    assert (full[-1] > 100).any()


def test_an_empty_sheet_has_no_ink(tmp_path):
    sheet = on_paper(np.zeros((150, 200)), paper=200, contrast=0, shade=0.3)
    Image.fromarray(sheet).save(tmp_path / "sheet.png")
    pixels, _, hint = read_image(tmp_path / "sheet.png", height=8, width=8, channels=1, ink_extent=1.0)
    assert pixels.shape == (8, 8, 1)
    assert hint == "no ink that stands out from the border"
    assert read_image(tmp_path / "sheet.png", height=150, width=200, channels=1, ink_extent=1.0).hint == ""
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    assert (
        read_image(tmp_path / "black.png", height=8, width=8, channels=1, ink_extent=1.0).hint
        == "no ink that stands out from the border"
    )


@pytest.mark.parametrize("way", WAYS)
def test_several_digits_give_a_hint(tmp_path, way):
    """Two or three real digits beside or above each other have more pieces than any image of the training set."""
    digits = data.load("digits", "test[:24]").images[..., 0]
    usual = measure_ink_pieces(data.load("digits", "train").images)
    for number, (one, two, three) in enumerate(zip(digits[:8], digits[8:16], digits[16:], strict=True)):
        gap = np.zeros((160, 50), np.uint8)
        row = np.concatenate([drawn(one), gap, drawn(two), *([gap, drawn(three)] if number % 2 else [])], axis=1)
        sheet = row if number % 3 else np.concatenate([drawn(one), gap.T, drawn(two)])
        Image.fromarray(WAYS[way](sheet)).save(tmp_path / "drawn.png", compress_level=0)
        hint = read_image(tmp_path / "drawn.png", height=8, width=8, channels=1, ink_extent=1.0, ink_pieces=usual).hint
        assert hint.startswith("ink in ")
        assert hint.endswith(" pieces")


def test_pieces_are_counted_as_they_were_drawn():
    ink = np.zeros((40, 60))
    assert count_pieces(ink) == 0
    ink[5:35, 5:8] = 0.6
    ink[35, 8] = 0.6  # touches it at a corner
    ink[5:35, 50:53] = 1.0
    ink[20, 20:34] = 1.0  # shorter than half of a stem
    ink[0:40, 40] = 0.4  # too weak
    assert count_pieces(ink) == 2


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_few_images_of_a_training_set_have_more_pieces_than_is_usual(name):
    if name != "digits":
        require_data(name)
    usual = measure_ink_pieces(data.load(name, "train[:1000]").images)
    others = [count_pieces(as_ink(image)) for image in data.load(name, "test[:300]").images[..., 0]]
    assert np.mean(np.array(others) > usual) <= 0.02


def test_images_of_one_piece_and_of_two():
    images = np.zeros((10, 12, 12, 1), np.uint8)
    images[:, 2:10, 2:4] = 200
    assert measure_ink_pieces(images) == 1
    images[:, 2:10, 8:10] = 200
    assert measure_ink_pieces(images) == 2
    assert measure_ink_pieces(np.zeros((2, 8, 8, 1), np.uint8)) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 2), (5, 700)])
def test_any_size_and_aspect(tmp_path, size):
    image = np.zeros(size, np.uint8)
    image[size[0] // 2, size[1] // 2] = 255
    Image.fromarray(image).save(tmp_path / "dot.png")
    pixels, *_ = read_image(tmp_path / "dot.png", height=9, width=7, channels=1, ink_extent=0.7)
    assert pixels.shape == (9, 7, 1)
    with pytest.raises(UsageError, match=r"ink_extent=1.5 must be in \(0, 1\]"):
        read_image(tmp_path / "dot.png", height=9, width=7, channels=1, ink_extent=1.5)
