"""Average precision against pycocotools: random images with ties, crowds and areas, and every number of its tables."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cnn_jax.tasks.detection_scores import Detected, Truth, average_precision, coco_scores

CLASSES = 3


def random_case(seed: int, *, whole_numbers: bool) -> tuple[list[Truth], list[Detected]]:
    """Images with few and many boxes, detections near them and elsewhere, equal scores, and an empty class."""
    generator = np.random.default_rng(seed)
    truths, found = [], []

    def boxes(count: int) -> np.ndarray:
        corners = generator.uniform(0, 150, (count, 2))
        sizes = np.exp(generator.uniform(np.log(8), np.log(150), (count, 2)))
        made = np.concatenate([corners, corners + sizes], axis=1)
        return np.rint(made) if whole_numbers else made

    for _ in range(12):
        count = int(generator.integers(0, 8))
        true = boxes(count)
        near = true[generator.integers(0, max(1, count), 3 * count)] if count else true
        near = near + generator.normal(0, 4, near.shape) * (generator.uniform(size=(len(near), 1)) < 0.8)
        near = np.rint(near) if whole_numbers else near
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        all_found = np.concatenate([near, boxes(int(generator.integers(0, 15)))])
        scores = generator.integers(0, 12, len(all_found)) / 12
        crowd = generator.uniform(size=count) < 0.2
        areas = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1]) * generator.uniform(0.5, 1, count)
        truths.append(Truth(true, generator.integers(0, CLASSES - 1, count), crowd, areas))
        found.append(Detected(all_found, scores, generator.integers(0, CLASSES, len(all_found))))
    return truths, found


def theirs(truths: list[Truth], found: list[Detected], classes: int = CLASSES) -> COCOeval:
    """The same evaluated by pycocotools, whose boxes are (left, top, width, height) and whose numbers begin at 1."""

    def box(corners: np.ndarray) -> list[float]:
        return [*corners[:2].tolist(), *(corners[2:] - corners[:2]).tolist()]

    annotations = [
        {
            "image_id": image,
            "category_id": int(number),
            "bbox": box(corners),
            "iscrowd": int(crowd),
            "area": float(area),
        }
        for image, one in enumerate(truths, start=1)
        for corners, number, crowd, area in zip(one.boxes, one.classes, one.crowd, one.areas, strict=True)
    ]
    results = [
        {"image_id": image, "category_id": int(number), "bbox": box(corners), "score": float(score)}
        for image, one in enumerate(found, start=1)
        for corners, score, number in zip(one.boxes, one.scores, one.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": image} for image in range(1, len(truths) + 1)],
            "categories": [{"id": number} for number in range(classes)],
            "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
            "info": {},
        }
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def undefined(values: np.ndarray) -> np.ndarray:
    """pycocotools says -1 where there is no true box."""
    return np.where(values == -1, np.nan, values)


@pytest.mark.parametrize("whole_numbers", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_every_number_is_that_of_pycocotools(seed: int, whole_numbers: bool) -> None:
    truths, found = random_case(seed, whole_numbers=whole_numbers)
    evaluation, ours = theirs(truths, found), coco_scores(truths, found, CLASSES)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_allclose(getattr(ours, name), undefined(evaluation.eval[name]), atol=1e-12, err_msg=name)
    assert np.isnan(ours.precision[:, :, CLASSES - 1]).all(), "the last class has no true box"
    np.testing.assert_allclose(list(ours.summary().values()), undefined(evaluation.stats), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_average_precision_of_one_class_is_that_of_pycocotools(seed: int) -> None:
    truths, found = random_case(seed, whole_numbers=True)
    truths = [Truth(one.boxes, 0 * one.classes, 0 * one.crowd, one.areas) for one in truths]
    found = [Detected(one.boxes, one.scores, 0 * one.classes) for one in found]
    precision = theirs(truths, found, 1).eval["precision"][:, :, 0, 0, -1]
    for threshold in (0, 5, 9):
        ours = average_precision(
            [one.boxes for one in truths], [(one.boxes, one.scores) for one in found], iou=0.5 + 0.05 * threshold
        )
        assert ours == pytest.approx(precision[threshold].mean(), abs=1e-12)
