"""Segmentation: one class for each pixel of an image, or of a volume; the number of axes follows from the input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Shaped
from ml_collections import ConfigDict

from cnn_jax import data, ops
from cnn_jax import train as training
from cnn_jax.data import augment
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.nn.skips import cut
from cnn_jax.tasks.labelled import ClassWeighted
from cnn_jax.tasks.task import Examples, Results, mean_over

BORDER_WEIGHTS = "border_weights"  # the field of U-Net's weight map
OVER = {"set": "of the pixels of the whole set", "image": "of each image, averaged over the images"}
EMPTY = {"ignore": "is left out", "0": "counts 0", "1": "counts 1"}
_EMPTY_VALUES = {"ignore": float("nan"), "0": 0.0, "1": 1.0}
_MOST_BYTES = 255  # classes of a prediction in uint8


class Segmentation(ClassWeighted):
    """One class per pixel: a field of kind ``mask`` with the spatial axes of the image, volume, video or signal.

    A pixel whose class is the ``ignored`` one of its :class:`~cnn_jax.data.Field` has no loss and is not counted. A
    network whose output is smaller than its input, such as a U-Net without padding, learns the middle of its input; in
    evaluation and prediction it is applied to overlapping tiles of the image, see :class:`cnn_jax.models.Tiling`.

    IoU and Dice have no usual convention, so a config names its own: ``config.score_over``, ``empty_class`` and
    ``scored_classes``. It is written beside the scores.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: The class names of their masks are the names of the network's outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range, or masks without class names.
    """

    kind = "mask"
    losses = ("cross_entropy", "focal", "dice", "cross_entropy_dice")
    spatial = True
    writes_files = True
    counted = "the pixels of each class"
    tuple_examples: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **ClassWeighted.tuple_examples,
        "scored_classes": (1, 2),
    }

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        if len(self.outputs) < 2:
            raise UsageError(
                f"data set {examples.name!r}: segmentation needs the names of two classes at least; give "
                f"data.Field('mask', class_names=...) for {self._label}"
            )
        for key, known in (("score_over", OVER), ("empty_class", EMPTY)):
            if config[key] not in known:
                raise UsageError(f"{key}={config[key]!r} is unknown; {nearest(config[key], known)}")
        wrong = [number for number in config.scored_classes if not 0 <= number < len(self.outputs)]
        if wrong:
            raise UsageError(f"scored_classes: {wrong[0]} is not the number of a class, 0 to {len(self.outputs) - 1}")
        if config.loss == "dice" and config.border_weight:
            raise UsageError("border_weight has no meaning for loss='dice'; use 'cross_entropy' or 'focal', or 0")
        if config.border_weight < 0 or config.border_sigma <= 0:
            raise UsageError(
                f"border_weight={config.border_weight}, border_sigma={config.border_sigma}: the first must be at least "
                "0 and the second above 0"
            )
        if config.data.resize != "none":
            raise UsageError(
                f"data.resize={config.data.resize!r}: segmentation takes images in their own size, as their masks are; "
                "use 'none', and data.size and data.framing to read both in another size"
            )
        if config.data.test_time:
            raise UsageError(
                f"data.test_time={config.data.test_time!r} has no meaning for segmentation; leave it empty"
            )

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of segmentation.

        >>> Segmentation.default_config().score_over
        'set'
        """
        config = super().default_config()
        config.update(
            {
                # of each pixel: cross_entropy, focal; dice: of each image; or cross_entropy_dice, the sum of two
                "loss": "cross_entropy",
                "dice_smooth": 1.0,  # of loss='dice': added to both sides of the fraction
                "border_weight": 0.0,  # of pixels between two objects, U-Net's w0 (10 in the paper); 0 for none
                "border_sigma": 5.0,  # in pixels: how near both objects must be
                "score_over": "set",  # IoU, Dice and accuracy: of all pixels of a set; or image, the mean of the images
                "empty_class": "ignore",  # what a class counts that is neither there nor predicted: ignore, 0, 1
                "objects": False,  # whether the report compares connected objects: Rand error, variation of information
                "scored_classes": (),  # the numbers of those whose scores are averaged; empty for all
                "data": {"resize": "none"},
            }
        )
        return config

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Mean IoU, mean Dice, pixel accuracy and the loss."""
        return (
            Metric("iou", "higher", "%"),
            Metric("dice", "higher", "%"),
            Metric("pixel_accuracy", "higher", "%"),
            Metric("loss", "lower"),
        )

    @classmethod
    def extended(cls, config: ConfigDict, found: Any) -> Any:
        """The training set with U-Net's weight map of each mask, if the config asks for it."""
        if not config.border_weight:
            return found
        label = found.field("mask")
        return data.with_field(
            found,
            BORDER_WEIGHTS,
            data.Field("weights", found.spec[label].shape, "float32"),
            data.BorderWeights(label, config.border_weight, config.border_sigma, found.spec[label].ignored),
        )

    @property
    def convention(self) -> str:
        """What IoU and Dice mean, in words.

        >>> OVER["image"], EMPTY["1"]
        ('of each image, averaged over the images', 'counts 1')
        """
        chosen = tuple(self.config.scored_classes)
        which = ", ".join(self.outputs[number] for number in chosen) if chosen else f"all {len(self.outputs)} classes"
        return (
            f"{OVER[self.config.score_over]}; mean of {which}; a class neither there nor predicted "
            f"{EMPTY[self.config.empty_class]}"
        )

    def loss(self, outputs: Float[Array, "batch *space classes"], batch: training.Batch) -> Float[Array, ""]:
        """The mean over the labelled pixels of a batch, or over its images, with smoothed labels and all weights."""
        labels, known = self._labels(outputs, batch)
        kind, weights = self.config.loss, self.class_weights()
        total = jnp.zeros(())
        if kind != "dice":
            smoothing = self.config.label_smoothing
            pixels = self._pixel_losses(outputs, labels, label_smoothing=smoothing, class_weights=weights)
            if BORDER_WEIGHTS in batch:
                pixels = pixels * (1 + cut(batch[BORDER_WEIGHTS][..., None], labels.shape[1:])[..., 0])
            total = pixels.sum() / jnp.maximum(known.sum(), 1).astype(pixels.dtype)
        if "dice" in kind:
            total = total + self._dice_losses(outputs, labels, class_weights=weights).mean()
        return total

    def measure(self, outputs: Float[Array, "batch *space classes"], batch: training.Batch) -> training.Metrics:
        """The loss without weights and smoothing, as a mean over the images, and counts of pixels.

        Counts are fractions of the pixels of an image, so that their sums stay exact for large sets.
        """
        labels, known = self._labels(outputs, batch)
        space = tuple(range(1, labels.ndim))
        numbers = known.sum(axis=space)
        loss = jnp.zeros(len(labels))
        if self.config.loss != "dice":
            pixels = self._pixel_losses(outputs, labels)
            loss = pixels.sum(axis=space) / jnp.maximum(numbers, 1).astype(pixels.dtype)
        if "dice" in self.config.loss:
            loss = loss + self._dice_losses(outputs, labels)
        mask = batch.get("mask", jnp.ones(len(labels)))
        counted = {"mask": mask * (numbers > 0).astype(mask.dtype)}
        predicted = outputs.argmax(axis=-1)
        counts = ops.class_counts(labels, predicted, num_classes=len(self.outputs), ignore_label=self._ignore_label)
        right, count = counts.hits.sum(axis=1), jnp.maximum(numbers, 1).astype(jnp.float32)
        size = float(np.prod(labels.shape[1:]))
        metrics: training.Metrics = {"loss": mean_over(loss, counted)}
        if self.config.score_over == "set":
            for name, part in counts._asdict().items():
                metrics[name] = mean_over(jnp.asarray(part) / size, counted)
            whole = (right / size, numbers.astype(jnp.float32) / size)
            metrics["pixel_accuracy"] = tuple((part * counted["mask"]).sum() for part in whole)  # type: ignore[assignment]
            return metrics
        overlaps = ops.overlaps(counts, empty=_EMPTY_VALUES[self.config.empty_class])
        defined = ~jnp.isnan(overlaps.iou)
        for name, part in zip(overlaps._fields, overlaps, strict=True):
            metrics[f"each_{name}"] = mean_over(jnp.where(defined, part, 0), counted)
        metrics["defined"] = mean_over(defined.astype(jnp.float32), counted)
        metrics["pixel_accuracy"] = mean_over(right / count, counted)
        return metrics

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """IoU and Dice of each class that has them, ``iou_cell`` and so on, and their means."""
        scores = super().scores(means)
        if "hits" in means:
            counts = ops.ClassCounts(*(np.asarray(means[name]) for name in ops.ClassCounts._fields))
            found = ops.overlaps(counts, empty=_EMPTY_VALUES[self.config.empty_class])
            each = {name: np.asarray(part, np.float64) for name, part in zip(found._fields, found, strict=True)}
        elif "defined" in means:
            defined = np.asarray(means["defined"])
            each = {
                name: np.where(defined > 0, means[f"each_{name}"] / np.where(defined > 0, defined, 1), np.nan)
                for name in ("iou", "dice")
            }
        else:
            return scores
        chosen = list(self.config.scored_classes) or range(len(self.outputs))
        for name, values in each.items():
            known = {number: values[number] for number in range(len(values)) if not np.isnan(values[number])}
            averaged = [known[number] for number in chosen if number in known]
            scores[name] = float(np.mean(averaged)) if averaged else float("nan")
            scores |= {f"{name}_{self.outputs[number]}": float(value) for number, value in known.items()}
        return scores

    def predict(self, outputs: Float[Array, "batch *space classes"]) -> Integer[Array, "batch *space"]:
        """The class of each pixel."""
        return outputs.argmax(axis=-1).astype(jnp.uint8 if len(self.outputs) <= _MOST_BYTES else jnp.int32)

    def average(self, outputs: Float[Array, "several batch *space classes"]) -> Float[Array, "batch *space classes"]:
        """The logarithm of the averaged probabilities."""
        return augment.average_logits(outputs)

    def rows(self, predictions: Integer[np.ndarray, "n *space"]) -> list[dict[str, Any]]:
        """The share of each class among the pixels."""
        return [{name: f"{share:.6f}" for name, share in self._shares(row).items()} for row in predictions]

    def brief_rows(self, predictions: Integer[np.ndarray, "n *space"]) -> list[dict[str, str]]:
        """The shares of the classes that are there, the largest first."""
        rows = []
        for prediction in predictions:
            shares = sorted(self._shares(prediction).items(), key=lambda item: -item[1])
            rows.append({"share of pixels": ", ".join(f"{name} {share:.1%}" for name, share in shares if share)})
        return rows

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true share of each class among the labelled pixels."""
        labelled = [row[row != self._ignored] for row in batch[self._label]]
        return [{f"true {name}": f"{share:.6f}" for name, share in self._shares(row).items()} for row in labelled]

    def compared(
        self, predictions: Integer[np.ndarray, "n *space"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """IoU, Dice and pixel accuracy of each image; empty for one without labelled pixels."""
        return [
            {name: "" if np.isnan(value) else f"{value:.6f}" for name, value in row.items()}
            for row in self.image_scores(batch[self._label], predictions)
        ]

    def image_scores(
        self, labels: Integer[np.ndarray, "n *space"], predictions: Integer[np.ndarray, "n *space"]
    ) -> list[dict[str, float]]:
        """IoU, Dice and pixel accuracy of single images, NaN where there is nothing to count.

        Args:
          labels: True classes.
          predictions: Of :meth:`predict`.
        """
        chosen = list(self.config.scored_classes) or list(range(len(self.outputs)))
        rows = []
        for true, predicted in zip(labels, predictions, strict=True):
            matrix = self.pixel_confusion(true[None], predicted[None])
            counts = ops.ClassCounts(np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1))
            found = ops.overlaps(counts, empty=_EMPTY_VALUES[self.config.empty_class])
            row = {}
            for name, part in zip(found._fields, found, strict=True):
                values = np.asarray(part)[chosen]
                row[name] = float(np.nanmean(values)) if (~np.isnan(values)).any() and matrix.sum() else float("nan")
            row["pixel_accuracy"] = float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")
            rows.append(row)
        return rows

    def pixel_confusion(
        self, labels: Integer[np.ndarray, "n *space"], predictions: Integer[np.ndarray, "n *space"]
    ) -> Integer[np.ndarray, "classes classes"]:
        """How many labelled pixels of each class (rows) were given each class (columns)."""
        count = len(self.outputs)
        total = np.zeros(count * count, np.int64)
        for true, predicted in zip(labels, predictions, strict=True):
            known = true != self._ignored if self._ignored is not None else np.ones(true.shape, bool)
            pairs = true[known].astype(np.int64) * count + predicted[known]
            total += np.bincount(pairs, minlength=count * count)
        return total.reshape(count, count)

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """A mask whose values are class numbers, and an overlay; for a NIfTI volume one with the same affine."""
        from cnn_jax.tasks.segmentation_report import write_prediction  # brings in matplotlib

        write_prediction(self, folder, name, source=source, image=image, prediction=prediction)

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """The metrics, and the convention of IoU and Dice."""
        return {**super().describe(scores), "convention": self.convention}

    def headlines(self, results: Results) -> list[Any]:
        """Mean IoU, mean Dice and pixel accuracy, with their convention."""
        from cnn_jax.tasks.segmentation_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Images with truth, prediction and errors; the scores of each class; the confusion of pixels."""
        from cnn_jax.tasks.segmentation_report import sections

        return sections(self, results)

    def typical(self, results: Results) -> tuple[int, str]:
        """The test example whose IoU is the median."""
        found = [row["iou"] for row in self.image_scores(self.truth(results.test_set), results.predictions)]
        order = np.argsort(np.nan_to_num(found, nan=-1.0), kind="stable")
        chosen = int(order[len(order) // 2])
        return chosen, f"test {results.test_set.input_kind} {chosen}"

    def truth(self, found: Any) -> Integer[np.ndarray, "n *space"]:
        """The masks of a set in memory."""
        return found.fields[self._label]

    @property
    def ignored(self) -> int | None:
        """The class number of pixels that are not labelled."""
        return self._ignored

    @property
    def _ignore_label(self) -> int:
        return ops.IGNORED if self._ignored is None else self._ignored

    def _shares(self, classes: Integer[np.ndarray, "..."]) -> dict[str, float]:
        counts = np.bincount(np.ravel(classes), minlength=len(self.outputs))
        return dict(zip(self.outputs, (counts / max(1, counts.sum())).tolist(), strict=True))

    def _labels(self, outputs: Array, batch: training.Batch) -> tuple[Array, Array]:
        """The true classes of the outputs' pixels, which may be the middle of the image, and which are known."""
        labels = cut(batch[self._label][..., None], outputs.shape[1:-1])[..., 0].astype(jnp.int32)
        known = jnp.ones(labels.shape, bool) if self._ignored is None else labels != self._ignored
        return labels, known

    def _pixel_losses(
        self, outputs: Array, labels: Array, *, label_smoothing: Any = 0.0, class_weights: Any = None
    ) -> Float[Array, "batch *space"]:
        options = {"label_smoothing": label_smoothing, "class_weights": class_weights}
        options["ignore_label"] = self._ignore_label
        if self.config.loss == "focal":
            return ops.softmax_focal_loss(outputs, labels, gamma=self.config.focal_gamma, **options)
        return ops.softmax_cross_entropy(outputs, labels, **options)

    def _dice_losses(self, outputs: Array, labels: Array, *, class_weights: Any = None) -> Float[Array, " batch"]:
        options: dict[str, Any] = {"class_weights": class_weights, "ignore_label": self._ignore_label}
        return ops.soft_dice_loss(outputs, labels, smooth=self.config.dice_smooth, **options)
