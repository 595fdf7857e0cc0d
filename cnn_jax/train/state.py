"""The whole of a run as one pytree, and the addresses of its random numbers."""

import dataclasses
import hashlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes while a network learns; saving it saves the run.

    Attributes:
      step: int32 scalar, the number of optimiser steps taken.
      key: the run's root key; it never changes, see :func:`stream_key`.
      params: the trained parameters (an ``nnx.State``, or any pytree).
      model_state: what the network keeps besides them, such as batch statistics.
      opt_state: the optimiser's state.
    """

    step: Any  # no array types here: JAX builds the same class of shapes, tracers and shardings, too
    key: Any
    params: PyTree
    model_state: PyTree
    opt_state: PyTree


def create_state(key: Key[Array, ""], params: PyTree, model_state: PyTree, optimizer: Any) -> TrainState:
    """The state before the first step.

    >>> import optax
    >>> state = create_state(jax.random.key(0), {"w": jnp.ones(3)}, {}, optax.sgd(0.1))
    >>> int(state.step)
    0
    """
    return TrainState(jnp.zeros((), jnp.int32), key, params, model_state, optimizer.init(params))


def stream_key(root: Key[Array, ""], stream: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """The key of one stream of random numbers at one step: an address, so nothing to save and nothing to drift.

    Args:
      root: the run's root key.
      stream: a name such as ``'order'`` or ``'dropout'``; different names give independent numbers.
      step: the step (or epoch) at which the numbers are drawn.

    >>> root = jax.random.key(0)
    >>> bool(stream_key(root, "dropout", 3) == stream_key(root, "dropout", 3))
    True
    >>> bool(stream_key(root, "dropout", 3) == stream_key(root, "order", 3))
    False
    """
    # crc32 and not hash(): the latter differs from process to process.
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(stream.encode())), step)


def digest(tree: PyTree) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of a pytree of arrays: equal digests mean bit-identical arrays.

    >>> zeros = np.zeros(2)
    >>> digest({"w": zeros}) == digest({"w": zeros.copy()}), digest({"w": zeros}) == digest({"w": -zeros})
    (True, False)
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
