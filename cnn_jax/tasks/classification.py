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
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.ops.arguments import may_differ_from_zero
from cnn_jax.tasks.labelled import ClassWeighted
from cnn_jax.tasks.task import Examples, Results, mean_over

_OF_SOFTMAX = ("cross_entropy", "focal")
_LOW_CONFIDENCE = 0.5


class Classification(ClassWeighted):
    """One class per image: its loss, accuracy, top-k accuracy.

    An example whose label is the ``ignored`` one of its :class:`~cnn_jax.data.Field` has no loss and no metric; means
    are those of the others. With several devices the gradient is the mean of the devices' means.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their class names are the names of the network's outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range.
    """

    kind = "label"
    losses = ("cross_entropy", "focal", "sigmoid", "squared_error")
    counted = "the labels"

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        if len(self.outputs) < 2 or sum(map(bool, self._class_counts or (1, 1))) < 2:
            names = [name for name, count in zip(self.outputs, self._class_counts, strict=False) if count]
            raise UsageError(
                f"data set {examples.name!r}: classification needs training examples of two classes at least, but "
                f"there are only those of {', '.join(map(repr, names or self.outputs)) or 'none'}"
            )
        if config.loss == "squared_error" and may_differ_from_zero(config.label_smoothing):
            raise UsageError(f"label_smoothing={config.label_smoothing} has no meaning for loss={config.loss!r}; use 0")
        if config.loss not in _OF_SOFTMAX and config.ensemble > 1:
            raise UsageError(
                f"ensemble={config.ensemble} averages probabilities that sum to 1, which loss={config.loss!r} does not "
                "give; use loss='cross_entropy'"
            )
        self._check_class_weights()
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
        config = super().default_config()
        config.update(
            {
                # of the softmax: cross_entropy, focal; sigmoid: whether it is each class, yes or no, summed; or
                # squared_error, against targets of -1 and 1
                "loss": "cross_entropy",
                "top_k": 0,  # the score of having the class among so many, such as 5, beside the accuracy; 0 for none
                "reference": {"accuracy": 0.0, "source": ""},  # shown beside the score; 0 for none
            }
        )
        return config

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Accuracy, loss and, if wanted, top-k accuracy."""
        top_k = (Metric(f"top_{config.top_k}_accuracy", "higher", "%"),) if config.top_k else ()
        return (Metric("accuracy", "higher", "%"), Metric("loss", "lower"), *top_k)

    def example_losses(
        self,
        logits: Float[Array, "batch classes"],
        labels: Array,
        *,
        label_smoothing: Any = 0.0,
        class_weights: Any = None,
    ) -> Float[Array, " batch"]:
        """The config's loss of each example, 0 of one that is not labelled.

        Args:
          logits: Of the network.
          labels: Class numbers (batch,), or probabilities (batch, classes) of mixed images.
          label_smoothing: The part of the probability that is spread over all classes.
          class_weights: (classes,), of the losses of the softmax; None for none.
        """
        ignored: dict[str, Any] = {} if self._ignored is None else {"ignore_label": self._ignored}
        if self.config.loss == "squared_error":
            return ops.squared_error(logits, labels, **ignored)
        if self.config.loss == "sigmoid":
            classes = self._classes(labels)
            shares = labels if labels.ndim == 2 else jax.nn.one_hot(classes, logits.shape[-1])
            shares = jnp.where((classes < 0)[:, None], ops.IGNORED, shares)
            return ops.sigmoid_cross_entropy(logits, shares, label_smoothing=label_smoothing).sum(axis=-1)
        options = {"label_smoothing": label_smoothing, "class_weights": class_weights, **ignored}
        if self.config.loss == "focal":
            return ops.softmax_focal_loss(logits, labels, gamma=self.config.focal_gamma, **options)
        return ops.softmax_cross_entropy(logits, labels, **options)

    def loss(self, outputs: Float[Array, "batch classes"], batch: training.Batch) -> Float[Array, ""]:
        """The mean loss of the labelled examples of a batch, with its smoothed labels and class weights.

        The weighted losses are divided by the number of examples, so that a batch counts as its examples do, and not by
        the sum of the batch's weights, as PyTorch's mean does.
        """
        labels = batch[self._label]
        smoothing, weights = self.config.label_smoothing, self.class_weights()
        losses = self.example_losses(outputs, labels, label_smoothing=smoothing, class_weights=weights)
        if self._ignored is None:
            return losses.mean()
        return losses.sum() / jnp.maximum((self._classes(labels) >= 0).sum(), 1).astype(losses.dtype)

    def measure(self, outputs: Float[Array, "batch classes"], batch: training.Batch) -> training.Metrics:
        """Loss, accuracy and top-k accuracy of the labelled examples.

        The loss is that without smoothing and class weights, to be compared between sets.
        """
        labels = batch[self._label]
        losses, classes = self.example_losses(outputs, labels), self._classes(labels)
        mask = batch.get("mask", jnp.ones_like(losses))
        counted = {"mask": mask if self._ignored is None else mask * (classes >= 0).astype(mask.dtype)}
        correct = (outputs.argmax(axis=-1) == classes).astype(losses.dtype)
        metrics: training.Metrics = {"loss": mean_over(losses, counted), "accuracy": mean_over(correct, counted)}
        if self.config.top_k:
            among = ops.in_top_k(outputs, classes, k=self.config.top_k)
            metrics[f"top_{self.config.top_k}_accuracy"] = mean_over(among.astype(losses.dtype), counted)
        return metrics

    def predict(self, outputs: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
        """Class probabilities; those of independent classes need not sum to 1."""
        return (jax.nn.sigmoid if self.config.loss == "sigmoid" else jax.nn.softmax)(outputs.astype(jnp.float32))

    def average(self, outputs: Float[Array, "several batch classes"]) -> Float[Array, "batch classes"]:
        """The logarithm of the averaged probabilities of a softmax; otherwise the averaged outputs."""
        return augment.average_logits(outputs) if self.config.loss in _OF_SOFTMAX else outputs.mean(axis=0)

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

    def hints(self, predictions: Float[np.ndarray, "n classes"]) -> list[str]:
        """Where the most probable class has a low probability, or another class is nearly as probable."""
        second, best = np.sort(predictions, axis=-1)[:, -2:].T
        calibrated = self.config.loss != "squared_error"
        low = (best < 2 * second) | ((best < _LOW_CONFIDENCE) & calibrated)
        return ["low confidence" if is_low else "" for is_low in low]

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true class; empty for an example that is not labelled."""
        return [{"label": "" if label == self._ignored else self.outputs[label]} for label in batch[self._label]]

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """Accuracy, error, loss, top-k accuracy."""
        accuracy, *others = super().describe(scores).items()
        return dict([accuracy, ("error", f"{1 - scores['accuracy']:.2%}"), *others])

    def headlines(self, results: Results) -> list[Any]:
        """The test error beside the reference, and the accuracy."""
        from cnn_jax.tasks.classification_report import headlines  # brings in matplotlib

        return headlines(results, ignored=self._ignored)

    def sections(self, results: Results) -> list[Any]:
        """The confusion matrix, the scores of each class, the reliability diagram, and the worst mistakes."""
        from cnn_jax.tasks.classification_report import sections

        return sections(results, ignored=self._ignored, calibrated=self.config.loss != "squared_error")

    def typical(self, results: Results) -> tuple[int, str]:
        """The first test image that is classified correctly."""
        labels = results.test_set.labels
        chosen = int(np.argmax(results.predictions.argmax(axis=-1) == labels))
        label = labels[chosen]
        what = "not labelled" if label == self._ignored else f"a {self.outputs[label]}"
        return chosen, f"test {results.test_set.input_kind} {chosen}, {what}"

    def _classes(self, labels: Shaped[Array, "..."]) -> Int[Array, " batch"]:
        """Class numbers, -1 for none; that of a mixed image is its greater part."""
        if labels.ndim == 2:
            return jnp.where(labels.sum(axis=-1) > 0, labels.argmax(axis=-1), -1)
        return labels if self._ignored is None else jnp.where(labels == self._ignored, -1, labels)

    def _check_class_weights(self) -> None:
        loss = self.config.loss
        if (self._weights or self._balanced) and loss not in _OF_SOFTMAX:
            name = "balanced=True" if self._balanced else "class_weights"
            raise UsageError(f"{name} has no meaning for loss={loss!r}; use loss='cross_entropy' or 'focal'")
