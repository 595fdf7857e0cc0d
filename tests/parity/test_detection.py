"""Average precision against pycocotools: random images with ties, crowds and areas, and every number of its tables.

The real case, ``blood_cells.json``, has the true boxes of 20 test pictures of the Complete Blood Count data set (Alam &
Islam 2019, MIT licence) and what ``configs/detect_blood_cells.py`` found in them, of scores from 0.1.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cnn_jax.tasks.boxed import run_lengths
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


def theirs(truths: list[Truth], found: list[Detected], classes: int = CLASSES, *, by: str = "bbox") -> COCOeval:
    """The same evaluated by pycocotools, whose boxes are (left, top, width, height) and whose numbers begin at 1."""

    def shapes(one: Truth | Detected) -> list[dict[str, Any]]:
        if by == "bbox":
            return [{"bbox": box(corners)} for corners in one.boxes]
        return [{"segmentation": coco_masks.encode(np.asfortranarray(mask, np.uint8))} for mask in one.masks]

    def box(corners: np.ndarray) -> list[float]:
        return [*corners[:2].tolist(), *(corners[2:] - corners[:2]).tolist()]

    annotations = [
        {
            "image_id": image,
            "category_id": int(number),
            **shape,
            "iscrowd": int(crowd),
            "area": float(area),
        }
        for image, one in enumerate(truths, start=1)
        for shape, number, crowd, area in zip(shapes(one), one.classes, one.crowd, one.areas, strict=True)
    ]
    results = [
        {"image_id": image, "category_id": int(number), **shape, "score": float(score)}
        for image, one in enumerate(found, start=1)
        for shape, score, number in zip(shapes(one), one.scores, one.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": image, "height": 90, "width": 110} for image in range(1, len(truths) + 1)],
            "categories": [{"id": number} for number in range(classes)],
            "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
            "info": {},
        }
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(results), by)
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


def drawn(boxes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A mask for each box on an image of 90x110: an ellipse with holes, which may be cut at the border."""
    rows, columns = np.mgrid[:90, :110] + 0.5
    top, left, bottom, right = (boxes.T / 3)[..., None, None]
    inside = ((2 * rows - top - bottom) / (bottom - top + 4)) ** 2 + (
        (2 * columns - left - right) / (right - left + 4)
    ) ** 2 < 1
    return inside & (generator.uniform(size=inside.shape) < 0.95)


@pytest.mark.parametrize("seed", range(4))
def test_every_number_by_masks_is_that_of_pycocotools(seed: int) -> None:
    truths, found = random_case(seed, whole_numbers=False)
    generator = np.random.default_rng(seed)
    truths = [one._replace(masks=drawn(one.boxes, generator)) for one in truths]
    found = [one._replace(masks=drawn(one.boxes, generator)) for one in found]
    evaluation, ours = theirs(truths, found, by="segm"), coco_scores(truths, found, CLASSES, masks=True)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_allclose(getattr(ours, name), undefined(evaluation.eval[name]), atol=1e-12, err_msg=name)
    assert 0 < ours.average_precision() < 1


def test_run_lengths_are_those_of_pycocotools() -> None:
    generator = np.random.default_rng(0)
    masks = [generator.uniform(size=(70, 90)) < share for share in (0, 0.01, 0.5, 0.999, 1)]
    masks.append(np.arange(70 * 900).reshape(70, 900) > 5000)
    for mask in masks:
        expected = coco_masks.encode(np.asfortranarray(mask, np.uint8))
        assert run_lengths(mask) == {"size": list(mask.shape), "counts": expected["counts"].decode()}


def test_every_number_of_a_real_case_is_that_of_pycocotools() -> None:
    content = json.loads((Path(__file__).parent / "blood_cells.json").read_text())
    truths, found = [], []
    for one in content["images"]:
        true, given = np.array(one["truths"], float), np.array(one["detections"], float)
        areas = (true[:, 3] - true[:, 1]) * (true[:, 4] - true[:, 2])
        truths.append(Truth(true[:, 1:], true[:, 0].astype(int), np.zeros(len(true), bool), areas))
        found.append(Detected(given[:, 2:], given[:, 1], given[:, 0].astype(int)))
    evaluation, ours = theirs(truths, found, 3), coco_scores(truths, found, 3)
    np.testing.assert_allclose(ours.precision, undefined(evaluation.eval["precision"]), atol=1e-12)
    np.testing.assert_allclose(list(ours.summary().values()), undefined(evaluation.stats), atol=1e-12)
    assert ours.summary()["AP50"] > 0.85, "the detector of the config"
