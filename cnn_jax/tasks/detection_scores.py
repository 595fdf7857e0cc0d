"""Average precision of detections: the protocols of COCO, PASCAL VOC 2007 and PASCAL VOC 2010.

Lin et al., "Microsoft COCO: common objects in context", 2014, and its ``cocoapi``; Everingham et al., "The PASCAL
visual object classes challenge", 2010, and its development kit. The conventions differ in more than the interpolation:

- COCO takes, for each detection in the order of its scores, the best box that is still free. VOC takes the best box of
  all, and a detection whose best box is taken already is false.
- COCO averages the precision at 101 recalls, VOC 2007 at 11, and VOC 2010 takes the area under the curve.

In all of them an IoU that equals the threshold is enough, equal scores keep the order in which they are given, and
boxes are continuous: a box from 0 to 1 is one pixel wide. Where there is no true box, average precision is not defined,
which is NaN here and never 0 or -1.

All images, classes and thresholds are computed together. Only detections of one class in one image that have a true box
to compete for are visited one after the other.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError, nearest

CONVENTIONS = ("coco", "voc2007", "voc2010")
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_RECALLS = np.linspace(0.0, 1.0, 101)
COCO_AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Name -> the smallest and the largest area in pixels, both included."""

_PAIRS_AT_ONCE = 2_000_000
_FREE, _TRUE, _IGNORED = 0, 1, 2  # what a detection was matched with: nothing, a true box, a box that is not counted


class Truth(NamedTuple):
    """The true boxes of one image.

    Attributes:
      boxes: Two corners of each box, (n, 4), in pixels.
      classes: Their class numbers, (n,).
      crowd: Which of them are not counted, (n,): COCO's crowds, which many detections may lie in, and boxes that VOC
        calls difficult; None for none.
      areas: The area of each object, (n,), by which COCO tells small from large ones; by default that of its box, or of
        its mask where masks are compared.
      masks: Which pixels belong to each object, (n, height, width); None where boxes are compared.
    """

    boxes: Any
    classes: Any
    crowd: Any = None
    areas: Any = None
    masks: Any = None


class Detected(NamedTuple):
    """The detections of one image.

    Attributes:
      boxes: Two corners of each box, (m, 4), in pixels.
      scores: How sure each one is, (m,).
      classes: Their class numbers, (m,).
      masks: Which pixels belong to each one, (m, height, width); None where boxes are compared.
    """

    boxes: Any
    scores: Any
    classes: Any
    masks: Any = None


class CocoScores(NamedTuple):
    """Precision and recall by COCO's protocol, NaN where there is no true box.

    Attributes:
      precision: At each IoU, recall, class, area and number of detections: (ious, recalls, classes, areas, numbers).
      scores: The score of a detection from which on that recall is reached, of the same shape.
      recall: The largest recall, (ious, classes, areas, numbers).
      ious: The thresholds.
      areas: The names of the ranges of areas.
      max_detections: The numbers of detections of one class that are counted in an image.
    """

    precision: Shaped[np.ndarray, "ious recalls classes areas numbers"]
    scores: Shaped[np.ndarray, "ious recalls classes areas numbers"]
    recall: Shaped[np.ndarray, "ious classes areas numbers"]
    ious: tuple[float, ...]
    areas: tuple[str, ...]
    max_detections: tuple[int, ...]

    def average_precision(
        self, *, iou: float | None = None, area: str = "all", class_number: int | None = None
    ) -> float:
        """The mean of the precision over recalls, and over all IoUs and classes that are not chosen.

        Args:
          iou: One of the thresholds; None for the mean over all.
          area: One of the ranges.
          class_number: None for the mean over the classes that have true boxes.
        """
        ious = slice(None) if iou is None else self._threshold(iou)
        classes = slice(None) if class_number is None else class_number
        return _mean(self.precision[..., self.areas.index(area), -1][ious][..., classes])

    def average_recall(self, *, max_detections: int | None = None, area: str = "all") -> float:
        """The mean over IoUs and classes of the largest recall.

        Args:
          max_detections: One of the numbers; by default the largest.
          area: One of the ranges.
        """
        number = -1 if max_detections is None else self.max_detections.index(max_detections)
        return _mean(self.recall[..., self.areas.index(area), number])

    def summary(self) -> dict[str, float]:
        """The twelve numbers of COCO's table, by the names that are usual for them."""
        found = {"AP": self.average_precision()}
        found |= {f"AP{100 * iou:.0f}": self.average_precision(iou=iou) for iou in (0.5, 0.75)}
        found |= {f"AP_{area}": self.average_precision(area=area) for area in self.areas[1:]}
        found |= {f"AR_{number}": self.average_recall(max_detections=number) for number in self.max_detections}
        return found | {f"AR_{area}": self.average_recall(area=area) for area in self.areas[1:]}

    def _threshold(self, iou: float) -> int:
        return int(np.argmin(np.abs(np.asarray(self.ious) - iou)))


