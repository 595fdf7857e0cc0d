"""Average precision against loops written from the published protocols, and the rules that programs disagree about.

``tests/parity/test_detection.py`` compares every number with pycocotools.
"""

import math

import numpy as np
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.tasks.detection_scores import (
    COCO_RECALLS,
    CONVENTIONS,
    Detected,
    PrecisionCurve,
    Truth,
    average_precision,
    coco_scores,
    voc_average_precision,
    voc_curves,
)

ONE, FAR, FARTHER = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [80.0, 80.0, 95.0, 95.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU .5 with ONE


def iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(sides)) if (sides > 0).all() else 0.0
    return shared / (float(np.prod(one[2:] - one[:2])) + float(np.prod(other[2:] - other[:2])) - shared)


def looped(truths: list, found: list, threshold: float, convention: str) -> float:
    """Average precision of one class, by a loop over detections and boxes."""
    surest = sorted(
        ((-score, image, row) for image, (_, scores) in enumerate(found) for row, score in enumerate(scores)),
    )
    taken, hits = set(), []
    for _, image, row in surest:
        overlaps = {n: iou(np.asarray(found[image][0][row]), np.asarray(box)) for n, box in enumerate(truths[image])}
        if convention == "coco":
            overlaps = {n: value for n, value in overlaps.items() if (image, n) not in taken}
        best = max(overlaps, key=lambda n: (overlaps[n], n if convention == "coco" else -n), default=None)
        right = best is not None and overlaps[best] >= threshold and (image, best) not in taken
        taken |= {(image, best)} if right else set()
        hits.append(right)
    total = sum(map(len, truths))
    points = [(sum(hits[: n + 1]), sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]

    def best_from(recall: float) -> float:
        return max((precision for count, precision in points if count / total >= recall), default=0.0)

    if convention == "coco":
        return float(np.mean([best_from(recall) for recall in COCO_RECALLS]))
    if convention == "voc2007":
        return float(np.mean([best_from(round(0.1 * n, 10)) for n in range(11)]))
    return sum(best_from(count / total) / total for count in range(1, total + 1))


def random_case(seed: int) -> tuple[list, list]:
    generator = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(8):
        corners = generator.integers(0, 12, (int(generator.integers(0, 6)), 2))
        true = np.concatenate([corners, corners + generator.integers(3, 8, corners.shape)], axis=1).astype(float)
        near = np.concatenate([true, true, true])
        near[:, 2:] += generator.integers(-2, 3, (len(near), 2))
        truths.append(true)
        found.append((near, generator.permutation(60)[: len(near)] / 60 + 1e-4 * len(truths)))
    return truths, found


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_average_precision_is_that_of_a_loop(convention: str) -> None:
    for seed in range(10):
        truths, found = random_case(seed)
        for threshold in (0.3, 0.5, 0.75):
            expected = looped(truths, found, threshold, convention)
            assert average_precision(truths, found, threshold, convention) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("convention", "expected"), [("coco", 0.834983), ("voc2007", 0.848485), ("voc2010", 0.833333)])
def test_the_published_example_of_the_three_conventions(convention: str, expected: float) -> None:
    truths, found = [[ONE, FAR]], [([ONE, FARTHER, FAR], [0.9, 0.8, 0.7])]
    assert average_precision(truths, found, convention=convention) == pytest.approx(expected, abs=5e-7)


NOTHING = (np.zeros((0, 4)), np.zeros(0))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("truths", "found", "expected"),
    [
        ([], [], math.nan),
        ([np.zeros((0, 4))], [([ONE], [0.5])], math.nan),  # no true box: not defined
        ([[]], [([], [])], math.nan),
        ([[ONE]], [NOTHING], 0.0),
        ([[ONE]], [([ONE], [0.5])], 1.0),  # the very first box counts
        ([[ONE]], [([HALF], [0.5])], 1.0),  # an IoU of exactly the threshold
        ([[ONE], [ONE]], [([FAR], [0.5]), ([ONE], [0.5])], 1 / 4),  # equal scores: the first image first
        ([[ONE], [ONE]], [([ONE], [0.5]), ([FAR], [0.5])], 1 / 2),
        ([[ONE]], [([FAR, ONE], [0.5, 0.5])], 1 / 2),  # and the first of an image
        ([[ONE]], [([ONE, ONE], [0.9, 0.8])], 1.0),  # a second one for a box is false, but after the last recall
        ([[[3, 3, 3, 9]]], [([[3, 3, 3, 9]], [0.5])], 0.0),  # boxes without area overlap nothing
    ],
)
def test_rules(truths: list, found: list, expected: float, convention: str) -> None:
    ours = average_precision(truths, found, convention=convention)
    slack = {"coco": 0.006, "voc2007": 0.05, "voc2010": 1e-12}[convention]  # 51 of 101, 6 of 11 recalls up to 1/2
    assert ours == pytest.approx(expected, abs=slack, nan_ok=True)


