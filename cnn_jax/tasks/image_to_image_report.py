"""What the report of an image-to-image task shows besides what every report does, and the images of predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from cnn_jax.errors import UsageError
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.predictions import write_image
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.image_to_image import ImageToImage

SHOWN = 5  # images of a figure
_AT_ONCE = 500


def headlines(task: "ImageToImage", results: Results) -> list[Headline]:
    """Error, PSNR and SSIM."""
    notes = ("of white, mean of all pixels", "mean of the images", _window(task))
    return [
        Headline(f"test {name}", metric.format(results.scores[f"test/{metric.name}"]), note=note)
        for name, metric, note in zip(("error", "PSNR", "SSIM"), task.metrics(results.config)[:3], notes, strict=True)
    ]


def sections(task: "ImageToImage", results: Results) -> list[Section]:
    """Typical and worst images; the scores beside those of the input as it is."""
    inputs, truth = results.test_set.inputs, task.truth(results.test_set.fields)
    images = _in_parts(task.composed, results.predictions, inputs)
    scores = scored(task, images, truth)
    found = examples(results, inputs, truth, images, scores["mae"]) if inputs.ndim == 4 else []
    table = [score_row("network", scores)]
    if inputs.shape[-1] in (1, truth.shape[-1]):
        unchanged = np.broadcast_to(inputs, truth.shape) / (255 if inputs.dtype == np.uint8 else 1)
        table.append(score_row("the input as it is", scored(task, unchanged.astype(np.float32), truth)))
    each = [
        [name.removeprefix("test/mae_"), f"{value:.2%}"]
        for name, value in results.scores.items()
        if name.startswith("test/mae_")
    ]
    section = Section(
        "Scores",
        text=explained_scores(task, len(inputs)),
        table=Table(["", "error", "PSNR", "SSIM"], table),
    )
    classes = [Section("Error by class of pixels", table=Table(["pixels", "error"], each))] if each else []
    return [*found, section, *classes]


def explained_scores(task: "ImageToImage", count: int) -> str:
    """What the numbers of a table of scores mean, for so many images."""
    metric = "The error is the mean absolute difference from the truth as a share of white. PSNR is limited to 100 dB. "
    return f"{metric}SSIM has a window of {_window(task)}. Means over {count:,} test images."


def examples(results: Results, inputs: Any, truth: Any, images: Any, errors: Any, *, what: str = "") -> list[Section]:
    """Test images over the range of errors, and those with the largest.

    Args:
      results: Of the run.
      inputs: The images that the network was given.
      truth: What is right.
      images: What is predicted.
      errors: Of each image.
      what: What is predicted, for the titles.
    """
    order = np.argsort(errors, kind="stable").tolist()
    some = spread(order, SHOWN)
    found = []
    for title, chosen, which in (
        (
            f"Predictions{what}",
            some,
            "Test images from the smallest to the largest error, evenly spread over their order.",
        ),
        (f"Worst cases{what}", order[::-1][:SHOWN], "The test images with the largest errors."),
    ):
        rows = [[array[number] for number in chosen] for array in (inputs, truth, images)]
        titles = [f"test image {number}: error {errors[number]:.2%}" for number in chosen]
        found.append(
            Section(
                title,
                figure=figures.predicted_images(*rows, titles=titles),
                alt="Images of the test set: the input, the truth, the prediction and the error",
                caption=f"{which} The last column is the absolute difference, averaged over the channels.",
            )
        )
    return found[: 1 if len(order) <= SHOWN else 2]


def _in_parts(function: Any, first: Any, second: Any) -> Any:
    """A function of two arrays of images, applied to some at a time."""
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(first), _AT_ONCE)]
    found = [function(first[part], second[part]) for part in parts]
    if isinstance(found[0], dict):
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return np.concatenate([np.asarray(one) for one in found])


def scored(task: "ImageToImage", images: Any, truth: Any) -> Any:
    """:meth:`ImageToImage.image_scores` of many images."""
    return _in_parts(task.image_scores, images, truth)


def score_row(name: str, scores: Any) -> list[str]:
    """A row of a table of scores: the means over the images."""
    means = {metric: float(values.mean()) for metric, values in scores.items()}
    return [name, f"{means['mae']:.2%}", f"{means['psnr']:.2f} dB", f"{means['ssim']:.4f}"]


def _window(task: "ImageToImage") -> str:
    gaussian = "11 pixels, Gaussian of 1.5 (Wang et al. 2004)"
    return gaussian if task.config.ssim_window == "gaussian" else "7 pixels, uniform"


def write_prediction(
    task: "ImageToImage", folder: Path, name: str, *, image: Shaped[np.ndarray, "..."], prediction: Any
) -> None:
    """Writes the predicted image as PNG.

    Args:
      task: Of the run.
      folder: An existing folder.
      name: What the name of the file begins with.
      image: What was read from the user's file.
      prediction: Of the task.

    Raises:
      UsageError: The prediction is a volume or video, or has other numbers of channels than images have.
    """
    write_pixels(folder / f"{name}.png", np.asarray(task.composed(prediction[None], image[None]))[0])


def write_pixels(path: Path, pixels: Shaped[np.ndarray, "..."]) -> None:
    """Writes an image from 0 to 1 as PNG.

    Raises:
      UsageError: It is a volume or video, or has other numbers of channels than images have.
    """
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise UsageError(f"predictions of shape {pixels.shape} are no images of 1 or 3 channels; leave --output out")
    write_image(path, np.rint(255 * pixels).astype(np.uint8))
