"""Images with boxes in a folder: ``boxes:path``, with annotations in the form of PASCAL VOC, COCO or YOLO.

An example has the fields ``image``, ``boxes`` (the corners of each object), ``label`` (its class), ``crowd`` (1 for an
object that is not counted, such as COCO's crowds and VOC's difficult ones) and ``boxes_count``.
"""

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from cnn_jax.data.annotations import Annotated, read_annotations
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.fields import Field
from cnn_jax.data.images import decode_image, upright_size
from cnn_jax.data.records import Records, in_threads, showing_progress
from cnn_jax.data.splits import PARTS, members_of_split, mixed_order, stratified_parts
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.files import user_path
from cnn_jax.typed import typed

INVALID = ("fix", "drop", "refuse")
_LISTED = 5  # faults of a kind that the report names
_FAULTS = {  # kind: said of one box, said of several
    "outside": ("reaches beyond its image", "reach beyond their image"),
    "empty": ("has no area", "have no area"),
    "class": ("is of a class that is not among those stated", "are of a class that is not among those stated"),
}


@dataclasses.dataclass(frozen=True)
class BoxedImage:
    """An image and the boxes that are left of its annotations.

    Attributes:
      image: The path.
      part: Of the data set.
      corners: (top, left, bottom, right) in pixels of the image, (n, 4).
      classes: Class numbers.
      crowd: Which objects are not counted.
      size: (height, width) of the image.
      digest: A hash of the image's content.
    """

    image: Path
    part: str
    corners: tuple[tuple[float, ...], ...]
    classes: tuple[int, ...]
    crowd: tuple[bool, ...]
    size: tuple[int, int]
    digest: str


@dataclasses.dataclass(frozen=True)
class _Scan:
    images: tuple[BoxedImage, ...]
    class_names: tuple[str, ...]
    report: str


def open_boxes(
    path: str,
    split: str,
    *,
    image_shape: tuple[int, ...] | None,
    framing: str = "crop",
    invalid: str = "fix",
) -> Records:
    """A split of a folder of images with boxes: the fields ``image``, ``boxes``, ``label``, ``crowd``, ``boxes_count``.

    Args:
      path: Of the folder.
      split: A split expression. Where neither folders nor names of files say the parts, these are 80, 10 and 10 % of
        the images, by a hash of their names. Where there is no part for validation, it is a tenth of the training
        images, which are then left out of these.
      image_shape: ``(height, width, channels)`` to which the images are brought with their boxes.
      framing: As in :class:`~cnn_jax.data.Records`.
      invalid: What happens to boxes that reach beyond their image, that have no area, or whose class is not among those
        that a file states: ``"fix"`` cuts them at the border and leaves out those that cannot be fixed, ``"drop"``
        leaves all of them out, ``"refuse"`` raises an error. They are listed in the report.

    Raises:
      UsageError: The folder is not like that, an annotation cannot be read or is of an image of another size, or there
        is no such split; the message has the name of the file.
    """
    name = f"boxes:{path}"
    root = user_path(path).absolute()
    if not root.is_dir():
        raise UsageError(f"data set {name!r}: there is no folder {root}")
    if invalid not in INVALID:
        raise UsageError(f"data.invalid_boxes={invalid!r} is unknown; {nearest(invalid, INVALID)}")
    if image_shape is None or len(image_shape) != 3 or image_shape[-1] not in (1, 3):
        raise UsageError(f"data set {name!r} has images; input_shape={image_shape} must be (height, width, 1 or 3)")
    scan = _scanned(name, root, invalid)
    members = members_of_split(name, split, _members(scan.images, root))
    chosen = tuple(scan.images[number] for number in members)
    most = max(1, *(len(one.classes) for one in scan.images))
    identity = repr([(one.image.name, one.digest, one.corners, one.classes, one.crowd) for one in chosen])
    return Records(
        name,
        split,
        BoxReader(chosen, image_shape, framing, most),
        len(chosen),
        box_fields(image_shape, scan.class_names, most),
        identity=repr((hashlib.sha256(identity.encode()).hexdigest(), scan.class_names)),
        framing=framing,
        report=scan.report,
        hashes=np.array([int(one.digest, 16) for one in chosen], np.uint64),
    )


