"""Grad-CAM against class activation maps, and occlusion against loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn, ops
from cnn_jax.attribution import grad_cam, occlusion
from cnn_jax.errors import UsageError

X = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
MODEL = nn.Sequence(
    {
        "tanh": jnp.tanh,
        "half": nn.AvgPool((2, 2)),
        "mean": ops.global_avg_pool,
        "logits": nn.Linear(3, 5, rngs=nnx.Rngs(0)),
    }
)


def test_before_a_mean_and_a_dense_layer_it_is_the_class_activation_map():
    half = np.tanh(np.asarray(X)).reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    weights = np.asarray(MODEL.logits.kernel[...])[:, [1, 4]].T  # of the two classes
    expected = np.maximum((half * weights[:, None, None] / 6).sum(-1, keepdims=True), 0)
    found = grad_cam(MODEL, X, np.array([1, 4]), activation="half", resize=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    resized = grad_cam(MODEL, X, np.array([1, 4]), activation="half")
    np.testing.assert_allclose(resized, ops.upsample(expected, 2, method="bilinear"), atol=1e-6)
    rest = lambda half: MODEL.logits(half.mean((1, 2)))  # noqa: E731
    split = grad_cam(rest, jnp.asarray(half), np.array([1, 4]), activation=None, resize=False)
    np.testing.assert_allclose(split, expected, atol=1e-6)


@pytest.mark.parametrize(("window", "strides", "batch_size"), [((2, 3), None, 1), ((2, 3), 1, 4), (3, (2, 3), 1)])
def test_occlusion_is_the_mean_decrease_over_the_windows_that_cover_a_pixel(window, strides, batch_size):
    function = lambda x: x[:, 0] * x[:, 3] + x[:, 1, :, :2].sum((1, 2))[:, None, None]  # noqa: E731

    def target(y):
        return (y**2).sum((1, 2))

    cover = np.arange(3.0)
    sizes = (window, window) if isinstance(window, int) else window
    steps = sizes if strides is None else (strides, strides) if isinstance(strides, int) else strides
    starts = [
        [s for s in range(0, full, step) if s == 0 or s - step + size < full]
        for full, size, step in zip((4, 6), sizes, steps, strict=True)
    ]
    drops, counts = np.zeros((2, 4, 6)), np.zeros((4, 6))
    before = np.asarray(target(function(X)))
    for top, left in itertools.product(*starts):
        changed, place = np.array(X), (slice(top, top + sizes[0]), slice(left, left + sizes[1]))
        changed[:, *place] = cover
        drops[:, *place] += (before - np.asarray(target(function(jnp.asarray(changed)))))[:, None, None]
        counts[place] += 1
    options = {"window": window, "strides": strides, "baseline": cover, "batch_size": batch_size}
    found = occlusion(function, X, target, **options)
    np.testing.assert_allclose(found[..., 0], drops / counts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (grad_cam, {"activation": "halt"}, "no activation is called 'halt'; did you mean 'half'"),
        (grad_cam, {"activation": "mean"}, r"activation 'mean' of shape \(2, 3\) has no spatial axes"),
        (occlusion, {"window": (5, 1)}, r"window=\(5, 1\) does not fit"),
        (occlusion, {"window": 2, "strides": 3}, r"strides=\(3, 3\) leave gaps"),
        (occlusion, {"window": (2,)}, r"window=\(2,\) does not fit into the spatial axes"),
    ],
)
def test_mistakes_are_said_in_one_line(method, options, message):
    with pytest.raises(UsageError, match=f"{method.__name__}: {message}"):
        method(MODEL, X, 1, **options)


def test_targets_and_networks_that_do_not_fit():
    with pytest.raises(UsageError, match="occlusion: the target returns one number for 2 images"):
        occlusion(MODEL, X, lambda y: y.sum(), window=2)
    with pytest.raises(UsageError, match=r"grad_cam: the function has no named activations: it does not take inter"):
        grad_cam(lambda x: MODEL(x), X, 1, activation="half")
