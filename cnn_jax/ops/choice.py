"""The rule that selects, by shapes alone, the formulation for each product of a convolution on a CPU.

The first row that applies is used, except where NATIVE is. No row depends on the batch size. Measurements:
``docs/decisions.md`` and ``benchmarks/auto_rule.py``.

==========  ====================  =====================================================================================
chosen      for                   where
==========  ====================  =====================================================================================
SHIFTS      all three products    depthwise, also of one channel, at most 128 taps; the kernel gradient at most 49
WINDOWS     all three products    a transposed convolution whose stride is its window
SLABS       all three products    more than two spatial axes
BLOCKS      all three products    groups of fewer than 32 channels
MATMUL      kernel gradient       a window of 1
TILES       output, input         few channels and features, stride 1, rows short enough to be written out
            gradient
PHASES      input gradient        few channels, a stride that is at most the window
CANONICAL   all three products    everything else
==========  ====================  =====================================================================================

After ``cnn_jax.enable_native()``, kernels are used for float32 arrays with up to three spatial axes and no input
dilation, in programs for one device. WINOGRAD is used for all three products of windows of 3 or 5 along all axes at
stride 1, without dilation or groups, over images or volumes of at least 7 x 7 outputs with 16 or more channels and
features, unless the precision is given. Its tiles are 4 x 4 or 2 x 2 outputs: smaller images waste too much of them,
and repay no transformed kernel. NATIVE is used for the rest, except where XLA is faster:

================  ======================  ============================================================================
faster            for                     where
================  ======================  ============================================================================
SHIFTS            all three products      fewer than 16 channels, or several features per channel
SHIFTS            input gradient          a stride above 1
TILES             input gradient          everywhere
TILES             output                  fewer than 6 features, which fill no vector
PHASES            input gradient          everywhere
CANONICAL         output, input gradient  a window, stride and group of 1, which is one matrix product
================  ======================  ============================================================================

Some formulations emit one operation per entry of the window (a tap). They are used only for few taps, because XLA's
compile time grows faster than the number of taps. No product has more than :data:`LARGEST_PROGRAM` equations.
"""

import math
from collections.abc import Sequence

from cnn_jax.ops.formulations import (
    BLOCK,
    BLOCKS,
    CANONICAL,
    MATMUL,
    NATIVE,
    PHASES,
    SHIFTS,
    SLABS,
    TILES,
    WINDOWS,
    WINOGRAD,
    ConvPlan,
    Formulation,
    tiling,
)

LARGEST_PROGRAM = 800
"""The largest number of equations in the jaxpr of one product."""
LEAST_CHANNELS = 16
"""The least number of channels for which WINOGRAD, and depthwise convolutions by NATIVE, are faster: the lanes of a
vector."""
LEAST_SIZE = 7
"""The least height and width for which WINOGRAD is faster."""
LEAST_FEATURES = 6
"""The least number of features for which the output by NATIVE is faster than by TILES."""
_SHIFTS = {"output": 128, "input_gradient": 128, "kernel_gradient": 49}  # taps
_PIECES = 32  # slices that TILES concatenates
_LONGEST_ROW = 32  # entries of a row of the kernel: the constants of TILES grow with its square


def formulation(product: str, plan: ConvPlan, *, native: bool = False) -> Formulation:
    """The formulation for ``'output'``, ``'input_gradient'`` or ``'kernel_gradient'``.

    Args:
      product: The product.
      plan: The shapes and options.
      native: Whether the kernels of ``cnn_jax.native`` can be called.
    """
    of_xla = _formulation_of_xla(product, plan)
    if not native or not native_is_possible(len(plan.axes), plan.each("input_dilation")):
        return of_xla
    if not plan.native and _winograd_is_faster(plan):
        return WINOGRAD
    return NATIVE if plan.native or _native_is_faster(product, plan, of_xla) else of_xla


