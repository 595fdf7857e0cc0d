"""Arrays cut or continued on all sides to another size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from cnn_jax.typed import typed


@typed
def framed(array: Shaped[np.ndarray, "..."], sizes: Sequence[int], **padding: Any) -> Shaped[np.ndarray, "..."]:
    """The middle of an array, or an array with padding on all sides.

    Args:
      array: ``(*space, ...)``.
      sizes: The new spatial sizes.
      **padding: Of ``numpy.pad``, where the array is smaller.

    >>> framed(np.arange(4), (6,), mode="reflect").tolist(), framed(np.arange(4), (2,)).tolist()
    ([1, 0, 1, 2, 3, 2], [1, 2])
    """
    for axis, size in enumerate(sizes):
        missing = size - array.shape[axis]
        if missing < 0:
            start = -missing // 2
            array = np.take(array, range(start, start + size), axis=axis)
        elif missing > 0:
            before = missing // 2
            widths = [(before, missing - before) if other == axis else (0, 0) for other in range(array.ndim)]
            array = np.pad(array, widths, **padding)
    return array
