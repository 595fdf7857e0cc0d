"""What the report of a classification shows besides what every report does."""

import numpy as np

from cnn_jax import ops
from cnn_jax.report import figures
from cnn_jax.report.figures.pictures import worst_mistakes
from cnn_jax.report.page import Headline, Section
from cnn_jax.tasks.examples import shown
from cnn_jax.tasks.labelled import class_scores
from cnn_jax.tasks.task import Results

_MISTAKES = 6  # that are shown, of inputs that are no images


def headlines(results: Results, *, ignored: int | None) -> list[Headline]:
    """The test error beside the reference, and the accuracy.

    Args:
      results: Of the run.
      ignored: The label of examples that are not labelled.
    """
    reference, accuracy = results.config.reference, results.scores["test/accuracy"]
    count = results.test_count
    wrong = f"{round((1 - accuracy) * count):,} of {count:,} wrong" if ignored is None else "of the labelled examples"
    return [
        Headline(
            "test error",
            f"{1 - accuracy:.2%}",
            reference=f"{1 - reference.accuracy:.2%}" if reference.accuracy else None,
            reference_source=reference.source or None,
            note=f"{wrong}, after the last step",
        ),
        Headline("test accuracy", f"{accuracy:.2%}"),
    ]


def sections(results: Results, *, ignored: int | None, calibrated: bool) -> list[Section]:
    """The confusion matrix, the scores of each class, the reliability diagram, and the worst mistakes.

    Args:
      results: Of the run.
      ignored: The label of examples that are not labelled, which are left out.
      calibrated: Whether the predictions are meant as probabilities.
    """
    test_set = results.test_set
    kept = np.flatnonzero(test_set.labels != ignored) if ignored is not None else np.arange(len(test_set))
    if not len(kept):
        return []
    names, labels, probabilities = test_set.class_names, test_set.labels[kept], results.predictions[kept]
    predictions = probabilities.argmax(axis=-1).astype(np.int32)
    counts = np.asarray(ops.confusion_matrix(labels, predictions, num_classes=len(names)))
    return [
        Section(
            "Confusion matrix",
            figure=figures.confusion_matrix(counts, names),
            alt="How often each true class was predicted as each class on the test set",
            caption="Rows are the true classes, columns the predicted ones.",
        ),
        class_scores(counts, names),
        *([_reliability(probabilities, labels)] if calibrated else []),
        *_mistakes(results, kept, labels, predictions, probabilities),
    ]


def _mistakes(
    results: Results, kept: np.ndarray, labels: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray
) -> list[Section]:
    """The examples that the network was most wrong about."""
    test_set = results.test_set
    if (kind := test_set.input_kind) != "image":
        worst = worst_mistakes(labels, predictions, probabilities)[:_MISTAKES]
        if not len(worst):
            return []
        names = test_set.class_names
        titles = [
            f"#{kept[n]}: {names[labels[n]]} ({probabilities[n, labels[n]]:.0%}), predicted {names[predictions[n]]} "
            f"({probabilities[n, predictions[n]]:.0%})"
            for n in worst
        ]
        return [
            Section(
                "Worst mistakes",
                alt=f"The test {kind}s whose true class the network held least likely",
                caption=f"The test {kind}s that the network was most wrong about: the true and the predicted class.",
                **shown(test_set, kept[worst].tolist(), titles),
            )
        ]
    return [
        Section(
            "Worst mistakes",
            figure=figures.mistakes(test_set.inputs[kept], labels, predictions, probabilities, test_set.class_names),
            alt="The test images whose true class the network held least likely, with its probabilities",
            caption="The test images that the network was most wrong about.",
        )
    ]


def _reliability(probabilities: np.ndarray, labels: np.ndarray) -> Section:
    """Whether the predicted probabilities agree with the accuracy."""
    bins = ops.calibration_bins(probabilities, labels)
    error = float(ops.expected_calibration_error(bins))
    return Section(
        "Calibration",
        figure=figures.reliability(bins.total, bins.confidence, bins.correct),
        alt="Accuracy of the test examples by the probability of the predicted class",
        caption=f"Expected calibration error {error:.2%} ({len(bins.total)} bins). On the dashed line "
        "the accuracy equals the predicted probability. A bar that ends below it means overconfidence.",
    )
