"""What the report of an autoencoder shows: reconstructions, codes, and images that are decoded from codes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.models.autoencoder import LATENT
from cnn_jax.report import figures
from cnn_jax.report.page import Section
from cnn_jax.tasks.responses import Explained
from cnn_jax.tasks.task import Results, Task

_SHOWN = 8  # test images
_GRID = 10  # images in a row of those that are decoded
_AT_ONCE = 500
_INNER = (0.02, 0.98)  # the grid's ends, as quantiles of the codes


def codes(
    explained: Explained, images: Shaped[np.ndarray, "n height width channels"]
) -> Float[np.ndarray, "n numbers"]:
    """What the layer ``latent`` makes of raw images.

    Raises:
      UsageError: The network has no such layer.
    """
    if LATENT not in explained.model.names:
        raise UsageError(
            f"an autoencoder needs a layer called {LATENT!r}; this network has {', '.join(explained.model.names)}"
        )
    graph, state = nnx.split(explained.model)

    @jax.jit
    def encode(state: Any, x: Array) -> Array:
        found = nnx.merge(graph, state)(x, return_activations=True)[1][LATENT]
        return found.reshape(len(found), -1).astype(jnp.float32)

    parts = (images[first : first + _AT_ONCE] for first in range(0, len(images), _AT_ONCE))
    return np.concatenate([np.asarray(encode(state, explained.inputs(part))) for part in parts])


def decoded(explained: Explained, task: Task, points: Float[np.ndarray, "n numbers"]) -> Float[np.ndarray, "n ..."]:
    """The images that the layers after ``latent`` make of codes."""
    x = jnp.zeros((len(points), *explained.preprocess.input_shape))
    outputs = explained.model(x, intercept={LATENT: lambda z: jnp.asarray(points, z.dtype).reshape(z.shape)})
    return np.asarray(task.predict(outputs))


def sections(task: Task, results: Results) -> list[Section]:
    """Reconstructions, the codes of test images coloured by class, and images that are decoded from a grid."""
    explained, test_set = results.explained, results.test_set
    rows = {
        "test images": test_set.inputs[:_SHOWN],
        "reconstructions": results.predictions[:_SHOWN],
        "largest errors": test_set.inputs[worst := _worst(results)],
        "their reconstructions": results.predictions[worst],
    }
    noise = results.config.model.options.get("noise", 0.0)
    if noise:
        inputs = np.asarray(explained.inputs(test_set.inputs[:_SHOWN]))
        noisy = inputs + noise * np.random.default_rng(0).normal(size=inputs.shape).astype(np.float32)
        rows["with the noise of training"] = explained.shown(noisy)
        rows["reconstructions of these"] = np.asarray(task.predict(explained.model(jnp.asarray(noisy))))
    points = codes(explained, test_set.inputs)
    centre, axes, plane = _plane(points)
    numbers = points.shape[1]
    what = "The two numbers" if numbers == 2 else f"The first two principal components of the {numbers} numbers"
    low, high = np.quantile(plane, _INNER, axis=0)
    across, down = (np.linspace(low[axis], high[axis], _GRID) for axis in (0, 1))
    grid = {
        f"{y:.3g}": decoded(explained, task, centre + np.array([[x, y] for x in across]) @ axes) for y in down[::-1]
    }
    labels = test_set.labels if test_set.class_names else None
    return [
        Section(
            "Reconstructions",
            figure=figures.rows_of_images(rows),
            alt="Test images and what the network makes of them",
        ),
        Section(
            "Codes",
            text=f"{what} that each of {len(points):,} test images becomes.",
            figure=figures.code_map(plane, labels, test_set.class_names),
            alt="The codes of test images in a plane" + (", coloured by class" if labels is not None else ""),
            caption="Classes were not shown in training." if labels is not None else "",
        ),
        Section(
            "Decoded",
            text="Images that the decoder makes of a grid over the plane above"
            + (", in which all other components are those of the mean code." if numbers > 2 else "."),
            figure=figures.grid_of_images(np.stack([*grid.values()])),
            alt="A grid of images that are decoded from codes",
            caption=f"From left to right {across[0]:.3g} to {across[-1]:.3g}, from bottom to top {down[0]:.3g} to "
            f"{down[-1]:.3g}: the ranges of 96 % of the codes.",
        ),
    ]


def _worst(results: Results) -> np.ndarray:
    """The test images with the largest squared errors."""
    images = results.test_set.inputs
    pixels = images / np.float32(255) if images.dtype == np.uint8 else images
    errors = np.square(pixels - results.predictions).mean(axis=(1, 2, 3))
    return np.argsort(-errors, kind="stable")[:_SHOWN]


def _plane(points: Float[np.ndarray, "n numbers"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A centre and two axes of codes, and the coordinates of the codes: the axes themselves if there are two."""
    count = points.shape[1]
    if count <= 2:
        return np.zeros(count), np.eye(2)[:, :count], points if count == 2 else points @ np.eye(2)[:1]
    centre = points.mean(axis=0)
    axes = np.linalg.svd(points - centre, full_matrices=False)[2][:2]
    return centre, axes, (points - centre) @ axes.T
