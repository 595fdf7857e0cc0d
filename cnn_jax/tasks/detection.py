"""Object detection: the boxes and classes of all objects of an image, by a map of their centres.

Zhou, Wang & Krähenbühl, "Objects as points", 2019 (CenterNet). As in Liu et al., "Training-time-friendly network for
real-time object detection", AAAI 2020, sizes are also learned around the centres, which takes fewer steps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.models.detector import BOX_NUMBERS, CELL
from cnn_jax.tasks.boxed import BoxFields, check_images_stay, unpacked_truths
from cnn_jax.tasks.detection_scores import (
    CONVENTIONS,
    Detected,
    average_precision,
    coco_scores,
    matched,
    voc_average_precision,
    voc_curves,
)
from cnn_jax.tasks.task import Examples, Results, Task, each_of, mean_over

__all__ = ["Detection", "average_precision"]

LOSSES = ("l1", "giou")
_BOX_OUTPUTS = ("down", "right", "log_height", "log_width")
_SPREAD = 0.54 / 6  # the deviation of a centre's peak, in parts of the object's size, as in the paper
_LEAST = 0.1  # of a peak: where sizes are learned


class Detection(Task):
    """Boxes with classes: fields of kind ``boxes`` and ``label`` with one count.

    The network's output is a map of cells. For each class it says how likely the centre of an object is in the cell,
    and four numbers say where in the cell the centre is and how large the object is: the logarithms of its sides over
    those of the cell. The map of a class should be 1 at each centre and fall off around it (CenterNet's focal loss).
    Predictions are the peaks of the maps, of which :func:`cnn_jax.ops.non_maximum_suppression` leaves one for each
    object.

    Objects that are not counted (the field ``crowd``) are neither learned nor counted as background. Average precision
    is exact: the detections of a whole split are kept, see :mod:`cnn_jax.tasks.detection_scores`.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: The class names of their boxes are the names of the first outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range, or no boxes with classes.
    """

    spatial = True
    coarse = True
    writes_files = True
    traced: ClassVar[tuple[str, ...]] = ("size_weight", "offset_weight")

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        self.fields = BoxFields.of(examples)
        self.class_names = examples.spec[self.fields.label].class_names
        self.outputs = (*self.class_names, *_BOX_OUTPUTS)
        self.cell = int(config.model.options.get("cell", CELL))
        for key, known in (("convention", CONVENTIONS), ("size_loss", LOSSES)):
            if config[key] not in known:
                raise UsageError(f"{key}={config[key]!r} is unknown; {nearest(config[key], known)}")
        if config.max_detections < 1:
            raise UsageError(f"max_detections={config.max_detections} must be at least 1")
        for key in ("suppress_above", "shown_score"):
            if not 0 <= config[key] <= 1:
                raise UsageError(f"{key}={config[key]} must be from 0 to 1")
        check_images_stay(config, "detection")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of detection.

        >>> Detection.default_config().convention
        'coco'
        """
        return ConfigDict(
            {
                "convention": "coco",  # of average precision: coco, voc2007, voc2010
                "size_loss": "l1",  # of the sides: the difference of their logarithms, or giou, of the whole box
                "size_weight": 1.0,  # of the loss of the sides, beside that of the centres
                "offset_weight": 1.0,  # of the loss of the places of centres in their cells; with giou it has none
                "max_detections": 100,  # of an image, the surest
                "suppress_above": 0.6,  # the IoU with a surer box of the class above which a box is left out; 1: none
                "shown_score": 0.3,  # of the boxes in pictures, tables and counts; files have all of at least 0.01
                # boxes: what happens to boxes of boxes:path that are not valid: fix, drop, refuse
                "data": {"resize": "none", "invalid_boxes": "fix"},
            }
        )

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Average precision by the convention of the config, and the loss."""
        ap50 = Metric("ap50", "higher", "%")
        if config.convention != "coco":
            return (ap50, Metric("loss", "lower"))
        return (Metric("ap", "higher", "%"), ap50, Metric("ap75", "higher", "%"), Metric("loss", "lower"))

    def loss(self, outputs: Float[Array, "batch rows columns outputs"], batch: training.Batch) -> Float[Array, ""]:
        """The mean over the images of the loss of centres, sizes and offsets."""
        return self._losses(outputs, batch).mean()

    def measure(self, outputs: Float[Array, "batch rows columns outputs"], batch: training.Batch) -> training.Metrics:
        """The loss; and of each image its detections and its true boxes, for the scores of the split."""
        found = self.clipped(self.predict(outputs), self._sizes(batch))
        return {
            "loss": mean_over(self._losses(outputs, batch), batch),
            "found": each_of(found, batch),
            "truth": each_of(self.fields.packed(batch), batch),
        }

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """Average precision, and that of each class at an IoU of 0.5, ``ap50_cat`` and so on."""
        scores = {"loss": means["loss"]} if "loss" in means else {}
        if "found" not in means:
            return scores
        truths, found = unpacked_truths(means["truth"]), [self.detected(row) for row in means["found"]]
        if self.config.convention == "coco":
            coco = coco_scores(truths, found, len(self.class_names), max_detections=(self.config.max_detections,))
            each = [coco.average_precision(iou=0.5, class_number=n) for n in range(len(self.class_names))]
            scores |= {"ap": coco.average_precision(), "ap75": coco.average_precision(iou=0.75)}
        else:
            eleven = self.config.convention == "voc2007"
            curves = voc_curves(truths, found, len(self.class_names))
            each = [voc_average_precision(curve, eleven_points=eleven) for curve in curves]
        known = [value for value in each if not np.isnan(value)]
        scores["ap50"] = float(np.mean(known)) if known else float("nan")
        named = zip(self.class_names, each, strict=True)
        return scores | {f"ap50_{name}": value for name, value in named if not np.isnan(value)}

    def predict(self, outputs: Float[Array, "batch rows columns outputs"]) -> Float[Array, "batch boxes numbers"]:
        """Corners in pixels, score and class number of the boxes, the surest first; of padding the score is 0."""
        return self.found(outputs)[0]

    def found(
        self, outputs: Float[Array, "batch rows columns outputs"]
    ) -> tuple[Float[Array, "batch boxes 6"], Int[Array, "batch boxes"]]:
        """The boxes of :meth:`predict`, and the number of the cell that each is from, in the order of the rows."""
        outputs = outputs.astype(jnp.float32)
        classes = len(self.class_names)
        heat = jax.nn.sigmoid(outputs[..., :classes])
        peaks = heat * (heat == ops.max_pool(heat, (3, 3), strides=1, padding="SAME"))
        flat = peaks.reshape(len(peaks), -1)
        most = self.config.max_detections
        scores, places = jax.lax.top_k(flat, min(most, flat.shape[1]))
        boxes = self._boxes(outputs).reshape(len(peaks), -1, 4)
        chosen = jnp.take_along_axis(boxes, (places // classes)[..., None], axis=1)
        limits = jnp.array([*outputs.shape[1:3]] * 2, jnp.float32) * self.cell
        chosen, numbers = chosen.clip(0, limits), places % classes
        kept = ops.non_maximum_suppression(chosen, scores, threshold=self.config.suppress_above, classes=numbers)
        scores = jnp.where(kept, scores, 0)
        order = jnp.argsort(-scores, axis=-1, stable=True)
        found = jnp.concatenate([chosen, scores[..., None], numbers[..., None].astype(jnp.float32)], axis=-1)
        found = jnp.take_along_axis(found, order[..., None], axis=1)
        cells = jnp.take_along_axis(places // classes, order, axis=1)
        missing = (0, 0), (0, most - found.shape[1])
        return jnp.pad(found, (*missing, (0, 0))), jnp.pad(cells, missing)

    def within(self, predictions: Shaped[np.ndarray, "..."], sizes: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
        """Boxes that end where the image does; those outside have a score of 0."""
        return np.asarray(self.clipped(jnp.asarray(predictions), sizes))

    def clipped(
        self, found: Float[Array, "batch boxes numbers"], sizes: tuple[int, ...]
    ) -> Float[Array, "batch boxes numbers"]:
        """Predictions cut at the border of their image.

        Args:
          found: Of :meth:`predict`.
          sizes: (height, width).
        """
        corners = found[..., :4].clip(0, jnp.array([*sizes] * 2, found.dtype))
        there = (corners[..., 2:] > corners[..., :2]).all(axis=-1)
        scores = jnp.where(there, found[..., 4], 0)
        return jnp.concatenate([corners, scores[..., None], found[..., 5:]], axis=-1)

    def detected(self, prediction: Shaped[np.ndarray, "boxes numbers"], *, least: float = 0.0) -> Detected:
        """The detections of one image.

        Args:
          prediction: Of :meth:`predict`.
          least: Scores of at most this are left out, such as padding.
        """
        chosen = prediction[prediction[:, 4] > least]
        return Detected(chosen[:, :4], chosen[:, 4], chosen[:, 5].astype(int))

    def shown(self, prediction: Shaped[np.ndarray, "boxes numbers"]) -> Detected:
        """The detections of one image with at least the config's ``shown_score``."""
        return self.detected(prediction, least=float(np.nextafter(np.float32(self.config.shown_score), np.float32(-1))))

    def rows(self, predictions: Shaped[np.ndarray, "n boxes numbers"]) -> list[dict[str, Any]]:
        """How many objects of each class there are."""
        return [self._counts(self.shown(row).classes) for row in predictions]

    def brief_rows(self, predictions: Shaped[np.ndarray, "n boxes numbers"]) -> list[dict[str, str]]:
        """The same in one cell, and the surest object."""
        rows = []
        for prediction in predictions:
            found = self.shown(prediction)
            counts = {name: count for name, count in self._counts(found.classes).items() if count}
            surest = f"{self.class_names[found.classes[0]]} {found.scores[0]:.1%}" if len(found.scores) else ""
            listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
            rows.append({"objects": listed, "surest": surest})
        return rows

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """How many objects of each class there truly are, without those that are not counted."""
        found = []
        for truth in self.fields.truths(batch):
            counted = truth.classes if truth.crowd is None else truth.classes[~truth.crowd]
            found.append({f"true {name}": count for name, count in self._counts(counted).items()})
        return found

    def compared(
        self, predictions: Shaped[np.ndarray, "n boxes numbers"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """How many objects are found, missed, and found where there are none."""
        rows = []
        for truth, prediction in zip(self.fields.truths(batch), predictions, strict=True):
            found, missed, false = matched(truth, self.shown(prediction))
            rows.append({"found": len(found), "missed": len(missed), "false": len(false)})
        return rows

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """The image with its boxes."""
        from cnn_jax.tasks.detection_report import write_overlay  # brings in matplotlib

        painted = self.painted(image, prediction)
        write_overlay(folder / f"{name}.png", painted, self.shown(prediction), self.class_names)

    def write_predictions(self, folder: Path, predictions: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
        """All boxes as ``boxes.csv``, a line for each, and as ``boxes.json`` of COCO's form."""
        from cnn_jax.tasks.detection_report import write_boxes

        write_boxes(
            folder, self.class_names, {file: self.detected(row, least=0.01) for file, row in predictions.items()}, sizes
        )

    def painted(self, image: Shaped[np.ndarray, "height width channels"], prediction: Any) -> Any:
        """An image as it is drawn below its boxes; by default unchanged."""
        return image

    def headlines(self, results: Results) -> list[Any]:
        """Average precision, with its convention."""
        from cnn_jax.tasks.detection_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Images with hits and misses, the scores of each class, and curves of precision over recall."""
        from cnn_jax.tasks.detection_report import sections

        return sections(self, results)

    def typical(self, results: Results) -> tuple[int, str]:
        """The test image with the most objects that are found."""
        rows = self.compared(results.predictions, results.test_set.fields)
        chosen = int(np.argmax([row["found"] - row["missed"] - row["false"] for row in rows]))
        return chosen, f"test image {chosen}"

    def _counts(self, classes: Any) -> dict[str, int]:
        counts = np.bincount(np.asarray(classes, int), minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def _sizes(self, batch: Mapping[str, Array]) -> tuple[int, ...]:
        """(height, width) of the images of a batch."""
        return next(array.shape[1:3] for name, array in batch.items() if name not in self.fields and array.ndim == 4)

    def _numbers(self, outputs: Float[Array, "batch rows columns outputs"]) -> Float[Array, "batch rows columns 4"]:
        """The four outputs of each cell that describe a box."""
        return outputs[..., len(self.class_names) :][..., :BOX_NUMBERS]

    def _boxes(self, outputs: Float[Array, "batch rows columns outputs"]) -> Float[Array, "batch rows columns 4"]:
        """The corners in pixels of the box that each cell describes."""
        rows, columns = outputs.shape[1:3]
        down, right, log_height, log_width = jnp.moveaxis(self._numbers(outputs).astype(jnp.float32), -1, 0)
        centre = jnp.stack([jnp.arange(rows)[:, None] + down, jnp.arange(columns) + right], axis=-1)
        half = jnp.exp(jnp.stack([log_height, log_width], axis=-1).clip(-8, 8)) / 2
        return jnp.concatenate([centre - half, centre + half], axis=-1) * self.cell

    def _losses(
        self, outputs: Float[Array, "batch rows columns outputs"], batch: training.Batch
    ) -> Float[Array, " batch"]:
        """The loss of each image, over the number of its objects."""
        outputs = outputs.astype(jnp.float32)
        rows, columns = outputs.shape[1:3]
        classes = len(self.class_names)
        packed = self.fields.packed(batch)
        boxes, labels, crowd = packed[..., :4] / self.cell, packed[..., 4], packed[..., 5] > 0
        sides = boxes[..., 2:] - boxes[..., :2]
        real = (labels >= 0) & ~crowd & (sides > 0).all(axis=-1)
        centres, cells = centre_cells(boxes, (rows, columns))
        peaks = _peaks(cells, sides, (rows, columns)) * real[..., None, None]  # (batch, entries, rows, columns)
        own = labels[..., None, None, None] == jnp.arange(classes)
        target = jnp.where(own, peaks[..., None], 0).max(axis=1)
        number = jnp.maximum(real.sum(axis=1), 1)
        inside = [
            (jnp.arange(size) + 1 > boxes[..., axis, None]) & (jnp.arange(size) < boxes[..., axis + 2, None])
            for axis, size in enumerate((rows, columns))
        ]
        hidden = (inside[0][..., :, None] & inside[1][..., None, :] & (crowd & (labels >= 0))[..., None, None]).any(
            axis=1
        )
        centre_loss = jnp.where(hidden[..., None] & (target < 1), 0, _focal(outputs[..., :classes], target))
        loss = centre_loss.sum(axis=(1, 2, 3)) / number
        # Around each centre the box of the highest peak is learned.
        owner = peaks.argmax(axis=1)
        weight = peaks.max(axis=1)
        weight = jnp.where(weight >= _LEAST, weight, 0)
        total = jnp.maximum(weight.sum(axis=(1, 2)), 1e-6)

        def owned(values: Array) -> Array:
            flat = jnp.take_along_axis(values, owner.reshape(len(owner), -1, 1), axis=1)
            return flat.reshape(*owner.shape, values.shape[-1])

        if self.config.size_loss == "giou":
            wrong = 1 - ops.generalized_box_iou(self._boxes(outputs) / self.cell, owned(boxes))
            return loss + self.config.size_weight * (wrong * weight).sum(axis=(1, 2)) / total
        places = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), axis=-1)
        numbers = self._numbers(outputs)
        offsets = jnp.abs(numbers[..., :2] - (owned(centres) - places)).sum(axis=-1)
        logs = jnp.abs(numbers[..., 2:] - jnp.log(jnp.maximum(owned(sides), 1e-3))).sum(axis=-1)
        wrong = self.config.offset_weight * offsets + self.config.size_weight * logs
        return loss + (wrong * weight).sum(axis=(1, 2)) / total


def centre_cells(
    boxes: Float[Array, "batch entries 4"], space: tuple[int, int]
) -> tuple[Float[Array, "batch entries 2"], Float[Array, "batch entries 2"]]:
    """The centres of boxes, and the row and the column of the cell that each is in.

    Args:
      boxes: Corners in cells.
      space: The numbers of rows and columns.
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    return centres, jnp.floor(centres).clip(0, jnp.array(space) - 1)


def _peaks(
    cells: Float[Array, "batch entries 2"], sides: Float[Array, "batch entries 2"], space: tuple[int, int]
) -> Float[Array, "batch entries rows columns"]:
    """A Gaussian around the cell of each centre, as wide as the object is large; 1 in the cell itself."""
    falling = []
    for axis, size in enumerate(space):
        distance = jnp.arange(size) - cells[..., axis, None]
        spread = jnp.maximum(_SPREAD * sides[..., axis, None], 1 / 6)
        falling.append(jnp.exp(-jnp.square(distance / spread) / 2))
    return falling[0][..., :, None] * falling[1][..., None, :]


def _focal(logits: Array, target: Array) -> Array:
    """CenterNet's focal loss: at centres (1 - p)^2 log p, elsewhere (1 - target)^4 p^2 log(1 - p), negative."""
    probability = jax.nn.sigmoid(logits)
    at_centre = jnp.square(1 - probability) * -jax.nn.log_sigmoid(logits)
    elsewhere = jnp.square(jnp.square(1 - target)) * jnp.square(probability) * -jax.nn.log_sigmoid(-logits)
    return jnp.where(target >= 1, at_centre, elsewhere)
