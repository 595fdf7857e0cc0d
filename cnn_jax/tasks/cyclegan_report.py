"""What the report of a CycleGAN shows besides what every report does."""

from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.image_to_image import scaled
from cnn_jax.tasks.image_to_image_report import SHOWN, examples, explained_scores, score_row, scored
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.cyclegan import CycleGAN


def headlines(task: "CycleGAN", results: Results) -> list[Headline]:
    """The error of pairs and its parts, and of translating there and back."""
    notes = {"mae": "of white, of held-out pairs, both directions", "cycle": "of white, translated there and back"}
    names = {"mae": "test error", "cycle": "error there and back"}
    return [
        Headline(names[metric.name], metric.format(results.scores[f"test/{metric.name}"]), note=notes[metric.name])
        for metric in task.metrics(results.config)
        if metric.name in names
    ]


def sections(task: "CycleGAN", results: Results) -> list[Section]:
    """Images there and back; and beside the truth, with the scores, where there are pairs."""
    fields, predictions = results.test_set.fields, results.predictions
    inputs = [np.asarray(scaled(fields[name])) for name in reversed(task.names)]
    translations, again = task.translated(predictions), task.there_and_back(predictions)
    found = []
    if inputs[0].ndim == 4:
        chosen = spread(range(len(predictions)), SHOWN)
        for name, image, there, back, own in zip(
            task.names, inputs, translations, again, reversed(task.names), strict=True
        ):
            rows = {own: image, f"to {name}": there, "and back": back}
            found.append(
                Section(
                    f"To {name} and back",
                    figure=figures.rows_of_images({what: array[chosen] for what, array in rows.items()}),
                    alt=f"Test images, as {name}, and translated back",
                    caption="Test images, evenly spread over the set.",
                )
            )
    if not task.config.paired:
        return found
    table: list[list[str]] = []
    for name, image, there, truth in zip(task.names, inputs, translations, inputs[::-1], strict=True):
        scores = scored(task, there, truth)
        if image.ndim == 4:
            found += examples(results, image, truth, there, scores["mae"], what=f" to {name}")
        table += (
            score_row(f"to {name}", scores),
            score_row(f"to {name}: the input as it is", scored(task, image, truth)),
        )
    text = "Pairs of test images, which are no part of the training, show how far a translation is from the truth. "
    scores_section = Section(
        "Scores",
        text=text + explained_scores(task, len(predictions)),
        table=Table(["", "error", "PSNR", "SSIM"], table),
    )
    return [*found, scores_section]
