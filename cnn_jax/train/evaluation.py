"""Scores of a state on whole data sets."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_jax.data.batches import padded_batches
from cnn_jax.data.stream import Stream, sent_ahead
from cnn_jax.report.compilation import Announce, silent
from cnn_jax.train.feed import streamed_evaluation
from cnn_jax.train.pace import Pace, nothing
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.state import TrainState, evaluated
from cnn_jax.train.step import (
    Evaluate,
    ExampleArrays,
    Metrics,
    Summarize,
    Totals,
    added,
    averages,
    scanned_evaluation,
)


class Evaluations:
    """Scores of a state on whole data sets: called with a state, it returns ``{'split/metric': value}``.

    If the state has a moving average of the weights, that is evaluated. :func:`make_evaluations` builds this object
    from a function that evaluates one batch.

    Args:
      in_memory: The compiled function ``in_memory(state, examples, indices, mask, first, count)``, which returns the
        metrics of some batches of a data set in memory, see :func:`~cnn_jax.train.step.scanned_evaluation`.
      streamed: The compiled function ``streamed(state, batch)``, which returns the metrics of a batch from a stream.
      examples: Split -> examples, or a stream of them.
      batch_size: The number of examples in a batch. The last one is padded and masked, so the averages are exact.
      parallel: The devices.
      summarize: Computes the scores of a split from the averages of its metrics; by default the averages.
    """

    def __init__(
        self,
        in_memory: Any,
        streamed: Any,
        examples: Mapping[str, ExampleArrays | Stream],
        *,
        batch_size: int,
        parallel: DataParallel = ONE_DEVICE,
        summarize: Summarize = dict,
    ) -> None:
        self._summarize = summarize

        def scorer(examples: ExampleArrays | Stream) -> _InMemory | _Streamed:
            if isinstance(examples, Stream):
                return _Streamed(streamed, examples, batch_size, parallel)
            batches = map(jnp.asarray, padded_batches(_length(examples), batch_size))
            return _InMemory(in_memory, parallel.replicate((examples, *batches)))

        self._scorers = {split: scorer(examples) for split, examples in examples.items()}

    def __call__(self, state: TrainState, *, between: Callable[[], None] = nothing) -> dict[str, float]:
        """The scores of one state.

        Args:
          state: The state.
          between: Called before each compiled call, about once a second. An exception from it ends the evaluation.
        """
        state = evaluated(state)
        return {
            f"{split}/{name}": value
            for split, scorer in self._scorers.items()
            for name, value in self._summarize(averages(scorer(state, between))).items()
        }

    def compile(self, state: TrainState, announce: Announce = silent) -> None:
        """Compiles everything that the first call with such a state would compile."""
        state = evaluated(state)
        with announce("evaluation"):
            for scorer in self._scorers.values():
                scorer.compile(state)


class _InMemory:
    """The metrics of a state on a data set in memory."""

    def __init__(self, compiled: Any, arguments: Any) -> None:
        self._compiled, self._arguments, self._pace = compiled, arguments, Pace()

    def __call__(self, state: TrainState, between: Callable[[], None]) -> Totals:
        totals: Totals = {}
        for first, count in self._pace.calls(len(self._arguments[1]), between):
            totals = added(totals, self._compiled(state, *self._arguments, np.int32(first), np.int32(count)), count)
        return totals

    def compile(self, state: TrainState) -> None:
        self._compiled.lower(state, *self._arguments, np.int32(0), np.int32(1)).compile()


class _Streamed:
    """The metrics of a state on a data set that is read from disk."""

    def __init__(self, compiled: Any, stream: Stream, batch_size: int, parallel: DataParallel) -> None:
        self._compiled, self._stream, self._batch_size, self._parallel = compiled, stream, batch_size, parallel
        self._rows = parallel.rows_of_process(batch_size)

    def __call__(self, state: TrainState, between: Callable[[], None]) -> Totals:
        batches = self._stream.evaluation_batches(self._batch_size, rows=self._rows)
        placed = sent_ahead(batches, self._parallel.place_batch)
        totals: Totals = {}
        last: Metrics = {}  # metrics of a batch that is computed while the next one is fetched
        try:
            for batch in placed:
                between()
                last, before = self._compiled(state, batch), last
                totals = added(totals, before)
        finally:
            placed.close()
        return added(totals, last)

    def compile(self, state: TrainState) -> None:
        batch = self._stream.sample_batch(self._rows) | {"mask": np.ones(self._rows.stop - self._rows.start, bool)}
        self._compiled.lower(state, self._parallel.place_batch(batch)).compile()


def make_evaluations(
    evaluate: Evaluate,
    examples: Mapping[str, ExampleArrays | Stream],
    *,
    batch_size: int,
    parallel: DataParallel = ONE_DEVICE,
    summarize: Summarize = dict,
) -> Evaluations:
    """Builds :class:`Evaluations` from ``evaluate``, which computes the metrics of one batch with a ``'mask'``.

    The other arguments are those of :class:`Evaluations`.
    """
    in_memory = parallel.compile_evaluation(scanned_evaluation(evaluate, parallel=parallel))
    streamed = parallel.compile_evaluation(streamed_evaluation(evaluate, parallel=parallel))
    options: dict[str, Any] = {"batch_size": batch_size, "parallel": parallel, "summarize": summarize}
    return Evaluations(in_memory, streamed, examples, **options)


def of_split(scores: Mapping[str, float], split: str) -> dict[str, float]:
    """The scores of one split, by metric.

    >>> of_split({"test/loss": 0.5, "validation/loss": 0.25}, "test")
    {'loss': 0.5}
    """
    return {name.removeprefix(f"{split}/"): value for name, value in scores.items() if name.startswith(f"{split}/")}


def _length(examples: ExampleArrays) -> int:
    return next(iter(examples.values())).shape[0]
