"""One table of the named kernels, with usual arguments, for pages and figures that show all of them."""

import functools
from collections.abc import Callable, Mapping

from jaxtyping import Array

from cnn_jax.filters.edges import (
    finite_difference,
    gabor,
    laplacian,
    laplacian_of_gaussian,
    line,
    prewitt,
    scharr,
    sobel,
)
from cnn_jax.filters.smoothing import (
    binomial,
    box,
    canny_gaussian,
    gaussian,
    identity,
    sharpen,
    simpson,
    trapezoid,
)

_Make = Callable[[], Array]


def _call(function: Callable[..., Array], *args: int, **options: int | str) -> tuple[str, _Make]:
    """The call as text, and a function that makes the kernel."""
    text = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in options.items())])
    return f"{function.__name__}({text})", functools.partial(function, *args, **options)


KERNELS: Mapping[str, _Make] = dict(
    [
        _call(identity),
        _call(box, 5),
        _call(binomial, 5),
        _call(gaussian, 2),
        _call(canny_gaussian),
        _call(trapezoid),
        _call(simpson),
        _call(sharpen),
        *(_call(finite_difference, axis=1, kind=kind) for kind in ("forward", "backward", "central")),
        *(_call(function, axis=axis) for function in (prewitt, sobel, scharr) for axis in (0, 1)),
        _call(laplacian),
        _call(laplacian, neighbours="all"),
        _call(laplacian_of_gaussian, 2),
        *(_call(line, angle) for angle in (0, 45, 90, 135)),
        *(_call(gabor, 8, angle=angle) for angle in (0, 45, 90, 135)),
    ]
)
"""A call such as ``'sobel(axis=1)'`` -> a function that makes the kernel for images, an array of two axes.

>>> KERNELS["line(45)"]().shape
(3, 3)
"""
