"""What the report of a detection shows besides what every report does, and the files of predictions."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.runtime.files import write_atomically
from cnn_jax.tasks.boxed import box_rows, write_coco
from cnn_jax.tasks.detection_scores import Detected, Truth, matched, voc_curves
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.predictions import write_csv
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.detection import Detection

_SHOWN = 4  # images of a figure

_WORDS = {
    "coco": "by COCO's protocol: the mean of the precision at 101 recalls",
    "voc2007": "by the protocol of PASCAL VOC 2007: the mean of the precision at 11 recalls",
    "voc2010": "by the protocol of PASCAL VOC 2010: the area under the curve of precision over recall",
}


def headlines(task: "Detection", results: Results) -> list[Headline]:
    """Average precision."""
    scores = results.scores
    found = []
    if "test/ap" in scores:
        found.append(Headline("test AP", f"{scores['test/ap']:.2%}", note="mean over IoU 0.5 to 0.95"))
    note = {"coco": "COCO", "voc2007": "VOC 2007", "voc2010": "VOC 2010"}[task.config.convention]
    return [*found, Headline("test AP at IoU 0.5", f"{scores['test/ap50']:.2%}", note=note)]


def sections(task: "Detection", results: Results) -> list[Section]:
    """Typical and worst images, the scores of each class, and curves of precision over recall."""
    truths = task.fields.truths(results.test_set.fields)
    shown = [task.shown(prediction) for prediction in results.predictions]
    matches = [matched(truth, found) for truth, found in zip(truths, shown, strict=True)]
    everything = [task.detected(prediction) for prediction in results.predictions]
    curves = voc_curves(truths, everything, len(task.class_names))
    named = {
        name: (curve.recall, curve.precision)
        for name, curve in zip(task.class_names, curves, strict=True)
        if curve.truths
    }
    return [
        *_examples(task, results, truths, shown, matches),
        _classes(task, results, truths, shown, matches),
        *(
            [
                Section(
                    "Precision and recall",
                    figure=figures.precision_recall(named),
                    alt="Precision over recall of each class on the test set, at an IoU of 0.5",
                    caption="A detection is right from an IoU of 0.5 on. Each point is for one threshold of the score.",
                )
            ]
            if named
            else []
        ),
    ]


def _examples(
    task: "Detection", results: Results, truths: Sequence[Truth], shown: Sequence[Detected], matches: Sequence[Any]
) -> list[Section]:
    """Test images with classes and scores, and those with the most mistakes."""
    inputs = results.test_set.inputs
    wrong = np.array([len(missed) + len(false) for _, missed, false in matches])
    order = np.argsort(wrong, kind="stable")
    chosen = spread(order.tolist(), _SHOWN)
    predicted = figures.images_with_boxes(
        [task.painted(inputs[number], results.predictions[number]) for number in chosen],
        [drawn(shown[number], task.class_names) for number in chosen],
        titles=[f"{number}: {_counted(len(shown[number].scores), 'box', 'boxes')}" for number in chosen],
    )
    found = [
        Section(
            "Predictions",
            figure=predicted,
            alt="Test images with the predicted boxes, their classes and scores",
            caption=f"Boxes with a score of at least {task.config.shown_score:g}, on images from the fewest to the "
            "most mistakes, evenly spread over their order.",
        )
    ]
    worst = [int(number) for number in order[::-1][:_SHOWN] if wrong[number]]
    if worst:
        found.append(
            Section(
                "Worst cases",
                figure=figures.images_with_boxes(
                    [task.painted(inputs[number], results.predictions[number]) for number in worst],
                    [_judged(task, truths[number], shown[number], matches[number]) for number in worst],
                    titles=[_title(number, matches[number]) for number in worst],
                    legend=figures.BOX_LEGEND,
                ),
                alt="The test images with the most mistakes: objects that are found, missed, and false detections",
                caption="Test images with the most mistakes, by their numbers. An object is found by a detection of "
                "its class with an IoU of at least 0.5; of missed objects the true boxes are drawn, dashed.",
            )
        )
    return found


def _title(number: int, match: Any) -> str:
    pairs, missed, false = match
    return f"{number}: {len(pairs)} found, {len(missed)} missed, {len(false)} false"


def drawn(found: Detected, names: Sequence[str]) -> list[figures.DrawnBox]:
    """Predicted boxes in the colours of their classes, with class and score; the surest is drawn last, on top."""
    colours = figures.box_colours(len(names))
    boxes = [
        figures.DrawnBox(tuple(map(float, corners)), f"{names[label]} {score:.0%}", colours[label])
        for corners, score, label in zip(found.boxes, found.scores, found.classes, strict=True)
    ]
    return boxes[::-1]


def _judged(task: "Detection", truth: Truth, found: Detected, match: Any) -> list[figures.DrawnBox]:
    """The boxes of an image in the colours of hits and misses."""
    pairs, missed, false = match
    names = task.class_names
    hit, lost, wrong = (colour for _, colour in figures.BOX_LEGEND)
    boxes = [
        figures.DrawnBox(
            tuple(map(float, found.boxes[number])), f"{names[found.classes[number]]} {found.scores[number]:.0%}", wrong
        )
        for number in false
    ]
    boxes += [
        figures.DrawnBox(tuple(map(float, truth.boxes[number])), names[truth.classes[number]], lost, dashed=True)
        for number in missed
    ]
    return boxes + [figures.DrawnBox(tuple(map(float, found.boxes[number])), "", hit) for _, number in pairs]


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _classes(
    task: "Detection", results: Results, truths: Sequence[Truth], shown: Sequence[Detected], matches: Sequence[Any]
) -> Section:
    """Average precision of each class, and what is found and missed among the boxes that are shown."""
    rows = []
    for number, name in enumerate(task.class_names):
        score = results.scores.get(f"test/ap50_{name}")
        found = sum(truth.classes[true] == number for truth, m in zip(truths, matches, strict=True) for true, _ in m[0])
        missed = sum(truth.classes[true] == number for truth, m in zip(truths, matches, strict=True) for true in m[1])
        false = sum(one.classes[given] == number for one, m in zip(shown, matches, strict=True) for given in m[2])
        cells = ["not there" if score is None else f"{score:.2%}", *(f"{int(n):,}" for n in (found, missed, false))]
        rows.append([name, *cells])
    rows.append(["mean", f"{results.scores['test/ap50']:.2%}", "", "", ""])
    return Section(
        "Classes",
        text=f"Average precision at an IoU of 0.5 {_WORDS[task.config.convention]}. Objects are counted as found, "
        f"missed and false among detections with a score of at least {task.config.shown_score:g}.",
        table=Table(["class", "AP at 0.5", "found", "missed", "false"], rows),
    )


def write_overlay(path: Path, image: Shaped[np.ndarray, "..."], found: Detected, names: Sequence[str]) -> None:
    """Writes an image with its boxes as a PNG file.

    Args:
      path: The file.
      image: What was read.
      found: The boxes.
      names: Of the classes.
    """
    figure = figures.overlay_of_boxes(image, drawn(found, names))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())


def write_boxes(
    folder: Path, names: Sequence[str], found: Mapping[str, Detected], sizes: Mapping[str, tuple[int, ...]]
) -> None:
    """Writes ``boxes.csv`` and ``boxes.json``; that has the masks of detections which have some, run-length encoded.

    Args:
      folder: An existing folder.
      names: Of the classes.
      found: The detections of each of the user's files.
      sizes: (height, width) of their images.
    """
    listed = {
        file: [(box, float(score), int(label)) for box, score, label in zip(*one[:3], strict=True)]
        for file, one in found.items()
    }
    rows = box_rows(names, listed)
    if rows:
        write_csv(str(folder / "boxes.csv"), rows)
    masks = {file: one.masks for file, one in found.items() if one.masks is not None}
    write_coco(folder / "boxes.json", names, sizes, listed, masks)
