"""Computed receptive fields against those measured by gradients, for every network."""

from typing import Any

import jax.numpy as jnp
import pytest
from flax import nnx

from cnn_jax import geometry, models, nn
from tests.geometry.measured import intervals, transparent

# Their first layers have no window, or depend on the whole image; a captioner has the layers of its backbone.
WITHOUT_MAPS = ("captioner", "logistic_regression", "mlp", "mlp_two_neurons")
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in models.available() if name not in WITHOUT_MAPS),
    ("resnet_50", {"stride": "v1.5"}),
    ("resnet_20", {"shortcut": "projection", "preactivation": True}),
]
# By default, one or two networks of most families; the others in the slow run.
QUICK = ("alexnet", "googlenet", "lenet_1989", "lenet_5", "neocognitron", "resnet_20", "vgg_a")
# One image size for several networks, so that they share compiled layers; its rows contain the largest of the fields.
ROWS = {16: 64, 28: 64, 32: 640, 224: 1664, 227: 1664, 299: 1664}


def clipped(field: geometry.ReceptiveField, unit: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The first and last position of the image in a unit's field, along each axis."""
    intervals = zip(field.interval(unit), shape, strict=False)
    return [(max(first, 0), min(last, size - 1)) for (first, last), size in intervals]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(
            name,
            options,
            marks=() if name in QUICK and not options else pytest.mark.slow,
            id="-".join([name, *options]),
        )
        for name, options in OPTIONS
    ],
)
def test_field_is_the_one_that_gradients_show(name: str, options: dict[str, Any]) -> None:
    """The image contains the field of the middle unit along the rows, and cuts it off along the columns."""
    rows, *rest = models.variant(name).input_shape
    shape = (ROWS[rows], *rest)
    width = 0.2 if name == "neocognitron" else 0.001  # its C-cells respond to differences between planes
    model = transparent(
        nnx.eval_shape(lambda: models.create(name, input_shape=shape, width=width, rngs=nnx.Rngs(0), **options))
    )
    maps = {row.name: row for row in geometry.trace(model, shape) if max(row.output_shape[:-1], default=1) > 1}
    windows = [row.name for row in maps.values() if row.kernel_size]
    chosen = {windows[len(windows) // 2], windows[-1], list(maps)[-1]}
    units = {layer: tuple(size // 2 for size in maps[layer].output_shape[:2]) for layer in sorted(chosen)}
    measured = intervals(model, shape, {layer: [unit] for layer, unit in units.items()})
    for layer, unit in units.items():
        field = maps[layer].receptive_field
        [((first, last), columns)] = measured[layer]
        assert [(first, last), columns] == clipped(field, unit, shape), layer
        assert last - first + 1 == field.size[0], "the image has no room for it"


RNGS = nnx.Rngs(0)


def conv(size: int, strides: int = 1, **options: Any) -> nn.Conv:
    return nn.Conv(1, 1, (size, size), strides, rngs=RNGS, **options)


NETWORKS = {
    "one-sided padding": {"a": conv(3, 2, padding=((2, 0), (0, 3))), "b": conv(4, padding="SAME"), "c": conv(2)},
    "SAME with strides": {"a": conv(4, 2), "b": conv(3, 3), "c": conv(2, padding="SAME_LOWER")},
    "partial last windows": {"a": nn.MaxPool((3, 3), 2, rounding="ceil"), "b": nn.MaxPool((2, 2), 2, rounding="ceil")},
    "dilated": {"a": conv(3, kernel_dilation=2), "b": nn.AvgPool((2, 2), 1, dilation=3)},
    "branches": {
        "a": conv(3, 2),
        "b": nn.Parallel({"1": conv(1), "3": conv(3, padding=((2, 0), (0, 2))), "4": conv(4)}),
        "c": nn.Conv(3, 1, (2, 2), padding="VALID", rngs=RNGS),
    },
    "skip": {"a": nn.Residual({"1": conv(2, padding=((1, 0), (1, 0))), "2": conv(4)}), "b": conv(3, 2)},
    "transposed": {"a": conv(3, 2), "b": nn.ConvTranspose(1, 1, (4, 4), 2, rngs=RNGS), "c": conv(3)},
    "transposed by three": {"a": nn.ConvTranspose(1, 1, (5, 5), 3, padding="VALID", rngs=RNGS)},
    "upsampled": {"a": conv(3, 2), "b": nn.Upsample((2, 3)), "c": nn.Upsample((2, 2), method="bilinear")},
    "response norm": {"a": conv(2, 2), "b": nn.LocalResponseNorm((3, 4)), "c": nn.LocalResponseNorm(5)},
    "adaptive": {"a": conv(3), "b": nn.AdaptiveAvgPool((4, 6))},
    "global": {"a": conv(2, 2, padding="VALID"), "b": lambda x: x.mean(axis=(1, 2), keepdims=True)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_field_of_every_unit_of_small_networks(name: str) -> None:
    """For each unit: inside the image the fields are equal; near an edge the measured field may be smaller."""
    shape = (24, 30, 1)
    model = transparent(nn.Sequence(NETWORKS[name]))
    row = geometry.trace(model, shape)[-1]
    units = [(min(place, row.output_shape[0] - 1), place) for place in range(row.output_shape[1])]
    measured = intervals(model, shape, {row.name: units})[row.name]
    computed = [clipped(row.receptive_field, unit, shape) for unit in units]
    for seen, formula in zip(measured, computed, strict=True):
        for (first, last), (low, high) in zip(seen, formula, strict=True):
            assert low <= first <= last <= high
    inside = slice(len(units) // 3, 2 * len(units) // 3 + 1)
    columns = [columns for _, columns in measured[inside]]
    assert columns == [columns for _, columns in computed[inside]]
    assert max(last - first + 1 for first, last in columns) == min(row.receptive_field.size[1], shape[1])


def test_unknown_fields_are_none() -> None:
    """After a layer that moves positions in an unknown way, fields are unknown but shapes are known."""
    model = nn.Sequence({"a": conv(3), "rolled": lambda x: jnp.roll(x, 1, axis=1), "b": conv(3), "mean": jnp.tanh})
    rows = {row.name: row for row in geometry.trace(model, (8, 8, 1))}
    assert rows["a"].receptive_field.size == (3, 3)
    assert [rows[name].receptive_field for name in ("rolled", "b", "mean")] == [None] * 3
    assert rows["b"].output_shape == (8, 8, 1)
    assert rows["b"].multiply_adds == 9 * 64
