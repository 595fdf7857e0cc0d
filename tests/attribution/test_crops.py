"""The strongest crops of a data set against a search over all positions, and crops against changes of the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import models, nn
from cnn_jax.attribution import gradient, strongest_crops
from cnn_jax.data.arrays import load_digits
from cnn_jax.errors import UsageError

IMAGES = load_digits("all").images[:60].astype(np.float32) / 255


@pytest.fixture(scope="module")
def network():
    """A network with unequal padding, a pool that is rounded up, and dense layers."""
    rngs = nnx.Rngs(3)
    layers = {
        "c1": nn.Conv(1, 4, (3, 3), padding=((2, 0), (1, 1)), rngs=rngs),
        "relu": jax.nn.relu,
        "s2": nn.MaxPool((3, 3), strides=(2, 2), rounding="ceil"),
        "c3": nn.Conv(4, 5, (2, 3), strides=(1, 2), padding="SAME", rngs=rngs),
        "flat": nn.Flatten((4, 2, 5)),
        "f4": nn.Linear(4 * 2 * 5, 6, rngs=rngs),
    }
    model = nn.Sequence(layers)
    model.eval()
    return model


def moved(x):
    """Permutes rows in an order that depends on the image."""
    return jnp.take(x, jnp.argsort(x.sum((0, 2, 3))), axis=1)


def activation(model, name, images=IMAGES):
    return np.asarray(model(images, return_activations=True)[1][name])


@pytest.mark.parametrize("name", ["c1", "s2", "c3", "flat", "f4"])
@pytest.mark.parametrize("one_per_image", [True, False])
def test_search_over_all_positions(network, name, one_per_image):
    k, channels = 5, [3, 0]
    found = strongest_crops(network, IMAGES, name, channels, k=k, one_per_image=one_per_image, batch_size=16)
    maps = activation(network, name)
    for row, channel in enumerate(channels):
        values = maps[..., channel].reshape(len(maps), -1)
        ranked = sorted(np.ndindex(values.shape), key=lambda place: -values[place])
        if one_per_image:
            first = {}
            for image, place in ranked:
                first.setdefault(image, (image, place))
            ranked = list(first.values())
        np.testing.assert_allclose(found.responses[row], [values[place] for place in ranked[:k]], rtol=1e-5)
        for column in range(k):
            place = (found.indices[row, column], *found.positions[row, column], channel)
            np.testing.assert_allclose(maps[place], found.responses[row, column], rtol=1e-5)
        assert one_per_image == (len(set(found.indices[row].tolist())) == k) or not one_per_image


@pytest.mark.parametrize("name", ["c1", "s2", "c3", "flat", "f4"])
def test_the_response_depends_on_the_crop_alone(network, name):
    found, rng = strongest_crops(network, IMAGES, name, k=3), np.random.default_rng(0)
    for row, column in np.ndindex(found.indices.shape):
        image = found.images[int(found.indices[row, column])]
        inside = np.zeros(image.shape, bool)
        inside[tuple(slice(*interval) for interval in found.intervals[row, column])] = True
        assert inside.any()
        noise = rng.standard_normal((8, *image.shape)).astype(np.float32)
        variants = np.concatenate([np.where(inside, image, image + noise), np.where(inside, image + noise, image)])
        place = (slice(None), *found.positions[row, column], found.channels[row])
        outside, within = activation(network, name, variants)[place].reshape(2, -1)
        np.testing.assert_allclose(outside, found.responses[row, column], rtol=1e-5, atol=1e-6)
        assert np.abs(within - found.responses[row, column]).max() > 1e-3
        # The unit depends on the first and last row and column of the interval, although a pool uses only maxima.
        samples = jnp.asarray(rng.standard_normal((64, *image.shape)), jnp.float32)
        depends = (
            np.abs(gradient(network, samples, (name, tuple(found.positions[row, column].tolist()), row))).sum((0, -1))
            > 0
        )
        for axis in range(2):
            seen = np.flatnonzero(depends.any(1 - axis))
            assert (seen[0], seen[-1] + 1) == tuple(found.intervals[row, column, axis])


def test_streams(network):
    whole = strongest_crops(network, IMAGES, "c3", k=4)
    parts = strongest_crops(network, (IMAGES[i : i + 7] for i in range(0, 60, 7)), "c3", k=4)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_array_equal(whole.intervals, parts.intervals)
    assert set(parts.images) == set(parts.indices.ravel().tolist()), "no other image is kept"


def test_fewer_images_than_places(network):
    found = strongest_crops(network, IMAGES[:2], "c3", [1], k=5)
    assert (found.indices[0, 2:] == -1).all()
    assert np.isneginf(found.responses[0, 2:]).all()
    assert [len(row) for row in found.crops()] == [2]


def test_attributions_of_crops_equal_those_of_the_whole_image(network):
    found = strongest_crops(network, IMAGES, "c3", [2, 4], k=3)
    pictures, crops = found.pictures(gradient), found.crops()
    for row, column in np.ndindex(found.indices.shape):
        unit = ("c3", tuple(found.positions[row, column].tolist()), int(found.channels[row]))
        image = found.images[int(found.indices[row, column])]
        whole = np.asarray(gradient(network, image[None], unit)[0])
        np.testing.assert_allclose(pictures[row][column], found.crop(whole, row, column), rtol=1e-4, atol=1e-6)
        assert np.abs(whole).sum() == pytest.approx(np.abs(pictures[row][column]).sum(), rel=1e-4), "nothing is cut off"
        np.testing.assert_array_equal(crops[row][column], found.crop(image, row, column))


def test_crops_of_a_deep_network():
    """ResNet-20 of CIFAR-10 in a narrow form; the field of its third stage is larger than the image."""
    model = models.create("resnet_20", width=0.25, rngs=nnx.Rngs(0))
    model.eval()
    images = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
    name = list(model(images[:1], return_activations=True)[1])[-3]
    found = strongest_crops(model, images, name, [0], k=2)
    assert found.intervals.shape[-2:] == (2, 2)
    assert (found.intervals >= 0).all()
    assert (found.intervals <= 32).all()


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("no activation is called 'c2'", lambda model: strongest_crops(model, IMAGES, "c2")),
        ("there is no channel 7; the activation has 5, from 0 to 4", lambda m: strongest_crops(m, IMAGES, "c3", 7)),
        ("there are no images", lambda model: strongest_crops(model, [], "c3")),
        ("there are no images", lambda model: strongest_crops(model, IMAGES[:0], "c3")),
        ("k=0 must be at least 1", lambda model: strongest_crops(model, IMAGES, "c3", k=0)),
        ("images of one size", lambda m: strongest_crops(m, [IMAGES[:4], IMAGES[:4, :6]], "c3")),
        ("no batch larger", lambda model: strongest_crops(model, [IMAGES[:4], IMAGES[:5]], "c3")),
        ("receptive field .* unknown", lambda m: strongest_crops(moved, IMAGES, None)),
    ],
)
def test_errors(network, message, call):
    with pytest.raises(UsageError, match=message) as error:
        call(network)
    assert "\n" not in str(error.value)
