"""Compiled steps from a loss: one optimiser step, many steps in one compiled loop, and exact evaluation."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int, Key, PyTree

from cnn_jax.data.batches import batch_indices
from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import Number, is_traced, may_differ_from_zero
from cnn_jax.train.optimizers import updates_made
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.state import TrainState, stream_key

Batch = dict[str, Array]
"""Name -> array with a leading axis of examples. In evaluation there is also ``'mask'``, 0 or 1 per example."""

ExampleArrays = Mapping[str, Array | np.ndarray]
"""A whole data set in the form of a batch, on the host or on a device."""


class Each(NamedTuple):
    """What an evaluation keeps of every example, for scores that are not sums over examples, such as average precision.

    Attributes:
      values: One entry for each example of a batch, (batch, ...).
      mask: (batch,): 0 for an example that is padding.
    """

    values: Any
    mask: Any


Metrics = dict[str, tuple[Array | np.ndarray, Array | np.ndarray] | Each]
"""Name -> (sum, count), so that averages over batches of unequal size are exact; device or host arrays. A sum may have
more axes, such as one of classes. In evaluations also name -> :class:`Each`."""

Summarize = Callable[[Mapping[str, Any]], dict[str, float]]
"""Computes the scores of a split from the averages of its metrics, numbers or arrays by name, and from what was kept of
each example, (n, ...)."""

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

    Besides the metrics of the loss there are ``'gradient_norm'`` (before clipping) and ``'parameter_norm'`` (after the
    step), the Euclidean norms over all trained parameters together.

    Args:
      loss: The objective, a mean over its batch. Its key is that of the run's ``'dropout'`` stream at the current step.
      optimizer: The optax optimiser.
      accumulate: Compute the gradient of a batch in so many equal parts, one after the other, to save memory. The
        gradient is the same, unless the network has batch statistics: these are computed over the parts.
      ema_decay: The decay of the moving average ``state.ema``: ``ema = decay * ema + (1 - decay) * new``, with decay
        limited to ``(1 + step) / (10 + step)``, so that the first weights soon have little influence; 0 for none.
      on_nonfinite: ``'stop'``: apply every step; the loop ends the run. ``'skip'``: a step whose loss or gradient is
        not finite changes only the step count, and the metric ``'skipped'`` counts it.
      learning_rate: The optimiser's schedule; its value in this step becomes the metric ``'learning_rate'``. By
        default there is no such metric.
      parallel: The devices.

    Raises:
      UsageError: An argument is out of its range.

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


def in_turns(turns: Mapping[str, tuple[nnx.filterlib.Filter, Step]]) -> Step:
    """One step of networks that are trained against each other: each takes an optimiser step of its own, in order.

    The parameters of a turn are part of those of the state, and ``opt_state`` has an optimiser's state for each turn,
    see :func:`optimizer_in_turns`. Whatever a step can do, such as accumulation, several devices and averaged weights,
    each turn does. Averaged weights follow the last turn, when all parameters have changed.

    Args:
      turns: A name -> which parameters are trained in the turn, and its step. To that step all other parameters are
        part of the model state, ``(other parameters, model state)``, and it returns them as they are.

    Returns:
      The step. Metrics of the last turn have their own names, those of the others begin with their turn's.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        params, model_state, ema = state.params, state.model_state, state.ema
        opt_states: dict[str, PyTree] = {}
        metrics: Metrics = {}
        for name, (chosen, one) in turns.items():
            last = len(opt_states) == len(turns) - 1
            own, others = nnx.split_state(params, chosen, ...)
            own_ema = None
            if ema is not None:
                averaged, averaged_others = nnx.split_state(ema[0], chosen, ...)
                own_ema = averaged, (averaged_others, ema[1])
            given = (others, model_state)
            new, found = one(TrainState(state.step, state.key, own, given, state.opt_state[name], own_ema), batch)
            others, model_state = new.model_state
            params, opt_states[name] = nnx.merge_state(new.params, others), new.opt_state
            metrics |= found if last else {f"{name}_{metric}": value for metric, value in found.items()}
            if last and ema is not None:
                ema = nnx.merge_state(new.ema[0], new.ema[1][0]), new.ema[1][1]
        return TrainState(state.step + 1, state.key, params, model_state, opt_states, ema), metrics

    return step


def optimizer_in_turns(
    optimizer: optax.GradientTransformation, turns: Mapping[str, nnx.filterlib.Filter]
) -> optax.GradientTransformation:
    """An optimiser whose first state is that of one optimiser for each turn of :func:`in_turns`, by name.

    Args:
      optimizer: Of every turn.
      turns: A name -> which parameters are trained in the turn.
    """

    def init(params: PyTree) -> PyTree:
        return {name: optimizer.init(nnx.split_state(params, chosen, ...)[0]) for name, chosen in turns.items()}

    return optax.GradientTransformation(init, optimizer.update)


def _norm(tree: PyTree) -> tuple[Array, Array]:
    """The Euclidean norm over all arrays together, as a metric of one step."""
    squares = [jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.stack(squares).sum()), jnp.ones(())


def _accumulated(gradient: Gradient, parts: int) -> Gradient:
    """The mean of the gradients of the parts of a batch, computed one after the other."""

    def mean(params: PyTree, model_state: PyTree, batch: Batch, key: Key[Array, ""]) -> tuple[PyTree, Any]:
        def split(array: Array) -> Array:
            if array.shape[0] % parts:
                raise UsageError(f"accumulate={parts} does not divide a device's batch of {array.shape[0]} examples")
            # A part takes every parts-th example, not a block of them, so that each device has its share of each part.
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
    """The new state if everything is finite; otherwise the old one with the next step number, and zero metrics."""
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
    """:func:`scanned_steps`, compiled. The state is donated."""
    sizes = {"batch_size": batch_size, "num_examples": num_examples, "longest": longest}
    return parallel.compile_steps(scanned_steps(step, **sizes, parallel=parallel))


