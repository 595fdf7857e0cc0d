"""Scores of a state on whole sets."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from cnn_jax.data.batches import padded_batches
from cnn_jax.data.stream import Stream
from cnn_jax.train.feed import make_streamed_evaluation, streamed_evaluation
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.state import TrainState, evaluated
from cnn_jax.train.step import Evaluate, Examples, Metrics, averages, make_evaluation


class Evaluations:
    """Scores of a state on whole sets: called with a state, it gives ``{'split/metric': value}``.

    What is scored are the state's averaged weights, where it has them. :func:`make_evaluations` makes it of what
    scores a batch.

    Args:
      in_memory: Compiled, the metrics of a whole set, ``in_memory(state, examples, indices, mask)``.
      streamed: Compiled, the metrics of a batch from a stream, with the same arguments.
      examples: Split -> examples, or a stream of them.
      batch_size: Examples a batch; the last one is padded and masked, so that the averages are exact.
      parallel: The devices.
    """

    def __init__(
        self,
        in_memory: Callable[..., Metrics],
        streamed: Callable[..., Metrics],
        examples: Mapping[str, Examples | Stream],
        *,
        batch_size: int,
        parallel: DataParallel = ONE_DEVICE,
    ) -> None:
        def scorer(examples: Examples | Stream) -> Callable[[TrainState], Metrics]:
            if isinstance(examples, Stream):
                return make_streamed_evaluation(streamed, examples, batch_size=batch_size, parallel=parallel)
            batches = map(jnp.asarray, padded_batches(_length(examples), batch_size))
            arguments = parallel.replicate((examples, *batches))
            return lambda state: in_memory(state, *arguments)

        self._scorers = {split: scorer(examples) for split, examples in examples.items()}

    def __call__(self, state: TrainState) -> dict[str, float]:
        """The scores of one state."""
        state = evaluated(state)
        return {
            f"{split}/{name}": value
            for split, metrics in self._scorers.items()
            for name, value in averages(metrics(state)).items()
        }


def make_evaluations(
    evaluate: Evaluate,
    examples: Mapping[str, Examples | Stream],
    *,
    batch_size: int,
    parallel: DataParallel = ONE_DEVICE,
) -> Evaluations:
    """Scores of a state on whole sets, from the metrics of one batch that has a ``'mask'``."""
    in_memory = make_evaluation(evaluate, parallel=parallel)
    streamed = parallel.compile_evaluation(streamed_evaluation(evaluate, parallel=parallel))
    return Evaluations(in_memory, streamed, examples, batch_size=batch_size, parallel=parallel)


def of_split(scores: Mapping[str, float], split: str) -> dict[str, float]:
    """The scores of one split, by metric.

    >>> of_split({"test/loss": 0.5, "validation/loss": 0.25}, "test")
    {'loss': 0.5}
    """
    return {name.removeprefix(f"{split}/"): value for name, value in scores.items() if name.startswith(f"{split}/")}


def _length(examples: Examples) -> int:
    return next(iter(examples.values())).shape[0]
