"""Regression of a digit's ink and the position of its centre: a new task with its config and its own figure."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from cnn_jax import tasks, train


class Ink(tasks.Task):
    """How much of an image is ink, and where its centre is between the left (-1) and the right edge (1)."""

    outputs = ("ink", "centre")
    traced = ("ink_weight",)

    def __init__(self, config: ConfigDict, examples: tasks.Examples) -> None:
        self.config = config

    @classmethod
    def default_config(cls) -> ConfigDict:
        return ConfigDict({"ink_weight": 1.0})  # of the error of the ink, relative to that of the centre

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[tasks.Metric, ...]:
        return tasks.Metric("error", "lower"), tasks.Metric("loss", "lower")

    def loss(self, outputs: Array, batch: train.Batch) -> Array:
        return self.squares(outputs, batch).mean()

    def squares(self, outputs: Array, batch: train.Batch) -> Array:
        """The weighted squared error of each example."""
        weights = jnp.array([self.config.ink_weight, 1.0])
        return (jnp.square(outputs - true_values(batch["image"])) * weights).mean(axis=-1)

    def measure(self, outputs: Array, batch: train.Batch) -> train.Metrics:
        error = jnp.abs(outputs - true_values(batch["image"])).mean(axis=-1)
        return {"loss": tasks.mean_over(self.squares(outputs, batch), batch), "error": tasks.mean_over(error, batch)}

    def targets(self, batch: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        return [{"true ink": ink, "true centre": centre} for ink, centre in true_values(batch["image"]).tolist()]

    def sections(self, results: tasks.Results) -> list[Any]:
        from matplotlib.figure import Figure

        from cnn_jax.report.page import Section

        figure = Figure(figsize=(6, 3))
        true = np.asarray(true_values(results.test_set.images))
        for column, (name, axes) in enumerate(zip(self.outputs, figure.subplots(1, 2), strict=True)):
            axes.scatter(true[:, column], results.predictions[:, column], s=4)
            axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
        return [Section("Predicted and true values", figure=figure, alt="Predicted over true ink and centre")]


def true_values(images: Array | np.ndarray) -> Array:
    """Ink and centre of images (n, height, width, 1): (n, 2)."""
    pixels = jnp.asarray(images, jnp.float32)[..., 0] / (255 if images.dtype == jnp.uint8 else 1)
    columns = jnp.linspace(-1, 1, pixels.shape[2])
    centre = (pixels * columns).sum(axis=(1, 2)) / pixels.sum(axis=(1, 2))
    return jnp.stack([pixels.mean(axis=(1, 2)), centre], axis=-1)


def get_config() -> ConfigDict:
    """LeNet-5 on the digits, in short steps."""
    config = tasks.default_config(f"{__file__}:Ink")
    config.model.width = 0.5
    config.data.augment = ("affine(translation=0.1)",)
    config.batch_size = 64
    config.duration, config.evaluate_every, config.steps_per_call = "160 steps", "20 steps", 5
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.003
    return config
