"""Artistic style: the losses against loops, what they are invariant to, and the optimisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import attribution, ops
from cnn_jax.errors import UsageError

GENERATOR = np.random.default_rng(0)
KERNEL = GENERATOR.standard_normal((3, 3, 2, 4)).astype(np.float32)


def network(x, return_activations=False):
    maps = ops.relu(ops.conv(x, jnp.asarray(KERNEL)))
    activations = {"pixels": x, "maps": maps}
    return (maps.mean((1, 2)), activations) if return_activations else maps.mean((1, 2))


def images(count, *size):
    return jnp.asarray(GENERATOR.random((count, *size, 2)), jnp.float32)


def numpy_maps(x):
    x = np.asarray(x, np.float64)
    rows, columns = x.shape[1] - 2, x.shape[2] - 2
    windows = [x[:, i : i + rows, j : j + columns] @ KERNEL[i, j] for i in range(3) for j in range(3)]
    return np.maximum(sum(windows), 0)


def numpy_gram(maps):
    gram = np.zeros((len(maps), maps.shape[-1], maps.shape[-1]))
    for n, i, j in np.ndindex(gram.shape):
        gram[n, i, j] = (maps[n, ..., i] * maps[n, ..., j]).mean()
    return gram


def test_gram_matrices_are_those_of_a_loop_and_do_not_say_where_things_are():
    maps = images(2, 4, 5)
    np.testing.assert_allclose(attribution.gram_matrix(maps), numpy_gram(np.asarray(maps)), rtol=1e-5)
    moved = np.random.default_rng(1).permuted(np.asarray(maps).reshape(2, 20, 2), axis=1)
    together = np.asarray(maps).reshape(2, 20, 2)[:, np.random.default_rng(1).permutation(20)]
    np.testing.assert_allclose(attribution.gram_matrix(together), attribution.gram_matrix(maps), rtol=1e-5)
    assert np.abs(attribution.gram_matrix(moved) - attribution.gram_matrix(maps)).max() > 1e-3


def test_the_loss_is_that_of_a_loop():
    content, style = images(2, 6, 7), images(1, 9, 5)
    found = attribution.style_transfer(
        network,
        content,
        style,
        content_layers={"maps": 0.25, "pixels": 2.0},
        style_layers=["maps", "pixels"],
        content_weight=3.0,
        style_weight=5.0,
        variation_weight=7.0,
        steps=1,
        value_range=(0, 2),
        start=(start := images(2, 6, 7)),
    )
    expected = []
    for mine, kept in zip(
        np.asarray(start, np.float64)[:, None], np.asarray(content, np.float64)[:, None], strict=True
    ):
        layers = {"pixels": lambda x: np.asarray(x, np.float64), "maps": numpy_maps}
        loss = 0.0
        for name, weight in (("maps", 0.25), ("pixels", 2.0)):
            error = layers[name](mine) - layers[name](kept)
            loss += 3 * weight * (error**2).sum() / (layers[name](kept) ** 2).sum()
        for layer in layers.values():
            error = numpy_gram(layer(mine)) - numpy_gram(layer(style))
            loss += 5 * 0.5 * (error**2).sum() / (numpy_gram(layer(style)) ** 2).sum()
        rows, columns = np.abs(mine[:, 1:] - mine[:, :-1]), np.abs(mine[:, :, 1:] - mine[:, :, :-1])
        expected.append(loss + 7 * (rows.mean() + columns.mean()) / 2)
    np.testing.assert_allclose(found.history[0], expected, rtol=1e-5)


def test_each_image_takes_its_own_style_and_keeps_its_range():
    content, styles = images(2, 8, 8), jnp.stack([jnp.full((8, 8, 2), 0.4), jnp.ones((8, 8, 2))])
    found = jax.jit(
        lambda content, styles: attribution.style_transfer(
            network,
            content,
            styles,
            content_layers=["maps"],
            style_layers=["pixels"],
            steps=300,
            content_weight=0,
            variation_weight=1,
        )
    )(content, styles)
    assert found.style_losses.max() < 1e-3
    np.testing.assert_allclose(found.images.mean((1, 2, 3)), [0.4, 1.0], atol=0.01)
    assert 0 <= found.images.min() <= found.images.max() <= 1


def test_without_style_an_image_becomes_the_content():
    content = images(1, 6, 6)
    found = attribution.style_transfer(
        network,
        content,
        content,
        content_layers=["pixels"],
        style_layers=["maps"],
        style_weight=0,
        variation_weight=0,
        start=images(1, 6, 6),
        steps=300,
    )
    np.testing.assert_allclose(found.images, content, atol=0.01)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"style_layers": ["map"]}, "no activation is called 'map'; did you mean 'maps'"),
        ({"style_layers": []}, "style_layers=.. must name one activation or more"),
        ({"content_layers": "maps"}, "content_layers='maps' must name one activation or more, as a list"),
        ({"style": jnp.ones((3, 6, 6, 2))}, "do not fit content images"),
        ({"style": jnp.ones((1, 6, 6, 3))}, "with 2 channels"),
        ({"start": jnp.ones((2, 6, 5, 2))}, "start has shape"),
        ({"style_weight": -1}, "style_weight"),
        ({"steps": 0}, "steps"),
    ],
)
def test_mistakes(changed, message):
    options = {"content_layers": ["maps"], "style_layers": ["maps"], "style": jnp.ones((1, 6, 6, 2)), **changed}
    style = options.pop("style")
    with pytest.raises(UsageError, match=message):
        attribution.style_transfer(network, jnp.ones((2, 6, 6, 2)), style, **options)
