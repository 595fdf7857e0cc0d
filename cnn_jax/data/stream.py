"""Batches from disk while the device computes: worker processes read, decode and resize; grain keeps them in order.

What a batch holds is a function of the run's key and the step, the same as for a set in memory; so a stream can begin
at any step, and there is no position to save.
"""

import collections
import dataclasses
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Array, Key

from cnn_jax.data.batches import HostOrder, padded_batches
from cnn_jax.data.records import Records
from cnn_jax.errors import UsageError
from cnn_jax.runtime.memory import available_memory
from cnn_jax.typed import typed

BUFFERED = 4  # batches that each worker keeps ready
ON_DEVICE = 2  # batches on their way to the device
MEMORY_PART = 0.25  # of what is free, for all sets together

WHOLE = slice(None)

HostBatch = dict[str, np.ndarray]


@typed
@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A set whose batches are made when they are needed.

    Attributes:
      dataset: What is read.
      workers: Processes that read; 0 reads in threads of this one, and -1 in one process for each core. They are
        spawned, so that they do not inherit JAX's threads; a script that uses them must begin under
        ``if __name__ == "__main__":``.
    """

    dataset: Records
    workers: int = -1

    def __post_init__(self) -> None:
        if self.workers < -1:
            raise UsageError(f"config.data.workers={self.workers} must be -1 (one for each core), 0 (threads) or more")

    def __len__(self) -> int:
        return len(self.dataset)

    def training_batches(
        self,
        key: Key[Array, ""],
        *,
        batch_size: int,
        first_step: int,
        last_step: int,
        rows: slice = WHOLE,
    ) -> Iterator[HostBatch]:
        """The batches of the steps ``first_step`` to ``last_step - 1``, those of :func:`batch_indices`.

        Args:
          key: The run's key for the order of examples.
          batch_size: Examples per step.
          first_step: Counted from 0 over the whole run.
          last_step: Of the whole run.
          rows: The part of each batch that this process reads.

        Returns:
          Dicts with the set's fields and ``'index'``. Close the iterator (``.close()``) to end the workers.
        """
        order = HostOrder.of(key, last_step, num_examples=len(self), batch_size=batch_size)
        return self._run(_TrainingBatch(self.dataset, order, rows), first_step, last_step)

    def evaluation_batches(self, batch_size: int, *, rows: slice = WHOLE) -> Iterator[HostBatch]:
        """Every example once, in order: dicts with its fields and ``'mask'``, 0 for the last's padding.

        Args:
          batch_size: Examples per batch.
          rows: The part of each batch that this process reads.
        """
        indices, mask = padded_batches(len(self), batch_size)
        return self._run(_EvaluationBatch(self.dataset, indices[:, rows], mask[:, rows]), 0, len(indices))

    def sample_batch(self, rows: slice) -> HostBatch:
        """Zeros with the shapes and dtypes of the other batches, for compiling; nothing is read.

        Args:
          rows: As of the other batches.
        """
        size = rows.stop - rows.start
        return {name: np.zeros((size, *(field.shape or ())), field.dtype) for name, field in self.dataset.spec.items()}

    def _run(self, make_batch: Any, first: int, last: int) -> Iterator[HostBatch]:
        workers = (os.cpu_count() or 1) if self.workers == -1 else self.workers
        workers = min(workers, (last - first) // BUFFERED)  # a process takes seconds to start: threads for a few
        threads = 1 if workers else os.cpu_count() or 1
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
        batches = grain.MapDataset.range(first, last).map(make_batch).to_iter_dataset(options)
        if workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain reads flags of its own, also in programs that have none
            # Batches come through pipes: shared memory would outlive a run that is killed.
            through_pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
            batches = grain.experimental.WithOptionsIterDataset(batches, through_pipes).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=BUFFERED), _settle_worker
            )
        iterator = iter(batches)
        try:
            yield from iterator
        finally:
            iterator.close()


def _settle_worker(_index: int, _count: int) -> None:
    """Leaves signals to the process that trains, and ends with it, however that ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


@dataclasses.dataclass(frozen=True, eq=False)
class _TrainingBatch:
    dataset: Records
    order: HostOrder
    rows: slice

    def __call__(self, step: int) -> HostBatch:
        indices = self.order.batch(step)[self.rows]
        return {**self.dataset.take(indices), "index": indices}


@dataclasses.dataclass(frozen=True, eq=False)
class _EvaluationBatch:
    dataset: Records
    indices: np.ndarray
    mask: np.ndarray

    def __call__(self, number: int) -> HostBatch:
        return {**self.dataset.take(self.indices[number]), "mask": self.mask[number]}


def sent_ahead(
    batches: Iterator[HostBatch], place: Callable[[HostBatch], Any] = jax.device_put
) -> Generator[Any, None, None]:
    """The batches, sent to the device before they are asked for.

    Args:
      batches: From a :class:`Stream`, which is closed with this one.
      place: Sends a batch.

    Example:
      >>> [batch["label"].tolist() for batch in sent_ahead(iter([{"label": np.arange(2)}, {"label": np.arange(1)}]))]
      [[0, 1], [0]]
    """
    waiting: collections.deque[Any] = collections.deque()
    try:
        for batch in batches:
            waiting.append(place(batch))
            if len(waiting) > ON_DEVICE:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        if isinstance(batches, Generator):
            batches.close()


@typed
def choose_loading(loading: str, num_bytes: int) -> str:
    """Whether sets are read into memory or streamed.

    Args:
      loading: ``"memory"``, ``"stream"``, or ``"auto"``: in memory when all fits into a quarter of what is free, on
        the host and on the device.
      num_bytes: Of all the sets' images.

    Returns:
      ``"memory"`` or ``"stream"``.

    Raises:
      UsageError: For another ``loading``.

    Example:
      >>> choose_loading("auto", 1000), choose_loading("auto", 10**15), choose_loading("stream", 1000)
      ('memory', 'stream', 'stream')
    """
    if loading not in ("auto", "memory", "stream"):
        raise UsageError(f"config.data.loading={loading!r} is unknown; known: 'auto', 'memory', 'stream'")
    if loading != "auto":
        return loading
    free = available_memory()
    device = jax.local_devices()[0].memory_stats() or {}
    room = min(free, device.get("bytes_limit", free))
    return "memory" if num_bytes <= MEMORY_PART * room else "stream"
