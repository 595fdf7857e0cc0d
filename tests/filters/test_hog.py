"""Histograms of oriented gradients against loops over pixels; tests/parity compares them with scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters
from cnn_jax.errors import UsageError


def loops(image, orientations, cell, block, convention):
    """The blocks of one image, from the votes of one pixel after the other."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    down, right = padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]
    rows, columns = (image.shape[axis] // cell[axis] - block[axis] + 1 for axis in (0, 1))
    blocks = np.zeros((rows, columns, *block, orientations))
    for place in np.ndindex(rows, columns):
        extent = [cells * pixels for cells, pixels in zip(block, cell, strict=True)]
        for inside in np.ndindex(*extent):
            pixel = tuple(np.multiply(place, cell) + inside)
            channel = np.hypot(down[pixel], right[pixel]).argmax()
            magnitude = np.hypot(down[pixel], right[pixel])[channel]
            angle = np.degrees(np.arctan2(down[pixel][channel], right[pixel][channel])) % 180
            if convention == "skimage":
                own = tuple(np.floor_divide(inside, cell))
                blocks[place][own][int(angle / (180 / orientations))] += magnitude
                continue
            offset = [(number + 0.5) / size - 0.5 for number, size in zip(inside, extent, strict=True)]
            magnitude *= np.exp(-sum(number**2 for number in offset) / (2 * 0.5**2))
            for own in np.ndindex(*block):
                share = np.prod(
                    [
                        max(0, 1 - abs((number + 0.5) / pixels - (which + 0.5)))
                        for number, pixels, which in zip(inside, cell, own, strict=True)
                    ]
                )
                for number in range(orientations):
                    turn = abs(angle - (number + 0.5) * 180 / orientations) % 180
                    nearness = max(0, 1 - min(turn, 180 - turn) * orientations / 180)
                    blocks[place][own][number] += magnitude * share * nearness
    return blocks.reshape(rows, columns, -1) / np.prod(cell)


def normalized(blocks, norm):
    def root(vectors):
        return vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True) + 1e-10)

    sums = blocks / (blocks.sum(axis=-1, keepdims=True) + 1e-5)
    return {
        "L2-Hys": lambda: root(np.minimum(root(blocks), 0.2)),
        "L2": lambda: root(blocks),
        "L1": lambda: sums,
        "L1-sqrt": lambda: np.sqrt(sums),
    }[norm]()


@pytest.fixture(scope="module")
def images():
    """Whole numbers, so that all compute the same magnitudes; some differences are 0, some are diagonal."""
    return np.random.default_rng(0).integers(0, 20, (2, 14, 17, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("convention", "norm", "orientations", "cell", "block"),
    [
        ("skimage", "L2-Hys", 9, (3, 4), (2, 2)),
        ("skimage", "L1-sqrt", 8, (4, 3), (1, 3)),  # diagonals are where bins of 8 begin
        ("paper", "L2-Hys", 9, (3, 4), (2, 2)),
        ("paper", "L2", 4, (4, 3), (3, 1)),
        ("paper", "L1", 2, (5, 5), (1, 1)),
    ],
)
def test_blocks_are_those_of_loops(images, convention, norm, orientations, cell, block):
    options = {"orientations": orientations, "pixels_per_cell": cell, "cells_per_block": block, "block_norm": norm}
    found = filters.hog(images, **options, convention=convention)
    expected = [normalized(loops(image.astype(float), orientations, cell, block, convention), norm) for image in images]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_window_of_64_by_128_has_3780_numbers_as_in_the_paper():
    shape = jax.eval_shape(filters.hog, jnp.ones((5, 128, 64, 3))).shape
    assert shape == (5, 15, 7, 36)
    assert np.prod(shape[1:]) == 3780


@pytest.mark.parametrize("convention", ["skimage", "paper"])
def test_gradients_are_those_of_finite_differences_and_0_where_nothing_changes(convention):
    image, direction = np.random.default_rng(1).uniform(size=(2, 8, 8, 1))
    weights, h = np.random.default_rng(2).normal(size=36), 1e-7

    @jax.jit
    def value_and_gradient(x):
        def value(x):
            return (filters.hog(x, pixels_per_cell=4, convention=convention) * weights).sum()

        return jax.value_and_grad(value)(x)

    with jax.enable_x64(True):
        _, gradient = value_and_gradient(image)
        difference = value_and_gradient(image + h * direction)[0] - value_and_gradient(image - h * direction)[0]
        assert float(difference) / (2 * h) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
        assert not np.any(value_and_gradient(np.ones_like(image))[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "opencv"}, "filters.hog: unknown convention='opencv'; known: 'paper', 'skimage'"),
        ({"block_norm": "l2"}, "filters.hog: unknown block_norm='l2'; did you mean 'L2'"),
        ({"orientations": 0}, "filters.hog: orientations=0 must be at least 1"),
        ({"pixels_per_cell": 0}, "filters.hog: pixels_per_cell=0 must be"),
        (
            {},
            r"filters.hog: x of shape \(8, 12, 1\) has 8x12 pixels, less than a block of 2x2 cells of 8x8, which is "
            "16x16; choose smaller cells",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        filters.hog(jnp.ones((8, 12, 1)), **options)
