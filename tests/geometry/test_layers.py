"""Lists of layers: output sizes, receptive fields and parameters against published numbers and closed forms."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.geometry import Window
from cnn_jax.geometry.follower import follow
from cnn_jax.geometry.places import Place
from cnn_jax.geometry.positions import keeps_positions
from cnn_jax.models.airbench import gelu

RNGS = nnx.Rngs(0)
conv = functools.partial(nn.Conv, kernel_init=jax.nn.initializers.zeros, rngs=RNGS)  # no compilation
# Sizes and fields of published networks; layers are (kernel, strides, padding).
LENET_5 = [(5,), (2, 2), (5,), (2, 2), (5,)]
ALEXNET = [(11, 4), (3, 2), (5, 1, 2), (3, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2)]
VGG_D = [*[(3, 1, 1)] * 2, (2, 2), *[(3, 1, 1)] * 2, (2, 2), *(3 * [*[(3, 1, 1)] * 3, (2, 2)])]


@pytest.mark.parametrize(
    ("layers", "fields"),
    [
        (LENET_5, [(5, 1), (6, 2), (14, 2), (16, 4), (32, 4)]),
        (ALEXNET, [(11, 4), (19, 8), (51, 8), (67, 16), (99, 16), (131, 16), (163, 16), (195, 32)]),
        (VGG_D, [*[None] * 16, (196, 16), (212, 32)]),
    ],
    ids=["LeNet-5", "AlexNet", "VGG-D"],
)
def test_fields_are_the_published_ones(layers: list[tuple[int, ...]], fields: list[tuple[int, int] | None]) -> None:
    for length, expected in enumerate(fields, start=1):
        if expected is not None:
            field = geometry.receptive_field(layers[:length])
            assert (*field.size, *field.jump) == expected


@pytest.mark.parametrize(
    ("layers", "size", "sizes"),
    [
        (LENET_5, 32, [28, 14, 10, 5, 1]),
        ([(11, 4, 2), *ALEXNET[1:]], 224, [55, 27, 27, 13, 13, 13, 13, 6]),
        (VGG_D, 224, [*[224] * 2, *[112] * 3, *[56] * 4, *[28] * 4, *[14] * 4, 7]),
    ],
    ids=["LeNet-5", "AlexNet", "VGG-D"],
)
def test_sizes_are_the_published_ones(layers: list[tuple[int, ...]], size: int, sizes: list[int]) -> None:
    assert [geometry.output_size(layers[:length], size) for length in range(1, len(sizes) + 1)] == [(n,) for n in sizes]


def test_zfnets_second_pool_needs_ceil() -> None:
    before = [Window(7, 2, 1), Window(3, 2, rounding="ceil"), Window(5, 2)]
    assert geometry.output_size([*before, Window(3, 2, rounding="ceil")], 224) == (13,)
    assert geometry.output_size([*before, Window(3, 2)], 224) == (12,)


def test_layers_stand_for_their_windows() -> None:
    layers = [
        conv(3, 8, (3, 5), 2, padding="SAME"),
        nn.BatchNorm(8, rngs=RNGS),
        jax.nn.relu,
        nn.Parallel({"a": conv(8, 4, (1, 1)), "b": conv(8, 4, (3, 3))}),
        nn.Residual({"c": conv(8, 8, (5, 5))}),
        nn.MaxPool((2, 2)),
    ]
    assert geometry.output_size(layers, (32, 48)) == geometry.output_shape(layers, (32, 48, 3))[:2]
    named = {f"layer{index}": layer for index, layer in enumerate(layers)}
    assert geometry.output_size(named, (32, 48)) == geometry.output_size(layers, (32, 48))
    assert geometry.receptive_field(named, (32, 48)) == geometry.receptive_field(layers, (32, 48))
    field = geometry.receptive_field(layers, (32, 48))
    # 3 or 5, then 2, 4 and 1 more positions that are 2 apart.
    assert (field.size, field.jump) == ((3 + 2 * (2 + 4 + 1), 5 + 2 * (2 + 4 + 1)), (4, 4))


def test_pools_that_are_given_their_output_size() -> None:
    layers = [conv(3, 8, (3, 3), padding="VALID"), nn.AdaptiveAvgPool((6, 6))]
    assert geometry.output_size(layers, 26) == (6, 6)
    field = geometry.receptive_field(layers, 26)
    assert (field.size, field.jump) == ((4 + 2, 4 + 2), (4, 4))  # 24 positions are divided among six units
    with pytest.raises(UsageError, match=r"receptive_field: layer 1: .* give input_size"):
        geometry.receptive_field(layers)


def test_asymmetric_padding_moves_the_centre() -> None:
    field = geometry.receptive_field([Window(3, padding=((2, 0),)), Window(4, padding="SAME")])
    assert field.first_centre == (Fraction(2, 2) - 2 + Fraction(3, 2) - 1,)
    assert field.interval((0,)) == ((-3, 2),)


def test_same_with_a_stride_depends_on_the_size() -> None:
    layers = [Window(3, 2, "SAME")]
    centres = {size: geometry.receptive_field(layers, size).first_centre for size in (7, 8)}
    assert centres == {7: (0,), 8: (1,)}
    with pytest.raises(UsageError, match=r"receptive_field: layer 0: .*padding='SAME'.*give input_size"):
        geometry.receptive_field(layers)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (geometry.receptive_field, ([(3, 1), nn.flatten],), r"layer 1 \(flatten\) has no window"),
        (geometry.receptive_field, ([lambda x: x[:, ::-1]],), r"layer 0 \(<lambda>\) has no window"),
        (geometry.receptive_field, ((5, 1),), r"is one window; write \[\(5, 1\)\]"),
        (geometry.output_size, ([(3, 2), (9, 1)], 9), r"layer 1: window: kernel 9 does not fit input 4"),
        (geometry.output_size, ({"pool": (3, 2), "c2": (9, 1)}, 9), r"layer c2: window: kernel 9 does not fit input 4"),
        (geometry.output_size, ([nn.MaxPool((2, 2))], (9, 9, 3)), r"input_size=\(9, 9, 3\) has 3 entries for 2"),
        (geometry.receptive_field, ([(3, 1, 0, 1, 1, 1, 1)],), r"layer 0: .* must be \(kernel size, strides, padding"),
        (geometry.parameter_count, ([(3, 2)],), "a window has no channels to count"),
        (
            geometry.receptive_field,
            ([nn.Parallel({"a": nn.MaxPool((2, 2)), "b": nn.MaxPool((3, 3), 1)})],),
            "different strides",
        ),
    ],
)
def test_mistakes_are_named(function, arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        function(*arguments)


def test_masked_weights_are_no_parameters() -> None:
    mask = np.array([[1, 0, 1], [0, 0, 1]])  # 3 of the 6 pairs of 2 inputs and 3 outputs are connected
    layer = conv(2, 3, (5, 5), padding="VALID", mask=mask)
    assert geometry.parameter_count(layer) == 3 * 25 + 3
    assert geometry.parameter_count([layer, jnp.tanh, layer]) == 3 * 25 + 3  # one layer that is used twice
    model = nnx.eval_shape(
        lambda: nn.Sequence({"c": nn.Conv(2, 3, (5, 5), padding="VALID", mask=mask, rngs=nnx.Rngs(0))})
    )
    (row,) = geometry.trace(model, (8, 9, 2))
    assert (row.parameters, row.multiply_adds, row.connections) == (78, 4 * 5 * 75, 4 * 5 * 78)


def test_a_mask_that_is_an_argument_cannot_be_counted() -> None:
    def create(mask: jax.Array) -> nn.Conv:
        return nn.Conv(2, 3, (5, 5), mask=mask, rngs=nnx.Rngs(0))

    layer = nnx.eval_shape(create, jnp.ones((2, 3)))
    with pytest.raises(UsageError, match=r"mask of shape \(2, 3\).*NumPy array"):
        geometry.parameter_count(layer)


@pytest.mark.parametrize(
    ("layer", "keeps"),
    [
        (jax.nn.softmax, True),
        (gelu, True),
        (ops.scaled_tanh, True),
        (nn.LocalResponseNorm(3), True),
        (nn.BatchNorm(4, rngs=RNGS), True),
        (nn.Linear(4, 7, rngs=RNGS), True),
        (lambda x: x[..., ::2].repeat(2, axis=-1), True),
        (lambda x: x[..., jnp.array([3, 0, 1])], False),  # it does, but with a gather, which is not analysed
        (lambda x: x - x.mean(axis=(1, 2), keepdims=True), False),
        (lambda x: jnp.roll(x, 1, axis=1), False),
        (lambda x: x.transpose(0, 2, 1, 3), False),
        (lambda x: x.reshape(1, 6, 6, 4)[:, ::-1].reshape(x.shape), False),
        (lambda x: x.cumsum(axis=2), False),
        (lambda x: x[:, :-1], False),
        (lambda x: x + jnp.flip(jnp.zeros_like(x), axis=1), True),
    ],
)
def test_layers_that_work_position_by_position(layer, keeps: bool) -> None:
    assert keeps_positions(layer, (6, 6, 4)) is keeps


def test_flat_features_must_not_be_mixed() -> None:
    features = Place.of_input((1, 8), 1)
    assert follow(jnp.tanh, features)[0] == features
    assert follow(jax.nn.softmax, features)[0] != features
