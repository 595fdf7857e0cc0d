"""Instance segmentation: detection with the mask of each object, which is a sum of prototypes (YOLACT)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from ml_collections import ConfigDict

from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.models.detector import BOX_NUMBERS
from cnn_jax.tasks.boxed import unpacked_truths
from cnn_jax.tasks.detection import Detection, centre_cells
from cnn_jax.tasks.detection_scores import Detected, coco_scores
from cnn_jax.tasks.task import Examples, Results, each_of

GRID = 28
"""The number of rows and columns of a predicted mask, which is stretched over its box, as in Mask R-CNN."""

_BOX = 6  # corners, score and class: the numbers of a prediction before those of its mask
_MASK = slice(_BOX + 4, _BOX + 4 + GRID**2)  # behind the corners of the box that the mask is stretched over


class InstanceSegmentation(Detection):
    """Boxes with classes and masks: fields of kind ``boxes``, ``label`` and ``mask``, and the field ``instance``.

    The ``mask`` has the number of its object at each pixel, 0 for none; ``instance``, a ``target`` with the count of
    the boxes, has that number for each box. So objects do not share pixels.

    The network has a head for masks, ``model.options.prototypes``. The mask of an object is the sigmoid of the sum of
    all prototypes with the coefficients of the cell in which its centre is, inside of its box. It is learned by the
    cross-entropy of the pixels in the true box. Masks are scored by COCO's protocol, in which the overlap is that of
    masks.

    Bolya, Zhou, Xiao & Lee, "YOLACT: real-time instance segmentation", ICCV 2019; the task is that of He et al., "Mask
    R-CNN", ICCV 2017.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: The class names of their boxes are the names of the first outputs.

    Raises:
      UsageError: As of :class:`~cnn_jax.tasks.Detection`; the network has no head for masks, or the data have none.
    """

    traced = (*Detection.traced, "mask_weight")

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        self.mask, self.instance = examples.field("mask"), "instance"
        if self.instance not in examples.spec or examples.spec[self.instance].count != self.fields.counted_by:
            raise UsageError(
                f"data set {examples.name!r}: {self.mask} needs the number of each object in it; give a field "
                f"{self.instance!r} of kind 'target' with count={self.fields.counted_by!r}"
            )
        self.prototypes = int(config.model.options.get("prototypes", 0))
        if self.prototypes < 1:
            raise UsageError("instance segmentation needs a head for masks; set model.options.prototypes, such as 8")
        numbers = range(1, self.prototypes + 1)
        pixels = [f"prototype_{n}_pixel_{pixel}" for n in numbers for pixel in range(self.cell**2)]
        self.outputs = (*self.outputs, *(f"coefficient_{n}" for n in numbers), *pixels)

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of detection, and ``mask_weight``.

        >>> InstanceSegmentation.default_config().mask_weight
        1.0
        """
        config = super().default_config()
        config.mask_weight = 1.0  # of the loss of masks
        return config

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Average precision by masks, by COCO's protocol, before the metrics of detection."""
        by_masks = (Metric(name, "higher", "%") for name in ("mask_ap", "mask_ap50", "mask_ap75"))
        return (*by_masks, *super().metrics(config))

    def measure(self, outputs: Float[Array, "batch rows columns outputs"], batch: training.Batch) -> training.Metrics:
        """What detection measures, and of each image the true masks."""
        true = {"mask": each_of(batch[self.mask], batch), "instance": each_of(batch[self.instance], batch)}
        return {**super().measure(outputs, batch), **true}

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The scores of detection, and average precision by masks."""
        scores = super().scores(means)
        if "found" not in means:
            return scores
        truths = [
            one._replace(masks=numbers[: len(one.classes), None, None] == instances)
            for one, numbers, instances in zip(
                unpacked_truths(means["truth"]), means["instance"], means["mask"], strict=True
            )
        ]
        found = [self.masked(row, means["mask"].shape[1:]) for row in means["found"]]
        most = (self.config.max_detections,)
        coco = coco_scores(truths, found, len(self.class_names), max_detections=most, masks=True)
        by_iou = {f"mask_ap{100 * iou:.0f}": coco.average_precision(iou=iou) for iou in (0.5, 0.75)}
        return {"mask_ap": coco.average_precision(), **by_iou, **scores}

    def average(self, outputs: Array) -> Array:
        """The mean of classes and boxes, and the prototypes of all networks beside each other.

        Prototypes of different networks are for different things; the mean of their masks has all of them.
        """
        boxes = len(self.class_names) + BOX_NUMBERS
        parts = [outputs[..., boxes : boxes + self.prototypes], outputs[..., boxes + self.prototypes :]]
        beside = [jnp.concatenate(list(part), axis=-1) for part in parts]
        return jnp.concatenate([outputs[..., :boxes].mean(axis=0), *beside], axis=-1)

    def predict(self, outputs: Float[Array, "batch rows columns outputs"]) -> Float[Array, "batch boxes numbers"]:
        """Those of detection, behind them the corners of the box that the mask is stretched over, and the mask."""
        found, cells = self.found(outputs)
        boxes = found[..., :4]
        coefficients, prototypes = self._mask_outputs(outputs)
        flat = coefficients.reshape(len(cells), -1, coefficients.shape[-1])
        chosen = jnp.take_along_axis(flat, cells[..., None], axis=1)
        down, across = (
            _taken_at(boxes[..., axis], boxes[..., axis + 2], prototypes.shape[axis + 1]) for axis in (0, 1)
        )
        grids = jnp.einsum("bngh,bhwk,bnfw,bnk->bngf", down, prototypes, across, chosen)
        return jnp.concatenate([found, boxes, jax.nn.sigmoid(grids).reshape(*cells.shape, -1)], axis=-1)

    def masked(
        self, prediction: Shaped[np.ndarray, "boxes numbers"], size: tuple[int, ...], *, least: float = 0.0
    ) -> Detected:
        """The detections of one image with their masks.

        Args:
          prediction: Of :meth:`predict`.
          size: (height, width) of the image.
          least: Scores of at most this are left out, such as padding.
        """
        chosen = prediction[prediction[:, 4] > least]
        masks = [
            stretched(row[_MASK].reshape(GRID, GRID), row[_BOX : _BOX + 4], row[:4], (size[0], size[1]))
            for row in chosen
        ]
        return self.detected(chosen)._replace(masks=np.array(masks, bool).reshape(-1, *size))

    def painted(self, image: Shaped[np.ndarray, "height width channels"], prediction: Any) -> Any:
        """An image whose objects are tinted in the colours of their classes."""
        from cnn_jax.report import figures  # brings in matplotlib

        shown = self.shown(prediction)
        found = self.masked(prediction[: len(shown.scores)], image.shape[:2])
        colours = figures.box_colours(len(self.class_names))
        return figures.tinted(image, found.masks, [colours[label] for label in found.classes])

    def write_predictions(self, folder: Path, predictions: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
        """As for detection; the objects in ``boxes.json`` have a ``segmentation`` in COCO's run-length encoding."""
        from cnn_jax.tasks.detection_report import write_boxes

        found = {file: self.masked(row, tuple(sizes[file]), least=0.01) for file, row in predictions.items()}
        write_boxes(folder, self.class_names, found, sizes)

    def headlines(self, results: Results) -> list[Any]:
        """Average precision by masks, and by boxes."""
        from cnn_jax.report.page import Headline

        by_masks = f"{results.scores['test/mask_ap']:.2%}"
        return [Headline("test AP of masks", by_masks, note="mean over IoU 0.5 to 0.95"), *super().headlines(results)]

    def _mask_outputs(
        self, outputs: Float[Array, "batch rows columns outputs"]
    ) -> tuple[Float[Array, "batch rows columns prototypes"], Float[Array, "batch height width prototypes"]]:
        """The coefficients of each cell, and the prototypes as maps of pixels; of several networks, of all of them."""
        batch, rows, columns, _ = outputs.shape
        own = outputs[..., len(self.class_names) + BOX_NUMBERS :].astype(jnp.float32)
        count = own.shape[-1] // (1 + self.cell**2)
        # Coefficients from -1 to 1, as in the paper; of several networks the mean of their sums.
        coefficients = jnp.tanh(own[..., :count]) * (self.prototypes / count)
        pixels = own[..., count:].reshape(batch, rows, columns, count, self.cell, self.cell)
        maps = pixels.transpose(0, 1, 4, 2, 5, 3).reshape(batch, rows * self.cell, columns * self.cell, count)
        return coefficients, maps

    def _losses(
        self, outputs: Float[Array, "batch rows columns outputs"], batch: training.Batch
    ) -> Float[Array, " batch"]:
        """The loss of boxes, and the mean over the objects of that of their masks."""
        coefficients, prototypes = self._mask_outputs(outputs)
        (rows, columns), (height, width) = outputs.shape[1:3], prototypes.shape[1:3]
        packed = self.fields.packed(batch)
        boxes, real = packed[..., :4], (packed[..., 4] >= 0) & (packed[..., 5] == 0)
        _, cells = centre_cells(boxes / self.cell, (rows, columns))
        places = (cells[..., 0] * columns + cells[..., 1]).astype(jnp.int32)
        flat = coefficients.reshape(len(places), rows * columns, -1)
        own = jnp.take_along_axis(flat, places[..., None], axis=1)
        logits = jnp.einsum("bhwk,bek->behw", prototypes, own)
        true = _in_size(batch[self.mask], (height, width))[:, None] == batch[self.instance][..., None, None]
        inside = [
            (jnp.arange(size) + 0.5 > boxes[..., axis, None]) & (jnp.arange(size) + 0.5 < boxes[..., axis + 2, None])
            for axis, size in enumerate((height, width))
        ]
        counted = inside[0][..., :, None] & inside[1][..., None, :]
        wrong = jnp.where(true, -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits))
        of_each = (wrong * counted).sum(axis=(2, 3)) / jnp.maximum(counted.sum(axis=(2, 3)), 1)
        of_masks = (of_each * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
        return super()._losses(outputs, batch) + self.config.mask_weight * of_masks


def stretched(
    grid: Float[np.ndarray, "rows columns"],
    box: Float[np.ndarray, "4"],
    inside: Float[np.ndarray, "4"],
    size: tuple[int, int],
) -> Bool[np.ndarray, "height width"]:
    """The pixels of an image at which a mask that is stretched over a box is at least 0.5, by bilinear interpolation.

    Args:
      grid: The mask, from 0 to 1.
      box: The corners of its box, in pixels.
      inside: The corners of the box that the mask ends at.
      size: (height, width) of the image.

    >>> stretched(np.ones((2, 2)), np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0, 3.0]), (2, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    weights, within = [], []
    for axis in (0, 1):
        centres, count = np.arange(size[axis]) + 0.5, grid.shape[axis]
        side = max(float(box[axis + 2] - box[axis]), 1e-6)
        place = ((centres - box[axis]) / side * count - 0.5).clip(0, count - 1)
        weights.append(np.maximum(1 - np.abs(place[:, None] - np.arange(count)), 0))
        within.append((centres > inside[axis]) & (centres < inside[axis + 2]))
    return (weights[0] @ grid @ weights[1].T >= 0.5) & within[0][:, None] & within[1]


def _taken_at(
    start: Float[Array, "batch boxes"], stop: Float[Array, "batch boxes"], size: int
) -> Float[Array, "batch boxes grid size"]:
    """How the pixels along an axis are weighted at the points of the grid in each box, by bilinear interpolation."""
    parts = (jnp.arange(GRID) + 0.5) / GRID
    points = start[..., None] + (stop - start)[..., None] * parts
    places = (points - 0.5).clip(0, size - 1)
    return jnp.maximum(1 - jnp.abs(places[..., None] - jnp.arange(size)), 0)


def _in_size(numbers: Int[Array, "batch h w"], size: tuple[int, int]) -> Int[Array, "batch height width"]:
    """A map that is continued by 0 to the size of whole cells."""
    missing = [(0, wanted - found) for wanted, found in zip(size, numbers.shape[1:], strict=True)]
    return jnp.pad(numbers, ((0, 0), *missing))
