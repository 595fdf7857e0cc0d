"""Image classification: one class per image."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.data import augment
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.ops.arguments import is_traced, may_differ_from_zero
from cnn_jax.tasks.task import Examples, Results, Task, mean_over

LOSSES = ("cross_entropy", "squared_error")


class Classification(Task):
    """One class per image: softmax cross-entropy or squared error, accuracy, top-k accuracy.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their class names are the names of the network's outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range.
    """

    traced = ("label_smoothing",)

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        self.outputs = examples.class_names
        if config.loss not in LOSSES:
            raise UsageError(f"loss={config.loss!r} is unknown; {nearest(config.loss, LOSSES)}")
        if not is_traced(config.label_smoothing) and not 0 <= config.label_smoothing < 1:
            raise UsageError(f"label_smoothing={config.label_smoothing} must be at least 0 and less than 1")
        if config.loss != "cross_entropy" and may_differ_from_zero(config.label_smoothing):
            raise UsageError(f"label_smoothing={config.label_smoothing} has no meaning for loss={config.loss!r}; use 0")
        if config.loss != "cross_entropy" and config.ensemble > 1:
            raise UsageError(
                f"ensemble={config.ensemble} averages probabilities, which loss={config.loss!r} does not give; "
                "use loss='cross_entropy'"
            )
        if not 0 <= config.top_k < len(self.outputs):
            raise UsageError(
                f"top_k={config.top_k} must be less than the number of classes, {len(self.outputs)}; 0 for none"
            )

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of classification.

        >>> Classification.default_config().loss
        'cross_entropy'
        """
        return ConfigDict(
            {
                "loss": "cross_entropy",  # or squared_error, against targets of -1 and 1
                "label_smoothing": 0.0,
                "top_k": 0,  # the score of having the class among so many, such as 5, beside the accuracy; 0 for none
                "reference": {"accuracy": 0.0, "source": ""},  # shown beside the score; 0 for none
            }
        )

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Accuracy, loss and, if wanted, top-k accuracy."""
        top_k = (Metric(f"top_{config.top_k}_accuracy", "higher", "%"),) if config.top_k else ()
        return (Metric("accuracy", "higher", "%"), Metric("loss", "lower"), *top_k)

    def losses(
        self, logits: Float[Array, "batch classes"], labels: Array, *, label_smoothing: Any = 0.0
    ) -> Float[Array, " batch"]:
        """The config's loss of each example.

        Args:
          logits: Of the network.
          labels: Class numbers (batch,), or probabilities (batch, classes) of mixed images.
          label_smoothing: The part of the probability that is spread over all classes.
        """
        if self.config.loss == "squared_error":
            return ops.squared_error(logits, labels)
        return ops.softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def loss(self, outputs: Float[Array, "batch classes"], batch: training.Batch) -> Float[Array, ""]:
        """The mean loss of a batch with its smoothed labels."""
        return self.losses(outputs, batch["label"], label_smoothing=self.config.label_smoothing).mean()

    def measure(self, outputs: Float[Array, "batch classes"], batch: training.Batch) -> training.Metrics:
        """Loss, accuracy and top-k accuracy. The loss is that without smoothing, to be compared between sets."""
        losses = self.losses(outputs, batch["label"])
        classes = _classes(batch["label"])
        correct = (outputs.argmax(axis=-1) == classes).astype(losses.dtype)
        metrics: training.Metrics = {"loss": mean_over(losses, batch), "accuracy": mean_over(correct, batch)}
        if self.config.top_k:
            own = jnp.take_along_axis(outputs, classes[:, None], axis=-1)
            among = (outputs > own).sum(axis=-1) < self.config.top_k
            metrics[f"top_{self.config.top_k}_accuracy"] = mean_over(among.astype(losses.dtype), batch)
        return metrics

    def predict(self, outputs: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
        """Class probabilities."""
        return jax.nn.softmax(outputs.astype(jnp.float32))

    def average(self, outputs: Float[Array, "several batch classes"]) -> Float[Array, "batch classes"]:
        """The logarithm of the averaged probabilities; of squared errors, which give none, the averaged outputs."""
        return augment.average_logits(outputs) if self.config.loss == "cross_entropy" else outputs.mean(axis=0)

    def rows(self, predictions: Float[np.ndarray, "n classes"]) -> list[dict[str, Any]]:
        """The most probable class, its probability, and the probability of every class."""
        return [
            {
                "class": self.outputs[int(np.argmax(row))],
                "probability": f"{row.max():.6f}",
                **{name: f"{value:.6f}" for name, value in zip(self.outputs, row, strict=True)},
            }
            for row in predictions
        ]

    def brief_rows(self, predictions: Float[np.ndarray, "n classes"]) -> list[dict[str, str]]:
        """The most probable class, its probability, and the next two."""
        rows = []
        for row in predictions:
            best, *others = np.argsort(-row, kind="stable")[:3]
            then = ", ".join(f"{self.outputs[k]} {row[k]:.1%}" for k in others)
            rows.append({"class": self.outputs[best], "probability": f"{row[best]:.1%}", "then": then})
        return rows

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true class."""
        return [{"label": self.outputs[label]} for label in batch["label"]]

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """Accuracy, error, loss, top-k accuracy."""
        accuracy, *others = super().describe(scores).items()
        return dict([accuracy, ("error", f"{1 - scores['accuracy']:.2%}"), *others])

    def headlines(self, results: Results) -> list[Any]:
        """The test error beside the reference, and the accuracy."""
        from cnn_jax.tasks.classification_report import headlines  # brings in matplotlib

        return headlines(results)

    def sections(self, results: Results) -> list[Any]:
        """The confusion matrix and the worst mistakes."""
        from cnn_jax.tasks.classification_report import sections

        return sections(results)

    def typical(self, results: Results) -> tuple[int, str]:
        """The first test image that is classified correctly."""
        labels = results.test_set.labels
        chosen = int(np.argmax(results.predictions.argmax(axis=-1) == labels))
        return chosen, f"test image {chosen}, a {self.outputs[labels[chosen]]}"


def _classes(labels: Shaped[Array, "..."]) -> Int[Array, " batch"]:
    """Class numbers; that of a mixed image is its greater part."""
    return labels.argmax(axis=-1) if labels.ndim == 2 else labels
