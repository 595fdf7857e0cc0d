"""The ways to compute a convolution: what each can do, how exact it is, and the rule that chooses among them.

All of them compute the same sums. With ``u`` the unit roundoff of the dtype in which sums are formed (float32 for
bfloat16, float16 and float32, float64 for float64), ``K`` the number of products in one of them, and ``L`` the number
of points of a padded image, the error of an output before it is rounded to its own dtype is at most

=================  ===================================================================================================
method             bound on the absolute error of an output
=================  ===================================================================================================
``direct``         ``(K + 4) u sum |x| |kernel|``, over its own window: XLA's convolution, or sums of matrix products
``im2col``         the same: one matrix product over all windows
``toeplitz``       the same: banded matrices along the last axis, im2col along the others
``fft``            ``10 u log2(L + 2) |x|_2 |kernel|_2``, over a whole image with its channels: small outputs of a large
                   input lose relative accuracy
``winograd``       F(2,3): ``(K + 4) u 9^rank max|x| max|kernel|``, in practice about the error of ``direct``
``winograd_f43``   F(4,3): ``(K + 4) u 190^rank max|x| max|kernel|``, in practice 10 to 50 times that of ``direct``
=================  ===================================================================================================

On a GPU the default ``precision`` of float32 products is TF32, with the unit roundoff of 2^-11. An infinity or NaN of
the input may reach outputs whose window does not hold it, where a method multiplies it by the zeros of a larger matrix:
with ``fft`` all of them, with ``toeplitz`` and, for few channels, ``direct`` those of its rows or group.

``auto`` is ``direct`` but for the lines of :data:`AUTO`, which hold on a CPU: ``im2col`` where one window covers the
input, and ``fft``, with its bound and its spreading of infinities and NaNs, for windows of more than 64 entries over
few channels where it needs at most a third of the products (depthwise: no more products). ``method="direct"`` never
spreads them further than over a row or group.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax

from cnn_jax.errors import UsageError
from cnn_jax.ops import direct
from cnn_jax.ops.arguments import Shape, by, check_option
from cnn_jax.ops.canonical import Windows
from cnn_jax.ops.fft import conv_fft, operations
from cnn_jax.ops.im2col import conv_im2col
from cnn_jax.ops.toeplitz import band_entries, conv_toeplitz
from cnn_jax.ops.winograd import F23, F43, conv_winograd

LARGEST_BAND = 2**28  # entries, 1 GiB in float32: beyond it the banded matrices dwarf everything else


class Method(NamedTuple):
    """One way to compute a convolution."""

    compute: Callable[..., jax.Array]
    """A function of canonical arguments; see ``cnn_jax.ops.canonical``."""
    supports: str
    """What it can do, for people."""
    error: str
    """The bound on the error of an output, in the terms of this module's table."""
    obstacle: Callable[[Shape, Shape, Windows, int], str | None]
    """From the shapes of input and kernel, the options and the groups: why it cannot do this one, or None."""


