"""Measures the methods of :func:`cnn_jax.ops.conv` for given shapes on this machine.

Nothing else in the project compares methods at run time: ``method='auto'`` follows a fixed rule, so that results are
reproducible. Use :func:`tune` to find a faster method for your shapes, or to revise the rule.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops import methods
from cnn_jax.ops.arguments import FLOATS, by, check_option, integer
from cnn_jax.ops.canonical import operands, windows
from cnn_jax.ops.conv import conv
from cnn_jax.ops.padding import Padding
from cnn_jax.runtime.terminal import Console


class Timing(NamedTuple):
    """One row of the table of :func:`tune`."""

    forward: float
    """The time of the output in milliseconds: the median over the repeats."""
    gradients: float
    """The time of the output and both gradients in milliseconds."""
    memory: float
    """The temporaries that XLA allocates for the output and both gradients, in MiB."""
    error: float
    """The largest difference from the output computed in float64, relative to the largest output."""


def tune(
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    dtype: str = "float32",
    repeats: int = 10,
    **options: Any,
) -> dict[str, Timing]:
    """Times every method that can compute a convolution of these shapes, and prints the table.

    Args:
      x_shape: The shape of the input, ``(*batch, *space, C_in)``.
      kernel_shape: The shape of the kernel, ``(*window, C_in / feature_group_count, C_out)``.
      dtype: The dtype of both arrays.
      repeats: The number of runs whose median is reported, after one warm-up run.
      **options: The options of :func:`cnn_jax.ops.conv` except ``method``.

    Returns:
      A dictionary from method to timing, fastest gradients first.

    Raises:
      UsageError: See :func:`cnn_jax.ops.conv`.

    >>> timings = tune((4, 8, 8, 2), (3, 3, 2, 4), repeats=1, padding="SAME")
    4x8x8x2 * 3x3x2x4, float32, cpu...
    >>> sorted(set(timings) - {"native"})  # which is there after cnn_jax.enable_native()
    ['direct', 'fft', 'im2col', 'toeplitz', 'winograd', 'winograd_f43']
    """
    op = "tune"
    if "method" in options:
        raise UsageError(
            f"{op}: method={options['method']!r} is not an option, because tune measures every method; leave it out"
        )
    known = [name for name, option in signature(conv).parameters.items() if option.kind is option.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise UsageError(f"{op}: conv has no option {name!r}; {nearest(name, known)}")
    check_option(op, "dtype", dtype, FLOATS)
    if integer(op, "repeats", repeats) < 1:
        raise UsageError(f"{op}: repeats={repeats} must be at least 1")
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(0)
        x, kernel = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in (x_shape, kernel_shape))
        obstacles, chosen = _survey(op, x, kernel, **options)
        exact = _exact(x, kernel, options)
        timings = {
            method: _measure(partial(conv, method=method, **options), x, kernel, exact, repeats)
            for method, obstacle in obstacles.items()
            if obstacle is None
        }
    timings = dict(sorted(timings.items(), key=lambda item: item[1].gradients))
    _print(f"{by(x_shape)} * {by(kernel_shape)}, {dtype}, {jax.default_backend()}", timings, obstacles, chosen)
    return timings


def _survey(
    op: str,
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    rounding: str = "floor",
    **_: Any,
) -> tuple[dict[str, str | None], str]:
    """For each method why it cannot compute the convolution, or None; and the method that ``'auto'`` selects."""
    merged, kernel, _batch = operands(op, x, kernel, feature_group_count)
    geometry = windows(
        op,
        merged.shape[1:-1],
        kernel.shape[:-2],
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        rounding=rounding,
    )
    shapes = merged.shape, kernel.shape, geometry, feature_group_count
    obstacles = {name: method.obstacle(*shapes) for name, method in methods.METHODS.items()}
    return obstacles, methods.auto(*shapes)


def _exact(x: jax.Array, kernel: jax.Array, options: dict[str, Any]) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(conv(x.astype("float64"), kernel.astype("float64"), method="direct", **options))


def _measure(
    function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, exact: np.ndarray, repeats: int
) -> Timing:
    def gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
        y, pull_back = jax.vjp(function, x, kernel)
        return y, *pull_back(dy)

    forward = jax.jit(function).lower(x, kernel).compile()
    y = forward(x, kernel)
    backward = jax.jit(gradients).lower(x, kernel, y).compile()
    analysis = backward.memory_analysis()
    return Timing(
        forward=_milliseconds(partial(forward, x, kernel), repeats),
        gradients=_milliseconds(partial(backward, x, kernel, y), repeats),
        memory=getattr(analysis, "temp_size_in_bytes", float("nan")) / 2**20,
        error=float(np.abs(np.asarray(y, "float64") - exact).max() / np.abs(exact).max()),
    )


def _milliseconds(run: Callable[[], Any], repeats: int) -> float:
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def _print(title: str, timings: dict[str, Timing], obstacles: dict[str, str | None], chosen: str) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("method", "forward ms", "+ gradients ms", "temporaries MiB", "error"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method, timing in timings.items():
        name = f"{method} (auto)" if method == chosen else method
        numbers = f"{timing.forward:.3g}", f"{timing.gradients:.3g}", f"{timing.memory:.3g}", f"{timing.error:.1e}"
        table.add_row(name, *numbers)
    console = Console()
    console.print(table)
    for method, obstacle in obstacles.items():
        if obstacle is not None:
            console.print(f"{method} {obstacle}", soft_wrap=True)
