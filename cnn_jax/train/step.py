"""From a loss to compiled steps: one optimiser step, many of them in one ``lax.scan``, and exact evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key, PyTree

from cnn_jax.data.batches import batch_indices
from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import Number, is_traced, may_differ_from_zero
from cnn_jax.train.optimizers import updates_made
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.state import TrainState, stream_key

Batch = dict[str, Array]
"""Arrays with a leading axis of examples, by name; ``'mask'`` (0 or 1 per example) is there in evaluation."""

ExampleArrays = Mapping[str, Array | np.ndarray]
"""A whole set, as a batch is part of it; on the host or on a device."""

Metrics = dict[str, tuple[Array | np.ndarray, Array | np.ndarray]]
"""Name -> (sum, count), so that averages over batches of unequal size are exact; on the devices, or fetched. A sum may
have axes of its own, such as one of classes."""

Summarize = Callable[[Mapping[str, Any]], dict[str, float]]
"""From the averages of the metrics over a split, numbers or arrays by name, to the scores of the split."""

Loss = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[Array, tuple[Metrics, PyTree]]]
"""``loss(params, model_state, batch, key) -> (scalar, (metrics, new_model_state))``."""

Gradient = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[PyTree, tuple[Metrics, PyTree]]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Evaluate = Callable[[TrainState, Batch], Metrics]


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema_decay: Number = 0.0,
    on_nonfinite: str = "stop",
    learning_rate: optax.Schedule | None = None,
    parallel: DataParallel = ONE_DEVICE,
) -> Step:
    """One optimiser step as a pure function ``step(state, batch) -> (state, metrics)``.

    Besides the metrics of the loss there are ``'gradient_norm'`` and ``'parameter_norm'``, the Euclidean norms of the
    gradient, before any clipping, and of the new parameters, over all parameters that are trained together.

    Args:
      loss: The objective, a mean over its batch; its key is drawn from the run's ``'dropout'`` stream at the current
        step.
      optimizer: Turns gradients into updates.
      accumulate: In how many equal parts, one after the other, the gradient of a batch is computed, to save memory. It
        is the same gradient, unless the network has batch statistics, which are then those of the parts.
      ema_decay: Of the moving average in ``state.ema``, as ``ema = decay * ema + (1 - decay) * new``, where decay is
        at most ``(1 + step) / (10 + step)``, so that the start is soon forgotten; 0 if none is kept.
      on_nonfinite: ``'stop'``: take every step, the loop ends the run. ``'skip'``: a step whose loss or gradient is not
        finite leaves everything but the step count as it was, and the metric ``'skipped'`` counts it.
      learning_rate: The optimiser's schedule, whose value in this step becomes the metric ``'learning_rate'``; by
        default there is no such metric.
      parallel: The devices.

    Raises:
      UsageError: An argument out of its range.

    >>> def loss(params, model_state, batch, key):
    ...     value = jnp.sum((params["w"] - batch["x"]) ** 2)
    ...     return value, ({"loss": (value, jnp.ones(()))}, model_state)
    >>> from cnn_jax.train.state import create_state
    >>> optimizer = optax.sgd(0.5)
    >>> state = create_state(jax.random.key(0), {"w": jnp.zeros(2)}, {}, optimizer)
    >>> state, metrics = make_step(loss, optimizer)(state, {"x": jnp.ones(2)})
    >>> state.params["w"].tolist(), int(state.step)
    ([1.0, 1.0], 1)
    """
    if accumulate < 1:
        raise UsageError(f"accumulate={accumulate} must be at least 1")
    averaged = may_differ_from_zero(ema_decay)
    if not is_traced(ema_decay) and not 0 <= ema_decay < 1:
        raise UsageError(f"ema_decay={ema_decay} must be at least 0 and below 1; usual are 0.99 to 0.9999")
    if on_nonfinite not in ("stop", "skip"):
        raise UsageError(f"on_nonfinite={on_nonfinite!r} is unknown; {nearest(on_nonfinite, ('stop', 'skip'))}")
    gradient: Gradient = jax.grad(loss, has_aux=True)
    if accumulate > 1:
        gradient = _accumulated(gradient, accumulate)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = parallel.local_key(stream_key(state.key, "dropout", state.step))
        gradients, (metrics, model_state) = gradient(state.params, state.model_state, batch, key)
        gradients, model_state = parallel.mean((gradients, model_state))
        metrics = parallel.sum(metrics)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"gradient_norm": _norm(gradients), "parameter_norm": _norm(params), **metrics}
        if learning_rate is not None:
            rate = learning_rate(updates_made(state.opt_state, default=state.step))
            metrics = {"learning_rate": (jnp.asarray(rate, jnp.float32), jnp.ones(())), **metrics}
        ema = _moved(state.ema, (params, model_state), ema_decay, state.step) if averaged else state.ema
        new = TrainState(state.step + 1, state.key, params, model_state, opt_state, ema)
        return _unless_finite(state, gradients, new, metrics) if on_nonfinite == "skip" else (new, metrics)

    return step


def _norm(tree: PyTree) -> tuple[Array, Array]:
    """The Euclidean norm of all arrays together, as a metric of one step."""
    squares = [jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.stack(squares).sum()), jnp.ones(())


def _accumulated(gradient: Gradient, parts: int) -> Gradient:
    """The mean of the gradients of the parts of a batch, which are taken one after the other."""

    def mean(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> tuple[PyTree, Any]:
        def split(array: Array) -> Array:
            if array.shape[0] % parts:
                raise UsageError(f"accumulate={parts} does not divide a device's batch of {array.shape[0]} examples")
            # Every parts-th example, and not runs of them: so each device has its share of each part.
            return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)

        def add(carry: tuple[PyTree, PyTree], part: tuple[Array, Batch]) -> tuple[tuple[PyTree, PyTree], Metrics]:
            total, model_state = carry
            number, batch = part
            gradients, (metrics, model_state) = gradient(params, model_state, batch, jax.random.fold_in(key, number))
            return (jax.tree.map(jnp.add, total, gradients), model_state), metrics

        zeros = jax.tree.map(jnp.zeros_like, params)
        batches = {name: split(array) for name, array in batch.items()}
        (total, model_state), metrics = jax.lax.scan(add, (zeros, model_state), (jnp.arange(parts), batches))
        gradients = jax.tree.map(lambda sums: sums / parts, total)
        return gradients, (jax.tree.map(lambda values: values.sum(axis=0), metrics), model_state)

    return mean


def _moved(ema: PyTree, new: PyTree, decay: Number, step: Int[Array, ""]) -> PyTree:
    step = step.astype(jnp.float32)
    weight = jnp.minimum(decay, (1 + step) / (10 + step))

    def move(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.inexact):
            return new
        return (weight * old + (1 - weight) * new).astype(new.dtype)

    return jax.tree.map(move, ema, new)


def _unless_finite(
    state: TrainState, gradients: PyTree, new: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """The new state if all is finite, else the old one at the next step, and metrics that count nothing."""
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, metrics["loss"]))]).all()

    def choose(yes: PyTree, no: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), yes, no)

    names = ("params", "model_state", "opt_state", "ema")
    kept = {name: choose(getattr(new, name), getattr(state, name)) for name in names}
    metrics = choose(metrics, jax.tree.map(jnp.zeros_like, metrics))
    skipped = (1 - finite.astype(jnp.float32), jnp.ones(()))
    return dataclasses.replace(new, **kept), {**metrics, "skipped": skipped}


def make_scanned_steps(
    step: Step, *, batch_size: int, num_examples: int, longest: int, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, int], tuple[TrainState, Metrics]]:
    """Many steps in one compiled call: :func:`scanned_steps`, compiled. The state is donated."""
    sizes = {"batch_size": batch_size, "num_examples": num_examples, "longest": longest}
    return parallel.compile_steps(scanned_steps(step, **sizes, parallel=parallel))


def scanned_steps(
    step: Step, *, batch_size: int, num_examples: int, longest: int, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, Int[Array, ""] | int], tuple[TrainState, Metrics]]:
    """Many steps as one pure function: ``steps(state, examples, count) -> (state, metrics)``.

    The examples stay on the devices and each step gathers its own batch, in an order that is a function of the state's
    key and step alone. ``count`` is an argument of the compiled program: it is compiled once, and a run has the same
    bits however its steps are divided into calls.

    Args:
      step: Of the optimiser.
      batch_size: Examples a step.
      num_examples: Examples in the training set.
      longest: The largest ``count``. Each metric comes back with so many entries, one for each step; those after the
        first ``count`` are 0.
      parallel: The devices.
    """

    def steps(state: TrainState, examples: Batch, count: Int[Array, ""] | int) -> tuple[TrainState, Metrics]:
        indices = batch_indices(
            stream_key(state.key, "order"),
            state.step,
            longest,
            num_examples=num_examples,
            batch_size=batch_size,
        )

        def body(state: TrainState, rows: Int[Array, " batch"]) -> tuple[TrainState, Metrics]:
            rows = parallel.split(rows)
            return step(state, {name: jnp.take(array, rows, axis=0) for name, array in examples.items()})

        return scan_first(body, state, indices, count)

    return steps


def scanned_evaluation(
    evaluate: Evaluate, *, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, Array, Array, Int[Array, ""] | int, Int[Array, ""] | int], Metrics]:
    """Exact evaluation as a pure function: ``evaluation(state, examples, indices, mask, first, count) -> metrics``.

    Args:
      evaluate: The metrics of one batch; ``batch['mask']`` is 0 for the padding of the last batch.
      parallel: The devices.

    Returns:
      A function of the state, all examples, the padded index batches with their mask (both (batches, batch)), and
      which of these batches are evaluated: ``count`` of them, from ``first`` on. Each metric has an entry for each
      batch; those after the first ``count`` are 0.
    """

    def evaluation(
        state: TrainState,
        examples: Batch,
        indices: Array,
        mask: Array,
        first: Int[Array, ""] | int,
        count: Int[Array, ""] | int,
    ) -> Metrics:
        def one(_: None, number: Int[Array, ""]) -> tuple[None, Metrics]:
            rows, valid = (parallel.split(array[number]) for array in (indices, mask))
            batch = {name: jnp.take(array, rows, axis=0) for name, array in examples.items()}
            return None, parallel.sum(evaluate(state, {**batch, "mask": valid}))

        return scan_first(one, None, first + jnp.arange(len(indices)), count)[1]

    return evaluation


_Carry = TypeVar("_Carry")


def scan_first(
    body: Callable[[_Carry, Array], tuple[_Carry, PyTree]], carry: _Carry, rows: Array, count: Int[Array, ""] | int
) -> tuple[_Carry, PyTree]:
    """``jax.lax.scan`` over the first ``count`` rows, where ``count`` may be traced.

    Args:
      body: ``body(carry, row) -> (carry, outputs)``.
      carry: The first one.
      rows: (n, ...).
      count: At least 1 and at most n.

    Returns:
      The last carry, and the outputs with a leading axis of n; those after the first ``count`` are 0.

    >>> carry, squares = scan_first(lambda total, row: (total + row, row**2), 0, jnp.arange(1, 5), 3)
    >>> int(carry), squares.tolist()
    (6, [1, 4, 9, 0])
    """
    if len(rows) == 1:  # the loop is left out, in which jax_debug_nans does not say which line made a NaN
        carry, outputs = body(carry, rows[0])
        return carry, jax.tree.map(lambda leaf: leaf[None], outputs)
    shapes = jax.eval_shape(body, carry, rows[0])[1]
    empty = jax.tree.map(lambda leaf: jnp.zeros((len(rows), *leaf.shape), leaf.dtype), shapes)

    def one(number: Int[Array, ""], given: tuple[_Carry, PyTree]) -> tuple[_Carry, PyTree]:
        carry, collected = given
        carry, outputs = body(carry, rows[number])
        return carry, jax.tree.map(lambda all_, own: all_.at[number].set(own), collected, outputs)

    return jax.lax.fori_loop(0, count, one, (carry, empty))


Totals = Mapping[str, tuple[Any, float]]
"""Name -> (sum, count): the metrics of several steps or batches, added up. A sum that is an array is a list."""


def added(totals: Totals, metrics: Metrics, count: int | None = None) -> dict[str, tuple[Any, float]]:
    """Adds metrics with a leading axis of steps or batches, in order and in float64.

    So the bits of a sum do not depend on how the steps were divided into calls.

    Args:
      totals: Of the steps before; empty at the start.
      metrics: Of the steps that follow, or of a single one.
      count: How many entries are added, from the first; by default all.

    >>> totals = added({}, {"loss": (np.array([0.5, 1.5]), np.array([1.0, 1.0]))})
    >>> added(totals, {"loss": (np.array([4.0, 9.0]), np.array([2.0, 9.0]))}, 1)
    {'loss': (6.0, 4.0)}
    """
    host: Any = jax.device_get(metrics)

    def total(start: Any, values: np.ndarray) -> Any:
        entries = values[:count]
        first = np.broadcast_to(np.asarray(start, np.float64), values.shape[1:])[None]
        return np.cumsum(np.concatenate([first, entries], dtype=np.float64), axis=0)[-1].tolist()

    result = dict(totals)
    for name, (sums, counts) in host.items():
        sums, counts = (sums, counts) if np.ndim(counts) else (np.asarray(sums)[None], np.asarray(counts)[None])
        of_sum, of_count = totals.get(name, (0.0, 0.0))
        result[name] = total(of_sum, sums), total(of_count, counts)
    return result


def averages(totals: Totals) -> dict[str, Any]:
    """Sums divided by their counts, floats or NumPy arrays; what has a count of 0 is left out.

    >>> averages({"accuracy": (4.0, 8.0), "auxiliary": (0.0, 0.0)})
    {'accuracy': 0.5}
    """
    return {
        name: np.asarray(total) / count if isinstance(total, list) else total / count
        for name, (total, count) in totals.items()
        if count > 0
    }