def test_the_conventions_match_detections_by_their_own_rules() -> None:
    """The second detection lies nearest to a box that is taken: VOC calls it false, COCO gives it the other box."""
    truths, found = [[[0, 0, 10, 10], [0, 2, 10, 12]]], [([[0, 0, 10, 10], [0, 0.5, 10, 10.5]], [0.9, 0.8])]
    assert [average_precision(truths, found, convention=name) for name in CONVENTIONS] == pytest.approx(
        [1, 6 / 11, 0.5]
    )


def test_recalls_of_voc_2007_are_exact() -> None:
    """3 of 5 boxes are a recall of 0.6, which is less than 6 * 0.1 in floating point."""
    curve = PrecisionCurve(np.array([0.2, 0.4, 0.6]), np.ones(3), np.ones(3), 5)
    assert voc_average_precision(curve, eleven_points=True) == pytest.approx(7 / 11)


def test_boxes_that_do_not_count() -> None:
    """What lies in a crowd is neither right nor wrong; of a difficult box VOC says the same, by its IoU."""
    crowd = [0.0, 0.0, 40.0, 40.0]
    truths = [Truth([FAR, crowd], [0, 0], [False, True])]
    found = [Detected([[1, 1, 9, 9], [20, 20, 30, 30], FAR], [0.9, 0.8, 0.7], [0, 0, 0])]
    assert coco_scores(truths, found, 1).average_precision(iou=0.5) == 1.0
    (curve,) = voc_curves(truths, found, 1)
    assert curve.precision.tolist() == pytest.approx([0, 0, 1 / 3]), "small parts of a difficult box are wrong"
    found = [Detected([crowd, crowd, FAR], [0.9, 0.8, 0.7], [0, 0, 0])]
    (curve,) = voc_curves(truths, found, 1)
    assert (curve.precision.tolist(), curve.truths) == ([1.0], 1)


def test_ranges_of_areas_are_inclusive_and_numbers_of_detections_are_of_each_class() -> None:
    square = [0.0, 0.0, 32.0, 32.0]
    truths = [Truth([square, FAR, FAR], [0, 1, 1])]
    found = [Detected([square, FARTHER, FAR], [0.9, 0.8, 0.7], [0, 1, 1])]
    scores = coco_scores(truths, found, 3)
    summary = scores.summary()
    assert list(summary) == [
        *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
        *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
    ]
    assert scores.average_precision(area="medium") == 1.0, "32 x 32 is medium, and small as well"
    assert math.isnan(summary["AP_large"])
    assert (summary["AR_1"], summary["AR_10"]) == (0.5, 0.75)
    assert math.isnan(scores.average_precision(class_number=2))


@pytest.mark.parametrize(
    ("truths", "found", "message"),
    [
        ([[ONE]], [], "truths of 1 images, but detections of 0"),
        ([[ONE]], [([ONE], [0.5, 0.4])], "of image 0: boxes of shape (1, 4) for 2 entries"),
        ([[ONE]], [([ONE], [math.nan])], "scores must be finite"),
        ([[[9, 0, 0, 9]]], [NOTHING], "a box is two corners, finite, the smaller coordinates first, not [9.0"),
        ([[ONE]], [ONE], "as pairs (boxes, scores)"),
    ],
)
def test_mistakes_get_one_line(truths: list, found: list, message: str) -> None:
    with pytest.raises(UsageError) as error:
        average_precision(truths, found)
    assert message in str(error.value)
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        average_precision([], [], convention="cocoo")
    with pytest.raises(UsageError, match="class numbers from 3 to 3, not 0 to 2"):
        coco_scores([Truth([ONE], [3])], [Detected(*NOTHING, [])], 3)