class PrecisionCurve(NamedTuple):
    """Precision over recall of one class: one point for each detection that is counted, the surest first.

    Attributes:
      recall: The share of the true boxes that are found by then.
      precision: The share of the detections until then that are right.
      scores: Of the detections.
      truths: The number of true boxes.
    """

    recall: Shaped[np.ndarray, " n"]
    precision: Shaped[np.ndarray, " n"]
    scores: Shaped[np.ndarray, " n"]
    truths: int


def average_precision(
    truths: Sequence[Any], detections: Sequence[Any], iou: float = 0.5, convention: str = "coco"
) -> float:
    """The average precision of one class.

    Args:
      truths: The true boxes of each image, two corners (n, 4), in pixels. An image may have none.
      detections: Of each image the boxes (m, 4) and the scores (m,). All of them count.
      iou: The overlap from which on a detection is right.
      convention: ``"coco"`` (101 recalls), ``"voc2007"`` (11 recalls) or ``"voc2010"`` (the area under the curve), see
        :mod:`cnn_jax.tasks.detection_scores`.

    Returns:
      From 0 to 1; NaN if there is no true box in any image.

    Raises:
      UsageError: Arrays of other shapes, or values that are not finite; an unknown convention.

    >>> truths = [[[0, 0, 10, 10]], [[0, 0, 10, 10]]]
    >>> detections = [([[0, 0, 10, 10], [30, 30, 40, 40]], [0.9, 0.8]), ([[0, 0, 10, 9]], [0.7])]
    >>> [round(average_precision(truths, detections, convention=name), 6) for name in CONVENTIONS]
    [0.834983, 0.848485, 0.833333]
    """
    if convention not in CONVENTIONS:
        raise UsageError(f"average_precision: unknown convention={convention!r}; {nearest(convention, CONVENTIONS)}")
    if not all(isinstance(found, tuple | list) and len(found) == 2 for found in detections):
        raise UsageError("average_precision: give detections as pairs (boxes, scores), one for each image")
    true = [Truth(boxes, np.zeros(len(boxes), int)) for boxes in truths]
    found = [Detected(boxes, scores, np.zeros(len(scores), int)) for boxes, scores in detections]
    if convention == "coco":
        most = max((len(one.scores) for one in found), default=0)
        scores = coco_scores(true, found, 1, ious=(iou,), max_detections=(max(1, most),), areas={"all": (0, math.inf)})
        return scores.average_precision()
    (curve,) = voc_curves(true, found, 1, iou=iou)
    return voc_average_precision(curve, eleven_points=convention == "voc2007")


def voc_average_precision(curve: PrecisionCurve, *, eleven_points: bool) -> float:
    """The average precision of a curve by the rule of VOC 2007 (eleven recalls), or of VOC 2010 (the area); or NaN.

    Args:
      curve: Of one class.
      eleven_points: Whether by the rule of 2007.
    """
    if not curve.truths:
        return math.nan
    best = np.append(_envelope(curve.precision), 0.0)
    if eleven_points:
        hits = np.rint(curve.recall * curve.truths).astype(np.int64)  # exact, unlike recalls such as 0.6 and 6 * 0.1
        return float(best[np.searchsorted(10 * hits, np.arange(11) * curve.truths)].mean())
    return float((np.diff(curve.recall, prepend=0.0) * best[:-1]).sum())


