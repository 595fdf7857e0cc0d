"""The methods that compute a convolution: what each supports, its error bound, and the rule of ``method='auto'``.

All methods compute the same sums. Let ``u`` be the unit roundoff of the dtype of the sums (float32 for bfloat16,
float16 and float32; float64 for float64), ``K`` the number of products in one sum, and ``L`` the number of points of a
padded image. The error of an output before it is rounded to its own dtype is at most

=================  ===================================================================================================
method             bound on the absolute error of an output
=================  ===================================================================================================
``direct``         ``(K + 4) u sum |x| |kernel|``, over its own window: XLA's convolution, or sums of matrix products
``native``         the same: kernels of our own for CPUs, see ``cnn_jax.enable_native``. After that function, ``direct``
                   uses other such kernels for windows of 3 and 5 at stride 1 from 16 channels on, unless ``precision``
                   is given: F(4,3), F(2,5), ``(K + 4) u 56^rank max|x| max|kernel|``, in practice 2 times the error
``im2col``         the same: one matrix product over all windows
``toeplitz``       the same: banded matrices along the last axis, im2col along the others
``fft``            ``10 u log2(L + 2) |x|_2 |kernel|_2``, over a whole image with its channels: small outputs of a large
                   input lose relative accuracy
``winograd``       F(2,3): ``(K + 4) u 9^rank max|x| max|kernel|``, in practice about the error of ``direct``
``winograd_f43``   F(4,3): ``(K + 4) u 190^rank max|x| max|kernel|``, in practice 10 to 50 times that of ``direct``
=================  ===================================================================================================

On a GPU the default ``precision`` of float32 products is TF32, with a unit roundoff of 2^-11. If a method multiplies an
infinity or NaN of the input by the zeros of a larger matrix, it affects outputs whose window does not contain it: with
``fft`` all outputs of the image; with ``toeplitz`` and, for few channels, ``direct`` the outputs of the same rows or
group.

``auto`` is ``direct``, except for the rules of :data:`AUTO`, which apply on a CPU. It is ``im2col`` if one window
covers the input. It is ``fft`` for windows of more than 64 entries over few channels if that needs at most a third of
the products (depthwise: no more products); the error bound and the spread of infinities and NaNs are then those of
``fft``. ``method="direct"`` never spreads them beyond a row or group.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

from cnn_jax import native
from cnn_jax.errors import UsageError
from cnn_jax.ops import choice, direct
from cnn_jax.ops.arguments import Shape, by, check_option
from cnn_jax.ops.canonical import Windows
from cnn_jax.ops.fft import conv_fft, operations
from cnn_jax.ops.im2col import conv_im2col
from cnn_jax.ops.toeplitz import band_entries, conv_toeplitz
from cnn_jax.ops.winograd import F23, F43, conv_winograd

LARGEST_BAND = 2**28  # entries, 1 GiB in float32: beyond it the banded matrices need more memory than all else


class Method(NamedTuple):
    """A method to compute a convolution."""

    compute: Callable[..., jax.Array]
    """A function of canonical arguments; see ``cnn_jax.ops.canonical``."""
    supports: str
    """What it supports, as text for users."""
    error: str
    """The bound on the error of an output, in the notation of this module's table."""
    obstacle: Callable[[Shape, Shape, Windows, int], str | None]
    """A function of the shapes of input and kernel, the options and the groups.

    It returns why the method cannot compute such a convolution, or None.
    """


