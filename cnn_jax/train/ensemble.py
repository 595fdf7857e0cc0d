"""Several networks trained as one: one state with a leading axis of members, one step function, one checkpoint."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from cnn_jax.train.state import TrainState, stream_key
from cnn_jax.train.step import Batch, Metrics, Step

Init = Callable[[Key[Array, ""]], TrainState]


def member_key(root: Key[Array, ""], member: int | Array) -> Key[Array, ""]:
    """The root key of one member, derived from the root key of the ensemble."""
    return stream_key(root, "member", member)


def member(state: TrainState, number: int) -> TrainState:
    """The state of one member, counted from 0."""
    own = [jax.tree.map(lambda leaf: leaf[number], tree) for tree in _stacked(state)]
    return TrainState(state.step, member_key(state.key, number), *own)


def over_members(function: Callable[[TrainState], Any], state: TrainState) -> Any:
    """Applies a function to the state of each member and stacks the results; see :func:`over_each`."""
    members = jax.tree.leaves(state.params)[0].shape[0]
    keys = jax.vmap(lambda number: member_key(state.key, number))(jnp.arange(members))
    return over_each(function, TrainState(jnp.broadcast_to(state.step, members), keys, *_stacked(state)))


def over_each(function: Callable[[Any], Any], stacked: PyTree) -> Any:
    """Applies a function to each of several networks and stacks the results: ``vmap``, or on a CPU ``lax.map``.

    One small network does not use a whole GPU, so seven cost little more than one. On a CPU, convolutions under
    ``vmap`` are computed one by one anyway (``docs/decisions.md``, Speed). With ``lax.map`` only one network's
    activations and gradients exist at a time.
    """
    return jax.lax.map(function, stacked) if jax.default_backend() == "cpu" else jax.vmap(function)(stacked)


def ensemble_init(init: Init, members: int) -> Init:
    """The first state of an ensemble: all arrays except step and key have a leading axis of members."""

    def stacked(root: Key[Array, ""]) -> TrainState:
        state = jax.vmap(lambda number: init(member_key(root, number)))(jnp.arange(members))
        return dataclasses.replace(state, step=jnp.zeros((), jnp.int32), key=root)

    return stacked


def ensemble_step(step: Step) -> Step:
    """One step of every member on the same batch, each with its own random numbers. Metrics are summed over members."""

    def one_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        new, metrics = over_members(lambda member: step(member, batch), state)
        total = jax.tree.map(lambda values: values.sum(axis=0), metrics)
        return dataclasses.replace(new, step=state.step + 1, key=state.key), total

    return one_step


def _stacked(state: TrainState) -> tuple[PyTree, ...]:
    return state.params, state.model_state, state.opt_state, state.ema
