"""What tasks with classes share: the field of their labels, the options of their losses, and the table of scores."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import is_traced
from cnn_jax.ops.losses import balanced_weights_of_counts
from cnn_jax.tasks.task import Examples, Task


class Labelled(Task):
    """A task whose outputs are classes.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: The class names of their labels are the names of the network's outputs.

    Raises:
      UsageError: A value in the config that is unknown or out of range, or there are no labels.
    """

    kind: ClassVar[str]
    """The kind of the field that holds the labels."""

    losses: ClassVar[tuple[str, ...]]
    """The values of ``config.loss``."""

    traced = ("label_smoothing",)

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        self._label = examples.field(self.kind)
        field = examples.spec[self._label]
        if field.count:
            raise UsageError(f"data set {examples.name!r}: {self._label} must have one entry per example, not several")
        numbers = range((field.shape or (0,))[0]) if self.kind == "labels" else ()
        self.outputs = field.class_names or tuple(map(str, numbers))
        self._ignored = field.ignored
        if config.loss not in self.losses:
            raise UsageError(f"loss={config.loss!r} is unknown; {nearest(config.loss, self.losses)}")
        if not is_traced(config.label_smoothing) and not 0 <= config.label_smoothing < 1:
            raise UsageError(f"label_smoothing={config.label_smoothing} must be at least 0 and less than 1")
        if config.loss == "focal" and config.focal_gamma < 0:
            raise UsageError(f"focal_gamma={config.focal_gamma} must be at least 0")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys that all of these tasks have."""
        return ConfigDict({"label_smoothing": 0.0, "focal_gamma": 2.0})  # the latter of loss='focal'

    def check_weights(self, name: str, weights: Sequence[float]) -> None:
        """Rejects weights of the config that are not one finite number of at least 0 for each class."""
        if weights and len(weights) != len(self.outputs):
            raise UsageError(f"{name} has {len(weights)} numbers for {len(self.outputs)} classes")
        if weights and not all(0 <= weight < float("inf") for weight in weights):
            raise UsageError(f"{name}={tuple(weights)} must be finite and at least 0")


class ClassWeighted(Labelled):
    """A task with one class for each label, whose classes may have weights in the training loss.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: As in :class:`Labelled`.

    Raises:
      UsageError: As in :class:`Labelled`; class weights of another number, or beside ``balanced=True``.
    """

    tuple_examples: ClassVar[Mapping[str, tuple[Any, ...]]] = {"class_weights": (1.0, 0.5)}

    counted: ClassVar[str]
    """What ``balanced=True`` counts, as text for users."""

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        self._class_counts = examples.class_counts
        # Runs of earlier versions lack these keys.
        self._weights, self._balanced = config.get("class_weights", ()), config.get("balanced", False)
        self.check_weights("class_weights", self._weights)
        if self._weights and self._balanced:
            raise UsageError("class_weights and balanced=True both weight the classes; leave one out")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of :class:`Labelled`, and the weights."""
        config = super().default_config()
        config.class_weights = ()  # one number per class, which its part of the training loss is multiplied by
        config.balanced = False  # class weights that give every class the same share of the training loss
        return config

    def class_weights(self) -> Array | None:
        """The weight of each class; None for none."""
        if self._weights:
            return jnp.asarray(self._weights, jnp.float32)
        if not self._balanced:
            return None
        if not self._class_counts:
            raise UsageError(
                f"balanced=True counts {self.counted}, for which the training set must be in memory; set "
                "data.loading='memory', or give class_weights"
            )
        with jax.ensure_compile_time_eval():  # the program is given the weights, not the counts
            return balanced_weights_of_counts(np.asarray(self._class_counts))


def class_scores(
    counts: Any, names: Sequence[str], *, text: str = "", others: dict[str, Sequence[float]] | None = None
) -> Any:
    """The report's table of precision, recall and F1 of each class, and their averages.

    Args:
      counts: A confusion matrix, or :class:`cnn_jax.ops.ClassCounts`.
      names: Of the classes.
      text: Said before the table.
      others: Heading -> value of each class, for further columns of fractions.
    """
    from cnn_jax.report.page import Section, Table

    others = others or {}
    scores, averages = ops.precision_recall_f1(counts), ops.macro_average(counts)
    columns = [*map(np.asarray, scores[:3]), *map(np.asarray, others.values())]
    rows = [(name, *values) for name, *values in zip(names, *columns, np.asarray(scores.support), strict=True)]
    means = [*map(float, averages[:3]), *(float(np.nanmean(values)) for values in others.values())]
    rows.append(("macro average", *means, np.asarray(averages.support)))
    return Section(
        "Classes",
        text=f"{text}Precision is the share of the examples predicted as a class that belong to it. Recall is the "
        "share of the examples of a class that are predicted as it. F1 is the harmonic mean of both. The macro average "
        "is the mean over the classes.",
        table=Table(
            ["class", "precision", "recall", "F1", *others, "test examples"],
            [[name, *(f"{value:.2%}" for value in values), f"{count:,}"] for name, *values, count in rows],
        ),
    )
