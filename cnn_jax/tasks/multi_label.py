"""Multi-label classification: any number of classes per image, each predicted on its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.tasks.labelled import Labelled, class_scores
from cnn_jax.tasks.task import Examples, Results


class MultiLabel(Labelled):
    """Several classes per image: a field of kind ``labels`` has 1 for each class that is there, and 0 for the others.

    A class is predicted where its probability is above ``config.threshold``. A label that is ignored, see
    :class:`~cnn_jax.data.Field`, says that nothing is known about this class of the example: it has no loss and no
    gradient, and no metric counts it.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: The class names of their labels are the names of the network's outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range.
    """

    kind = "labels"
    losses = ("cross_entropy", "focal")
    tuple_examples: ClassVar[Mapping[str, tuple[Any, ...]]] = {"pos_weight": (1.0, 5.0)}

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        self.check_weights("pos_weight", config.pos_weight)
        if not 0 < config.threshold < 1:
            raise UsageError(f"threshold={config.threshold} must be a probability above 0 and below 1")
        if config.loss == "focal" and (len(config.pos_weight) or not 0 <= config.focal_alpha <= 1):
            raise UsageError(
                f"loss='focal' has no pos_weight; it has focal_alpha, a number from 0 to 1 and not {config.focal_alpha}"
            )

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of multi-label classification.

        >>> MultiLabel.default_config().threshold
        0.5
        """
        config = super().default_config()
        config.update(
            {
                "loss": "cross_entropy",  # of the sigmoid of each output; or focal
                "focal_alpha": 0.25,  # of loss='focal': the weight of classes that are there, beside 1 - alpha
                "pos_weight": (),  # one number per class: the weight of its loss where it is there
                "threshold": 0.5,  # the probability above which a class is predicted
            }
        )
        return config

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Macro F1, subset accuracy and loss."""
        return Metric("macro_f1", "higher", "%"), Metric("subset_accuracy", "higher", "%"), Metric("loss", "lower")

    def label_losses(
        self, logits: Float[Array, "batch classes"], labels: Shaped[Array, "batch classes"], *, training: bool = False
    ) -> Float[Array, "batch classes"]:
        """The loss of each label, 0 where it is ignored.

        Args:
          logits: Of the network.
          labels: 0, 1 or in between; or the ignored number.
          training: Whether to smooth labels and weight classes, as only the loss of training does.
        """
        config, options = self.config, {"ignore_label": ops.IGNORED}
        labels = jnp.where(self._known(labels), labels.astype(jnp.float32), ops.IGNORED)
        if config.loss == "focal":
            return ops.sigmoid_focal_loss(logits, labels, alpha=config.focal_alpha, gamma=config.focal_gamma, **options)
        smoothing = config.label_smoothing if training else 0.0
        weights = jnp.asarray(config.pos_weight, jnp.float32) if training and len(config.pos_weight) else None
        return ops.sigmoid_cross_entropy(logits, labels, label_smoothing=smoothing, pos_weight=weights, **options)

    def loss(self, outputs: Float[Array, "batch classes"], batch: training.Batch) -> Float[Array, ""]:
        """The mean loss of the known labels of a batch."""
        labels = batch[self._label]
        losses = self.label_losses(outputs, labels, training=True)
        return losses.sum() / jnp.maximum(self._known(labels).sum(), 1).astype(losses.dtype)

    def measure(self, outputs: Float[Array, "batch classes"], batch: training.Batch) -> training.Metrics:
        """The loss, the examples of which all known labels are right, and the counts of each class."""
        labels = batch[self._label]
        counted = self._known(labels) & (batch.get("mask", jnp.ones(len(labels))) > 0)[:, None]
        predicted, there = jax.nn.sigmoid(outputs) > self.config.threshold, labels.astype(jnp.float32) > 0.5
        right = (~counted | (predicted == there)).all(axis=-1)
        examples = counted.any(axis=-1)
        losses = jnp.where(counted, self.label_losses(outputs, labels), 0)

        def each(chosen: Bool[Array, "batch classes"]) -> Float[Array, " classes"]:
            return (chosen & counted).sum(axis=0).astype(jnp.float32)

        number = examples.sum().astype(jnp.float32)
        return {
            "loss": (losses.sum(), counted.sum().astype(losses.dtype)),
            "subset_accuracy": ((right & examples).sum().astype(jnp.float32), number),
            "hits": (each(predicted & there), number),
            "predicted": (each(predicted), number),
            "support": (each(there), number),
        }

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The averages, and the mean F1 of the classes that are there or predicted."""
        scores = super().scores(means)
        if "hits" in means:
            counts = ops.ClassCounts(means["hits"], means["predicted"], means["support"])
            scores["macro_f1"] = float(ops.macro_average(counts).f1)
        return scores

    def predict(self, outputs: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
        """The probability of each class; they need not sum to 1."""
        return jax.nn.sigmoid(outputs.astype(jnp.float32))

    def average(self, outputs: Float[Array, "several batch classes"]) -> Float[Array, "batch classes"]:
        """The logit of the averaged probability of each class."""
        outputs = outputs.astype(jnp.float32)
        there, absent = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * outputs), axis=0) for sign in (1, -1))
        return there - absent

    def rows(self, predictions: Float[np.ndarray, "n classes"]) -> list[dict[str, Any]]:
        """The predicted classes, separated by semicolons, and the probability of every class."""
        return [
            {
                "classes": ";".join(self._predicted(row)),
                **{name: f"{value:.6f}" for name, value in zip(self.outputs, row, strict=True)},
            }
            for row in predictions
        ]

    def brief_rows(self, predictions: Float[np.ndarray, "n classes"]) -> list[dict[str, str]]:
        """The predicted classes with their probabilities."""
        return [
            {
                "classes": ", ".join(
                    f"{self.outputs[k]} {row[k]:.1%}"
                    for k in np.argsort(-row, kind="stable")
                    if row[k] > self.config.threshold
                )
                or "none"
            }
            for row in predictions
        ]

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true classes; empty where there are none."""
        return [
            {"labels": ";".join(name for name, is_there in zip(self.outputs, row, strict=True) if is_there)}
            for row in (batch[self._label] > 0.5) & np.asarray(self._known(batch[self._label]))
        ]

    def headlines(self, results: Results) -> list[Any]:
        """Macro F1, mean average precision and subset accuracy."""
        from cnn_jax.report.page import Headline

        found = [average for _, _, average in self._curves(results).values() if average is not None]
        threshold = f"threshold {self.config.threshold:g}"
        precision = [Headline("mean average precision", f"{np.mean(found):.2%}", note="mean over the classes")]
        return [
            Headline("test macro F1", f"{results.scores['test/macro_f1']:.2%}", note=threshold),
            *(precision if found else []),
            Headline(
                "test subset accuracy",
                f"{results.scores['test/subset_accuracy']:.2%}",
                note=f"all labels of an example are right, {threshold}",
            ),
        ]

    def sections(self, results: Results) -> list[Any]:
        """The scores of each class, and its precision over its recall."""
        from cnn_jax.report import figures
        from cnn_jax.report.page import Section

        labels = results.test_set.fields[self._label]
        counted, there = np.asarray(self._known(labels)), labels > 0.5
        predicted = results.predictions > self.config.threshold
        counts = ops.ClassCounts(
            *(np.sum(chosen & counted, axis=0) for chosen in (predicted & there, predicted, there))
        )
        curves = self._curves(results)
        averages = [np.nan if average is None else average for _, _, average in curves.values()]
        return [
            class_scores(
                counts,
                self.outputs,
                text=f"A class is predicted where its probability is above {self.config.threshold:g}. ",
                others={"average precision": averages},
            ),
            Section(
                "Precision and recall",
                figure=figures.precision_recall({name: curve[:2] for name, curve in curves.items()}),
                alt="The precision of each class over its recall, for all thresholds",
                caption="Each line is one class. A higher threshold gives less recall and, as a rule, more precision. "
                "The area under a line is the average precision of its class.",
            ),
        ]

    def _known(self, labels: Shaped[Any, "batch classes"]) -> Any:
        """Which labels are not ignored."""
        return jnp.ones(labels.shape, bool) if self._ignored is None else jnp.asarray(labels != self._ignored)

    def _predicted(self, probabilities: Float[np.ndarray, " classes"]) -> list[str]:
        pairs = zip(self.outputs, probabilities, strict=True)
        return [name for name, probability in pairs if probability > self.config.threshold]

    def _curves(self, results: Results) -> dict[str, tuple[np.ndarray, np.ndarray, float | None]]:
        """Recall, precision and average precision of each class."""
        labels = results.test_set.fields[self._label]
        counted = np.asarray(self._known(labels))
        return {
            name: precision_recall_curve(results.predictions[counted[:, k], k], labels[counted[:, k], k] > 0.5)
            for k, name in enumerate(self.outputs)
        }


def precision_recall_curve(
    probabilities: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Recall and precision at every threshold, from the highest, and the average precision of one class.

    The average precision is the sum of the precisions, each weighted by the increase of recall at its threshold, as in
    scikit-learn; None where no example has the class.

    >>> recall, precision, average = precision_recall_curve(np.array([0.9, 0.8, 0.3]), np.array([True, False, True]))
    >>> recall.tolist(), precision.round(2).tolist(), round(average, 3)
    ([0.5, 0.5, 1.0], [1.0, 0.5, 0.67], 0.833)
    """
    order = np.argsort(-probabilities, kind="stable")
    last = np.flatnonzero(np.diff(probabilities[order], append=np.nan) != 0)  # of equal probabilities
    hits = np.cumsum(labels[order])[last]
    if not labels.any():
        return np.zeros(0), np.zeros(0), None
    precision, recall = hits / (last + 1), hits / labels.sum()
    return recall, precision, float(np.sum(np.diff(recall, prepend=0) * precision))
