"""The batches of a step: their augmentation, and batches from a stream instead of from device memory."""

from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from cnn_jax.data.augment import Augmentation
from cnn_jax.data.stream import Stream, sent_ahead
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.state import TrainState, stream_key
from cnn_jax.train.step import Batch, Evaluate, Metrics, Step, over_devices


def augmented(
    step: Step, augmentation: Augmentation, *, steps_per_epoch: int, parallel: DataParallel = ONE_DEVICE
) -> Step:
    """A step whose batches are augmented first, with keys from the run's ``'augment'`` stream.

    Args:
      step: The step, called with the augmented batch.
      augmentation: Augments a batch with the fields of the data set and ``'index'``.
      steps_per_epoch: The number of steps in an epoch; the augmentation is given the epoch.
      parallel: The devices.
    """

    def augmented_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, epoch = stream_key(state.key, "augment"), state.step // steps_per_epoch
        first = parallel.first_example(len(batch["index"]))
        return step(state, augmentation(key, batch, step=state.step, epoch=epoch, first=first))

    return augmented_step


class Feed:
    """The training batches of a run from a stream, placed on the devices. A context manager that stops the workers.

    Args:
      stream: The stream of training examples.
      key: The run's root key.
      batch_size: The number of examples in a step, over all processes; each process reads its own part.
      total_steps: The number of steps of the run.
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
        """The batch of a step. The batches after it are read ahead."""
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

    def sample_batch(self) -> Batch:
        """A batch with the shapes and dtypes of all batches, for compilation."""
        rows = self._parallel.rows_of_process(self._batch_size)
        indices = np.zeros(rows.stop - rows.start, np.int32)
        return self._parallel.place_batch({**self._stream.sample_batch(rows), "index": indices})

    def _close(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def streamed_step(step: Step, *, parallel: DataParallel) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One step as a pure function of the state and a batch."""

    def one_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return step(state, {name: parallel.split(array) for name, array in batch.items()})

    return one_step


def make_streamed_steps(one_step: Callable[..., Any]) -> Callable[..., tuple[TrainState, Metrics]]:
    """Many steps with batches from a stream: ``steps(state, feed, count) -> (state, metrics)``.

    Args:
      one_step: One step, ``one_step(state, batch)``; it may donate the state.
    """

    def steps(state: TrainState, feed: Feed, count: int) -> tuple[TrainState, Metrics]:
        first, metrics = int(state.step), []
        for number in range(first, first + count):
            state, of_step = one_step(state, feed.batch(number))
            metrics.append(of_step)
        return state, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(metrics))

    return steps


def streamed_evaluation(evaluate: Evaluate, *, parallel: DataParallel) -> Callable[[TrainState, Batch], Metrics]:
    """The metrics of a batch with its ``'mask'``, as a pure function of the state and the batch."""

    def of_batch(state: TrainState, batch: Batch) -> Metrics:
        parts = {name: parallel.split(array) for name, array in batch.items()}
        return over_devices(evaluate(state, parts), parallel)

    return of_batch
