"""What the report of a localisation shows besides what every report does."""

from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import ops
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.localization import Localization

_SHOWN = 6  # images of a figure


def headlines(task: "Localization", results: Results) -> list[Headline]:
    """How often class and box are both right, and the mean IoU beside that of the constant box."""
    scores = results.scores
    constant = f"that of the constant box is {scores['test/iou_of_constant_box']:.2%}"
    return [
        Headline("class and box right", f"{scores['test/both']:.2%}", note="of the test images, at IoU 0.5"),
        Headline("test accuracy", f"{scores['test/accuracy']:.2%}"),
        Headline("mean IoU", f"{scores['test/iou']:.2%}", note=constant),
    ]


def sections(task: "Localization", results: Results) -> list[Section]:
    """Images over the range of IoU, the worst, and the shares of boxes at several thresholds."""
    fields, images = results.test_set.fields, results.test_set.inputs
    overlaps = task.overlaps(results.predictions, fields)
    order = [int(number) for number in np.argsort(overlaps, kind="stable") if not np.isnan(overlaps[number])]
    if not order:
        return []
    some = spread(order, _SHOWN)[::-1]
    legend = (("true", figures.TRUTH), ("predicted", figures.PREDICTED), ("constant", figures.BOX_LEGEND[2][1]))
    found = []
    for title, chosen, what in (
        ("Predictions", some, "Test images from the best to the worst IoU, evenly spread over their order."),
        ("Worst cases", order[:_SHOWN], "The test images with the lowest IoU."),
    ):
        boxes, titles = [], []
        for number in chosen:
            row, true = results.predictions[number], fields[task.fields.boxes][number, 0]
            given = f"{task.class_names[int(row[:-4].argmax())]} {row[:-4].max():.0%}"
            boxes.append(
                [
                    figures.DrawnBox(tuple(map(float, task.constant)), "", legend[2][1], dashed=True),
                    figures.DrawnBox(tuple(map(float, true)), "", figures.TRUTH),
                    figures.DrawnBox(tuple(map(float, row[-4:])), given, figures.PREDICTED),
                ]
            )
            label = task.class_names[int(fields[task.fields.label][number, 0])]
            titles.append(f"{label}: IoU {overlaps[number]:.0%}")
        figure = figures.images_with_boxes(
            [images[number] for number in chosen], boxes, titles=titles, legend=legend, columns=3
        )
        alt = "Test images with their true boxes, the predicted ones and the constant box"
        found.append(Section(title, figure=figure, alt=alt, caption=f"{what} The constant box is the same for all."))
    return [*found[: 1 if len(order) <= _SHOWN else 2], _thresholds(task, results, overlaps)]


def _thresholds(task: "Localization", results: Results, overlaps: np.ndarray) -> Section:
    """How many boxes are right at several thresholds of the IoU."""
    fields = results.test_set.fields
    there = fields[task.fields.counted_by] > 0
    constant = np.asarray(ops.box_iou(task.constant, fields[task.fields.boxes][:, 0]))[there]
    known = overlaps[there]
    rows = [
        [f"at least {threshold:g}", f"{(known >= threshold).mean():.2%}", f"{(constant >= threshold).mean():.2%}"]
        for threshold in (0.3, 0.5, 0.7, 0.9)
    ]
    rows.append(["mean IoU", f"{known.mean():.2%}", f"{constant.mean():.2%}"])
    return Section("Boxes", table=Table(["IoU", "network", "constant box"], rows))
