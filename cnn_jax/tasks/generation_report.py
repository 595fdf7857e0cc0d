"""What the report of generation shows: samples, how they came about, and whether they are copies or as asked for."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from cnn_jax import data
from cnn_jax.metrics import Metric
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.frechet import frechet_distance
from cnn_jax.tasks.responses import Explained
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.generation import Generation

_COLUMNS = 8  # images in a row
_CLASSES = 20  # the most rows of samples
_PATHS = 3  # between two noises
_NEIGHBOURS = 8  # samples beside their nearest training images
_SEED = 0  # of the noise of all figures
_COMPARED = 2000  # images whose nearest training images are searched
_TRAINING = 10_000  # of these


class _Reference(NamedTuple):
    """What real images score where generated ones are scored.

    Attributes:
      frechet: The Fréchet distance of as many training images from the test images.
      compared: The number of these.
      accuracy: Of the classifier on the test images; None if their classes are others.
    """

    frechet: float
    compared: int
    accuracy: float | None


def headlines(task: "Generation", results: Results) -> list[Headline]:
    """The scores, beside those of real images."""
    reference, scores = _reference(task, _train_set(results), results.test_set), results.scores
    found = [
        Headline(
            "test Fréchet distance",
            f"{scores['test/frechet']:.3g}",
            reference=f"{reference.frechet:.3g}",
            reference_source="training images",
            note="of the classifier's features; lower is better",
        )
    ]
    if "test/accuracy" in scores:
        real = {"reference": f"{reference.accuracy:.2%}", "reference_source": "real images"}
        note = "images that the classifier takes for what was asked for"
        found.append(
            Headline(
                "test accuracy",
                f"{scores['test/accuracy']:.2%}",
                note=note,
                **(real if reference.accuracy is not None else {}),
            )
        )
    return found


def sections(task: "Generation", results: Results) -> list[Section]:
    """The task's sections of the report."""
    return [
        _samples(task, results),
        *_during_training(task, results),
        _interpolation(task, results),
        _nearest(task, results),
        _losses(results),
        *_classified(task, results),
    ]


