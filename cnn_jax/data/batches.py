"""The order of examples, as pure functions of (key, step): nothing to save, nothing to replay after an interruption.

Training walks through a new permutation of the examples in every epoch, in batches of equal size; the examples that do
not fill a last batch are left out of that epoch (others in every epoch). Evaluation takes every example exactly once:
the last batch is padded and a mask tells the padding.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer, Key, UInt32

from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

FEISTEL_ROUNDS = 8
MIN_HALF_BITS = 4  # fewer would leave too few different permutations of a handful of examples

Numbers = Any  # uint32 arrays of JAX or NumPy


@typed
def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """The number of full batches in an epoch.

    Raises:
      UsageError: Not even one batch is full.

    Example:
      >>> steps_per_epoch(1297, 64)
      20
    """
    if not 1 <= batch_size <= num_examples:
        raise UsageError(
            f"batch_size={batch_size} does not fit {num_examples} training examples; choose 1 to {num_examples}"
        )
    return num_examples // batch_size


@typed
def epoch_order(
    key: Key[Array, ""], epoch: int | Integer[Array, ""], num_examples: int
) -> Int32[Array, " {num_examples}"]:
    """The permutation of the examples in one epoch: a function of (key, epoch) alone.

    Args:
      key: The run's key for the order of examples.
      epoch: Counted from 0; may be traced.
      num_examples: Size of the training set; static.

    Example:
      >>> sorted(epoch_order(jax.random.key(0), 3, 5).tolist())
      [0, 1, 2, 3, 4]
    """
    return _shuffled(jax.random.fold_in(key, epoch), jnp.arange(num_examples), num_examples)


@typed
def batch_indices(
    key: Key[Array, ""],
    first_step: int | Integer[Array, ""],
    num_steps: int,
    *,
    num_examples: int,
    batch_size: int,
) -> Int32[Array, "{num_steps} {batch_size}"]:
    """The examples of ``num_steps`` successive training steps, ready to be scanned over.

    However the steps are cut into calls, step ``s`` gets the same batch: the ``s % steps_per_epoch``-th slice of
    :func:`epoch_order` for epoch ``s // steps_per_epoch``. The cost does not grow with the training set.

    Args:
      key: The run's key for the order of examples.
      first_step: Number of the first step, counted from 0 over the whole run; may be traced.
      num_steps: How many steps; static.
      num_examples: Size of the training set; static.
      batch_size: Examples per step; static.

    Raises:
      UsageError: The batch is larger than the training set.

    Example:
      >>> batch_indices(jax.random.key(0), 7, 3, num_examples=1297, batch_size=64).shape
      (3, 64)
    """
    length = steps_per_epoch(num_examples, batch_size)

    def one_batch(step: Array) -> Array:
        positions = step % length * batch_size + jnp.arange(batch_size)
        return _shuffled(jax.random.fold_in(key, step // length), positions, num_examples)

    return jax.vmap(one_batch)(first_step + jnp.arange(num_steps))


def _shuffled(key: Key[Array, ""], positions: Integer[Array, " n"], num_examples: int) -> Int32[Array, " n"]:
    """Which examples a pseudo-random permutation of all of them puts at the given positions.

    A Feistel network permutes the numbers of 2 * half_bits bits (Luby and Rackoff 1988, "How to construct pseudorandom
    permutations from pseudorandom functions"); a result that is not the number of an example is permuted again until it
    is, which keeps it a permutation (cycle walking: Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    Sorting random numbers, as ``jax.random.permutation`` does, takes 37 ms for MNIST on one CPU core: as much as
    several training steps, for a batch of which a permutation of all examples is not needed.
    """
    round_keys = _round_keys(key)

    def permute(numbers: Array) -> Array:
        return _permuted(numbers, round_keys, num_examples)

    def outside(numbers: Array) -> Array:
        return numbers >= num_examples

    examples = jax.lax.while_loop(
        lambda numbers: outside(numbers).any(),
        lambda numbers: jnp.where(outside(numbers), permute(numbers), numbers),
        permute(positions.astype(jnp.uint32)),
    )
    return examples.astype(jnp.int32)


def _round_keys(key: Key[Array, ""]) -> UInt32[Array, " rounds"]:
    return jax.random.bits(key, (FEISTEL_ROUNDS,), jnp.uint32)


def _permuted(numbers: Numbers, round_keys: Numbers, num_examples: int) -> Numbers:
    """One pass through the network, of JAX's arrays or of NumPy's: the same integers in both."""
    half_bits = max(MIN_HALF_BITS, -(-(num_examples - 1).bit_length() // 2))
    low_half = np.uint32(2**half_bits - 1)
    left, right = numbers >> half_bits, numbers & low_half
    for round_key in round_keys:
        left, right = right, left ^ (_hashed(right ^ round_key) & low_half)
    return left << half_bits | right


def _hashed(numbers: Numbers) -> Numbers:
    """The finaliser of MurmurHash3 (Appleby 2011): every bit of the result depends on every bit of the number."""
    numbers = (numbers ^ numbers >> 16) * np.uint32(0x85EBCA6B)
    numbers = (numbers ^ numbers >> 13) * np.uint32(0xC2B2AE35)
    return numbers ^ numbers >> 16


@dataclasses.dataclass(frozen=True, eq=False)
class HostOrder:
    """The batches of :func:`batch_indices` in NumPy, for worker processes, which must not touch a device.

    Args:
      key: The run's key for the order of examples.
      num_steps: Of the whole run.
      num_examples: Size of the training set.
      batch_size: Examples per step.

    Example:
      >>> order = HostOrder.of(jax.random.key(0), 100, num_examples=1297, batch_size=64)
      >>> on_device = batch_indices(jax.random.key(0), 33, 1, num_examples=1297, batch_size=64)[0]
      >>> bool((order.batch(33) == on_device).all())
      True
    """

    round_keys: UInt32[np.ndarray, "epochs rounds"]
    num_examples: int
    batch_size: int

    @classmethod
    def of(cls, key: Key[Array, ""], num_steps: int, *, num_examples: int, batch_size: int) -> "HostOrder":
        """The order of a run of ``num_steps``."""
        epochs = -(-num_steps // steps_per_epoch(num_examples, batch_size))
        keys = jax.vmap(lambda epoch: _round_keys(jax.random.fold_in(key, epoch)))(jnp.arange(epochs))
        return cls(np.asarray(keys), num_examples, batch_size)

    def batch(self, step: int) -> Int32[np.ndarray, " batch"]:
        """The examples of one step."""
        length = steps_per_epoch(self.num_examples, self.batch_size)
        first = step % length * self.batch_size
        round_keys = self.round_keys[step // length]
        examples = _permuted(np.arange(first, first + self.batch_size, dtype=np.uint32), round_keys, self.num_examples)
        while (outside := examples >= self.num_examples).any():
            examples[outside] = _permuted(examples[outside], round_keys, self.num_examples)
        return examples.astype(np.int32)


@typed
def padded_batches(
    num_examples: int, batch_size: int
) -> tuple[Int32[np.ndarray, "num_batches {batch_size}"], Bool[np.ndarray, "num_batches {batch_size}"]]:
    """Every example exactly once, in order, in batches of one shape, for exact evaluation.

    Args:
      num_examples: Size of the set.
      batch_size: Examples per batch.

    Returns:
      ``(indices, mask)``: where ``mask`` is False the index is padding (it repeats the last example) and its result
      must not count.

    Raises:
      UsageError: One of them is not positive.

    Example:
      >>> indices, mask = padded_batches(5, 3)
      >>> indices.tolist(), mask.sum(axis=1).tolist()
      ([[0, 1, 2], [3, 4, 4]], [3, 2])
    """
    if num_examples < 1 or batch_size < 1:
        raise UsageError(f"padded_batches: {num_examples} examples in batches of {batch_size}; give at least 1 of each")
    num_batches = -(-num_examples // batch_size)
    positions = np.arange(num_batches * batch_size, dtype=np.int32).reshape(num_batches, batch_size)
    return np.minimum(positions, num_examples - 1), positions < num_examples