def _formulation_of_xla(product: str, plan: ConvPlan) -> Formulation:
    # One channel and several features are a matrix product, but one channel and one feature are not.
    depthwise = plan.groups == plan.channels and (plan.channels > 1 or plan.features == 1)
    if depthwise and _shifts_are_few(product, plan):
        return SHIFTS
    if _windows_are_side_by_side(plan):
        return WINDOWS
    if len(plan.axes) > 2:
        return SLABS
    if plan.groups > 1:
        return BLOCKS if plan.channels // plan.groups < BLOCK else CANONICAL
    if product == "kernel_gradient":
        return MATMUL if set(plan.each("window")) == {1} else CANONICAL
    if _tiles_are_faster(product, plan):
        return TILES
    return PHASES if product == "input_gradient" and _phases_are_faster(plan) else CANONICAL


def _windows_are_side_by_side(plan: ConvPlan) -> bool:
    """Whether each input alone determines a block of outputs, because inputs are a window apart."""
    return plan.groups == 1 and all(
        axis.input_dilation == axis.window > 1
        and axis.low == axis.high == axis.window - 1
        and axis.stride == axis.kernel_dilation == 1
        for axis in plan.axes
    )


def _shifts_are_few(product: str, plan: ConvPlan) -> bool:
    """Whether SHIFTS emits few operations: one per tap, and in the adjoint one per position within a stride."""
    phases = math.prod(plan.each("stride")) if product == "input_gradient" else 1
    return max(math.prod(plan.each("window")), phases) <= _SHIFTS[product]


def _tiles_are_faster(product: str, plan: ConvPlan) -> bool:
    """Whether TILES is faster: Eigen's convolution is slow if the channels do not fill a vector register."""
    pointwise = set(plan.each("window")) == {1}
    if pointwise or plan.channels >= 8 or plan.channels * plan.features > 96 or max(plan.each("stride")) > 1:
        return False
    *above, row = plan.axes
    _, tile, blocks = tiling(row)
    if math.prod(axis.window for axis in above) * blocks > _PIECES or row.reach > _LONGEST_ROW:
        return False
    # A band has tile - 1 zeros per window. The output product can afford fewer of them than the input gradient.
    products = plan.channels * plan.features * (tile - 1 + row.reach) / row.window
    return product == "input_gradient" or (plan.channels <= plan.features <= 24 and products <= 180)


def _phases_are_faster(plan: ConvPlan) -> bool:
    """Whether PHASES is faster: it avoids the zeros that CANONICAL inserts between strided outputs."""
    strides, dilations = plan.each("stride"), (*plan.each("input_dilation"), *plan.each("kernel_dilation"))
    within = all(axis.stride <= axis.window for axis in plan.axes)
    return max(strides) > 1 and within and set(dilations) == {1} and 16 >= plan.channels >= 8 / math.prod(strides)


def native_is_possible(rank: int, input_dilation: Sequence[int]) -> bool:
    """Whether NATIVE can compute convolutions of this rank and input dilation."""
    return rank <= 3 and set(input_dilation) == {1}


def _winograd_is_faster(plan: ConvPlan) -> bool:
    """Whether WINOGRAD is possible, and faster than NATIVE."""
    if (
        len(plan.axes) < 2
        or set(plan.each("window")) not in ({3}, {5})
        or plan.groups > 1
        or plan.precision is not None
    ):
        return False
    sizes = [size for axis in plan.axes[-2:] for size in (axis.size, axis.out)]
    dense = {*plan.each("stride"), *plan.each("kernel_dilation")} == {1}
    return dense and min(plan.channels, plan.features) >= LEAST_CHANNELS and min(sizes) >= LEAST_SIZE


def _native_is_faster(product: str, plan: ConvPlan, of_xla: Formulation) -> bool:
    """Whether NATIVE is faster than the formulation that XLA would compute."""
    if of_xla is SHIFTS:
        strided = product == "input_gradient" and max(plan.each("stride")) > 1
        return plan.features == plan.channels >= LEAST_CHANNELS and not strided
    if product == "kernel_gradient":
        return True
    pointwise = {*plan.each("window"), *plan.each("stride"), plan.groups} == {1}
    narrow = of_xla is TILES and (product == "input_gradient" or plan.features < LEAST_FEATURES)
    return not (pointwise or narrow or of_xla is PHASES)
