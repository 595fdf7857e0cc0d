"""Networks that map images to maps: published sizes, SegNet against a NumPy loop, stitched tiles against one pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from cnn_jax import geometry, models
from cnn_jax.errors import UsageError
from cnn_jax.models.voxel_classifier import FilterBank
from tests.models import creation


def rows(name: str, shape: tuple, **options) -> tuple:
    model = nnx.eval_shape(lambda: models.create(name, input_shape=shape, **options))
    return model, {row.name: row for row in geometry.trace(model, shape)}


def test_u_net_has_the_sizes_of_figure_1() -> None:
    """Of the paper; the number of parameters is that of the layers in it, two 3x3 convolutions at each scale."""
    model, found = rows("u_net", (572, 572, 1))
    published = {
        "conv1_1": (570, 64),
        "conv1_2": (568, 64),
        "pool1": (284, 64),
        "conv2_2": (280, 128),
        "conv3_2": (136, 256),
        "conv4_2": (64, 512),
        "pool4": (32, 512),
        "conv5_1": (30, 1024),
        "conv5_2": (28, 1024),
        "up4": (56, 512),
        "concatenate4": (56, 1024),
        "up_conv4_2": (52, 512),
        "concatenate3": (104, 512),
        "up_conv3_2": (100, 256),
        "concatenate2": (200, 256),
        "up_conv2_2": (196, 128),
        "concatenate1": (392, 128),
        "output": (388, 2),
    }
    assert {name: found[name].output_shape for name in published} == {
        name: (side, side, channels) for name, (side, channels) in published.items()
    }
    crops = [
        (found[f"conv{level}_2"].output_shape[0] - found[f"concatenate{level}"].output_shape[0]) // 2
        for level in (4, 3, 2, 1)
    ]
    assert crops == [4, 16, 40, 88]
    convolutions = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convolutions += [(512, 1024), (1024, 1024), (1024, 512), (512, 512), (512, 256), (256, 256), (256, 128)]
    convolutions += [(128, 128), (128, 64), (64, 64)]
    ups = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    expected = sum(9 * a * b + b for a, b in convolutions) + sum(4 * a * b + b for a, b in ups) + 64 * 2 + 2
    assert geometry.parameter_count(model) == expected == 31_030_658


@pytest.mark.parametrize("bottom", [4, 5, 28])
def test_u_net_loses_184_pixels(bottom: int) -> None:
    _, found = rows("u_net", (16 * bottom + 124, 16 * (bottom + 1) + 124, 3), width=1 / 16)
    assert found["conv5_2"].output_shape[:2] == (bottom, bottom + 1)
    assert found["output"].output_shape == (16 * bottom - 60, 16 * (bottom + 1) - 60, 2)


@pytest.mark.parametrize(
    ("name", "size", "options", "part"),
    [
        ("u_net", 512, {}, "4 less than a multiple of 16 along each axis and at least 188, not 512; use 508 or 524"),
        ("u_net", 172, {}, "use 188"),
        ("u_net", 20, {"depth": 1}, "use 18 or 20"),
        ("u_net_padded", 40, {}, "a multiple of 16 along each axis and at least 16, not 40; use 32 or 48"),
        ("u_net", 188, {"depth": 0}, "depth=0 must be at least 1"),
        ("segnet", 64, {"stages": ()}, "stages=() must be numbers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(name: str, size: int, options: dict, part: str) -> None:
    if part == "use 18 or 20":
        _, found = rows(name, (size, size, 1), **options)
        assert found["output"].output_shape == (4, 4, 2), "20 -> 16 -> 8 -> 4 -> 8 -> 4"
        return
    with pytest.raises(UsageError) as caught:
        rows(name, (size, size, 1), **options)
    assert part in str(caught.value)


def test_fully_convolutional_networks_have_the_published_sizes() -> None:
    """Of an image of 500x500: the maps of the published networks, and their receptive field of 404 pixels."""
    _, found = rows("fcn_8s", (500, 500, 3))
    published = {"conv1_1": 698, "pool1": 349, "pool2": 175, "pool3": 88, "pool4": 44, "pool5": 22, "fc6": 16}
    published |= {"score": 16, "upscore4": 34, "fuse4": 34, "upscore3": 70, "upscore": 568, "cut": 500}
    assert {name: found[name].output_shape[0] for name in published} == published
    assert found["score"].receptive_field.size == (404, 404)
    assert found["score"].receptive_field.jump == (32, 32)
    for name, shape in (("fcn_32s", (500, 333, 3)), ("fcn_16s", (65, 64, 1))):
        model = nnx.eval_shape(lambda name=name, shape=shape: models.create(name, input_shape=shape, width=1 / 32))
        assert geometry.output_shape(model, shape) == (*shape[:2], 21)


def activations(graph, state, x):
    return nnx.merge(graph, state)(x, return_activations=True)[1]


def test_segnet_mirrors_its_encoder() -> None:
    model = nnx.eval_shape(lambda: models.create("segnet"))
    x = jax.ShapeDtypeStruct((1, 360, 480, 3), jnp.float32)
    shapes = {
        name: a.shape[1:]
        for name, a in jax.eval_shape(functools.partial(activations, nnx.graphdef(model)), nnx.state(model), x).items()
    }
    for stage, sizes in enumerate([(360, 480), (180, 240), (90, 120), (45, 60), (22, 30)], start=1):
        channels = min(512, 64 * 2 ** (stage - 1))
        assert shapes[f"conv{stage}_1"] == (*sizes, channels)
        assert shapes[f"unpool{stage}"][:2] == sizes
    assert shapes["output"] == (360, 480, 11)
    assert geometry.parameter_count(model) == pytest.approx(29.46e6, rel=0.001), "of the paper's table: 29.46 million"


def test_segnets_unpooling_puts_values_where_the_maxima_were() -> None:
    model = creation.create("segnet", input_shape=(7, 10, 2), num_classes=3, width=1 / 32, stages=(1, 1))
    x = np.random.default_rng(0).standard_normal((1, 7, 10, 2)).astype(np.float32)
    _, found = model(x, return_activations=True)
    for stage, source in ((2, "conv2_1_relu"), (1, "conv1_1_relu")):
        before = {2: "pool2", 1: "conv2_1_decoder_relu"}[stage]
        pooled, small, out = (np.asarray(found[name])[0] for name in (source, before, f"unpool{stage}"))
        expected = np.zeros_like(pooled)
        for row in range(small.shape[0]):
            for column in range(small.shape[1]):
                for channel in range(small.shape[2]):
                    window = pooled[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
                    place = np.unravel_index(window.argmax(), window.shape)
                    expected[2 * row + place[0], 2 * column + place[1], channel] = small[row, column, channel]
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", [(188, 188, 1), (28, 28, 28, 1)])
def test_a_networks_rank_follows_from_its_input(shape: tuple) -> None:
    depth = 4 if len(shape) == 3 else 1
    _, found = rows("u_net", shape, width=1 / 16, depth=depth, num_classes=3)
    assert found["conv1_1"].kernel_size == (3,) * (len(shape) - 1)
    assert len(found["output"].output_shape) == len(shape)


def test_fcn_starts_as_bilinear_interpolation() -> None:
    """Scores that grow linearly along an axis still do so after they are enlarged, but for the border."""
    model = creation.create("fcn_32s", input_shape=(64, 64, 3), num_classes=2, width=1 / 64)
    line = np.broadcast_to(np.arange(5.0, dtype=np.float32)[:, None, None], (1, 5, 5, 2))
    large = np.asarray(model.upscore(line))[0, 64:-64, 96, 0]
    np.testing.assert_allclose(np.diff(large), 1 / 32, rtol=1e-3)


CASES = [
    ("u_net", (60, 60, 1), {"depth": 2, "num_classes": 3}, (75, 40)),
    ("u_net_padded", (16, 16, 1), {"depth": 2, "num_classes": 3}, (19, 30)),
]


@pytest.mark.parametrize(("name", "shape", "options", "size"), CASES, ids=["valid", "padded"])
def test_an_image_of_any_size_is_predicted_as_in_one_pass(name: str, shape: tuple, options: dict, size: tuple) -> None:
    """With whole numbers as weights and pixels, whose sums have no rounding errors whatever their order."""
    model = creation.create(name, input_shape=shape, width=1 / 32, **options)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda weights: jnp.sign(weights) * (jnp.abs(weights) > weights.std()), state))
    tiling = models.Tiling.of(model, shape)
    images = np.random.default_rng(0).integers(-2, 3, (2, *size, 1)).astype(np.float32)
    tiled = np.asarray(jax.jit(lambda x: tiling(model, x))(images))
    margin = tiling.margins[0]
    high = [(margin, length - before - margin) for before, length in zip(size, tiling.padded(size), strict=True)]
    mirrored = np.pad(images, [(0, 0), *high, (0, 0)], mode="reflect")
    whole = np.asarray(jax.jit(model.__call__)(jnp.asarray(mirrored)))[:, : size[0], : size[1]]
    assert tiled.shape == (2, *size, 3)
    assert len(np.unique(tiled)) > 100, "not nothing"
    assert np.abs(tiled).max() < 2**20
    if name == "u_net":
        assert len(range(0, size[0], tiling.steps[0])) > 1, "several tiles"
    np.testing.assert_array_equal(tiled, whole)


def test_a_classifier_is_no_network_for_maps() -> None:
    model = nnx.eval_shape(lambda: models.create("lenet_5_modern"))
    with pytest.raises(UsageError, match="use a network for segmentation, such as u_net_padded"):
        models.Tiling.of(model, (32, 32, 1))


@pytest.mark.parametrize("shape", [(11, 9, 1), (7, 6, 8, 1)])
def test_the_voxel_classifiers_features_are_those_of_scipy(shape: tuple) -> None:
    """Gaussians, derivatives, Laplacians and maxima in windows, with mirrored borders; then the place."""
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    found = np.asarray(FilterBank((1.5,), neighborhood=3)(jnp.asarray(x)))[0]
    image, rank = x[0, ..., 0].astype(np.float64), len(shape) - 1
    smooth = ndimage.gaussian_filter(image, 1.5, mode="mirror", radius=6)
    slopes = [1.5 * ndimage.correlate1d(smooth, [-0.5, 0, 0.5], axis, mode="mirror") for axis in range(rank)]
    bends = [ndimage.correlate1d(smooth, [1, -2, 1], axis, mode="mirror") for axis in range(rank)]
    laplacian, norm = 1.5**2 * sum(bends), np.sqrt(sum(slope**2 for slope in slopes))
    maxima = [ndimage.maximum_filter(part, 3, mode="constant", cval=-np.inf) for part in (laplacian, -laplacian, norm)]
    expected = [image, smooth, *slopes, laplacian, *maxima]
    np.testing.assert_allclose(found[..., : len(expected)], np.stack(expected, axis=-1), atol=1e-5)
    assert found.shape[-1] == len(expected) + 2 * rank == FilterBank((1.5,)).features(1, rank)
    np.testing.assert_allclose(
        found[:, 0, ..., -2 * rank].reshape(shape[0], -1)[:, 0], np.linspace(-1, 1, shape[0]), atol=1e-6
    )