def scanned_steps(
    step: Step, *, batch_size: int, num_examples: int, longest: int, parallel: DataParallel = ONE_DEVICE
) -> Callable[[TrainState, Batch, Int[Array, ""] | int], tuple[TrainState, Metrics]]:
    """Many steps as one pure function: ``steps(state, examples, count) -> (state, metrics)``.

    The examples stay on the devices, and each step gathers its own batch. The order depends only on the state's key and
    step. ``count`` is an argument of the compiled function, so that it is compiled once, and the results of a run are
    bit-identical however its steps are divided into calls.

    Args:
      step: The optimiser step.
      batch_size: The number of examples in a step.
      num_examples: The number of examples in the training set.
      longest: The largest ``count``. Each metric has this many entries, one for each step; those after the first
        ``count`` are 0.
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
      A function of the state, all examples, the padded batches of indices with their mask (both (batches, batch)), and
      the numbers ``first`` and ``count``: it evaluates ``count`` batches from batch ``first`` on. Each metric has an
      entry for each batch; those after the first ``count`` are 0.
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
            return None, over_devices(evaluate(state, {**batch, "mask": valid}), parallel)

        return scan_first(one, None, first + jnp.arange(len(indices)), count)[1]

    return evaluation


def over_devices(metrics: Metrics, parallel: DataParallel) -> Metrics:
    """The metrics of a batch from those that each device has of its part.

    Args:
      metrics: Of the part.
      parallel: The devices.
    """
    each = {name: metric for name, metric in metrics.items() if isinstance(metric, Each)}
    sums = parallel.sum({name: metric for name, metric in metrics.items() if name not in each})
    return {**sums, **parallel.together(each)}


_Carry = TypeVar("_Carry")


def scan_first(
    body: Callable[[_Carry, Array], tuple[_Carry, PyTree]], carry: _Carry, rows: Array, count: Int[Array, ""] | int
) -> tuple[_Carry, PyTree]:
    """``jax.lax.scan`` over the first ``count`` rows, where ``count`` may be traced.

    Args:
      body: ``body(carry, row) -> (carry, outputs)``.
      carry: The initial carry.
      rows: (n, ...).
      count: At least 1 and at most n.

    Returns:
      The last carry, and the outputs with a leading axis of n; those after the first ``count`` are 0.

    >>> carry, squares = scan_first(lambda total, row: (total + row, row**2), 0, jnp.arange(1, 5), 3)
    >>> int(carry), squares.tolist()
    (6, [1, 4, 9, 0])
    """
    if len(rows) == 1:  # no loop: inside one, jax_debug_nans does not say which line made a NaN
        carry, outputs = body(carry, rows[0])
        return carry, jax.tree.map(lambda leaf: leaf[None], outputs)
    shapes = jax.eval_shape(body, carry, rows[0])[1]
    empty = jax.tree.map(lambda leaf: jnp.zeros((len(rows), *leaf.shape), leaf.dtype), shapes)

    def one(number: Int[Array, ""], given: tuple[_Carry, PyTree]) -> tuple[_Carry, PyTree]:
        carry, collected = given
        carry, outputs = body(carry, rows[number])
        return carry, jax.tree.map(lambda all_, own: all_.at[number].set(own), collected, outputs)

    return jax.lax.fori_loop(0, count, one, (carry, empty))


Totals = Mapping[str, tuple[Any, float] | Each]
"""Name -> (sum, count): the totals of the metrics of several steps or batches. A sum that is an array is a list.
What is kept of each example is an :class:`Each` without padding."""


def added(totals: Totals, metrics: Metrics, count: int | None = None) -> dict[str, tuple[Any, float] | Each]:
    """Adds metrics with a leading axis of steps or batches, in order and in float64.

    The bits of a sum therefore do not depend on how the steps were divided into calls.

    Args:
      totals: The totals of the steps before; empty at the start.
      metrics: The metrics of the next steps, or of a single one.
      count: Add only the first ``count`` entries; by default all.

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
    for name, metric in host.items():
        if isinstance(metric, Each):
            result[name] = _together(totals.get(name), metric, count)
            continue
        sums, counts = metric
        sums, counts = (sums, counts) if np.ndim(counts) else (np.asarray(sums)[None], np.asarray(counts)[None])
        of_sum, of_count = totals.get(name, (0.0, 0.0))
        result[name] = total(of_sum, sums), total(of_count, counts)
    return result


def _together(before: Any, new: Each, count: int | None) -> Each:
    """What was kept of the examples until now, and what the next batches keep of theirs, which are not padding."""
    values, mask = (np.asarray(array) if np.ndim(new.mask) > 1 else np.asarray(array)[None] for array in new)
    kept = values[:count][mask[:count] > 0]
    kept = kept if before is None else np.concatenate([before.values, kept])
    return Each(kept, np.ones(len(kept), bool))


def averages(totals: Totals) -> dict[str, Any]:
    """Sums divided by their counts, as floats or NumPy arrays; metrics with a count of 0 are left out.

    What was kept of each example is an array of all of them.

    >>> averages({"accuracy": (4.0, 8.0), "auxiliary": (0.0, 0.0)})
    {'accuracy': 0.5}
    """
    found: dict[str, Any] = {}
    for name, metric in totals.items():
        if isinstance(metric, Each):
            found[name] = metric.values
        elif metric[1] > 0:
            total, count = metric
            found[name] = np.asarray(total) / count if isinstance(total, list) else total / count
    return found
