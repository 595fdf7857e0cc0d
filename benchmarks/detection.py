"""Compares the time of COCO's protocol with pycocotools: 5,000 images, 80 classes, 100 detections in each image.

    python benchmarks/detection.py [--images 5000] [--rounds 3]

Boxes are random: 7 true ones in each image, as in COCO's validation set, detections near them and elsewhere, 5 %
crowds. Both programs are given arrays in memory, in the form that each of them takes; building pycocotools's index is
not timed.
pycocotools (``pip install pycocotools``) loops over images, classes and areas, with an inner loop in C. The twelve
numbers of COCO's table are compared before anything is timed. Results are written to
``benchmarks/results/detection-<machine>.md`` and ``.json``.
"""

import argparse
import contextlib
import io
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import record
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cnn_jax.tasks.detection_scores import Detected, Truth, coco_scores

CLASSES, DETECTIONS, TRUTHS = 80, 100, 7


def case(images: int) -> tuple[list[Truth], list[Detected]]:
    """Random truths and detections."""
    generator = np.random.default_rng(0)
    truths, found = [], []
    for _ in range(images):
        count = int(generator.poisson(TRUTHS))
        corners = generator.uniform(0, 400, (count, 2))
        true = np.concatenate([corners, corners + np.exp(generator.uniform(2.5, 5.3, (count, 2)))], axis=1)
        classes = generator.choice(generator.integers(0, CLASSES, 3), count)  # few classes in an image
        near = generator.integers(0, count, DETECTIONS // 2) if count else np.zeros(0, int)
        corners = generator.uniform(0, 400, (DETECTIONS - len(near), 2))
        others = np.concatenate([corners, corners + np.exp(generator.uniform(2.5, 5.3, corners.shape))], axis=1)
        shifted = (
            true[near] + generator.normal(0, 0.08, (len(near), 4)) * (true[near, 2:] - true[near, :2])[:, [0, 1, 0, 1]]
        )
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        boxes = np.concatenate([shifted, others])
        guessed = np.concatenate([classes[near], generator.integers(0, CLASSES, len(others))])
        scores = np.concatenate([generator.beta(3, 2, len(near)), generator.beta(1, 4, len(others))])
        truths.append(Truth(true, classes, generator.uniform(size=count) < 0.05))
        found.append(Detected(boxes, scores, guessed))
    return truths, found


def index_of(truths: list[Truth], found: list[Detected]) -> tuple[COCO, COCO]:
    """The same as pycocotools holds it."""

    def box(corners: np.ndarray) -> list[float]:
        return [*corners[:2].tolist(), *(corners[2:] - corners[:2]).tolist()]

    annotations: list[dict[str, Any]] = []
    rows = []
    for image, (true, given) in enumerate(zip(truths, found, strict=True), start=1):
        for corners, number, crowd in zip(true.boxes, true.classes, true.crowd, strict=True):
            own = box(corners)
            one = {"id": len(annotations) + 1, "image_id": image, "category_id": int(number), "bbox": own}
            annotations.append({**one, "area": own[2] * own[3], "iscrowd": int(crowd)})
        sizes = given.boxes[:, 2:] - given.boxes[:, :2]
        columns = [np.full(len(sizes), image)[:, None], given.boxes[:, :2], sizes, given.scores[:, None]]
        rows.append(np.concatenate([*columns, given.classes[:, None]], axis=1))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(1, len(truths) + 1)],
            "categories": [{"id": number} for number in range(CLASSES)],
            "annotations": annotations,
            "info": {},
        }
        truth.createIndex()
        return truth, truth.loadRes(np.concatenate(rows))


def timed(run: Any) -> tuple[Any, float]:
    """The result of a function and its CPU time."""
    started = time.process_time()
    result = run()
    return result, time.process_time() - started


def main() -> None:
    """Compares, times in turn, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    truths, found = case(options.images)
    index = index_of(truths, found)

    def theirs() -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(*index, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats

    times: dict[str, list[float]] = {"cnn_jax": [], "pycocotools": []}
    for _ in range(options.rounds):
        ours, seconds = timed(lambda: coco_scores(truths, found, CLASSES).summary())
        times["cnn_jax"].append(seconds)
        reference, seconds = timed(theirs)
        times["pycocotools"].append(seconds)
        np.testing.assert_allclose(list(ours.values()), np.where(reference == -1, np.nan, reference), atol=1e-9)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    report = {
        "circumstances": record.circumstances(["numpy", "pycocotools"]),
        "images": options.images,
        "cpu_seconds": times,
        "medians": medians,
        "ratio": medians["pycocotools"] / medians["cnn_jax"],
        "summary": ours,
    }
    record.write("detection", report, markdown)
    print(markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in report["medians"].items()]
    lines = ["# Average precision by COCO's protocol", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()]
    lines += [
        "",
        f"{report['images']:,} images, {CLASSES} classes, {DETECTIONS} detections in each image. Medians of CPU",
    ]
    lines += [f"seconds over {len(report['cpu_seconds']['cnn_jax'])} rounds; all twelve numbers are equal.", ""]
    return "\n".join([*lines, *record.table(["program", "CPU seconds"], rows), f"Ratio: {report['ratio']:.1f}", ""])


if __name__ == "__main__":
    main()
