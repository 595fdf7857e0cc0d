"""Regression: real numbers per image, such as an angle or a length."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.tasks.task import Examples, Results, TargetStatistics, Task, mean_over

LOSSES = ("mse", "mae", "huber")
_MOST_DESCRIBED = 6  # targets, beside the scores as a whole


class Regression(Task):
    """Real numbers: all fields of kind ``target``. A field of one number gives its name to an output of the network.

    The outputs of a field of several numbers are called ``position_1``, ``position_2`` and so on.

    The network learns standardised targets, of mean 0 and standard deviation 1 over the training set, so that targets
    of any units are learned equally well. The run keeps the means and standard deviations, and predictions are in the
    units of the targets. Errors as a whole are in standard deviations (``sd``), those of one target in its units.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their targets, and the statistics of these.

    Raises:
      UsageError: There are no targets, or one never changes, or a value in the config is unknown or out of range.
    """

    traced = ("huber_delta",)

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        self._targets = [name for name, field in examples.spec.items() if field.kind == "target" and not field.count]
        shapes = {name: examples.spec[name].shape or () for name in self._targets or [examples.field("target")]}
        if not self._targets or max(map(len, shapes.values())) > 1:
            raise UsageError(
                f"data set {examples.name!r}: a target must be one number or a vector per example, but "
                + ", ".join(f"{name} has shape {shape}" for name, shape in shapes.items())
            )
        self.outputs = tuple(
            name if not shape or shape == (1,) else f"{name}_{number}"
            for name, shape in shapes.items()
            for number in range(1, 1 + (shape or (1,))[0])
        )
        unknown = {name: TargetStatistics((0.0,), (1.0,)) for name in self._targets}  # of a network without its data
        found = [{**unknown, **examples.targets}[name] for name in self._targets]
        sizes = [(shape or (1,))[0] for shape in shapes.values()]
        self._mean, self._std = (
            np.concatenate([np.broadcast_to(numbers[part], size) for numbers, size in zip(found, sizes, strict=True)])
            for part in (0, 1)
        )
        for name, deviation in zip(self.outputs, self._std, strict=True):
            if not deviation > 0:
                raise UsageError(
                    f"data set {examples.name!r}: target {name} is {self._mean[self.outputs.index(name)]:g} in all "
                    "training examples; there is nothing to learn"
                )
        if config.loss not in LOSSES:
            raise UsageError(f"loss={config.loss!r} is unknown; {nearest(config.loss, LOSSES)}")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of regression.

        >>> Regression.default_config().loss
        'mse'
        """
        return ConfigDict(
            {
                "loss": "mse",  # of the standardised targets: mse, mae, huber
                "huber_delta": 1.0,  # of loss='huber': the error in standard deviations from which on it is linear
            }
        )

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """The mean absolute error, R², the root mean square error and the loss, as means over the targets."""
        return (
            Metric("mae", "lower", "sd"),
            Metric("r2", "higher", "%"),
            Metric("rmse", "lower", "sd"),
            Metric("loss", "lower"),
        )

    def loss(self, outputs: Float[Array, "batch targets"], batch: training.Batch) -> Float[Array, ""]:
        """The mean loss of the standardised targets."""
        return self._losses(outputs, self._standardised(batch)).mean()

    def measure(self, outputs: Float[Array, "batch targets"], batch: training.Batch) -> training.Metrics:
        """The loss, the absolute and squared errors, and the targets and their squares, which give their variance."""
        targets = self._standardised(batch)
        errors = outputs.astype(jnp.float32) - targets
        values = {"absolute": jnp.abs(errors), "squared": jnp.square(errors)}
        values |= {"target": targets, "target_squared": jnp.square(targets)}
        metrics: training.Metrics = {name: mean_over(array, batch) for name, array in values.items()}
        return metrics | {"loss": mean_over(self._losses(outputs, targets), batch)}

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """Errors and R² of each target, ``angle_mae`` and so on, and their means over the targets."""
        scores = super().scores(means)
        if "squared" not in means:
            return scores
        absolute, squared = means["absolute"], means["squared"]
        variance = np.maximum(means["target_squared"] - np.square(means["target"]), 0)
        r2 = np.where(variance > 0, 1 - squared / np.where(variance > 0, variance, 1), 0)
        scores |= {"mae": float(absolute.mean()), "rmse": float(np.sqrt(squared.mean())), "r2": float(r2.mean())}
        for number, name in enumerate(self.outputs):
            deviation = self._std[number]
            scores[f"{name}_mae"] = float(absolute[number] * deviation)
            scores[f"{name}_rmse"] = float(np.sqrt(squared[number]) * deviation)
            scores[f"{name}_r2"] = float(r2[number])
        return scores

    def predict(self, outputs: Float[Array, "batch targets"]) -> Float[Array, "batch targets"]:
        """The targets in their units."""
        mean, std = (jnp.asarray(numbers, jnp.float32) for numbers in (self._mean, self._std))
        return outputs.astype(jnp.float32) * std + mean

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true values."""
        values = self._values(batch)
        return [
            {f"true {name}": value for name, value in zip(self.outputs, row, strict=True)} for row in values.tolist()
        ]

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """The errors as a whole and, of a few targets, those of each in its units."""
        each = {
            name: f"MAE {scores[f'{name}_mae']:.3g}, RMSE {scores[f'{name}_rmse']:.3g}, R² {scores[f'{name}_r2']:.2%}"
            for name in self.outputs
            if f"{name}_mae" in scores
        }
        return super().describe(scores) | (each if len(each) <= _MOST_DESCRIBED else {})

    def headlines(self, results: Results) -> list[Any]:
        """R², and the mean absolute error in standard deviations or, of a single target, in its units."""
        from cnn_jax.report.page import Headline

        if len(self.outputs) == 1:
            (name,) = self.outputs
            error = Headline("test MAE", f"{results.scores[f'test/{name}_mae']:.3g}", note=f"of {name}")
        else:
            note = "mean over the targets, in standard deviations of each"
            error = Headline("test MAE", f"{results.scores['test/mae']:.3g} sd", note=note)
        return [error, Headline("test R²", f"{results.scores['test/r2']:.2%}", note="explained part of the variance")]

    def sections(self, results: Results) -> list[Any]:
        """The errors of each target, predicted over true values, and residuals."""
        from cnn_jax.report import figures
        from cnn_jax.report.page import Section, Table

        true, scores = self._values(results.test_set.fields), results.scores
        rows = [
            [
                name,
                *(f"{scores[f'test/{name}_{metric}']:.4g}" for metric in ("mae", "rmse")),
                f"{scores[f'test/{name}_r2']:.2%}",
                f"{true[:, number].mean():.4g} ± {true[:, number].std():.3g}",
            ]
            for number, name in enumerate(self.outputs)
        ]
        return [
            Section("Targets", table=Table(["target", "MAE", "RMSE", "R²", "true values, mean ± std"], rows)),
            Section(
                "Predicted and true values",
                figure=figures.predicted_values(true, results.predictions, self.outputs),
                alt="The predicted value of each test example over its true value, and its residual",
                caption="Left: predictions on the dashed line are right. Right: predicted minus true values.",
            ),
        ]

    def _losses(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        if self.config.loss == "huber":
            return ops.huber_loss(outputs, targets, delta=self.config.huber_delta)
        return (ops.mean_squared_error if self.config.loss == "mse" else ops.mean_absolute_error)(outputs, targets)

    def _standardised(self, batch: Mapping[str, Array]) -> Float[Array, "batch targets"]:
        values = jnp.concatenate([batch[name].reshape(len(batch[name]), -1) for name in self._targets], axis=1)
        return (values - jnp.asarray(self._mean, jnp.float32)) / jnp.asarray(self._std, jnp.float32)

    def _values(self, fields: Mapping[str, Shaped[np.ndarray, "..."]]) -> Float[np.ndarray, "n targets"]:
        """The true values of all outputs, side by side."""
        return np.concatenate([fields[name].reshape(len(fields[name]), -1) for name in self._targets], axis=1)