def box_fields(image_shape: tuple[int, ...], class_names: Sequence[str], most: int) -> dict[str, Field]:
    """The fields of images with boxes.

    Args:
      image_shape: (height, width, channels).
      class_names: Of the objects.
      most: The largest number of objects in an image.
    """
    return {
        "image": Field("image", image_shape, "uint8"),
        "boxes": Field("boxes", (most, 4), "float32", count="boxes_count"),
        "label": Field("label", (most,), "int32", tuple(class_names), count="boxes_count"),
        "crowd": Field("target", (most,), "float32", count="boxes_count"),
        "boxes_count": Field("count", (), "int32"),
    }


@typed
def from_boxes(
    name: str,
    split: str,
    images: Shaped[np.ndarray, "n height width channels"],
    boxes: Sequence[Any],
    labels: Sequence[Any],
    *,
    class_names: Sequence[str],
    most: int = 0,
    objects: Integer[np.ndarray, "n height width"] | None = None,
) -> Dataset:
    """Images in memory with boxes, of which each may have any number: ``image``, ``boxes``, ``label``, ``boxes_count``.

    With masks there are ``objects``, the number of the object at each pixel, and ``instance``, that of each box.

    Args:
      name: The data set's name.
      split: The name of the split that these examples are.
      images: uint8, or float32 from 0 to 1.
      boxes: Of each image the corners of its objects, (top, left, bottom, right) in pixels: (objects, 4).
      labels: Of each image the class numbers of its objects: (objects,).
      class_names: One name per class.
      most: The number of entries; by default the most objects of any image.
      objects: The masks as the number of the object at each pixel: 1 for the first box of the image, 0 for none.

    Raises:
      UsageError: The numbers of images, boxes and labels differ, or boxes do not have four numbers each.

    Example:
      >>> found = from_boxes("mine", "train", np.zeros((1, 8, 8, 1), np.uint8), [[(1, 2, 5, 6)]], [[0]],
      ...                    class_names=["cell"])
      >>> found.fields["boxes"].tolist()
      [[[1.0, 2.0, 5.0, 6.0]]]
    """
    counts = [len(of_image) for of_image in boxes]
    if not len(images) == len(boxes) == len(labels) or counts != [len(of_image) for of_image in labels]:
        raise UsageError(f"from_boxes {name!r}: give boxes for each image, and a label for each box")
    wrong = [place for place, of_image in enumerate(boxes) if len(of_image) and np.shape(of_image)[1:] != (4,)]
    if wrong:
        shape = np.shape(boxes[wrong[0]])
        raise UsageError(f"from_boxes {name!r}: boxes of image {wrong[0]} have shape {shape}; give (objects, 4)")
    most = max([most, 1, *counts])
    fields = {
        "image": images,
        "boxes": np.zeros((len(images), most, 4), np.float32),
        "label": np.zeros((len(images), most), np.int32),
        "boxes_count": np.array(counts, np.int32),
    }
    for number, count in enumerate(counts):
        if count:
            fields["boxes"][number, :count], fields["label"][number, :count] = boxes[number], labels[number]
    spec = {**box_fields(images.shape[1:], class_names, most), "image": Field("image")}
    if objects is not None:
        places = np.arange(most, dtype=np.float32)
        fields["objects"] = objects.astype(np.int32)
        fields["instance"] = np.where(places < fields["boxes_count"][:, None], places + 1, 0)
        spec |= {"objects": Field("mask"), "instance": Field("target", count="boxes_count")}
    return Dataset(name, split, fields, {key: spec[key] for key in fields})


