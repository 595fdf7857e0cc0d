"""From a loss to compiled steps: one optimiser step, many of them in one ``lax.scan``, and exact evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from cnn_jax.data.augment import Augmentation
from cnn_jax.data.batches import batch_indices
from cnn_jax.train.state import TrainState, stream_key

Batch = dict[str, Array]
"""Arrays with a leading axis of examples, by name; ``'mask'`` (0 or 1 per example) is there in evaluation."""

Metrics = dict[str, tuple[Array, Array]]
"""Name -> (sum, count), so that averages over batches of unequal size are exact."""

Loss = Callable[[PyTree, PyTree, Batch, Key[Array, ""]], tuple[Array, tuple[Metrics, PyTree]]]
"""``loss(params, model_state, batch, key) -> (scalar, (metrics, new_model_state))``."""

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Evaluate = Callable[[TrainState, Batch], Metrics]


def make_step(loss: Loss, optimizer: optax.GradientTransformation) -> Step:
    """One optimiser step as a pure function ``step(state, batch) -> (state, metrics)``.

    Args:
      loss: the objective; its key is drawn from the run's ``'dropout'`` stream at the current step.
      optimizer: turns gradients into updates.

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

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = stream_key(state.key, "dropout", state.step)
        gradient = jax.grad(loss, has_aux=True)
        gradients, (metrics, model_state) = gradient(state.params, state.model_state, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, state.key, params, model_state, opt_state), metrics

    return step


def augmented(step: Step, augmentation: Augmentation, steps_per_epoch: int) -> Step:
    """A step whose batches are augmented first, with keys from the run's ``'augment'`` stream.

    Args:
      step: what is done with the augmented batch.
      augmentation: of a batch with ``'image'``, ``'label'`` and ``'index'``.
      steps_per_epoch: by which the augmentation learns the epoch.
    """

    def augmented_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key, epoch = stream_key(state.key, "augment"), state.step // steps_per_epoch
        return step(state, augmentation(key, batch, step=state.step, epoch=epoch))

    return augmented_step


def make_scanned_steps(
    step: Step, *, batch_size: int, num_examples: int
) -> Callable[[TrainState, Batch, int], tuple[TrainState, Metrics]]:
    """Many steps in one compiled call: ``steps(state, examples, count) -> (state, metrics)``.

    The examples stay on the device and each step gathers its own batch, in an order that is a function of the state's
    key and step alone. The state is donated.

    Returns:
      A jitted function; ``count`` is static, and each metric comes back with one entry per step.
    """

    @partial(jax.jit, static_argnames="count", donate_argnames="state")
    def steps(state: TrainState, examples: Batch, count: int) -> tuple[TrainState, Metrics]:
        indices = batch_indices(
            stream_key(state.key, "order"),
            state.step,
            count,
            num_examples=num_examples,
            batch_size=batch_size,
        )

        def body(state: TrainState, rows: Int[Array, " batch"]) -> tuple[TrainState, Metrics]:
            return step(state, {name: jnp.take(array, rows, axis=0) for name, array in examples.items()})

        return jax.lax.scan(body, state, indices)

    return steps


def make_evaluation(evaluate: Evaluate) -> Callable[[TrainState, Batch, Int[Array, "batches batch"], Array], Metrics]:
    """Exact evaluation of a whole set in one compiled call: ``evaluation(state, examples, indices, mask) -> metrics``.

    Args:
      evaluate: the metrics of one batch; ``batch['mask']`` is 0 for the padding of the last batch.

    Returns:
      A jitted function of the state, all examples, and the padded index batches with their mask (both (batches,
      batch)), whose metrics are summed over the batches.
    """

    @jax.jit
    def evaluation(state: TrainState, examples: Batch, indices: Array, mask: Array) -> Metrics:
        def one(rows_and_mask: tuple[Array, Array]) -> Metrics:
            rows, valid = rows_and_mask
            batch = {name: jnp.take(array, rows, axis=0) for name, array in examples.items()}
            return evaluate(state, {**batch, "mask": valid})

        return jax.tree.map(lambda values: values.sum(axis=0), jax.lax.map(one, (indices, mask)))

    return evaluation


def averages(metrics: Metrics) -> dict[str, float]:
    """Host-side averages of (sum, count) pairs; a leading axis of steps is summed first.

    >>> averages({"accuracy": (jnp.array([3.0, 1.0]), jnp.array([4.0, 4.0]))})
    {'accuracy': 0.5}
    """
    host: Any = jax.device_get(metrics)
    return {
        name: float(total.sum(dtype="float64") / count.sum(dtype="float64")) for name, (total, count) in host.items()
    }
