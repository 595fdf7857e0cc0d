"""What the report of a classification shows besides what every report does."""

import numpy as np

from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section
from cnn_jax.tasks.task import Results


def headlines(results: Results) -> list[Headline]:
    """The test error beside the reference, and the accuracy."""
    reference, accuracy = results.config.reference, results.scores["test/accuracy"]
    count = results.test_count
    return [
        Headline(
            "test error",
            f"{1 - accuracy:.2%}",
            reference=f"{1 - reference.accuracy:.2%}" if reference.accuracy else None,
            reference_source=reference.source or None,
            note=f"{round((1 - accuracy) * count):,} of {count:,} wrong, after the last step",
        ),
        Headline("test accuracy", f"{accuracy:.2%}"),
    ]


def sections(results: Results) -> list[Section]:
    """The confusion matrix and the worst mistakes."""
    test_set, probabilities = results.test_set, results.predictions
    names, predictions = test_set.class_names, probabilities.argmax(axis=-1)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (test_set.labels, predictions), 1)
    return [
        Section(
            "Confusion matrix",
            figure=figures.confusion_matrix(counts, names),
            alt="How often each true class was predicted as each class on the test set",
            caption="Rows are the true classes, columns the predicted ones.",
        ),
        Section(
            "Worst mistakes",
            figure=figures.mistakes(test_set.images, test_set.labels, predictions, probabilities, names),
            alt="The test images whose true class the network held least likely, with its probabilities",
            caption="The test images that the network was most wrong about.",
        ),
    ]