def _no_obstacle(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> None:
    """No obstacle."""


def _unless_band_is_small(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str | None:
    padded = (*x[:-2], x[-2] + sum(max(width, 0) for width in geometry.sliding.reach[-1]), x[-1])
    entries = band_entries(padded, kernel, geometry.sliding.output, groups)
    if entries <= LARGEST_BAND:
        return None
    return f"would build banded matrices of {entries:,} entries, more than {LARGEST_BAND:,}"


def _unless_window_of_three(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str | None:
    steps = {*geometry.strides, *geometry.input_dilation, *geometry.kernel_dilation}
    if set(geometry.window) == {3} and steps == {1}:
        return None
    return (
        f"is for windows of 3 at stride 1 without dilation, not {by(geometry.window)} with strides {geometry.strides}, "
        f"kernel_dilation {geometry.kernel_dilation}, input_dilation {geometry.input_dilation}"
    )


def _unless_native(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str | None:
    if not choice.native_is_possible(len(geometry.window), geometry.input_dilation):
        return (
            f"is for up to three axes without input dilation, not {by(geometry.window)} with input_dilation "
            f"{geometry.input_dilation}"
        )
    if jax.default_backend() != "cpu":
        return f"is for CPUs, not for {jax.default_backend()}"
    return None if native.is_enabled() else f"needs the native CPU kernels, which are {native.describe()}"


METHODS: dict[str, Method] = {
    "direct": Method(direct.conv, "everything", "(K + 4) u sum |x| |kernel|", _no_obstacle),
    "native": Method(
        partial(direct.conv, native=True),
        "up to three axes, no input dilation, on one CPU device; computes in float32, wider floats as direct",
        "(K + 4) u sum |x| |kernel|",
        _unless_native,
    ),
    "im2col": Method(
        conv_im2col, "everything; copies the input prod(window) times", "(K + 4) u sum |x| |kernel|", _no_obstacle
    ),
    "toeplitz": Method(
        conv_toeplitz,
        "everything up to banded matrices of 2^28 entries",
        "(K + 4) u sum |x| |kernel|",
        _unless_band_is_small,
    ),
    "fft": Method(
        conv_fft, "everything; computes all positions at stride 1", "10 u log2(L + 2) |x|_2 |kernel|_2", _no_obstacle
    ),
    "winograd": Method(
        partial(conv_winograd, transform=F23),
        "windows of 3, stride 1, no dilation; F(2,3)",
        "(K + 4) u 9^rank max|x| max|kernel|",
        _unless_window_of_three,
    ),
    "winograd_f43": Method(
        partial(conv_winograd, transform=F43),
        "windows of 3, stride 1, no dilation; F(4,3)",
        "(K + 4) u 190^rank max|x| max|kernel|",
        _unless_window_of_three,
    ),
}


class Rule(NamedTuple):
    """A case in which ``method='auto'`` does not select ``direct``."""

    platform: str
    method: str
    when: str
    """The condition, as text for users."""
    applies: Callable[[Shape, Shape, Windows, int], bool]


def _one_window(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> bool:
    return set(geometry.sliding.output) == {1} and not any(map(any, geometry.sliding.reach))


def _long_window(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> bool:
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
# `direct` itself selects a formulation by shape. The remaining cases are layers that are a plain matrix product, and
# large windows over few channels. FFT spreads infinities and NaNs and loses the accuracy of small outputs of large
# inputs, so it is used only if it saves much: for more than MOST_TAPS entries and GAIN times fewer products. For
# depthwise convolution it only needs fewer products, since XLA's depthwise convolution is 10 to 100 times slower than
# its other convolutions.
MOST_TAPS = 64
MOST_PAIRS = 32  # pairs of a channel and a feature: for more pairs, matrix products are faster than products of spectra
GAIN = 3
AUTO = (
    Rule("cpu", "im2col", "one window covers the input: the layer is a matrix product", _one_window),
    Rule("cpu", "fft", f"a window of more than {MOST_TAPS} entries over few channels", _long_window),
)


def resolve(op: str, method: str, x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str:
    """The method for these shapes; raises a ``UsageError`` if it is unknown or does not support them."""
    check_option(op, "method", method, ("auto", *METHODS))
    if method == "auto":
        return auto(x, kernel, geometry, groups)
    obstacle = METHODS[method].obstacle(x, kernel, geometry, groups)
    if obstacle:
        raise UsageError(f"{op}: method={method!r} {obstacle}; use method='auto'")
    return method


def auto(x: Shape, kernel: Shape, geometry: Windows, groups: int) -> str:
    """The rule of ``method='auto'``: the first entry of :data:`AUTO` that applies on this platform, else ``direct``."""
    platform = jax.default_backend()
    for rule in AUTO:
        if rule.platform == platform and rule.applies(x, kernel, geometry, groups):
            return rule.method
    return "direct"
