"""Localisation: the class of the one object of an image, and the four numbers of its box."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from ml_collections import ConfigDict

from cnn_jax import data, ops
from cnn_jax import train as training
from cnn_jax.data.boxes import placement
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.tasks.boxed import BoxFields, check_images_stay
from cnn_jax.tasks.detection_scores import Detected
from cnn_jax.tasks.task import Examples, Results, TargetStatistics, Task, mean_over

LOSSES = ("smooth_l1", "giou")
SIDES = ("top", "left", "bottom", "right")
_IOU = 0.5  # from which on a box is right


class Localization(Task):
    """One class and one box for each image: fields of kind ``boxes`` and ``label`` with one count.

    The network has a class head and a box head, as ``localizer`` has; with its option ``separate`` they are trained
    separately. The four numbers are corners in pixels, standardised by their mean and standard deviation over the
    training set. The box of these means, which is the same for every image, is scored as well: a network that has not
    learned where objects are is not better.

    Of an image with several objects the first one counts. Images whose objects augmentation has moved out have no loss.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: The class names of their boxes are the names of the first outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range, or no boxes with classes.
    """

    traced = ("box_weight", "label_smoothing")
    writes_files = True

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        self.fields = BoxFields.of(examples)
        self.class_names = examples.spec[self.fields.label].class_names
        self.outputs = (*self.class_names, *SIDES)
        height, width = tuple(config.input_shape[:2])
        unknown = TargetStatistics((0.0, 0.0, float(height), float(width)), (float(height), float(width)) * 2)
        found = examples.targets.get(self.fields.boxes, unknown)
        self.constant = np.array(found.mean, np.float32)
        self._std = np.maximum(np.array(found.std, np.float32), 1e-2 * max(height, width))
        if config.box_loss not in LOSSES:
            raise UsageError(f"box_loss={config.box_loss!r} is unknown; {nearest(config.box_loss, LOSSES)}")
        check_images_stay(config, "localisation")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of localisation.

        >>> Localization.default_config().box_loss
        'smooth_l1'
        """
        return ConfigDict(
            {
                "label_smoothing": 0.0,
                "box_loss": "smooth_l1",  # of standardised corners; or giou
                "box_weight": 1.0,  # of the loss of the box, beside that of the class
                "data": {"resize": "none", "invalid_boxes": "fix"},
            }
        )

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """How often class and box are both right, accuracy, the mean IoU, that of the constant box, and the loss."""
        return (
            Metric("both", "higher", "%"),
            Metric("accuracy", "higher", "%"),
            Metric("iou", "higher", "%"),
            Metric("iou_of_constant_box", "higher", "%"),
            Metric("loss", "lower"),
        )

    def loss(self, outputs: Float[Array, "batch outputs"], batch: training.Batch) -> Float[Array, ""]:
        """The mean over the images with an object of the loss of the class and that of the box."""
        _, _, there = self._first(batch)
        losses = self._losses(outputs, batch, label_smoothing=self.config.label_smoothing)
        return losses.sum() / jnp.maximum(there.sum(), 1).astype(losses.dtype)

    def measure(self, outputs: Float[Array, "batch outputs"], batch: training.Batch) -> training.Metrics:
        """The loss without smoothing, the accuracy, the IoU, and how often class and box are both right."""
        box, label, there = self._first(batch)
        mask = batch.get("mask", jnp.ones(len(label)))
        counted = {"mask": mask * there.astype(mask.dtype)}
        right = outputs[:, : len(self.class_names)].argmax(axis=-1) == label
        iou = ops.box_iou(self._corners(outputs), box)
        constant = ops.box_iou(jnp.asarray(self.constant), box)
        values = {
            "both": (right & (iou >= _IOU)).astype(jnp.float32),
            "accuracy": right.astype(jnp.float32),
            "iou": iou,
            "iou_of_constant_box": constant,
            "loss": self._losses(outputs, batch),
        }
        return {name: mean_over(value, counted) for name, value in values.items()}

    def predict(self, outputs: Float[Array, "batch outputs"]) -> Float[Array, "batch outputs"]:
        """Class probabilities, and the corners in pixels."""
        classes = jax.nn.softmax(outputs[:, : len(self.class_names)].astype(jnp.float32))
        limits = jnp.array(self.config.input_shape[:2] * 2, jnp.float32)
        return jnp.concatenate([classes, self._corners(outputs).clip(0, limits)], axis=-1)

    def of_file(self, prediction: Float[np.ndarray, " outputs"], size: tuple[int, ...], framing: str) -> Any:
        """The prediction with corners in pixels of the image of the file, cut at its border."""
        scale, offset = placement(size, self.config.input_shape[:2], framing)
        corners = (prediction[-4:] - np.tile(offset, 2)) / np.tile(scale, 2)
        return np.concatenate([prediction[:-4], corners.clip(0, np.tile(size, 2))]).astype(prediction.dtype)

    def rows(self, predictions: Float[np.ndarray, "n outputs"]) -> list[dict[str, Any]]:
        """The most probable class, its probability, and the corners in pixels."""
        return [
            {
                "class": self.class_names[int(row[:-4].argmax())],
                "probability": f"{row[:-4].max():.6f}",
                **{side: f"{edge:.2f}" for side, edge in zip(SIDES, row[-4:], strict=True)},
            }
            for row in predictions
        ]

    def brief_rows(self, predictions: Float[np.ndarray, "n outputs"]) -> list[dict[str, str]]:
        """The same with fewer digits."""
        return [
            {
                "class": self.class_names[int(row[:-4].argmax())],
                "probability": f"{row[:-4].max():.1%}",
                "top, left, bottom, right": ", ".join(f"{edge:.0f}" for edge in row[-4:]),
            }
            for row in predictions
        ]

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true class and the true corners; empty for an image without an object."""
        found = []
        for truth in self.fields.truths(batch):
            there = len(truth.classes) > 0
            edges = [f"{edge:.2f}" for edge in truth.boxes[0]] if there else [""] * 4
            named = {f"true {side}": edge for side, edge in zip(SIDES, edges, strict=True)}
            found.append({"label": self.class_names[truth.classes[0]] if there else "", **named})
        return found

    def compared(
        self, predictions: Float[np.ndarray, "n outputs"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """The IoU of each image."""
        return [{"iou": "" if np.isnan(value) else f"{value:.6f}"} for value in self.overlaps(predictions, batch)]

    def overlaps(
        self, predictions: Float[np.ndarray, "n outputs"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> Float[np.ndarray, " n"]:
        """The IoU of the predicted box of each image with the true one; NaN without an object."""
        iou = np.asarray(ops.box_iou(predictions[:, -4:], batch[self.fields.boxes][:, 0]))
        return np.where(batch[self.fields.counted_by] > 0, iou, np.nan)

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """The image of the file with its box."""
        from cnn_jax.tasks.detection_report import write_overlay  # brings in matplotlib

        whole = data.read_whole(source, channels=image.shape[-1]).pixels
        write_overlay(folder / f"{name}.png", whole, self._detected(prediction), self.class_names)

    def write_predictions(self, folder: Path, predictions: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
        """All boxes as ``boxes.csv``, a line for each, and as ``boxes.json`` of COCO's form."""
        from cnn_jax.tasks.detection_report import write_boxes

        write_boxes(folder, self.class_names, {file: self._detected(row) for file, row in predictions.items()}, sizes)

    def headlines(self, results: Results) -> list[Any]:
        """How often class and box are both right, the accuracy and the mean IoU beside that of the constant box."""
        from cnn_jax.tasks.localization_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Images with true and predicted boxes, and the scores beside those of the constant box."""
        from cnn_jax.tasks.localization_report import sections

        return sections(self, results)

    def typical(self, results: Results) -> tuple[int, str]:
        """The test example whose IoU is the median."""
        order = np.argsort(
            np.nan_to_num(self.overlaps(results.predictions, results.test_set.fields), nan=-1), kind="stable"
        )
        chosen = int(order[len(order) // 2])
        return chosen, f"test image {chosen}"

    def _detected(self, prediction: Float[np.ndarray, " outputs"]) -> Detected:
        classes = prediction[:-4]
        return Detected(prediction[None, -4:], classes.max(keepdims=True), np.array([classes.argmax()]))

    def _first(self, batch: training.Batch) -> tuple[Array, Array, Array]:
        """The box and the class of the first object of each image, and whether there is one."""
        return batch[self.fields.boxes][:, 0], batch[self.fields.label][:, 0], batch[self.fields.counted_by] > 0

    def _corners(self, outputs: Float[Array, "batch outputs"]) -> Float[Array, "batch 4"]:
        """The predicted corners in pixels; the bottom is never above the top, nor the right before the left."""
        edges = outputs[:, -4:].astype(jnp.float32) * jnp.asarray(self._std) + jnp.asarray(self.constant)
        return jnp.concatenate([edges[:, :2], jnp.maximum(edges[:, 2:], edges[:, :2])], axis=-1)

    def _losses(
        self, outputs: Float[Array, "batch outputs"], batch: training.Batch, *, label_smoothing: Any = 0.0
    ) -> Float[Array, " batch"]:
        """The loss of each image, 0 of one without an object."""
        box, label, there = self._first(batch)
        of_class = ops.softmax_cross_entropy(
            outputs[:, : len(self.class_names)], label.astype(jnp.int32), label_smoothing=label_smoothing
        )
        if self.config.box_loss == "giou":
            of_box = 1 - ops.generalized_box_iou(self._corners(outputs), box)
        else:
            targets = (box - jnp.asarray(self.constant)) / jnp.asarray(self._std)
            of_box = ops.huber_loss(outputs[:, -4:].astype(jnp.float32), targets)
        return jnp.where(there, of_class + self.config.box_weight * of_box, 0)
