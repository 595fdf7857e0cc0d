"""Several classifiers as one: trained side by side, asked together, each one's score beside that of their average.

Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012, averages the
predictions of seven networks.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from cnn_jax import data
from cnn_jax import train as training
from cnn_jax.data import augment
from cnn_jax.errors import UsageError
from experiments.classification import Classifier


class EnsembleClassifier(Classifier):
    """``config.ensemble`` networks that see the same batches and differ in first weights and random numbers.

    Its logits are the logarithms of the members' averaged probabilities.
    """

    def __init__(self, config: ConfigDict, preprocess: data.Preprocess, class_names: Sequence[str]) -> None:
        super().__init__(config, preprocess, class_names)
        if config.loss != "cross_entropy":
            raise UsageError(
                f"ensemble={config.ensemble} averages probabilities, which loss={config.loss!r} does not make; "
                "use loss='cross_entropy'"
            )

    def init(self, key: Key[Array, ""], optimizer: optax.GradientTransformation) -> training.TrainState:
        """The members' states before the first step, stacked."""
        member = super().init
        return training.ensemble_init(lambda key: member(key, optimizer), self.config.ensemble)(key)

    def step(self, optimizer: optax.GradientTransformation, parallel: training.DataParallel) -> training.Step:
        """One step of every member."""
        return training.ensemble_step(super().step(optimizer, parallel))

    def member_logits(self, state: training.TrainState, images: Array) -> Float[Array, "members batch classes"]:
        """What each member says."""
        member = super().logits
        return training.over_members(lambda state: member(state, images), state)

    def logits(self, state: training.TrainState, images: Array) -> Float[Array, "batch classes"]:
        """The logarithm of the averaged probabilities."""
        return augment.average_logits(self.member_logits(state, images))

    def evaluate(self, state: training.TrainState, batch: training.Batch) -> training.Metrics:
        """Loss and accuracy of the average, and the accuracy of each member, ``accuracy_1`` and so on."""
        each = self.member_logits(state, batch["image"])
        metrics = self.metrics(augment.average_logits(each), batch)
        accuracies = jax.vmap(lambda logits: self.metrics(logits, batch)["accuracy"][0])(each)
        count = metrics["accuracy"][1]
        return metrics | {f"accuracy_{number}": (right, count) for number, right in enumerate(accuracies, start=1)}

    def activations(self, state: training.TrainState, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """The intermediates of the first member."""
        return super().activations(self.first(state), images)

    def first(self, state: training.TrainState) -> training.TrainState:
        """The first member's state."""
        return training.member(state, 0)