@dataclasses.dataclass(frozen=True)
class BoxReader:
    """Reads images with their boxes; see :data:`~cnn_jax.data.records.Reader`."""

    images: tuple[BoxedImage, ...]
    image_shape: tuple[int, ...]
    framing: str
    most: int

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Images, and boxes as they lie in images of the shape that is wanted."""
        return [self._read(self.images[number]) for number in indices]

    def _read(self, one: BoxedImage) -> dict[str, Any]:
        image = decode_image(_content(one.image), one.image, channels=self.image_shape[-1])
        corners = np.array(one.corners, np.float64).reshape(-1, 4)
        return {
            "image": image,
            **placed_boxes(corners, one.classes, one.crowd, one.size, self.image_shape, self.framing, self.most),
        }


def placed_boxes(
    corners: Float[np.ndarray, "n 4"],
    classes: Sequence[int],
    crowd: Sequence[bool],
    size: tuple[int, int],
    image_shape: tuple[int, ...],
    framing: str,
    most: int,
) -> dict[str, Any]:
    """The fields of the boxes of an image that is brought to another size, without those that lose their area.

    Args:
      corners: In pixels of the image.
      classes: Class numbers.
      crowd: Which are not counted.
      size: (height, width) of the image.
      image_shape: Of the field.
      framing: As in :class:`~cnn_jax.data.Records`.
      most: The number of entries.
    """
    scale, offset = placement(size, image_shape[:2], framing)
    moved = corners * np.tile(scale, 2) + np.tile(offset, 2)
    moved = moved.clip(0, np.tile(np.array(image_shape[:2], np.float64), 2))
    kept = np.flatnonzero((moved[:, 2:] > moved[:, :2]).all(axis=1))
    boxes, labels, crowds = np.zeros((most, 4), np.float32), np.zeros(most, np.int32), np.zeros(most, np.float32)
    boxes[: len(kept)] = moved[kept]
    labels[: len(kept)], crowds[: len(kept)] = np.asarray(classes, int)[kept], np.asarray(crowd, float)[kept]
    return {"boxes": boxes, "label": labels, "crowd": crowds, "boxes_count": len(kept)}


def placement(
    size: tuple[int, ...], wanted: tuple[int, ...], framing: str
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Where the points of an image lie when it is brought to another size: ``new = scale * old + offset``.

    Args:
      size: (height, width) of the image.
      wanted: (height, width) that it is brought to.
      framing: ``"crop"``, ``"fit"`` or ``"stretch"``.

    >>> placement((10, 20), (20, 20), "crop")
    (array([2., 2.]), array([  0., -10.]))
    """
    before, after = np.array(size, np.float64), np.array(wanted, np.float64)
    if framing == "stretch" or size[1] * wanted[0] == size[0] * wanted[1]:
        return after / before, np.zeros(2)
    if framing == "crop":
        scale = np.full(2, (after / before).max())
        return scale, (after - scale * before) / 2
    inner = np.maximum(1, np.array([round(side) for side in before * (after / before).min()]))
    return inner / before, (after - inner) // 2


@functools.lru_cache(maxsize=8)
def _scan(name: str, root: Path, invalid: str, stamp: tuple[Any, ...]) -> _Scan:
    """Reads the annotations and the sizes of the images, and checks each box."""
    annotations = read_annotations(name, root)
    stated = annotations.class_names
    names = stated or tuple(sorted({box.label for one in annotations.images for box in one.boxes}, key=_natural))
    if not names:
        raise UsageError(f"data set {name!r}: no image in {root} has a box")
    if len(set(names)) < len(names):
        raise UsageError(f"data set {name!r}: a class is named twice: {', '.join(names)}")
    numbers = {label: number for number, label in enumerate(names)}
    found: dict[int, BoxedImage] = {}
    faults: dict[int, list[tuple[str, str]]] = {}

    def check(number: int) -> int:
        one = annotations.images[number]
        content = _content(one.image)
        decode_image(content, one.image, channels=3, least=1)
        width, height = upright_size(content)
        if one.size not in (None, (height, width)):
            said = "x".join(map(str, one.size or ()))
            raise UsageError(f"{one.source}: is for an image of {said} pixels, but {one.image} has {height}x{width}")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        found[number], faults[number] = _checked(one, numbers, (height, width), digest, invalid)
        return 1

    with showing_progress(f"checking the boxes of {root.name}", len(annotations.images)) as advance:
        for count in in_threads(check, range(len(annotations.images))):
            advance(count)
    images = tuple(found[number] for number in range(len(found)))
    wrong = [fault for number in range(len(found)) for fault in faults[number]]
    if wrong and invalid == "refuse":
        kind, where = wrong[0]
        others = len(wrong) - 1
        more = f"; {others:,} more {'box is' if others == 1 else 'boxes are'} not valid" if others else ""
        raise UsageError(f"data set {name!r}: {where} {_FAULTS[kind][0]}{more}; set data.invalid_boxes='fix' or 'drop'")
    return _Scan(images, names, _report(root, annotations.form, annotations.without, images, names, wrong, invalid))


