"""Autoencoder: the network learns to give its input back, through a layer of few numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.data.augment.arguments import from_zero_to_one
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.models.autoencoder import LATENT
from cnn_jax.tasks.predictions import write_image
from cnn_jax.tasks.task import Examples, Results, Task, mean_over

LOSSES = ("cross_entropy", "mse")
_COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


class Autoencoder(Task):
    """The image itself: the network's output is an image of the shape of its input.

    Pixels from 0 to 1 are compared with the output: by the cross entropy of the output's sigmoid, or by the squared
    error. No labels are needed; where there are some, the report colours the codes of images by them. The network must
    have a layer called ``latent``, whose output is the code of an image, as ``conv_autoencoder`` has. Noise in training
    is an option of that network, ``model.options={'noise': 0.5}``.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their images.

    Raises:
      UsageError: The data set has no images or images of another shape than ``input_shape``, or a value in the config
        is unknown or has no meaning for this task.
    """

    writes_files = True

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        if examples.input_kind != "image":
            raise UsageError(f"data set {examples.name!r}: an autoencoder needs images, not {examples.input_kind}s")
        self._image, self._shape = examples.input_name, tuple(config.input_shape)
        if tuple(examples.image_shape) != self._shape:
            raise UsageError(
                f"data set {examples.name!r} has images of shape {tuple(examples.image_shape)}, which an autoencoder "
                f"gives back as they are; set input_shape to it instead of {self._shape}"
            )
        if config.loss not in LOSSES:
            raise UsageError(f"loss={config.loss!r} is unknown; {nearest(config.loss, LOSSES)}")
        if config.data.test_time:
            raise UsageError(
                f"data.test_time={config.data.test_time!r} has no meaning for an autoencoder; leave it out"
            )
        labels = (name for name, field in examples.spec.items() if field.kind == "label" and not field.count)
        self._label, self._class_names = next(labels, None), examples.class_names
        channels = self._shape[-1]
        self.outputs = _COLOURS.get(channels, tuple(f"channel_{number}" for number in range(1, channels + 1)))

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of autoencoders.

        >>> Autoencoder.default_config().loss
        'cross_entropy'
        """
        return ConfigDict({"loss": "cross_entropy"})  # of each pixel, or mse

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """The root mean square error of the pixels from 0 to 1, and the loss."""
        return (Metric("rmse", "lower"), Metric("loss", "lower"))

    def loss(self, outputs: Float[Array, "batch height width channels"], batch: training.Batch) -> Float[Array, ""]:
        """The mean loss of the pixels."""
        return self._losses(outputs, self._pixels(batch)).mean()

    def measure(self, outputs: Float[Array, "batch height width channels"], batch: training.Batch) -> training.Metrics:
        """The loss and the squared error."""
        pixels = self._pixels(batch)
        squared = jnp.square(self.predict(outputs) - pixels).mean(axis=(1, 2, 3))
        return {"loss": mean_over(self._losses(outputs, pixels), batch), "squared": mean_over(squared, batch)}

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The root of the mean squared error of the split."""
        scores = super().scores({name: value for name, value in means.items() if name != "squared"})
        return scores | ({"rmse": float(np.sqrt(means["squared"]))} if "squared" in means else {})

    def predict(
        self, outputs: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Images from 0 to 1."""
        outputs = outputs.astype(jnp.float32)
        return jax.nn.sigmoid(outputs) if self.config.loss == "cross_entropy" else jnp.clip(outputs, 0, 1)

    def rows(self, predictions: Float[np.ndarray, "n height width channels"]) -> list[dict[str, Any]]:
        """Nothing: reconstructions are written as images, see :meth:`write_prediction`."""
        return [{} for _ in predictions]

    def inspect(
        self,
        inputs: Shaped[np.ndarray, "n height width channels"],
        predictions: Float[np.ndarray, "n height width channels"],
        activations: Callable[[], Mapping[str, Shaped[np.ndarray, "..."]]],
    ) -> list[dict[str, Any]]:
        """The root mean square error of the reconstruction, and the code: ``code_1``, ``code_2`` and so on."""
        pixels = inputs / np.float32(255) if inputs.dtype == np.uint8 else inputs
        errors = np.sqrt(np.square(pixels - predictions).mean(axis=(1, 2, 3)))
        codes = activations()[LATENT].reshape(len(inputs), -1)
        return [
            {"rmse": float(error), **{f"code_{number}": float(value) for number, value in enumerate(code, start=1)}}
            for error, code in zip(errors, codes, strict=True)
        ]

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The class of the image, where the data set has one, to tell codes apart."""
        if self._label is None:
            return super().targets(batch)
        return [{"label": self._class_names[label] if label >= 0 else ""} for label in batch[self._label]]

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """The reconstruction as an image of the format of the user's file, or PNG where that cannot be written."""
        pixels = np.rint(255 * np.asarray(prediction)).astype(np.uint8)
        formats = Image.registered_extensions()
        suffix = source.suffix.lower() if formats.get(source.suffix.lower()) in Image.SAVE else ".png"
        write_image(folder / f"{name}{suffix}", pixels)

    def headlines(self, results: Results) -> list[Any]:
        """The root mean square error, and how many numbers an image becomes."""
        from cnn_jax.report.page import Headline

        numbers = _codes(results, results.test_set.inputs[:1]).shape[-1]
        pixels = int(np.prod(self._shape))
        return [
            Headline("test RMSE", f"{results.scores['test/rmse']:.4f}", note="of pixels from 0 to 1"),
            Headline("numbers per image", f"{numbers:,}", note=f"instead of {pixels:,} pixels"),
        ]

    def sections(self, results: Results) -> list[Any]:
        """Reconstructions, the codes of test images coloured by class, and images that are decoded from a grid."""
        from cnn_jax.tasks.autoencoder_report import sections

        return sections(self, results)

    def _losses(self, outputs: Array, pixels: Array) -> Float[Array, " batch"]:
        if outputs.shape != pixels.shape:
            raise UsageError(
                f"model.name={self.config.model.name!r} has outputs of shape {outputs.shape[1:]}, but an autoencoder "
                f"of images of {pixels.shape[1:]} must give these back; use conv_autoencoder"
            )
        if self.config.loss == "mse":
            return jnp.square(outputs.astype(jnp.float32) - pixels).mean(axis=(1, 2, 3))
        return ops.sigmoid_cross_entropy(outputs, pixels).mean(axis=(1, 2, 3))

    def _pixels(self, batch: Mapping[str, Array]) -> Float[Array, "batch height width channels"]:
        return from_zero_to_one(batch[self._image]).astype(jnp.float32)


def _codes(results: Results, images: Shaped[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "n numbers"]:
    """The outputs of the layer ``latent`` for raw images."""
    from cnn_jax.tasks.autoencoder_report import codes

    return codes(results.explained, images)
