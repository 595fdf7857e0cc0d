"""What the report of a segmentation shows besides what every report does, and the files of predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from cnn_jax import data, ops
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.instances import connected_objects, instance_scores
from cnn_jax.tasks.predictions import write_image
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.segmentation import Segmentation

_SHOWN = 4  # images of a figure
_MOST_ROWS = 30  # of a table of images


def headlines(task: "Segmentation", results: Results) -> list[Headline]:
    """Mean IoU, mean Dice and pixel accuracy."""
    iou, dice, accuracy, _ = task.metrics(results.config)
    over = "mean of the images" if results.config.score_over == "image" else "pixels of the whole set"
    return [
        Headline("test IoU", iou.format(results.scores["test/iou"]), note=over),
        Headline("test Dice", dice.format(results.scores["test/dice"]), note=over),
        Headline("test pixel accuracy", accuracy.format(results.scores["test/pixel_accuracy"])),
    ]


def sections(task: "Segmentation", results: Results) -> list[Section]:
    """Typical and worst images, the scores of each class, and the confusion of pixels."""
    truth, predictions = task.truth(results.test_set), results.predictions
    matrix = task.pixel_confusion(truth, predictions)
    return [
        *_examples(task, results, truth, predictions),
        _classes(task, results, matrix),
        *(_objects(task, results, truth, predictions) if results.config.get("objects", False) else []),
        Section(
            "Confusion of pixels",
            figure=figures.confusion_matrix(matrix, task.outputs),
            alt="How many pixels of each true class were predicted as each class on the test set",
            caption="Rows are the true classes, columns the predicted ones. Each pixel that is labelled is counted.",
        ),
    ]


def _examples(
    task: "Segmentation", results: Results, truth: Shaped[np.ndarray, "..."], predictions: Shaped[np.ndarray, "..."]
) -> list[Section]:
    """Test images over the range of IoU, and those with the lowest."""
    images = results.test_set.inputs
    if images.ndim not in (4, 5):  # signals have no picture
        return []
    scores = np.array([row["iou"] for row in task.image_scores(truth, predictions)])
    order = [int(number) for number in np.argsort(scores, kind="stable") if not np.isnan(scores[number])]
    if not order:
        return []
    some = spread(order, _SHOWN)[::-1]
    kind = results.test_set.input_kind
    solid = images.ndim == 5
    about = " Of a volume or video one slice is shown, that with the most pixels of other classes than the first and "
    about += "of errors." if solid else ""
    found = []
    for title, chosen, what in (
        ("Predictions", some, f"Test {kind}s from the best to the worst IoU, evenly spread over their order."),
        ("Worst cases", order[:_SHOWN], f"The test {kind}s with the lowest IoU."),
    ):
        planes, titles = [], []
        for number in chosen:
            slice_number = _slice(truth[number], predictions[number], task.ignored) if solid else None
            part: Any = ... if slice_number is None else slice_number
            planes.append((images[number][part], truth[number][part], predictions[number][part]))
            where = "" if slice_number is None else f", slice {slice_number} of {len(truth[number])}"
            titles.append(f"test {kind} {number}{where}: IoU {scores[number]:.1%}")
        shown, true, predicted = (list(column) for column in zip(*planes, strict=True))
        figure = figures.segmentations(shown, true, predicted, task.outputs, titles=titles, ignored=task.ignored)
        caption = f"{what}{about if solid else ''} The class {task.outputs[0]} has no colour. "
        caption += f"IoU is that of the whole {kind}, the mean of its classes."
        alt = f"{kind.capitalize()}s of the test set beside their true classes, predicted classes and errors"
        found.append(Section(title, figure=figure, alt=alt, caption=caption))
    return found[: 1 if len(order) <= _SHOWN else 2]


def _slice(truth: Shaped[np.ndarray, "..."], predicted: Shaped[np.ndarray, "..."], ignored: int | None) -> int:
    """The slice along the first axis with the most pixels of other classes than the first, and of errors."""
    known = truth != ignored
    interesting = known & ((truth > 0) | (truth != predicted))
    return int(interesting.sum(axis=(1, 2)).argmax())


def _classes(task: "Segmentation", results: Results, matrix: Shaped[np.ndarray, "..."]) -> Section:
    """IoU and Dice of each class as they are scored, and precision and recall of its pixels."""
    scores, total = results.scores, max(1, int(matrix.sum()))
    found = ops.precision_recall_f1(ops.ClassCounts(np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)))
    rows = []
    for number, name in enumerate(task.outputs):
        each = (scores.get(f"test/{metric}_{name}") for metric in ("iou", "dice"))
        cells = ["not there" if score is None else f"{score:.2%}" for score in each]
        cells += [f"{float(part[number]):.2%}" for part in (found.precision, found.recall)]
        rows.append([name, *cells, f"{matrix[number].sum() / total:.2%}"])
    rows.append(["mean", f"{scores['test/iou']:.2%}", f"{scores['test/dice']:.2%}", "", "", ""])
    return Section(
        "Classes",
        text=f"IoU and Dice are {task.convention}. Precision and recall are those of all pixels of the set.",
        table=Table(["class", "IoU", "Dice", "precision", "recall", "share of pixels"], rows),
    )


def _objects(
    task: "Segmentation", results: Results, truth: Shaped[np.ndarray, "..."], predictions: Shaped[np.ndarray, "..."]
) -> list[Section]:
    """The Rand error and the variation of information of each test image."""
    rows, found = [], []
    for number, (true, predicted) in enumerate(zip(truth, predictions, strict=True)):
        known = true != task.ignored
        objects = [connected_objects(np.where(known, classes, 0)) for classes in (true, predicted)]
        found.append(instance_scores(*objects))
        rows.append([f"test {results.test_set.input_kind} {number}", *(f"{value:.4f}" for value in found[-1])])
    means = [f"{value:.4f}" for value in np.mean(found, axis=0)]
    names = ["Rand error", "variation of information", "split", "merge"]
    return [
        Section(
            "Objects",
            text="Connected parts of the pixels whose class is not the first are compared with those of the truth, "
            "over the pixels that are in a true object. The Rand error is one minus the F score of pairs of pixels in "
            "one object. The variation of information is in bits: what is split, and what is merged.",
            table=Table(["image", *names], [*rows[:_MOST_ROWS], ["mean of all images", *means]]),
        )
    ]


def write_prediction(
    task: "Segmentation", folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
) -> None:
    """Writes the class numbers and an overlay as PNG, or a NIfTI volume of class numbers.

    Args:
      task: Of the run.
      folder: An existing folder.
      name: What the names of the files begin with.
      source: The user's file, whose affine a NIfTI volume gets.
      image: What was read from it.
      prediction: The class of each pixel.
    """
    if prediction.ndim == 3:
        data.write_label_volume(folder / f"{name}.nii.gz", prediction, like=source)
        return
    count = len(task.outputs)
    coloured = np.rint(255 * figures.overlay(image, prediction, count)).astype(np.uint8)
    write_image(folder / f"{name}.png", prediction.astype(np.uint8 if count <= 256 else np.int32))
    write_image(folder / f"{name}_overlay.png", coloured)