def coco_scores(
    truths: Sequence[Truth],
    detections: Sequence[Detected],
    num_classes: int,
    *,
    ious: Sequence[float] = COCO_IOUS,
    max_detections: Sequence[int] = (1, 10, 100),
    areas: Any = None,
    masks: bool = False,
) -> CocoScores:
    """Precision and recall of all classes by COCO's protocol.

    Args:
      truths: Of each image.
      detections: Of each image.
      num_classes: Classes are numbered from 0.
      ious: The overlaps from which on a detection is right.
      max_detections: How many detections of one class count in one image, those with the highest scores; increasing.
      areas: Name -> smallest and largest area of an object; by default :data:`COCO_AREAS`. Objects of other areas, and
        detections of other areas that match nothing, are not counted.
      masks: Whether the overlap is that of masks, not of boxes.

    Raises:
      UsageError: Arrays of other shapes, values that are not finite, class numbers out of range.

    >>> truth, found = Truth([[0, 0, 9, 9]], [1]), Detected([[0, 0, 9, 9]], [0.5], [1])
    >>> coco_scores([truth], [found], 2).summary()["AP"]
    1.0
    """
    ranges = COCO_AREAS if areas is None else areas
    if masks:
        _check_masks(truths, detections)
        truths = [one._replace(areas=_mask_areas(one.masks)) if one.areas is None else one for one in truths]
    flat = _flat(truths, detections, num_classes, most=max(max_detections))
    thresholds = np.minimum(np.asarray(ious, np.float64), 1 - 1e-10)
    if masks:
        areas_of_masks = np.concatenate([np.zeros(0), *(_mask_areas(one.masks) for one in detections)])
        flat = flat._replace(areas=areas_of_masks[flat.order])
        pairs = _overlapping_masks(flat, truths, detections, float(thresholds.min()))
    else:
        pairs = _overlapping(flat, float(thresholds.min()))
    shape = len(thresholds), num_classes, len(ranges), len(max_detections)
    recall = np.full(shape, np.nan)
    precision, scores = (np.full((shape[0], len(COCO_RECALLS), *shape[1:]), np.nan) for _ in range(2))
    starts = np.searchsorted(flat.classes, np.arange(num_classes + 1))
    orders = [start + np.argsort(-flat.scores[start:stop], kind="stable") for start, stop in itertools.pairwise(starts)]
    true_classes = flat.true_groups // flat.images
    for column, (least, largest) in enumerate(ranges.values()):
        ignored = flat.crowd | (flat.true_areas < least) | (flat.true_areas > largest)
        counts = np.bincount(true_classes[~ignored], minlength=num_classes)
        outside = (flat.areas < least) | (flat.areas > largest)
        matched = _matched(flat, pairs, ignored, thresholds)
        for number in np.flatnonzero(counts):
            for row, most in enumerate(max_detections):
                order = orders[number][flat.ranks[orders[number]] < most]
                states = matched[:, order]
                hits = np.cumsum(states == _TRUE, axis=1)
                misses = np.cumsum((states == _FREE) & ~outside[order], axis=1)
                place = (slice(None), number, column, row)
                recall[place] = hits[:, -1] / counts[number] if len(order) else 0.0
                reached = hits / counts[number]
                right = hits / np.maximum(hits + misses, 1)
                best = np.pad(_envelope(right), ((0, 0), (0, 1)))
                sure = np.append(flat.scores[order], 0.0)
                for threshold in range(len(thresholds)):
                    at = np.searchsorted(reached[threshold], COCO_RECALLS)
                    precision[(threshold, slice(None), *place[1:])] = best[threshold, at]
                    scores[(threshold, slice(None), *place[1:])] = sure[at]
    return CocoScores(precision, scores, recall, tuple(map(float, ious)), tuple(ranges), tuple(max_detections))


