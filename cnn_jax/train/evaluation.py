"""Scores of a state on whole sets, and which of them a run is judged by."""

from collections.abc import Mapping

import jax.numpy as jnp

from cnn_jax.data.batches import padded_batches
from cnn_jax.errors import UsageError, nearest
from cnn_jax.train.parallel import ONE_DEVICE, Parallel
from cnn_jax.train.state import TrainState, evaluated
from cnn_jax.train.step import Evaluate, Examples, averages, make_evaluation


class Evaluations:
    """Scores of a state on whole sets: called with a state, it gives ``{'split/metric': value}``.

    What is scored are the state's averaged weights, where it has them.

    Args:
      evaluate: the metrics of one batch that has a ``'mask'``.
      examples: split -> examples.
      batch_size: examples a batch; the last one is padded and masked, so that the averages are exact.
      parallel: the devices.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        examples: Mapping[str, Examples],
        *,
        batch_size: int,
        parallel: Parallel = ONE_DEVICE,
    ) -> None:
        self._compiled = make_evaluation(evaluate, parallel=parallel)
        self._splits = {
            split: parallel.replicate((arrays, *map(jnp.asarray, padded_batches(_length(arrays), batch_size))))
            for split, arrays in examples.items()
        }

    def __call__(self, state: TrainState) -> dict[str, float]:
        """The scores of one state."""
        state = evaluated(state)
        return {
            f"{split}/{name}": value
            for split, arguments in self._splits.items()
            for name, value in averages(self._compiled(state, *arguments)).items()
        }


def of_split(scores: Mapping[str, float], split: str) -> dict[str, float]:
    """The scores of one split, by metric.

    >>> of_split({"test/loss": 0.5, "validation/loss": 0.25}, "test")
    {'loss': 0.5}
    """
    return {name.removeprefix(f"{split}/"): value for name, value in scores.items() if name.startswith(f"{split}/")}


def check_monitor(monitor: str, splits: Mapping[str, Examples]) -> None:
    """Rejects a monitor, ``'split/metric'``, of a split that is not scored."""
    split = monitor.partition("/")[0]
    if split not in splits:
        raise UsageError(f"monitor={monitor!r} names a split that is not scored; {nearest(split, splits)}")


def score(scores: Mapping[str, float], monitor: str) -> float:
    """What the monitor says of an evaluation: higher is better, so a loss is negated.

    Raises:
      UsageError: there is no such score.
    """
    if monitor not in scores:
        raise UsageError(f"monitor={monitor!r} is not among the scores; {nearest(monitor, scores)}")
    return -scores[monitor] if monitor.endswith("loss") else scores[monitor]


def _length(examples: Examples) -> int:
    return next(iter(examples.values())).shape[0]