def _none(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> None:
    """No obstacle."""


def _too_large(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str | None:
    padded = (*x[:-2], x[-2] + sum(max(width, 0) for width in geometry.sliding.reach[-1]), x[-1])
    entries = band_entries(padded, kernel, geometry.sliding.output, groups)
    if entries <= LARGEST_BAND:
        return None
    return f"would build banded matrices of {entries:,} entries, more than {LARGEST_BAND:,}"


def _not_three(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str | None:
    steps = {*geometry.strides, *geometry.input_dilation, *geometry.kernel_dilation}
    if set(geometry.window) == {3} and steps == {1}:
        return None
    return (
        f"is for windows of 3 at stride 1 without dilation, not {by(geometry.window)} with strides {geometry.strides}, "
        f"kernel_dilation {geometry.kernel_dilation}, input_dilation {geometry.input_dilation}"
    )


METHODS: dict[str, Method] = {
    "direct": Method(direct.conv, "everything", "(K + 4) u sum |x| |kernel|", _none),
    "im2col": Method(
        conv_im2col, "everything; copies the input prod(window) times", "(K + 4) u sum |x| |kernel|", _none
    ),
    "toeplitz": Method(
        conv_toeplitz, "everything up to banded matrices of 2^28 entries", "(K + 4) u sum |x| |kernel|", _too_large
    ),
    "fft": Method(
        conv_fft, "everything; computes all positions at stride 1", "10 u log2(L + 2) |x|_2 |kernel|_2", _none
    ),
    "winograd": Method(
        partial(conv_winograd, transform=F23),
        "windows of 3, stride 1, no dilation; F(2,3)",
        "(K + 4) u 9^rank max|x| max|kernel|",
        _not_three,
    ),
    "winograd_f43": Method(
        partial(conv_winograd, transform=F43),
        "windows of 3, stride 1, no dilation; F(4,3)",
        "(K + 4) u 190^rank max|x| max|kernel|",
        _not_three,
    ),
}


class Rule(NamedTuple):
    """One exception from ``method='auto'`` being ``direct``."""

    platform: str
    method: str
    when: str
    """The condition, for people."""
    applies: Callable[[Shape, Shape, Windows, int], bool]


def _one_window(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> bool:
    return set(geometry.sliding.output) == {1} and not any(map(any, geometry.sliding.reach))


def _long_window(x: Sequence[int], kernel: Sequence[int], geometry: Windows, groups: int) -> bool:
    *window, per_group, features = kernel
    if math.prod(window) <= MOST_TAPS or per_group * features // groups > MOST_PAIRS:
        return False
    rates = zip(x[1:-1], geometry.input_dilation, geometry.sliding.reach, strict=True)
    sizes = [(size - 1) * rate + 1 + max(low, 0) + max(high, 0) for size, rate, (low, high) in rates]
    products = math.prod(geometry.sliding.output) * math.prod(window) * per_group * features
    return products >= (1 if per_group == 1 < groups else GAIN) * operations(sizes, x[-1], features, groups)


# Milliseconds for output and both gradients, by `ops.tune` on 2 CPU cores (jax 0.10.2, float32, recommended XLA flags):
#
#   layer                                    direct  im2col  toeplitz   fft  winograd  winograd_f43
#   LeNet-5 C1  128x32x32x1  * 5x5x1x6          3.5     9.7       6.4   7.9         -             -
#   LeNet-5 C5  128x5x5x16   * 5x5x16x120       6.0     1.4       1.3   6.1         -             -
#   ResNet-20   64x16x16x32  * 3x3x32x32       12.5    46.4      41.2  28.7      62.0          35.3
#
# `direct` has already chosen among formulations by shape; what is left are the layers that are no convolution at all,
# and long windows over few channels. FFT spreads what is not finite and loses small outputs of large inputs, so it is
# taken where it gains much: for more than MOST_TAPS entries, with GAIN times fewer products, or fewer at all where each
# channel is by itself, since XLA's own depthwise convolution is 10 to 100 times as slow as its others.
MOST_TAPS = 64
MOST_PAIRS = 32  # of a channel and a feature: for more, matrix products are faster than products of spectra
GAIN = 3
AUTO = (
    Rule("cpu", "im2col", "one window covers the input: the layer is a matrix product", _one_window),
    Rule("cpu", "fft", f"a window of more than {MOST_TAPS} entries over few channels", _long_window),
)


def resolve(op: str, method: str, x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str:
    """The method to use for these shapes, or a ``UsageError`` if it is unknown or cannot do it."""
    check_option(op, "method", method, ("auto", *METHODS))
    if method == "auto":
        return auto(x, kernel, geometry, groups)
    obstacle = METHODS[method].obstacle(x, kernel, geometry, groups)
    if obstacle:
        raise UsageError(f"{op}: method={method!r} {obstacle}; use method='auto'")
    return method


def auto(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str:
    """The rule of ``method='auto'``: the first line of :data:`AUTO` that applies on this platform, else ``direct``."""
    platform = jax.default_backend()
    for rule in AUTO:
        if rule.platform == platform and rule.applies(x, kernel, geometry, groups):
            return rule.method
    return "direct"
