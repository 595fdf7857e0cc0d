"""Formulations of the three products of a convolution that XLA's CPU backend computes fast.

With ``T(x, kernel, dy) = sum(dy * conv(x, kernel))``, which is linear in each operand, the products are its
derivatives: with respect to ``dy`` the output, to ``x`` the input gradient, to ``kernel`` the kernel gradient. A
:class:`Formulation` is three functions ``(plan, operand, operand) -> product``. ``cnn_jax.ops.choice`` selects a
formulation.

==============  =======================================================================================================
``TRANSPOSED``  one convolution, and JAX's transposes of it: the form that accelerator libraries recognise
``CANONICAL``   three channels-last convolutions: fast on XLA's CPU backend, inside loops as well
``SHIFTS``      sums of shifted products, for depthwise convolution: it mixes no channels, so there is no matrix product
``TILES``       one matrix product with a banded (Toeplitz) matrix per tile of a row, for very few channels
``BLOCKS``      narrow groups merged into wider ones, with zeros between them: more products, but full registers
``PHASES``      a strided convolution as one of stride 1 over ``stride**rank`` times the channels
``SLABS``       an N-D convolution as a sum of 2-D ones, since XLA's CPU backend is fast only at those
``MATMUL``      the kernel gradient of a window of 1 as one matrix product
``NATIVE``      one of the kernels of ``cnn_jax.native``, with direct sums
``WINOGRAD``    another one, by Winograd's minimal filtering: 0.25 (3x3) or 0.36 (5x5) of the multiplications
``WINDOWS``     a convolution of an input dilated by its window as one matrix product, whose windows are side by side
``COLUMNS``     one matrix product with the windows written out (im2col), for many small models at once
==============  =======================================================================================================

``BLOCKS`` and ``TILES`` multiply inputs by zeros where there is no connection. An infinity or NaN in the input
therefore affects every output of its block or tile, not only the outputs whose window contains it.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.native import calls
from cnn_jax.ops import taps
from cnn_jax.ops.arguments import Shape
from cnn_jax.ops.canonical import inverted, place
from cnn_jax.ops.padding import Pairs
from cnn_jax.ops.sharding import like, zeros
from cnn_jax.ops.toeplitz import selector

BLOCK = 32  # channels per group from which a grouped convolution is efficient
WIDE = 8  # channels from which Eigen's convolution is faster than plain loops
IMAGES = 8  # images whose products are summed together
TILE = 7  # the least number of columns: wider bands contain more zeros, narrower bands give thinner matrices
SLABS_AT_ONCE = 9  # slabs of a kernel gradient that are computed without a loop, which is a little faster


class ConvAxis(NamedTuple):
    """One spatial axis of a convolution: all static numbers of it."""

    size: int
    window: int
    stride: int
    low: int
    high: int
    input_dilation: int
    kernel_dilation: int

    @property
    def spread(self) -> int:
        """The size of the dilated input."""
        return (self.size - 1) * self.input_dilation + 1

    @property
    def reach(self) -> int:
        """The size of the dilated kernel."""
        return (self.window - 1) * self.kernel_dilation + 1

    @property
    def out(self) -> int:
        """The number of output positions."""
        return max(0, (self.spread + self.low + self.high - self.reach) // self.stride + 1)


class ConvPlan(NamedTuple):
    """The static arguments of a convolution. A plan is hashable, so it can be a static argument of ``jit``."""

    axes: tuple[ConvAxis, ...]
    batch: int
    channels: int
    features: int
    groups: int
    precision: Any
    native: bool = False
    """Whether to use NATIVE wherever it can be called, instead of the fastest formulation."""

    def each(self, field: str) -> tuple[int, ...]:
        """The value of one field for each axis."""
        return tuple(getattr(axis, field) for axis in self.axes)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the three operands of the trilinear form."""
        return {
            "x": (self.batch, *self.each("size"), self.channels),
            "kernel": (*self.each("window"), self.channels // self.groups, self.features),
            "dy": (self.batch, *self.each("out"), self.features),
        }


ConvProduct = Callable[[ConvPlan, jax.Array, jax.Array], jax.Array]


class Formulation(NamedTuple):
    """A way to compute the three products."""

    output: ConvProduct
    """Computes the output from ``x`` and ``kernel``."""
    input_gradient: ConvProduct
    """Computes the input gradient from ``dy`` and ``kernel``."""
    kernel_gradient: ConvProduct
    """Computes the kernel gradient from ``x`` and ``dy``."""


def channels_last(lhs: jax.Array, rhs: jax.Array, **options: Any) -> jax.Array:
    """``lax.conv_general_dilated`` in the layout ``N..C, ..IO -> N..C``."""
    rank = lhs.ndim - 2
    space = tuple(range(1, rank + 1))
    dims = lax.ConvDimensionNumbers((0, rank + 1, *space), (rank + 1, rank, *range(rank)), (0, rank + 1, *space))
    return lax.conv_general_dilated(lhs, rhs, dimension_numbers=dims, **options)


def _transposed_by_jax(output: ConvProduct) -> Formulation:
    """A formulation made of its output function; the gradients are JAX's transposes of that linear function."""

    def input_gradient(plan: ConvPlan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
        x = like(plan.shapes["x"], dy)
        return jax.linear_transpose(lambda x: output(plan, x, kernel), x)(dy)[0]

    def kernel_gradient(plan: ConvPlan, x: jax.Array, dy: jax.Array) -> jax.Array:
        kernel = like(plan.shapes["kernel"], dy)
        return jax.linear_transpose(lambda kernel: output(plan, x, kernel), kernel)(dy)[0]

    return Formulation(output, input_gradient, kernel_gradient)


# --- one convolution --------------------------------------------------------------------------------------------------


def _convolution(
    plan: ConvPlan, x: jax.Array, kernel: jax.Array, convolve: Callable[..., jax.Array] = channels_last
) -> jax.Array:
    return convolve(
        x,
        kernel,
        window_strides=plan.each("stride"),
        padding=tuple((axis.low, axis.high) for axis in plan.axes),
        lhs_dilation=plan.each("input_dilation"),
        rhs_dilation=plan.each("kernel_dilation"),
        feature_group_count=plan.groups,
        precision=plan.precision,
    )


def _on_cpu(
    lhs: jax.Array, rhs: jax.Array, *, padding: Pairs, lhs_dilation: Sequence[int], **options: Any
) -> jax.Array:
    """:func:`channels_last` in a form that XLA's CPU backend computes with Eigen.

    If a kernel is larger than the input before padding, the backend uses plain loops, which are 10 to 30 times slower.
    The padding is therefore a separate operation. The barrier prevents XLA from moving it back into the convolution.
    """
    larger = any(size < window for size, window in zip(lhs.shape[1:-1], rhs.shape[:-2], strict=True))
    if larger and set(lhs_dilation) == {1} and rhs.shape[-2] >= WIDE:
        widths = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
        lhs = lax.optimization_barrier(lax.pad(lhs, jnp.zeros((), lhs.dtype), widths))
        padding = ((0, 0),) * len(lhs_dilation)
    return channels_last(lhs, rhs, padding=padding, lhs_dilation=lhs_dilation, **options)


def _convolution_with_inverted_kernel(plan: ConvPlan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves ``dy``, dilated by the stride, with the flipped kernel whose channels are regrouped."""
    widths = tuple(
        (axis.reach - 1 - axis.low, axis.spread + axis.low - (axis.out - 1) * axis.stride - 1) for axis in plan.axes
    )
    placed = place(dy, plan.each("stride"), widths)
    if placed is None:
        return zeros(plan.shapes["x"], dy)
    dy, padding = placed
    return _on_cpu(
        dy,
        inverted(kernel, plan.groups),
        window_strides=plan.each("input_dilation"),
        padding=padding,
        lhs_dilation=plan.each("stride"),
        rhs_dilation=plan.each("kernel_dilation"),
        feature_group_count=plan.groups,
        precision=plan.precision,
    )


def _convolution_over_batch(plan: ConvPlan, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Convolves the input with ``dy`` as the kernel; the batch has the role of the input channels (a sum)."""
    widths = tuple((axis.low, (axis.out - 1) * axis.stride + axis.reach - axis.spread - axis.low) for axis in plan.axes)
    placed = place(x, plan.each("input_dilation"), widths)
    if placed is None:
        return zeros(plan.shapes["kernel"], dy)
    x, padding = placed
    groups, space = plan.groups, x.shape[1:-1]
    # The groups become part of the summed axis: row c of the new batch, new channel (group, n).
    x = x.reshape(plan.batch, *space, groups, plan.channels // groups)
    x = jnp.moveaxis(x, (-1, -2, 0), (0, -2, -1)).reshape(-1, *space, groups * plan.batch)
    gradient = _on_cpu(
        x,
        jnp.moveaxis(dy, 0, -2),
        window_strides=plan.each("kernel_dilation"),
        padding=padding,
        lhs_dilation=plan.each("input_dilation"),
        rhs_dilation=plan.each("stride"),
        feature_group_count=groups,
        precision=plan.precision,
    )
    return jnp.moveaxis(gradient, 0, -2)


TRANSPOSED = _transposed_by_jax(_convolution)
CANONICAL = Formulation(
    partial(_convolution, convolve=_on_cpu), _convolution_with_inverted_kernel, _convolution_over_batch
)


# --- slices of the input ----------------------------------------------------------------------------------------------


def _padded(x: jax.Array, axes: Sequence[ConvAxis]) -> jax.Array:
    """``x`` with its first spatial axes dilated, and padded up to the end of their last window."""
    widths = [
        (axis.low, (axis.out - 1) * axis.stride + axis.reach - axis.low - axis.spread, axis.input_dilation - 1)
        for axis in axes
    ]
    rest = [(0, 0, 0)] * (x.ndim - 1 - len(axes))
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *widths, *rest])


def _taps(x: jax.Array, axes: Sequence[ConvAxis]) -> Iterator[jax.Array]:
    """For each entry of the window over the first spatial axes, the inputs that all output positions read for it."""
    x = _padded(x, axes)
    for tap in itertools.product(*(range(axis.window) for axis in axes)):
        starts = [t * axis.kernel_dilation for t, axis in zip(tap, axes, strict=True)]
        stops = [start + (axis.out - 1) * axis.stride + 1 for start, axis in zip(starts, axes, strict=True)]
        slices = map(slice, starts, stops, [axis.stride for axis in axes])
        yield x[:, *slices]


# --- few channels -----------------------------------------------------------------------------------------------------


def _sum_of_shifted_products(plan: ConvPlan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    x = jnp.repeat(x, plan.features // plan.channels, axis=-1)
    weights = _weights_by_tap(plan, kernel)
    return sum((tap * weight for tap, weight in zip(_taps(x, plan.axes), weights, strict=True)), jnp.zeros((), x.dtype))


def _weights_by_tap(plan: ConvPlan, kernel: jax.Array) -> jax.Array:
    """A depthwise kernel as one array per tap; each broadcasts over images and positions."""
    return kernel.reshape(-1, *(1,) * (1 + len(plan.axes)), plan.features)


def _adjoint_of_shifted_products(plan: ConvPlan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """The adjoint of the sum of shifted products: each input position sums the values from the windows it is in."""
    windows = tuple(
        taps.Axis(index, axis.spread, axis.window, axis.stride, axis.kernel_dilation, axis.low, axis.high, axis.out)
        for index, axis in enumerate(plan.axes, start=1)
    )
    weights = _weights_by_tap(plan, kernel)
    dx = taps.untap(windows, lambda tap, dy: dy * weights[tap], [dy])
    dx = dx[:, *(slice(None, None, axis.input_dilation) for axis in plan.axes)]
    return dx if plan.features == plan.channels else dx.reshape(*plan.shapes["x"], -1).sum(-1)


def _sums_of_shifted_products(plan: ConvPlan, x: jax.Array, dy: jax.Array) -> jax.Array:
    """The kernel gradient, as one reduction for all entries of the kernel.

    If the partial sums are at most twice as large as ``dy``, they are over few images each. The compiler unrolls such
    sums and uses vector instructions along the channels.
    """
    few = max(n for n in range(1, IMAGES + 1) if plan.batch % n == 0)
    x = jnp.repeat(x, plan.features // plan.channels, axis=-1)
    products = tuple((tap * dy).reshape(plan.batch // few, few, *dy.shape[1:]) for tap in _taps(x, plan.axes))
    zeros = (jnp.zeros((), dy.dtype),) * len(products)
    axes = (1,) if len(products) <= 2 * few else (0, 1, *range(3, dy.ndim))
    parts = lax.reduce(products, zeros, lambda left, right: tuple(map(jnp.add, left, right)), axes)
    return jnp.stack([part.sum(range(part.ndim - 1)) for part in parts]).reshape(plan.shapes["kernel"])


SHIFTS = Formulation(_sum_of_shifted_products, _adjoint_of_shifted_products, _sums_of_shifted_products)


def _tiled_product(plan: ConvPlan, x: jax.Array, kernel: jax.Array, *, rows_last: bool) -> jax.Array:
    """Computes output rows in tiles: the inputs of a tile, as one vector, times the banded matrix of the last axis."""
    *above, row = plan.axes
    count, tile, blocks = tiling(row)
    step, sees = tile * row.stride, (tile - 1) * row.stride + row.reach

    def cut(x: jax.Array) -> jax.Array:
        """The inputs of each tile in each row, taken from blocks of ``step`` inputs."""
        parts = [x[..., b : b + count, : min(step, sees - b * step) * plan.channels] for b in range(blocks)]
        return jnp.concatenate(parts, axis=-1)

    excess = (count - 1 + blocks) * step - row.low - row.spread
    edges = [(0, 0, 0)] * (1 + len(above)) + [(row.low, excess, row.input_dilation - 1), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(*x.shape[:-2], count - 1 + blocks, step * plan.channels)
    rows = list(_taps(cut(x), above)) if rows_last else [cut(tap) for tap in _taps(x, above)]
    bands = selector(sees, row.window, row.stride, (0, 0), 1, row.kernel_dilation, boundary="zero")
    kernel = kernel.reshape(-1, *kernel.shape[-3:])
    band = jnp.einsum("ltco,tpq->lqcpo", kernel, bands.astype(kernel.dtype), precision=lax.Precision.HIGHEST)
    band = band.reshape(len(rows) * sees * plan.channels, tile * plan.features)
    y = jnp.matmul(jnp.concatenate(rows, axis=-1), band, precision=plan.precision)
    return y.reshape(*y.shape[:-2], count * tile, plan.features)[..., : row.out, :]


def tiling(row: ConvAxis) -> tuple[int, int, int]:
    """The number of tiles in a row, of outputs per tile, and of neighbouring blocks of inputs that a tile reads."""
    count = math.ceil(row.out / max(TILE, row.reach))
    tile = math.ceil(row.out / count)
    return count, tile, math.ceil(((tile - 1) * row.stride + row.reach) / (tile * row.stride))


# The order of the two slices decides which one is written to memory. The smaller copy is better and has fewer sums in
# its adjoint.
TILES = _transposed_by_jax(partial(_tiled_product, rows_last=False))
TILES = TILES._replace(output=partial(_tiled_product, rows_last=True))


# --- from one convolution to another ----------------------------------------------------------------------------------


def _merged_groups(plan: ConvPlan, kernel: jax.Array) -> tuple[ConvPlan, jax.Array]:
    """The same convolution in fewer groups, of at least ``BLOCK`` channels each if there are enough channels."""
    per_group = plan.channels // plan.groups
    fitting = (n for n in range(1, plan.groups + 1) if plan.groups % n == 0 and n * per_group >= BLOCK)
    merged = next(fitting, plan.groups)
    split = kernel.reshape(*kernel.shape[:-1], plan.groups // merged, merged, plan.features // plan.groups)
    diagonal = jnp.eye(merged, dtype=kernel.dtype)
    blocks = jnp.einsum("...cbgo,gh->...hcbgo", split, diagonal, precision=lax.Precision.HIGHEST)
    plan = plan._replace(groups=plan.groups // merged)
    return plan, blocks.reshape(plan.shapes["kernel"])


def _output_by_blocks(plan: ConvPlan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    plan, kernel = _merged_groups(plan, kernel)
    return CANONICAL.output(plan, x, kernel)


def _input_gradient_by_blocks(plan: ConvPlan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    plan, kernel = _merged_groups(plan, kernel)
    return _convolution_with_inverted_kernel(plan, dy, kernel)


BLOCKS = CANONICAL._replace(output=_output_by_blocks, input_gradient=_input_gradient_by_blocks)


def _input_gradient_by_phase(plan: ConvPlan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """The input gradient, computed as a convolution of stride 1 in which the positions within a stride are channels."""
    strides, rank = plan.each("stride"), len(plan.axes)
    windows = tuple(math.ceil(axis.window / axis.stride) for axis in plan.axes)
    sizes = tuple(axis.out - 1 + window for axis, window in zip(plan.axes, windows, strict=True))

    def channels_from_phases(x: jax.Array, start: int, blocks: tuple[int, ...]) -> jax.Array:
        """Splits the axes from ``start`` on into blocks of one stride and merges the blocks into the channels."""
        lead, tail = x.shape[:start], x.shape[start + rank :]
        x = x.reshape(*lead, *itertools.chain(*zip(blocks, strides, strict=True)), *tail)
        inner = tuple(range(start + 1, start + 2 * rank, 2))
        x = jnp.moveaxis(x, inner, range(start + rank, start + 2 * rank))
        return x.reshape(*lead, *blocks, -1, *tail[1:])

    def from_input(x: jax.Array) -> jax.Array:
        widths = [
            (axis.low, size * axis.stride - axis.low - axis.size, 0)
            for axis, size in zip(plan.axes, sizes, strict=True)
        ]
        return channels_from_phases(lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *widths, (0, 0, 0)]), 1, sizes)

    extra = [(0, window * axis.stride - axis.window) for axis, window in zip(plan.axes, windows, strict=True)]
    kernel = channels_from_phases(jnp.pad(kernel, [*extra, (0, 0), (0, 0)]), 0, windows)
    dense = plan._replace(
        axes=tuple(ConvAxis(size, window, 1, 0, 0, 1, 1) for size, window in zip(sizes, windows, strict=True)),
        channels=plan.channels * math.prod(strides),
    )
    x = like(plan.shapes["x"], dy)
    return jax.linear_transpose(from_input, x)(_convolution_with_inverted_kernel(dense, dy, kernel))[0]


PHASES = CANONICAL._replace(input_gradient=_input_gradient_by_phase)


def _kernel_gradient_of_one_tap(plan: ConvPlan, x: jax.Array, dy: jax.Array) -> jax.Array:
    (seen,) = _taps(x, plan.axes)
    axes = tuple(range(dy.ndim - 1))
    return jnp.tensordot(seen, dy, (axes, axes), precision=plan.precision).reshape(plan.shapes["kernel"])


MATMUL = CANONICAL._replace(kernel_gradient=_kernel_gradient_of_one_tap)


def _product_of_columns(plan: ConvPlan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    columns = jnp.concatenate(list(_taps(x, plan.axes)), axis=-1)
    return jnp.matmul(columns, kernel.reshape(-1, plan.features), precision=plan.precision)


COLUMNS = _transposed_by_jax(_product_of_columns)


def _windows_side_by_side(plan: ConvPlan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each input times the whole flipped kernel: no zeros between the inputs are multiplied."""
    rank = len(plan.axes)
    flipped = jnp.flip(kernel, axis=tuple(range(rank)))
    y = lax.dot_general(x, flipped, (((rank + 1,), (rank,)), ((), ())), precision=plan.precision)
    order = (0, *(axis for number in range(1, rank + 1) for axis in (number, rank + number)), 2 * rank + 1)
    return y.transpose(order).reshape(plan.shapes["dy"])


WINDOWS = _transposed_by_jax(_windows_side_by_side)


class _Slabs:
    """An N-D convolution as 2-D convolutions, one per entry of the outer window.

    They are summed in loops, so that only one is in memory at a time.
    """

    def __init__(self, plan: ConvPlan) -> None:
        self.outer = plan.axes[:-2]
        self.flat = plan._replace(axes=plan.axes[-2:], batch=plan.batch * math.prod(axis.out for axis in self.outer))
        offsets = (range(0, axis.reach, axis.kernel_dilation) for axis in self.outer)
        self.starts = np.array(list(itertools.product(*offsets)))
        self.spans = (plan.batch, *((axis.out - 1) * axis.stride + 1 for axis in self.outer), *plan.shapes["x"][-3:])

    def place(self, start: jax.typing.ArrayLike) -> tuple[Any, ...]:
        """The start of the slab of a window entry in the padded input."""
        return (0, *jnp.asarray(start), 0, 0, 0)

    def take(self, padded: jax.Array, start: jax.typing.ArrayLike) -> jax.Array:
        """The inputs that all output positions read for a window entry, as one batch of images."""
        slab = lax.dynamic_slice(padded, self.place(start), self.spans)
        return slab[:, *(slice(None, None, axis.stride) for axis in self.outer)].reshape(self.flat.shapes["x"])

    def add(self, padded: jax.Array, start: jax.typing.ArrayLike, slab: jax.Array) -> jax.Array:
        """The adjoint of ``take``: adds images at the positions they were taken from."""
        batch, *inner = self.spans[0], *self.spans[-3:]
        slab = slab.reshape(batch, *(axis.out for axis in self.outer), *inner)
        gaps = [(0, 0, axis.stride - 1) for axis in self.outer]
        slab = lax.pad(slab, jnp.zeros((), slab.dtype), [(0, 0, 0), *gaps, *[(0, 0, 0)] * 3])
        slab = slab + lax.dynamic_slice(padded, self.place(start), self.spans)
        return lax.dynamic_update_slice(padded, slab, self.place(start))


def _slabs_output(plan: ConvPlan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    slabs = _Slabs(plan)
    padded = _padded(x, slabs.outer)

    def step(y: jax.Array, entry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        start, weights = entry
        return y + CANONICAL.output(slabs.flat, slabs.take(padded, start), weights), None

    entries = (jnp.asarray(slabs.starts), kernel.reshape(-1, *slabs.flat.shapes["kernel"]))
    return lax.scan(step, zeros(slabs.flat.shapes["dy"], x), entries)[0].reshape(plan.shapes["dy"])


def _slabs_input_gradient(plan: ConvPlan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    slabs = _Slabs(plan)
    dy = dy.reshape(slabs.flat.shapes["dy"])
    x = like(plan.shapes["x"], dy)
    padded = jax.eval_shape(lambda x: _padded(x, slabs.outer), x)

    def step(gradient: jax.Array, entry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        start, weights = entry
        return slabs.add(gradient, start, _convolution_with_inverted_kernel(slabs.flat, dy, weights)), None

    entries = (jnp.asarray(slabs.starts), kernel.reshape(-1, *slabs.flat.shapes["kernel"]))
    gradient = lax.scan(step, zeros(padded.shape, dy), entries)[0]
    return jax.linear_transpose(lambda x: _padded(x, slabs.outer), x)(gradient)[0]


def _slabs_kernel_gradient(plan: ConvPlan, x: jax.Array, dy: jax.Array) -> jax.Array:
    slabs = _Slabs(plan)
    padded, dy = _padded(x, slabs.outer), dy.reshape(slabs.flat.shapes["dy"])

    def step(_: None, start: jax.Array) -> tuple[None, jax.Array]:
        return None, _convolution_over_batch(slabs.flat, slabs.take(padded, start), dy)

    return lax.scan(step, None, jnp.asarray(slabs.starts), unroll=SLABS_AT_ONCE)[1].reshape(plan.shapes["kernel"])


SLABS = Formulation(_slabs_output, _slabs_input_gradient, _slabs_kernel_gradient)


# --- C++ --------------------------------------------------------------------------------------------------------------


def _native(product: str, result: str, *, winograd: bool) -> ConvProduct:
    def compute(plan: ConvPlan, a: jax.Array, b: jax.Array) -> jax.Array:
        return calls.convolution(
            product,
            a,
            b,
            plan.shapes[result],
            groups=plan.groups,
            strides=plan.each("stride"),
            low=plan.each("low"),
            kernel_dilation=plan.each("kernel_dilation"),
            winograd=winograd,
        )

    return compute


def _natively(*, winograd: bool) -> Formulation:
    results = {"output": "dy", "input_gradient": "x", "kernel_gradient": "kernel"}
    return Formulation(*(_native(product, result, winograd=winograd) for product, result in results.items()))


NATIVE = _natively(winograd=False)
"""For float32, up to three axes and no input dilation, in programs that may call functions of this process."""
WINOGRAD = _natively(winograd=True)
"""For windows of 3 or 5 along the last two axes at stride 1, without groups, from 16 channels and features on."""
