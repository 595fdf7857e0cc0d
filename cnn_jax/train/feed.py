"""What comes before a step: batches from disk instead of from the device's memory, and their augmentation."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from cnn_jax.data.augment import Augmentation
from cnn_jax.data.stream import HostBatch, Stream, sent_ahead
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.state import TrainState, stream_key
from cnn_jax.train.step import Batch, Evaluate, Metrics, Step


def augmented(
    step: Step, augmentation: Augmentation, *, steps_per_epoch: int, parallel: DataParallel = ONE_DEVICE
) -> Step:
    """A step whose batches are augmented first, with keys from the run's ``'augment'`` stream.

    Args:
      step: What is done with the augmented batch.
      augmentation: Of a batch with ``'image'``, ``'label'`` and ``'index'``.
      steps_per_epoch: By which the augmentation learns the epoch.
      parallel: The devices.
    """

    def augmented_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, epoch = stream_key(state.key, "augment"), state.step // steps_per_epoch
        first = parallel.first_example(len(batch["image"]))
        return step(state, augmentation(key, batch, step=state.step, epoch=epoch, first=first))

    return augmented_step


class Feed:
    """The training batches of a run from a stream, on the devices; a context manager, which ends the workers.

    Args:
      stream: What is learned from.
      key: The run's root key.
      batch_size: Examples a step, of all processes together; each reads its own.
      total_steps: Of the run.
      parallel: The devices.
    """

    def __init__(
        self, stream: Stream, key: Key[Array, ""], *, batch_size: int, total_steps: int, parallel: DataParallel
    ) -> None:
        self._stream, self._order_key, self._parallel = stream, stream_key(key, "order"), parallel
        self._batch_size, self._total_steps = batch_size, total_steps
        self._batches: Generator[Any, None, None] | None = None
        self._next_step = 0

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def batch(self, step: int) -> Batch:
        """The batch of a step; reading ahead goes on from there."""
        if self._batches is None or step != self._next_step:
            self._close()
            batches = self._stream.training_batches(
                self._order_key,
                batch_size=self._batch_size,
                first_step=step,
                last_step=self._total_steps,
                rows=self._parallel.rows_of_process(self._batch_size),
            )
            self._batches = sent_ahead(batches, self._parallel.place_batch)
        self._next_step = step + 1
        return next(self._batches)

    def _close(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def streamed_step(
    step: Step, *, parallel: DataParallel
) -> Callable[[TrainState, Batch, int], tuple[TrainState, Metrics]]:
    """One step on a batch that is there, as a pure function with the arguments of many: ``(state, batch, 1)``."""

    def one_step(state: TrainState, batch: Batch, _count: int) -> tuple[TrainState, Metrics]:
        return step(state, {name: parallel.split(array) for name, array in batch.items()})

    return one_step


def make_streamed_steps(one_step: Callable[..., Any]) -> Callable[..., tuple[TrainState, Metrics]]:
    """Many steps with batches from a stream: ``steps(state, feed, count) -> (state, metrics)``.

    Args:
      one_step: Makes one step, ``one_step(state, batch)``; it may donate the state.
    """

    def steps(state: TrainState, feed: Feed, count: int) -> tuple[TrainState, Metrics]:
        first, metrics = int(state.step), []
        for number in range(first, first + count):
            state, of_step = one_step(state, feed.batch(number))
            metrics.append(of_step)
        return state, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(metrics))

    return steps


def streamed_evaluation(
    evaluate: Evaluate, *, parallel: DataParallel
) -> Callable[[TrainState, Batch, Array, Array], Metrics]:
    """The metrics of a batch that is there, as a pure function with the arguments of a whole evaluation."""

    def of_batch(state: TrainState, batch: Batch, _indices: Array, mask: Array) -> Metrics:
        parts = {name: parallel.split(array) for name, array in {**batch, "mask": mask}.items()}
        return parallel.sum(evaluate(state, parts))

    return of_batch


def make_streamed_evaluation(
    compiled: Callable[..., Metrics], stream: Stream, *, batch_size: int, parallel: DataParallel
) -> Callable[[TrainState], Metrics]:
    """Exact evaluation on a stream: the metrics of a state, summed over all batches.

    Args:
      compiled: The metrics of one batch, see :func:`streamed_evaluation`.
      stream: Of the set.
      batch_size: Examples a batch.
      parallel: The devices.
    """

    def evaluation(state: TrainState) -> Metrics:
        batches: Iterator[HostBatch] = stream.evaluation_batches(batch_size, rows=parallel.rows_of_process(batch_size))
        placed = sent_ahead(batches, parallel.place_batch)
        metrics = [compiled(state, batch, np.zeros(1, np.int32), batch.pop("mask")) for batch in placed]
        return jax.tree.map(lambda *values: np.sum(values, axis=0), *jax.device_get(metrics))

    return evaluation
