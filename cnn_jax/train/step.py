"""From a loss to compiled steps: one optimiser step, many of them in one ``lax.scan``, and exact evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

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

Examples = Mapping[str, Array | np.ndarray]
"""A whole set, as a batch is part of it; on the host or on a device."""

Metrics = dict[str, tuple[Array | np.ndarray, Array | np.ndarray]]
"""Name -> (sum, count), so that averages over batches of unequal size are exact; on the devices, or fetched."""

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
    step: Step, *, batch_size: int, num_examples: int, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, int], tuple[TrainState, Metrics]]:
    """Many steps in one compiled call: :func:`scanned_steps`, compiled. ``count`` is static, the state is donated."""
    steps = scanned_steps(step, batch_size=batch_size, num_examples=num_examples, parallel=parallel)
    return parallel.compile_steps(steps)


def scanned_steps(
    step: Step, *, batch_size: int, num_examples: int, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, int], tuple[TrainState, Metrics]]:
    """Many steps as one pure function: ``steps(state, examples, count) -> (state, metrics)``.

    The examples stay on the devices and each step gathers its own batch, in an order that is a function of the state's
    key and step alone. Each metric comes back with one entry per step.
    """

    def steps(state: TrainState, examples: Batch, count: int) -> tuple[TrainState, Metrics]:
        indices = batch_indices(
            stream_key(state.key, "order"),
            state.step,
            count,
            num_examples=num_examples,
            batch_size=batch_size,
        )

        def body(state: TrainState, rows: Int[Array, " batch"]) -> tuple[TrainState, Metrics]:
            rows = parallel.split(rows)
            return step(state, {name: jnp.take(array, rows, axis=0) for name, array in examples.items()})

        if jax.debug_nans.value:  # JAX says which line made a NaN, but not within a loop
            metrics = []
            for rows in indices:
                state, one = body(state, rows)
                metrics.append(one)
            return state, jax.tree.map(lambda *values: jnp.stack(values), *metrics)
        return jax.lax.scan(body, state, indices)

    return steps


def make_evaluation(
    evaluate: Evaluate, *, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, Int[Array, "batches batch"], Array], Metrics]:
    """Exact evaluation of a whole set in one compiled call: :func:`whole_evaluation`, compiled."""
    return parallel.compile_evaluation(whole_evaluation(evaluate, parallel=parallel))


def whole_evaluation(
    evaluate: Evaluate, *, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, Int[Array, "batches batch"], Array], Metrics]:
    """Exact evaluation of a whole set as a pure function: ``evaluation(state, examples, indices, mask) -> metrics``.

    Args:
      evaluate: The metrics of one batch; ``batch['mask']`` is 0 for the padding of the last batch.
      parallel: The devices.

    Returns:
      A function of the state, all examples, and the padded index batches with their mask (both (batches,
      batch)), whose metrics are summed over the batches.
    """

    def evaluation(state: TrainState, examples: Batch, indices: Array, mask: Array) -> Metrics:
        def one(rows_and_mask: tuple[Array, Array]) -> Metrics:
            rows, valid = (parallel.split(array) for array in rows_and_mask)
            batch = {name: jnp.take(array, rows, axis=0) for name, array in examples.items()}
            return parallel.sum(evaluate(state, {**batch, "mask": valid}))

        return jax.tree.map(lambda values: values.sum(axis=0), jax.lax.map(one, (indices, mask)))

    return evaluation


def averages(metrics: Metrics) -> dict[str, float]:
    """Host-side averages of (sum, count) pairs; a leading axis of steps is summed first, a count of 0 left out.

    >>> averages({"accuracy": (jnp.array([3.0, 1.0]), jnp.array([4.0, 4.0]))})
    {'accuracy': 0.5}
    """
    host: Any = jax.device_get(metrics)
    return {
        name: float(total.sum(dtype="float64") / count.sum(dtype="float64"))
        for name, (total, count) in host.items()
        if count.sum() > 0
    }
