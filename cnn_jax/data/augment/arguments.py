"""What every augmentation asks of its arguments, and the random numbers of each example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Integer, Key, Shaped

from cnn_jax.errors import UsageError, nearest
from cnn_jax.typed import typed

MODES = {"zero": "constant", "mirror": "reflect"}  # ours -> NumPy's


def check_images(augmentation: str, images: Shaped[Array, "..."]) -> None:
    """Rejects what is not a batch of floating-point images."""
    if images.ndim != 4:
        raise UsageError(f"{augmentation}: images have shape {images.shape}; give (batch, height, width, channels)")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UsageError(f"{augmentation}: images are {images.dtype}; give floating-point ones, as a rule from 0 to 1")


def from_zero_to_one(images: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Images as augmentations take them: uint8 ones, 0 to 255, as float32 from 0 to 1; others as they are.

    >>> from_zero_to_one(jnp.array([0, 255], jnp.uint8)).tolist(), from_zero_to_one(jnp.array([0.5])).tolist()
    ([0.0, 1.0], [0.5])
    """
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def check_range(
    augmentation: str, name: str, value: int | float, low: int | float, high: int | float = float("inf")
) -> None:
    """Rejects an option that is not a number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        reach = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise UsageError(f"{augmentation}: {name}={value!r} must be a number {reach}")


def check_interval(
    augmentation: str, name: str, value: tuple[int | float, int | float], low: int | float, high: int | float
) -> None:
    """Rejects an option that is not a pair of numbers, the smaller first, within ``low`` (excluded) to ``high``."""
    numbers = isinstance(value, tuple) and len(value) == 2 and all(isinstance(end, int | float) for end in value)
    if not numbers or not low < value[0] <= value[1] <= high:
        reach = f"above {low:g}" + ("" if high == float("inf") else f" and at most {high:g}")
        raise UsageError(f"{augmentation}: {name}={value!r} must be two numbers {reach}, the smaller first")


def check_size(augmentation: str, size: tuple[int, ...], *, ranks: Sequence[int] = (2,)) -> None:
    """Rejects a size that is not (height, width), or not as many numbers as one of ``ranks``."""
    numbers = isinstance(size, tuple) and all(isinstance(side, int) for side in size)
    if not numbers or len(size) not in ranks or min(size) < 1:
        raise UsageError(f"{augmentation}: size={size!r} must be (height, width), both positive")


def check_mode(augmentation: str, mode: str) -> None:
    """Rejects an unknown rule for what lies beyond an image's border."""
    if not isinstance(mode, str) or mode not in MODES:
        raise UsageError(f"{augmentation}: unknown mode={mode!r}; {nearest(str(mode), MODES)}")


@typed
def example_keys(key: Key[Array, "..."], count: int, *, first: int | Integer[Array, ""] = 0) -> Key[Array, " {count}"]:
    """One key for each example: its address in the batch.

    Example ``i`` gets ``fold_in(key, i)``, whatever the number of examples, so that a batch cut over devices by
    ``jax.jit`` and an undivided one get the same numbers. Where each device sees only its part (``pmap``), say which:
    ``example_keys(key, part, first=start)``.

    Args:
      key: One key, or one for each example, which is returned as it is.
      count: Examples in the batch.
      first: The first example's number.

    Returns:
      ``count`` keys.

    Raises:
      UsageError: There are several keys, but not one for each example.

    Example:
      >>> keys = example_keys(jax.random.key(0), 8)
      >>> bool((example_keys(jax.random.key(0), 2) == keys[:2]).all()), example_keys(keys, 8) is keys
      (True, True)
    """
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))
    if key.shape != (count,):
        raise UsageError(f"augment: {key.shape} keys for {count} examples; give one key, or one for each example")
    return key


def draw_positions(key: Key[Array, ""], sides: tuple[int, ...]) -> Int32[Array, " axes"]:
    """One whole number from 0 to ``side - 1`` for each side.

    By one draw of ``uniform``, where ``randint`` makes four: a third of its compile time, for a bias below 1e-4.
    """
    sizes = jnp.array(sides, jnp.int32)
    return jnp.minimum((jax.random.uniform(key, (len(sides),)) * sizes).astype(jnp.int32), sizes - 1)
