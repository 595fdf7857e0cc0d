"""What tasks with boxes share: the true boxes of a batch, and boxes as rows of files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped
from ml_collections import ConfigDict

from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import write_atomically
from cnn_jax.tasks.detection_scores import Truth
from cnn_jax.tasks.task import Examples

CROWD = "crowd"  # the field of what is not counted


class BoxFields(NamedTuple):
    """The names of the fields that hold the boxes of an example.

    Attributes:
      boxes: Corners, (entries, 4).
      label: The class of each.
      counted_by: The field with the number of entries that are real.
      crowd: 1 for what is not counted; empty where there is no such field.
    """

    boxes: str
    label: str
    counted_by: str
    crowd: str

    @classmethod
    def of(cls, examples: Examples) -> "BoxFields":
        """Those of a data set.

        Args:
          examples: What is known about it.

        Raises:
          UsageError: It has no boxes, or no class for each of them.
        """
        boxes = examples.field("boxes")
        count = examples.spec[boxes].count
        labels = [name for name, field in examples.spec.items() if field.kind == "label" and field.count == count]
        if not labels or not examples.spec[labels[0]].class_names:
            raise UsageError(
                f"data set {examples.name!r}: {boxes} need a class for each box; give a field of kind 'label' with "
                f"count={count!r} and class_names"
            )
        crowd = CROWD if CROWD in examples.spec and examples.spec[CROWD].count == count else ""
        return cls(boxes, labels[0], count, crowd)

    def packed(self, batch: Mapping[str, Array]) -> Array:
        """The true boxes as one array (batch, entries, 6): corners, class, and 1 for what is not counted; class -1 is
        padding."""
        boxes, labels = batch[self.boxes].astype(jnp.float32), batch[self.label].astype(jnp.float32)
        real = jnp.arange(boxes.shape[1]) < batch[self.counted_by][:, None]
        crowd = batch[self.crowd].astype(jnp.float32) if self.crowd else jnp.zeros(labels.shape)
        return jnp.concatenate([boxes, jnp.where(real, labels, -1)[..., None], crowd[..., None]], axis=-1)

    def truths(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[Truth]:
        """The true boxes of each example, of NumPy arrays."""
        found = []
        for row in range(len(batch[self.counted_by])):
            real = slice(int(batch[self.counted_by][row]))
            crowd = batch[self.crowd][row][real] > 0 if self.crowd else None
            found.append(Truth(batch[self.boxes][row][real], batch[self.label][row][real], crowd))
        return found


def check_images_stay(config: ConfigDict, task: str) -> None:
    """Rejects what would change images without their boxes.

    Args:
      config: The run's config.
      task: What takes the images, for the message.

    Raises:
      UsageError: ``data.resize`` or ``data.test_time`` is set.
    """
    if config.data.resize != "none":
        raise UsageError(
            f"data.resize={config.data.resize!r}: {task} takes images in the size that their boxes are for; "
            "use 'none', and data.size and data.framing to read both in another size"
        )
    if config.data.test_time:
        raise UsageError(f"data.test_time={config.data.test_time!r} has no meaning for boxes; leave it empty")


def unpacked_truths(packed: Shaped[np.ndarray, "n entries 6"]) -> list[Truth]:
    """The true boxes of each example from :meth:`BoxFields.packed`."""
    return [Truth(row[:, :4], row[:, 4].astype(int), row[:, 5] > 0) for row in (row[row[:, 4] >= 0] for row in packed)]


def write_coco(
    path: Path,
    names: Sequence[str],
    sizes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Sequence[tuple[Any, float, int]]],
    masks: Mapping[str, Bool[np.ndarray, "n height width"]] | None = None,
) -> None:
    """Writes predicted boxes as a JSON file of COCO's form, whose annotations have a ``score``.

    Args:
      path: The file.
      names: Of the classes, which are numbered from 1.
      sizes: File -> (height, width) of the image.
      found: File -> (corners, score, class number) of each box.
      masks: File -> which pixels of the image belong to the object of each box, written as ``segmentation`` by
        :func:`run_lengths`; None for none.
    """
    numbers = {file: number for number, file in enumerate(sizes, start=1)}
    images = [
        {"id": numbers[file], "file_name": file, "height": int(size[0]), "width": int(size[1])}
        for file, size in sizes.items()
    ]
    annotations: list[dict[str, Any]] = []
    for file, boxes in found.items():
        of_file = (masks or {}).get(file, [None] * len(boxes))
        for (corners, score, number), mask in zip(boxes, of_file, strict=True):
            top, left, bottom, right = (round(float(edge), 2) for edge in corners)
            box = [left, top, round(right - left, 2), round(bottom - top, 2)]
            one = {"id": len(annotations) + 1, "image_id": numbers[file], "category_id": number + 1, "bbox": box}
            area = round(box[2] * box[3], 2)
            one |= {"area": area, "iscrowd": 0, "score": round(float(score), 6)}
            if mask is not None:
                one |= {"area": int(mask.sum()), "segmentation": run_lengths(mask)}
            annotations.append(one)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def run_lengths(mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    """A mask as COCO's compressed run-length encoding, which ``pycocotools.mask.decode`` reads.

    The lengths of the runs of equal pixels, column by column and beginning with 0, are each written as their difference
    from the one two before, in characters of five bits.

    >>> run_lengths(np.array([[False, True], [False, True]]))
    {'size': [2, 2], 'counts': '22'}
    """
    pixels = mask.T.reshape(-1).astype(np.int8)
    changes = np.flatnonzero(np.diff(pixels, prepend=0))
    lengths = np.diff([0, *changes, len(pixels)]).tolist()
    text = ""
    for place, length in enumerate(lengths):
        value, more = length - (lengths[place - 2] if place > 2 else 0), True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
    return {"size": list(mask.shape), "counts": text}


def box_rows(names: Sequence[str], found: Mapping[str, Sequence[tuple[Any, float, int]]]) -> list[dict[str, Any]]:
    """A row for each predicted box: the file, the class, the score and the corners in pixels.

    Args:
      names: Of the classes.
      found: File -> (corners, score, class number) of each box.
    """
    return [
        {
            "image": file,
            "class": names[number],
            "score": f"{score:.6f}",
            **{side: f"{edge:.2f}" for side, edge in zip(("top", "left", "bottom", "right"), corners, strict=True)},
        }
        for file, boxes in found.items()
        for corners, score, number in boxes
    ]
