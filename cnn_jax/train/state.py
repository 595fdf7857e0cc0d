"""The state of a run as one pytree, and the keys of its random numbers."""

import dataclasses
import hashlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int, Key, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes during training; saving it saves the run.

    Attributes:
      step: Int32 scalar, the number of optimiser steps done.
      key: The run's root key; it never changes, see :func:`stream_key`.
      params: The trained parameters (an ``nnx.State``, or any pytree).
      model_state: The network's other variables, such as batch statistics.
      opt_state: The optimiser's state.
      ema: An exponential moving average of the parameters and the model state, as the pair
        ``(params, model_state)``; None if none is kept.
    """

    step: Any  # no array types: JAX also puts shapes, tracers and shardings into this class
    key: Any
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    ema: PyTree = None


def create_state(
    key: Key[Array, ""], params: PyTree, model_state: PyTree, optimizer: Any, *, ema: bool = False
) -> TrainState:
    """The state before the first step.

    Args:
      key: The run's root key.
      params: The parameters.
      model_state: The network's other variables.
      optimizer: An optax optimiser.
      ema: Whether to keep a moving average of the parameters and the model state.

    >>> import optax
    >>> state = create_state(jax.random.key(0), {"w": jnp.ones(3)}, {}, optax.sgd(0.1))
    >>> int(state.step)
    0
    """
    average = jax.tree.map(jnp.copy, (params, model_state)) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), key, params, model_state, optimizer.init(params), average)


def evaluated(state: TrainState) -> TrainState:
    """The state for evaluation and use: if it has a moving average, that replaces the last weights.

    >>> import optax
    >>> state = create_state(jax.random.key(0), {"w": jnp.ones(3)}, {}, optax.sgd(0.1), ema=True)
    >>> evaluated(state).params is state.ema[0]
    True
    """
    if state.ema is None:
        return state
    params, model_state = state.ema
    return dataclasses.replace(state, params=params, model_state=model_state)


def stream_key(root: Key[Array, ""], stream: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The key of one stream of random numbers at one step. It depends only on the arguments, so it need not be saved.

    Args:
      root: The run's root key.
      stream: A name such as ``'order'`` or ``'dropout'``; different names give independent numbers.
      step: The step (or epoch) at which the numbers are drawn.

    >>> root = jax.random.key(0)
    >>> bool(stream_key(root, "dropout", 3) == stream_key(root, "dropout", 3))
    True
    >>> bool(stream_key(root, "dropout", 3) == stream_key(root, "order", 3))
    False
    """
    # crc32 and not hash(), which differs from process to process.
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(stream.encode())), step)


def digest(tree: PyTree) -> str:
    """SHA-256 of the names, shapes, dtypes and bytes of a pytree of arrays: equal digests mean bit-identical arrays.

    >>> zeros = np.zeros(2)
    >>> digest({"w": zeros}) == digest({"w": zeros.copy()}), digest({"w": zeros}) == digest({"w": -zeros})
    (True, False)
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