def generated(
    task: "Generation", explained: Explained, inputs: Float[np.ndarray, "n numbers"]
) -> Float[np.ndarray, "n height width channels"]:
    """The images from 0 to 1 that a network makes of its inputs, some at a time."""
    graph, state = nnx.split(explained.model)
    filled = np.resize(inputs, (-(-len(inputs) // _COLUMNS), _COLUMNS, inputs.shape[-1]))
    parts = [_images(task, graph, state, explained.inputs(part)) for part in filled]
    return np.concatenate([np.asarray(part) for part in parts])[: len(inputs)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _images(task: "Generation", graph: Any, state: Any, inputs: Array) -> Array:
    return task.predict(nnx.merge(graph, state)(inputs))


def _asked(task: "Generation") -> list[str]:
    """The classes that samples are shown of, evenly spread; without words none."""
    return [task.class_names[number] for number in spread(range(len(task.class_names)), _CLASSES)]


def _words(task: "Generation", name: str, count: int) -> Shaped[np.ndarray, "n words"]:
    """The whole name of a class, several times."""
    phrase = task.phrases.of_class[task.class_names.index(name)][0] if task.phrases else ()
    tokens = task.phrases.tokens(phrase) if task.phrases else np.zeros(0, np.int32)
    return np.repeat(tokens[None], count, axis=0)


def _samples(task: "Generation", results: Results) -> Section:
    if task.phrases is None:
        shape = (_COLUMNS, _COLUMNS)
        images = generated(task, results.explained, task.inputs(np.zeros((_COLUMNS**2, 0)), _SEED))
        figure = figures.grid_of_images(images.reshape(*shape, *images.shape[1:]))
        return Section("Samples", figure=figure, alt="Generated images", caption="Each from other noise; not chosen.")
    rows = {
        name: generated(task, results.explained, task.inputs(_words(task, name, _COLUMNS), _SEED))
        for name in _asked(task)
    }
    return Section(
        "Samples",
        figure=figures.rows_of_images(rows),
        alt="Generated images, one row for each class that was asked for",
        caption="A row for each class that was asked for, and a column for each noise; not chosen.",
    )


def _fixed(task: "Generation") -> Float[np.ndarray, "n numbers"]:
    """One input for each class, or without words a few."""
    if task.phrases is None:
        return task.inputs(np.zeros((_COLUMNS, 0)), _SEED)
    names = [task.class_names[number] for number in spread(range(len(task.class_names)), _COLUMNS)]
    return task.inputs(np.concatenate([_words(task, name, 1) for name in names]), _SEED)


def _during_training(task: "Generation", results: Results) -> list[Section]:
    """Images from the same noise at each checkpoint that was kept."""
    if len(results.history) < 2:
        return []
    rows = {f"step {step:,}": generated(task, read(), _fixed(task)) for step, read in results.history.items()}
    return [
        Section(
            "Samples during training",
            figure=figures.rows_of_images(rows),
            alt="Images from the same noise at several steps of training",
            caption="The noise"
            + (" and the words" if task.phrases else "")
            + " of a column are the same at every step.",
        )
    ]


def _interpolation(task: "Generation", results: Results) -> Section:
    """Images between two noises, on the arc between them, since normal noise has nearly always the same length."""
    rows: dict[str, np.ndarray] = {}
    for path in range(_PATHS):
        names = _asked(task)
        name = names[len(names) * path // _PATHS] if task.phrases else ""
        ends = task.inputs(np.zeros((2 * _PATHS, 0)), _SEED + 1)[2 * path : 2 * path + 2]
        shares = np.linspace(0, 1, _COLUMNS)
        noise = np.stack([spherical(ends[0], ends[1], share) for share in shares])
        words = _words(task, name, _COLUMNS) if task.phrases else np.zeros((_COLUMNS, 0))
        rows[name or f"path {path + 1}"] = generated(
            task, results.explained, np.concatenate([words, noise], axis=-1).astype(np.float32)
        )
    return Section(
        "Between two noises",
        figure=figures.rows_of_images(rows),
        alt="Images whose noise moves from one to another",
        caption="The noise moves along the arc from that of the first image to that of the last. Gradual changes mean "
        "that the network has not learned single images by heart.",
    )


def spherical(
    first: Float[np.ndarray, " numbers"], last: Float[np.ndarray, " numbers"], share: float
) -> Float[np.ndarray, " numbers"]:
    """A point on the arc from one vector to another (Shoemake 1985).

    >>> spherical(np.array([2.0, 0.0]), np.array([0.0, 2.0]), 0.5).round(4).tolist()
    [1.4142, 1.4142]
    """
    cosine = first @ last / (np.linalg.norm(first) * np.linalg.norm(last))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:
        return (1 - share) * first + share * last
    return (np.sin((1 - share) * angle) * first + np.sin(share * angle) * last) / np.sin(angle)


def _nearest(task: "Generation", results: Results) -> Section:
    """Samples beside the training images that are nearest to them, and how far these are for real images."""
    training = _train_set(results).inputs
    training = _flat(training[spread(range(len(training)), _TRAINING)])
    numbers = spread(range(len(results.predictions)), _COMPARED)
    samples, real = results.predictions[numbers], results.test_set.inputs[numbers]
    found, distances = nearest(_flat(samples), training)
    of_real = nearest(_flat(real), training)[1]
    shown = spread(range(len(numbers)), _NEIGHBOURS)
    rows = {
        "generated": samples[shown],
        "nearest training images": training[found[shown]].reshape(len(shown), *samples.shape[1:]),
    }
    return Section(
        "Nearest training images",
        figure=figures.rows_of_images(rows),
        alt="Generated images above the training images that are nearest to them",
        caption=f"By the root mean square difference of pixels, among {len(training):,} training images. Copies of "
        "training images would be much nearer to them than test images are.",
        table=Table(
            ["distance to the nearest training image, % of white", "mean", "smallest"],
            [
                [name, f"{100 * values.mean():.2f}", f"{100 * values.min():.2f}"]
                for name, values in (("generated images", distances), ("test images", of_real))
            ],
        ),
    )


def nearest(
    images: Float[np.ndarray, "n pixels"], among: Float[np.ndarray, "m pixels"]
) -> tuple[Shaped[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """For each image the number of the nearest of others, and the root mean square difference from it.

    >>> [found.tolist() for found in nearest(np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 0.5]]))]
    [[1], [0.3535533905932738]]
    """
    squares = np.square(images).sum(axis=1)[:, None] + np.square(among).sum(axis=1) - 2 * images @ among.T
    found = squares.argmin(axis=1)
    return found, np.sqrt(np.square(images - among[found]).mean(axis=1))


def _losses(results: Results) -> Section:
    metrics = [Metric("discriminator_loss", "lower"), Metric("adversarial_loss", "lower")]
    return Section(
        "Losses of both networks",
        figure=figures.learning_curves(results.records, metrics=metrics),
        alt="The losses of discriminator and generator over the epochs",
        caption="Of the discriminator, the sum for real and for generated images: 1.39 if it cannot tell them apart. "
        "Of the generator, the cross entropy with real: 0.69 then. Neither says how good images are.",
    )


def _classified(task: "Generation", results: Results) -> list[Section]:
    """What the classifier takes images for, and the distances of features."""
    reference = _reference(task, _train_set(results), results.test_set)
    names = task.classifier_classes
    classes = task.classified(results.predictions)[0].argmax(axis=1)
    rows = [
        ["generated images", f"{results.scores['test/frechet']:.3f}"],
        [f"{reference.compared:,} training images", f"{reference.frechet:.3f}"],
    ]
    scores = Section(
        "Fréchet distance",
        text=f"Between features of {results.test_count:,} test images and as many others: the activations of "
        f"{results.config.classifier} before its output layer. The classifier was trained on the training images, "
        "so it sees them a little differently from new ones. The distance depends on the classifier and on the number "
        "of images.",
        table=Table(["from the test images", "distance"], rows),
    )
    if task.phrases is not None:
        counts = np.zeros((len(names), len(names)), np.int64)
        np.add.at(counts, (results.test_set.labels, classes), 1)
        return [
            scores,
            Section(
                "What was asked for, and what came",
                figure=figures.confusion_matrix(counts, names),
                alt="Confusion matrix of the classes that were asked for and those that the classifier sees",
                caption="Rows are classes that were asked for, columns are what the classifier takes the images for.",
            ),
        ]
    real = task.classified(results.test_set.inputs)[0].argmax(axis=1)
    shares = [np.bincount(found, minlength=len(names)) / len(found) for found in (classes, real)]
    table = Table(
        ["class", "generated", "test images"],
        [[name, *(f"{share[number]:.1%}" for share in shares)] for number, name in enumerate(names)],
    )
    return [scores, Section("Classes", text="What the classifier takes images for: share of each class.", table=table)]


@functools.lru_cache(maxsize=1)
def _reference(task: "Generation", train_set: data.Dataset, test_set: data.Dataset) -> _Reference:
    logits, features = task.classified(test_set.inputs)
    if task.phrases is None:
        chosen, accuracy = spread(range(len(train_set)), len(test_set)), None
    else:
        chosen = as_often(train_set.labels, test_set.labels)
        accuracy = float((logits.argmax(axis=1) == test_set.labels).mean())
    training = task.classified(train_set.inputs[chosen])[1]
    return _Reference(frechet_distance(training, features), len(chosen), accuracy)


def as_often(labels: Shaped[np.ndarray, " n"], wanted: Shaped[np.ndarray, " m"]) -> list[int]:
    """Numbers of examples among which each class is as frequent as in other labels, as far as there are so many.

    >>> as_often(np.array([0, 1, 0, 1, 0]), np.array([1, 0, 0]))
    [0, 4, 1]
    """
    classes, counts = (found.tolist() for found in np.unique(wanted, return_counts=True))
    members = [np.flatnonzero(labels == one).tolist() for one in classes]
    chosen = [spread(own, count) for own, count in zip(members, counts, strict=True)]
    return [number for numbers in chosen for number in numbers]


def _train_set(results: Results) -> data.Dataset:
    assert results.train_set is not None  # in reports
    return results.train_set


def _flat(images: Shaped[np.ndarray, "n ..."]) -> Float[np.ndarray, "n pixels"]:
    """Pixels from 0 to 1, one row for each image."""
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    return (images / scale).astype(np.float32).reshape(len(images), -1)