def voc_curves(
    truths: Sequence[Truth], detections: Sequence[Detected], num_classes: int, *, iou: float = 0.5
) -> list[PrecisionCurve]:
    """Precision over recall of each class by the protocol of PASCAL VOC.

    Args:
      truths: Of each image; boxes that are difficult are those of ``crowd``.
      detections: Of each image.
      num_classes: Classes are numbered from 0.
      iou: The overlap from which on a detection is right.

    Raises:
      UsageError: As of :func:`coco_scores`.
    """
    flat = _flat(truths, detections, num_classes, most=None)
    pairs = _overlapping(flat, iou, crowd_by_union=True)
    order = np.lexsort((pairs.true, -pairs.iou, pairs.found))  # the best true box first, and the earlier of equal ones
    found, first = np.unique(pairs.found[order], return_index=True)
    best = np.full(len(flat.scores), -1)
    best[found] = pairs.true[order][first]
    counts = np.bincount(flat.true_groups[~flat.crowd] // flat.images, minlength=num_classes)
    curves = []
    starts = np.searchsorted(flat.classes, np.arange(num_classes + 1))
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        chosen = start + np.argsort(-flat.scores[start:stop], kind="stable")
        chosen = chosen[~((best[chosen] >= 0) & flat.crowd[best[chosen]])] if len(flat.crowd) else chosen
        mine = best[chosen]
        hits = np.zeros(len(chosen), bool)
        taken, firsts = np.unique(mine, return_index=True)
        hits[firsts[taken >= 0]] = True
        found_so_far = np.cumsum(hits)
        recall = found_so_far / max(1, counts[number])
        precision = found_so_far / np.arange(1, len(chosen) + 1)
        curves.append(PrecisionCurve(recall, precision, flat.scores[chosen], int(counts[number])))
    return curves


def matched(truth: Truth, found: Detected, *, iou: float = 0.5) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Which objects of an image are found, at one threshold of the overlap.

    Detections are visited from the surest, and each takes the free object of its class that it overlaps most. What lies
    in an object that is not counted is neither found nor false.

    Args:
      truth: The true boxes.
      found: The detections, the surest first.
      iou: The overlap from which on an object is found.

    Returns:
      Pairs (number of the object, number of the detection); the objects that are missed; the detections that are false.
    """
    crowd = np.zeros(len(truth.classes), bool) if truth.crowd is None else np.asarray(truth.crowd, bool)
    boxes = np.asarray(truth.boxes, np.float32).reshape(-1, 4)
    overlap = np.asarray(ops.box_iou(np.asarray(found.boxes, np.float32).reshape(-1, 1, 4), boxes[None]))
    pairs: list[tuple[int, int]] = []
    false = []
    free = ~crowd
    for number, label in enumerate(found.classes):
        same = (np.asarray(truth.classes) == label) & (overlap[number] >= iou) if len(boxes) else np.zeros(0, bool)
        possible = np.flatnonzero(same & free)
        if len(possible):
            best = int(possible[overlap[number][possible].argmax()])
            free[best] = False
            pairs.append((best, number))
        elif not (same & crowd).any():
            false.append(number)
    return pairs, np.flatnonzero(free).tolist(), false


class _Flat(NamedTuple):
    """All boxes of all images. A group is a class in an image; groups are in the order of classes, then of images."""

    images: int
    true_boxes: np.ndarray
    true_areas: np.ndarray
    true_groups: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    groups: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray  # of a detection in its group, the surest first
    true_order: np.ndarray  # the numbers of the true boxes as they were given, counted over all images
    order: np.ndarray  # those of the detections


class _Pairs(NamedTuple):
    """Detections and the true boxes of their groups that they overlap."""

    found: np.ndarray
    true: np.ndarray
    iou: np.ndarray


def _flat(truths: Sequence[Truth], detections: Sequence[Detected], num_classes: int, *, most: int | None) -> _Flat:
    if len(truths) != len(detections):
        raise UsageError(
            f"truths of {len(truths)} images, but detections of {len(detections)}; give both of each image"
        )
    images = max(1, len(truths))
    true_counts, counts = ([len(one.classes) for one in each] for each in (truths, detections))
    true_boxes = _boxes("truths", [one.boxes for one in truths], true_counts)
    boxes = _boxes("detections", [one.boxes for one in detections], counts)
    true_classes = _numbers("truths", "classes", [one.classes for one in truths], true_counts)
    classes = _numbers("detections", "classes", [one.classes for one in detections], counts)
    scores = _numbers("detections", "scores", [one.scores for one in detections], counts)
    for name, each in (("truths", true_classes), ("detections", classes)):
        if len(each) and not 0 <= each.min() <= each.max() < num_classes:
            raise UsageError(f"{name}: class numbers from {each.min():g} to {each.max():g}, not 0 to {num_classes - 1}")
    nothing = [np.zeros(count, bool) for count in true_counts]
    crowds = [none if one.crowd is None else one.crowd for one, none in zip(truths, nothing, strict=True)]
    crowd = _numbers("truths", "crowd", crowds, true_counts).astype(bool)
    sizes = np.split(_areas(true_boxes), np.cumsum(true_counts)[:-1]) if len(truths) else []
    given = [own if one.areas is None else one.areas for one, own in zip(truths, sizes, strict=True)]
    true_areas = _numbers("truths", "areas", given, true_counts)
    true_groups = true_classes.astype(np.int64) * images + np.repeat(np.arange(len(truths)), true_counts)
    groups = classes.astype(np.int64) * images + np.repeat(np.arange(len(detections)), counts)
    true_order, order = np.argsort(true_groups, kind="stable"), np.lexsort((-scores, groups))
    groups = groups[order]
    ranks = np.arange(len(groups)) - np.searchsorted(groups, groups)
    if most is not None:
        order, groups, ranks = (each[ranks < most] for each in (order, groups, ranks))
    return _Flat(
        images,
        true_boxes[true_order],
        true_areas[true_order],
        true_groups[true_order],
        crowd[true_order],
        boxes[order],
        _areas(boxes[order]),
        groups,
        groups // images,
        scores[order],
        ranks,
        true_order,
        order,
    )


def _boxes(what: str, arrays: Sequence[Any], counts: Sequence[int]) -> np.ndarray:
    read = [np.asarray(array, np.float64) for array in arrays]
    for number, (array, count) in enumerate(zip(read, counts, strict=True)):
        if array.shape != (count, 4) and not (array.size == 0 and count == 0):
            raise UsageError(
                f"{what} of image {number}: boxes of shape {array.shape} for {count} entries, not ({count}, 4)"
            )
    boxes = np.concatenate([array.reshape(-1, 4) for array in read]) if read else np.zeros((0, 4))
    if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise UsageError(f"{what}: a box is two corners, finite, the smaller coordinates first, not {_wrong(boxes)}")
    return boxes


def _wrong(boxes: np.ndarray) -> list[float]:
    wrong = ~np.isfinite(boxes).all(axis=1) | (boxes[:, :2] > boxes[:, 2:]).any(axis=1)
    return boxes[wrong][0].tolist()


def _numbers(what: str, name: str, arrays: Sequence[Any], counts: Sequence[int]) -> np.ndarray:
    read = [np.asarray(array).reshape(-1) for array in arrays]
    for number, (array, count) in enumerate(zip(read, counts, strict=True)):
        if len(array) != count:
            raise UsageError(f"{what} of image {number}: {len(array)} {name} for {count} boxes")
    values = np.concatenate(read).astype(np.float64) if read else np.zeros(0)
    if not np.isfinite(values).all():
        raise UsageError(f"{what}: {name} must be finite")
    return values


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlapping(flat: _Flat, least: float, *, crowd_by_union: bool = False) -> _Pairs:
    """The pairs in one group whose IoU is at least ``least``; with a crowd it is the share of the detection in it."""
    first = np.searchsorted(flat.true_groups, flat.groups, side="left")
    counts = np.searchsorted(flat.true_groups, flat.groups, side="right") - first
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    parts = []
    for low in range(0, total, _PAIRS_AT_ONCE):
        number = np.arange(low, min(low + _PAIRS_AT_ONCE, total))
        found = np.searchsorted(ends, number, side="right")
        true = first[found] + number - (ends - counts)[found]
        one, other = flat.boxes[found], flat.true_boxes[true]
        sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
        shared = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
        area = flat.areas[found]
        union = area + _areas(other) - shared
        if not crowd_by_union:
            union = np.where(flat.crowd[true], area, union)
        iou = shared / np.where(union > 0, union, 1.0)
        kept = (iou >= least) & (shared > 0)
        parts.append(_Pairs(found[kept], true[kept], iou[kept]))
    if not parts:
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return _Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _check_masks(truths: Sequence[Truth], detections: Sequence[Detected]) -> None:
    """Rejects images without masks, or with masks of another number or size."""
    for number, pair in enumerate(zip(truths, detections, strict=False)):
        shapes: list[tuple[int, ...]] = [() if one.masks is None else np.shape(one.masks) for one in pair]
        counts = [len(one.classes) for one in pair]
        sizes = {shape[1:] for shape, count in zip(shapes, counts, strict=True) if count}
        if len(sizes) > 1 or any(
            len(shape) != 3 or shape[0] != count for shape, count in zip(shapes, counts, strict=True) if count
        ):
            raise UsageError(
                f"image {number}: masks of shapes {shapes[0]} and {shapes[1]} for {counts[0]} objects and {counts[1]} "
                "detections; give (n, height, width) of both"
            )


def _mask_areas(masks: Any) -> np.ndarray:
    return np.asarray(masks, bool).sum(axis=(1, 2)).astype(np.float64) if np.size(masks) else np.zeros(0)


def _overlapping_masks(flat: _Flat, truths: Sequence[Truth], detections: Sequence[Detected], least: float) -> _Pairs:
    """As :func:`_overlapping`, of masks."""
    true_places, places = np.full(len(flat.true_order), -1), np.full(sum(len(one.classes) for one in detections), -1)
    true_places[flat.true_order], places[flat.order] = np.arange(len(flat.true_order)), np.arange(len(flat.order))
    first_true = first = 0
    parts = [_Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for truth, detected in zip(truths, detections, strict=True):
        counts = len(truth.classes), len(detected.classes)
        mine, true = places[first : first + counts[1]], true_places[first_true : first_true + counts[0]]
        first, first_true = first + counts[1], first_true + counts[0]
        if not min(counts):
            continue
        pixels = [np.asarray(masks, np.float32).reshape(len(masks), -1) for masks in (detected.masks, truth.masks)]
        shared = (pixels[0] @ pixels[1].T).astype(np.float64)  # exact up to 2^24 pixels
        area, true_area = (each.sum(axis=1, dtype=np.float64) for each in pixels)
        union = np.where(flat.crowd[true], area[:, None], area[:, None] + true_area - shared)
        iou = shared / np.where(union > 0, union, 1.0)
        same = (np.asarray(detected.classes)[:, None] == np.asarray(truth.classes)) & (mine >= 0)[:, None]
        found, of = np.nonzero(same & (iou >= least) & (shared > 0))
        parts.append(_Pairs(mine[found], true[of], iou[found, of]))
    return _Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _matched(flat: _Flat, pairs: _Pairs, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """What each detection is matched with at each threshold, (ious, detections).

    Detections are visited in the order of their scores; those of different groups at once, in rounds. Each takes, of
    the boxes that are free, one that counts before one that does not, then the one of the largest IoU, then the last.
    """
    result = np.zeros((len(flat.scores), len(thresholds)), np.int8)
    if not len(pairs.iou):
        return result.T
    competing = np.unique(pairs.found)  # in the order of groups, and of scores in each group
    groups = flat.groups[competing]
    rounds = np.arange(len(competing)) - np.searchsorted(groups, groups)
    of_pair = rounds[np.searchsorted(competing, pairs.found)]
    order = np.lexsort((-pairs.true, -pairs.iou, ignored[pairs.true], pairs.found, of_pair))
    found, true, iou, of_pair = pairs.found[order], pairs.true[order], pairs.iou[order], of_pair[order]
    taken = np.zeros((len(ignored), len(thresholds)), bool)
    bounds = np.searchsorted(of_pair, np.arange(of_pair[-1] + 2))
    for start, stop in itertools.pairwise(bounds):
        mine = true[start:stop]
        possible = iou[start:stop, None] >= thresholds
        possible &= ~taken[mine] | flat.crowd[mine][:, None]
        segments = np.flatnonzero(np.diff(found[start:stop], prepend=-1))
        places = np.where(possible, np.arange(stop - start)[:, None], stop - start)
        first = np.minimum.reduceat(places, segments, axis=0)
        at, threshold = np.nonzero(first < stop - start)
        chosen = first[at, threshold]
        taken[mine[chosen], threshold] = True
        result[found[start:stop][chosen], threshold] = np.where(ignored[mine[chosen]], _IGNORED, _TRUE)
    return result.T


def _envelope(precision: np.ndarray) -> np.ndarray:
    """The largest precision at a recall or at any larger one."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def _mean(values: np.ndarray) -> float:
    """The mean of those that are defined; NaN of none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
