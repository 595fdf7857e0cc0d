"""Image to image: a whole image is predicted from another one, such as its colours or what a hole hides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.data.augment.arguments import from_zero_to_one
from cnn_jax.data.fields import PIXEL_KINDS
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.nn.skips import cut
from cnn_jax.ops.arguments import by
from cnn_jax.ops.image_quality import WINDOWS
from cnn_jax.tasks.task import Examples, Results, Task, mean_over

LOSSES = ("l1", "l2")
PREDICTED = ("pixels", "lab")
AB_SCALE = 110.0  # of the network's outputs in Lab; the largest a and b of sRGB are about so large


class ImageToImage(Task):
    """One image for each image: a second field of kind image, volume or video, of the size of the input.

    The input is the field that is called by its kind, such as ``image``; the other one is the truth. What the network
    predicts is ``config.predicts``: ``'pixels'``, each channel of the truth from 0 to 1, as the sigmoid of an output;
    or ``'lab'``, for colours from grey: a and b of CIE L*a*b*, while L is that of the input.

    Scores compare the images from 0 to 1, colours as sRGB: the mean absolute error as a share of white, and the means
    over the images of the peak signal-to-noise ratio and of the structural similarity. If the examples also have a
    mask, there is the mean absolute error of the pixels of each of its classes, such as ``mae_hole``.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their two images.

    Raises:
      UsageError: There is no second image or its size is another one, or a value in the config is unknown or has no
        meaning for this task.
    """

    spatial = True
    writes_files = True

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config, spec = config, examples.spec
        self._input = examples.input_name
        kind = spec[self._input].kind
        others = [name for name, field in spec.items() if field.kind in PIXEL_KINDS and name != self._input]
        if kind not in PIXEL_KINDS or len(others) != 1 or spec[others[0]].kind != kind:
            held = ", ".join(f"{name} ({field.kind})" for name, field in spec.items())
            raise UsageError(
                f"data set {examples.name!r}: image_to_image needs two images, the input called 'image' and one other "
                f"that is the truth; it has {held}"
            )
        (self._truth,) = others
        sizes = [(spec[name].shape or ())[:-1] for name in (self._input, self._truth)]
        if sizes[0] != sizes[1]:
            raise UsageError(
                f"data set {examples.name!r}: {self._input} is {by(sizes[0])}, but {self._truth} is "
                f"{by(sizes[1])}; give both one size"
            )
        for key, known in (("loss", LOSSES), ("predicts", PREDICTED), ("ssim_window", WINDOWS)):
            if config[key] not in known:
                raise UsageError(f"{key}={config[key]!r} is unknown; {nearest(config[key], known)}")
        channels = (spec[self._truth].shape or (1,))[-1]
        if config.predicts == "lab" and channels != 3:
            raise UsageError(f"predicts='lab' is for colours; {self._truth} of {examples.name!r} has one channel")
        for key, only in (("resize", "none"), ("test_time", "")):
            if config.data[key] != only:
                raise UsageError(
                    f"data.{key}={config.data[key]!r} has no meaning for image_to_image, whose images keep their size; "
                    f"use {only!r}"
                )
        self._masks = next((name for name, field in spec.items() if field.kind == "mask" and field.class_names), None)
        self._classes = spec[self._masks].class_names if self._masks else ()
        named = {1: ("grey",), 3: ("red", "green", "blue")}.get(channels)
        self.outputs = named or tuple(f"channel_{number}" for number in range(1, channels + 1))
        if config.predicts == "lab":
            self.outputs = ("a", "b")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of the task.

        >>> ImageToImage.default_config().loss
        'l1'
        """
        return ConfigDict(
            {
                "loss": "l1",  # of what is predicted, the mean absolute error; or l2, the mean squared error
                "predicts": "pixels",  # or lab: a and b of L*a*b*, for colours from grey
                "ssim_window": "gaussian",  # of 11 pixels, sigma 1.5 (Wang et al. 2004); or uniform, 7 pixels
                "data": {"resize": "none"},
            }
        )

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """The mean absolute error, PSNR, SSIM and the loss."""
        return (
            Metric("mae", "lower", "%"),
            Metric("psnr", "higher", "dB"),
            Metric("ssim", "higher"),
            Metric("loss", "lower"),
        )

    def loss(self, outputs: Float[Array, "batch *space channels"], batch: training.Batch) -> Float[Array, ""]:
        """The mean over the pixels and channels that are predicted."""
        return self._losses(outputs, batch).mean()

    def measure(self, outputs: Float[Array, "batch *space channels"], batch: training.Batch) -> training.Metrics:
        """The loss and the mean absolute error; in evaluation also PSNR and SSIM, and the errors of each class."""
        truth, images = self._cut(batch[self._truth], outputs), self.images(outputs, batch[self._input])
        errors = jnp.abs(images - truth).mean(axis=-1)
        space = tuple(range(1, errors.ndim))
        metrics: training.Metrics = {"loss": mean_over(self._losses(outputs, batch), batch)}
        metrics["mae"] = mean_over(errors.mean(space), batch)
        if "mask" not in batch:
            return metrics
        metrics["psnr"] = mean_over(ops.psnr(images, truth), batch)
        metrics["ssim"] = mean_over(ops.ssim(images, truth, window=self.config.ssim_window), batch)
        if self._masks:
            classes = cut(batch[self._masks][..., None], errors.shape[1:])[..., 0]
            each = [(classes == number).astype(errors.dtype) for number in range(len(self._classes))]
            metrics["class_errors"] = mean_over(jnp.stack([(errors * one).mean(space) for one in each], axis=-1), batch)
            metrics["class_shares"] = mean_over(jnp.stack([one.mean(space) for one in each], axis=-1), batch)
        return metrics

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """Also the mean absolute error of the pixels of each class of a mask, where there is one."""
        scores = super().scores(means)
        if "class_errors" in means:
            for name, error, share in zip(self._classes, means["class_errors"], means["class_shares"], strict=True):
                scores |= {f"mae_{name}": float(error / share)} if share else {}
        return scores

    def predict(self, outputs: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Pixels from 0 to 1; or a and b."""
        outputs = outputs.astype(jnp.float32)
        return AB_SCALE * outputs if self.config.predicts == "lab" else jax.nn.sigmoid(outputs)

    def images(
        self,
        outputs: Float[Array, "batch *space channels"],
        inputs: Shaped[Array, "batch *space_before channels_before"],
    ) -> Float[Array, "batch *space channels_after"]:
        """The images from 0 to 1 that outputs mean.

        Args:
          outputs: Of the network, for the middle of the inputs or all of them.
          inputs: What the network was given, before preprocessing.
        """
        return self.composed(self.predict(outputs), self._cut(inputs, outputs))

    def composed(
        self, predictions: Shaped[Any, "batch *space channels"], inputs: Shaped[Any, "batch *space channels_before"]
    ) -> Float[Array, "batch *space channels_after"]:
        """The images from 0 to 1 of predictions, which in Lab take their lightness from the inputs.

        Args:
          predictions: Of :meth:`predict`.
          inputs: Of the same size; uint8, or from 0 to 1.
        """
        predictions = jnp.asarray(predictions)
        if self.config.predicts != "lab":
            return predictions
        colours = jnp.broadcast_to(scaled(inputs), (*predictions.shape[:-1], 3))
        return ops.lab_to_rgb(jnp.concatenate([ops.rgb_to_lab(colours)[..., :1], predictions], axis=-1))

    def truth(self, fields: Mapping[str, Shaped[Any, "..."]]) -> Shaped[Any, "..."]:
        """The true images among the fields of a set or a batch, as they are stored."""
        return fields[self._truth]

    def image_scores(
        self, images: Shaped[Any, "n *space channels"], truth: Shaped[Any, "n *space channels"]
    ) -> dict[str, Float[np.ndarray, " n"]]:
        """The mean absolute error, PSNR and SSIM of each image.

        Args:
          images: From 0 to 1.
          truth: uint8, or from 0 to 1.
        """
        images, truth = jnp.asarray(images), scaled(truth)
        errors = jnp.abs(images - truth).mean(axis=tuple(range(1, images.ndim)))
        similarity = _ssim(images, truth, window=self.config.ssim_window)
        found = {"mae": errors, "psnr": ops.psnr(images, truth), "ssim": similarity}
        return {name: np.asarray(values) for name, values in found.items()}

    def rows(self, predictions: Float[np.ndarray, "n *space channels"]) -> list[dict[str, Any]]:
        """The mean value of each channel that is predicted."""
        means = predictions.mean(axis=tuple(range(1, predictions.ndim - 1)))
        return [dict(zip((f"mean {name}" for name in self.outputs), row.tolist(), strict=True)) for row in means]

    def compared(
        self, predictions: Float[np.ndarray, "n *space channels"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """The scores of each image."""
        images = self.composed(predictions, batch[self._input])
        scores = self.image_scores(images, batch[self._truth])
        return [
            {name: f"{values[number]:.6f}" for name, values in scores.items()} for number in range(len(predictions))
        ]

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """The predicted image as PNG."""
        from cnn_jax.tasks.image_to_image_report import write_prediction  # brings in matplotlib

        write_prediction(self, folder, name, image=image, prediction=prediction)

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """The metrics, and the error of each class of pixels."""
        share = self.metrics(self.config)[0]
        each = {name: share.format(scores[name]) for name in map("mae_{}".format, self._classes) if name in scores}
        return super().describe(scores) | each

    def headlines(self, results: Results) -> list[Any]:
        """Error, PSNR and SSIM on the test set."""
        from cnn_jax.tasks.image_to_image_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Inputs beside truth, prediction and error; and the scores of the input itself as a baseline."""
        from cnn_jax.tasks.image_to_image_report import sections

        return sections(self, results)

    def typical(self, results: Results) -> tuple[int, str]:
        """The test image whose error is the median."""
        images = self.composed(results.predictions, results.test_set.inputs)
        errors = np.asarray(jnp.abs(images - scaled(self.truth(results.test_set.fields))).mean(range(1, images.ndim)))
        chosen = int(np.argsort(errors, kind="stable")[len(errors) // 2])
        return chosen, f"test {results.test_set.input_kind} {chosen}"

    def _losses(self, outputs: Array, batch: training.Batch) -> Float[Array, " batch"]:
        truth = self._cut(batch[self._truth], outputs)
        if self.config.predicts == "lab":
            errors = outputs.astype(jnp.float32) - ops.rgb_to_lab(truth)[..., 1:] / AB_SCALE
        else:
            errors = self.predict(outputs) - truth
        return (jnp.abs(errors) if self.config.loss == "l1" else jnp.square(errors)).mean(range(1, errors.ndim))

    def _cut(self, images: Array, outputs: Array) -> Float[Array, "batch *space channels"]:
        """The middle of images that the outputs are for, from 0 to 1."""
        return cut(scaled(images), outputs.shape[1:-1])


_ssim = jax.jit(ops.ssim, static_argnames="window")  # a report has thousands of images


def scaled(images: Shaped[Any, "..."]) -> Float[Array, "..."]:
    """Pixels from 0 to 1, float32."""
    return from_zero_to_one(jnp.asarray(images)).astype(jnp.float32)
