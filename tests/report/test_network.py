"""The diagram of a network: its blocks, their sizes, and the text next to them."""

import dataclasses
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.geometry import Row
from cnn_jax.report.figures import network

CONV = Row("conv1_1", "Conv", (32, 16, 8), (3, 3), (1, 1), "SAME", parameters=80, multiply_adds=1)
SECOND = Row("conv1_2", "Conv", (32, 16, 8), (3, 3), (1, 1), "SAME", parameters=584, multiply_adds=1)
RELU = Row("conv1_1_relu", "relu", (32, 16, 8))
POOL = Row("pool1", "MaxPool", (16, 8, 8), (2, 2), (2, 2), "VALID")
INSIDE = [
    Row("layer1_0/branch/conv", "Conv", (16, 8, 32), (3, 3), (1, 1), "SAME", parameters=2304, multiply_adds=1),
    Row("layer1_0/shortcut/conv", "Conv", (16, 8, 32), (1, 1), (1, 1), "SAME", parameters=256, multiply_adds=1),
    Row("layer1_0/add", "add", (16, 8, 32)),
]
GLOBAL = Row("avgpool", "global_avg_pool", (32,))
OF_ANOTHER_NAME = [dataclasses.replace(row, name=row.name.replace("layer1_0", "mixed")) for row in INSIDE]
OUTPUT = Row("fc", "Linear", (10,), parameters=330, multiply_adds=320)
ROWS = [CONV, RELU, SECOND, POOL, *INSIDE, GLOBAL, OUTPUT]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def extents(figure: Figure) -> list[tuple[float, float]]:
    """Of each block: the width and height of its front, in inches."""
    width, height = figure.get_size_inches()
    found = []
    for axes in figure.axes:
        corners = axes.patches[0].get_xy()
        (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
        box = axes.get_position()
        across, up = np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
        found.append(((right - left) / across * box.width * width, (top - bottom) / up * box.height * height))
    return found


def test_what_makes_no_new_shape_is_not_drawn_and_equal_neighbours_once() -> None:
    figure = network([*ROWS[:-2], *OF_ANOTHER_NAME, GLOBAL, OUTPUT], (32, 16, 3))
    names = ["input", "conv1_1 \N{EN DASH} 2", "pool1", "layer1_0", "mixed", "avgpool", "fc"]
    assert [text for text in texts(figure) if text in names] == names
    assert len(figure.axes) == len(names)


def test_sides_are_square_roots_on_one_scale() -> None:
    fronts = extents(network(ROWS, (32, 16, 3)))
    shapes = [(32, 3), (32, 8), (16, 8), (16, 32), (1, 32), (1, 10)]  # height and channels
    scale = fronts[0][1] / math.sqrt(32)
    expected = [(scale * math.sqrt(channels), scale * math.sqrt(height)) for height, channels in shapes]
    np.testing.assert_allclose(fronts, expected, rtol=1e-6)


def test_windows_shapes_and_parameters_are_written() -> None:
    found = texts(network(ROWS, (32, 16, 3)))
    windows = ("2 x 3x3", "2x2, stride 2", "16x8x8", "block", "whole map", "fully connected")
    for text in (*(text.replace("x", "\N{MULTIPLICATION SIGN}", 3) for text in windows[:3]), *windows[3:]):
        assert text in found, text
    assert {"664", "2,560", "330"} <= set(found)


def test_the_title_stands_above_and_totals_below() -> None:
    figure = network(ROWS, (32, 16, 3), title="tiny, input 32x16x3")
    assert texts(figure)[0] == "tiny, input 32x16x3"
    assert "3,554 parameters, 324 multiply-adds" in texts(figure)


def test_everything_is_inside_the_picture() -> None:
    figure = network([Row(f"a_very_long_name_{i}", "Conv", (8, 8, i), (3, 3), (2, 2)) for i in range(1, 9)], (9, 9, 1))
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= width
        assert 0 <= box.y0 <= box.y1 <= height


def test_one_dimensional_networks_are_drawn_and_volumes_refused() -> None:
    assert len(network([Row("c", "Conv", (60, 4), (5,), (1,), "VALID", multiply_adds=1)], (64, 1)).axes) == 2
    with pytest.raises(UsageError, match=r"input_shape=\(8, 8, 8, 1\) has 3 spatial axes"):
        network(ROWS, (8, 8, 8, 1))