def _scanned(name: str, root: Path, invalid: str) -> _Scan:
    """What :func:`_scan` finds, again only if a file has changed."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return _scan(
        name, root, invalid, tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    )


def _checked(
    one: Annotated, numbers: dict[str, int], size: tuple[int, int], digest: str, invalid: str
) -> tuple[BoxedImage, list[tuple[str, str]]]:
    """The boxes of an image that are valid or can be fixed, and what was wrong with the others: its kind, and where."""
    corners, classes, crowd, faults = [], [], [], []
    limits = np.array([*size, *size], np.float64)
    for box in one.boxes:
        edges = np.array(box.corners, np.float64) * (limits if one.relative else 1)
        # Corners in parts of the sides are rounded: a thousandth of a pixel is not a fault.
        outside = not (edges >= -1e-3).all() or not (edges <= limits + 1e-3).all()
        cut = edges.clip(0, limits) if np.isfinite(edges).all() else np.zeros(4)
        empty = not (cut[2:] > cut[:2]).all()
        kinds = {"class": box.label not in numbers, "empty": empty, "outside": outside}
        kind = next((kind for kind, wrong in kinds.items() if wrong), "")
        if kind:
            place = ", ".join(f"{edge:g}" for edge in edges)
            faults.append((kind, f"{one.source}: {box.label!r} from (top, left, bottom, right) = ({place})"))
        if kind in ("class", "empty") or (kind and invalid != "fix"):
            continue
        corners.append(tuple(cut.tolist()))
        classes.append(numbers[box.label])
        crowd.append(box.crowd)
    return BoxedImage(one.image, one.part, tuple(corners), tuple(classes), tuple(crowd), size, digest), faults


def _report(
    root: Path,
    form: str,
    without: int,
    images: Sequence[BoxedImage],
    names: Sequence[str],
    faults: Sequence[tuple[str, str]],
    invalid: str,
) -> str:
    """What was found, in a few lines."""
    counts = Counter(names[number] for one in images for number in one.classes)
    listed = ", ".join(f"{name} {counts[name]:,}" for name in names[:20]) + (" ..." if len(names) > 20 else "")
    empty = sum(not one.classes for one in images)
    lines = [
        f"{root}: {len(images):,} images with {sum(counts.values()):,} boxes ({form}): {listed}"
        + (f"; {empty:,} images have none" if empty else "")
        + (f"; {without:,} images without annotations are left out" if without else "")
    ]
    for kind, (of_one, of_several) in _FAULTS.items():
        places = [where for own, where in faults if own == kind]
        if places:
            done = "cut at the border" if kind == "outside" and invalid == "fix" else "left out"
            said = f"box {of_one} and is" if len(places) == 1 else f"boxes {of_several} and are"
            lines.append(f"  {len(places):,} {said} {done}:")
            lines += [f"    {where}" for where in places[:_LISTED]]
            lines += [f"    and {len(places) - _LISTED:,} more"] if len(places) > _LISTED else []
    return "\n".join(lines)


def _members(images: Sequence[BoxedImage], root: Path) -> dict[str, np.ndarray]:
    names = [one.image.relative_to(root).as_posix() for one in images]
    parts = {one.part for one in images}
    if "train" not in parts:
        return stratified_parts([0] * len(images), names)
    order = mixed_order(names)
    of_each = np.array([one.part for one in images])[order]
    members = {part: order[of_each == part] for part in dict.fromkeys(PARTS.values())}
    if not len(members["validation"]):
        held_out = len(members["train"]) // 10
        members["validation"], members["train"] = members["train"][:held_out], members["train"][held_out:]
    return members


def _natural(label: str) -> tuple[bool, int, str]:
    """Numbers in their order, and before names."""
    return (not label.isdigit(), int(label) if label.isdigit() else 0, label)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
