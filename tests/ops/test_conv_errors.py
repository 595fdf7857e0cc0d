"""Invalid calls of convolutions: messages of one line with the argument, the values and the fix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import as_array, check_number, integer
from cnn_jax.ops.canonical import check_rank
from cnn_jax.ops.padding import pair


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


IMAGE, KERNEL = (2, 7, 7, 3), (5, 5, 3, 4)


def conv(x=IMAGE, kernel=KERNEL, **options):
    return lambda: ops.conv(ones(*x), ones(*kernel), **options)


def transpose(y=(2, 4, 4, 4), kernel=(3, 3, 2, 4), **options):
    return lambda: ops.conv_transpose(ones(*y), ones(*kernel), **options)


# fmt: off
# ruff: noqa: E501
# (name, the call, what its line must say)
BAD = [
    # the kernel does not fit
    ("dilated", conv(kernel_dilation=2), "conv: kernel 5x5 (dilated 9x9) does not fit input 7x7 with padding VALID; pad by at least 1 or use padding='SAME'"),
    ("too large", conv(x=(4, 4, 3)), "kernel 5x5 does not fit input 4x4 with padding VALID; pad by at least 1 or"),
    ("too large, padded", conv(x=(1, 1, 3), padding=1), "kernel 5x5 does not fit input 1x1 with padding 1; pad by at least 1 more"),
    ("too large on one axis", conv(x=(9, 3, 3)), "kernel 5x5 does not fit input 9x3"),
    ("cropped too small", conv(padding=-2), "kernel 5x5 does not fit input 7x7 with padding -2; pad by at least 1 more"),
    ("cropped away", conv(padding=-4), "padding (-4, -4) crops all of spatial axis 0, which has size 7; crop at most 6"),
    ("1-D", conv(x=(2, 3), kernel=(3, 3, 4)), "kernel 3 does not fit input 2"),
    ("3-D", conv(x=(4, 4, 1, 3), kernel=(2, 2, 2, 3, 4)), "kernel 2x2x2 does not fit input 4x4x1"),
    ("dilated input", conv(x=(2, 2, 3), input_dilation=2), "kernel 5x5 does not fit input 2x2 (dilated 3x3)"),
    # channels
    ("channels", conv(x=(2, 9, 9, 5)), "x of shape (2, 9, 9, 5) has 5 channels, but kernel of shape (5, 5, 3, 4) takes 3"),
    ("NCHW", conv(x=(2, 3, 32, 32)), "has 32 channels, but kernel of shape (5, 5, 3, 4) takes 3; x looks channels-first, use jnp.moveaxis(x, -3, -1)"),
    ("CHW", conv(x=(3, 32, 32)), "x looks channels-first, use jnp.moveaxis(x, -3, -1)"),
    ("OIHW", conv(x=(2, 9, 9, 3), kernel=(4, 3, 5, 5)), "kernel looks channels-first, use kernel.transpose(2, 3, 1, 0)"),
    ("NCL", conv(x=(2, 3, 32), kernel=(5, 3, 4)), "x looks channels-first, use jnp.moveaxis(x, -2, -1)"),
    ("grouped channels", conv(x=(9, 9, 5), feature_group_count=2), "has 5 channels, but kernel of shape (5, 5, 3, 4) times feature_group_count=2 takes 6 (2 does not divide 5)"),
    ("grouped OIHW", conv(x=(9, 9, 6), kernel=(4, 3, 5, 5), feature_group_count=5), "times feature_group_count=5 takes 25 (5 does not divide 6); x is (*batch, *space, channels)"),
    ("OIHW of one by one", conv(x=(2, 9, 9, 3), kernel=(64, 3, 1, 1)), "kernel looks channels-first, use kernel.transpose(2, 3, 1, 0)"),
    ("OIHW, as many in as out", conv(x=(2, 9, 9, 16), kernel=(16, 16, 3, 3)), "kernel looks channels-first, use kernel.transpose(2, 3, 1, 0)"),
    ("window as wide as x has channels", conv(x=(2, 9, 9, 3), kernel=(3, 3, 1, 4)), "has 3 channels, but kernel of shape (3, 3, 1, 4) takes 1; x is (*batch, *space, channels)"),
    ("one channel and one feature", conv(x=(2, 9, 9, 3), kernel=(3, 3, 1, 1)), "takes 1; x is (*batch, *space, channels)"),
    ("two readings of a kernel", conv(x=(2, 9, 9, 5), kernel=(5, 5, 3, 3)), "takes 3; x is (*batch, *space, channels)"),
    ("as high as the kernel has channels", conv(x=(8, 6, 6, 3), kernel=(3, 3, 6, 4)), "takes 6; x is (*batch, *space, channels)"),
    ("1-D channels", conv(x=(2, 9, 3), kernel=(3, 1, 4)), "takes 1; x is (*batch, *space, channels)"),
    ("3-D window as wide as x has channels", conv(x=(9, 9, 9, 3), kernel=(3, 3, 3, 1, 4)), "takes 1; x is (*batch, *space, channels)"),
    ("OIDHW", conv(x=(9, 9, 9, 3), kernel=(8, 3, 5, 5, 5)), "kernel looks channels-first, use kernel.transpose(2, 3, 4, 1, 0)"),
    # ranks
    ("kernel without window", conv(kernel=(3, 4)), "kernel of shape (3, 4) has no window; it must be (*window, C_in / feature_group_count, C_out)"),
    ("kernel of too high rank", conv(x=(7, 7, 3), kernel=(5, 5, 5, 3, 4)), "x of shape (7, 7, 3) has 3 axes, but kernel of shape (5, 5, 5, 3, 4) has 3 spatial axes and needs at least 4"),
    ("missing channel axis", conv(x=(28, 28), kernel=(5, 5, 1, 4)), "x of shape (28, 28) has 2 axes, but kernel of shape (5, 5, 1, 4) has 2 spatial axes and needs at least 3"),
    # strides and dilations
    ("stride 0", conv(strides=0), "strides=0 must be at least 1 on every axis, got 0"),
    ("stride -1", conv(strides=(1, -1)), "strides=(1, -1) must be at least 1 on every axis, got -1"),
    ("three strides", conv(strides=(1, 1, 1)), "strides=(1, 1, 1) has 3 entries for 2 spatial axes; give one int, or 2"),
    ("stride True", conv(strides=True), "strides must consist of Python ints that are known at compile time; got True"),
    ("dilation 0", conv(kernel_dilation=0), "kernel_dilation=0 must be at least 1 on every axis, got 0"),
    ("dilations", conv(kernel_dilation=(2,)), "kernel_dilation=(2,) has 1 entries for 2 spatial axes"),
    ("input dilation 0", conv(input_dilation=(1, 0)), "input_dilation=(1, 0) must be at least 1 on every axis, got 0"),
    # groups
    ("groups 0", conv(feature_group_count=0), "feature_group_count=0 must be at least 1"),
    ("groups do not divide", conv(x=(9, 9, 9), feature_group_count=3), "feature_group_count=3 does not divide the 4 features of kernel (5, 5, 3, 4); use a multiple of 3 features"),
    # names
    ("padding", conv(padding="SAMME"), "unknown padding='SAMME'; did you mean 'SAME'"),
    ("lower case", conv(padding="valid"), "unknown padding='valid'; did you mean 'VALID'?"),
    ("no such padding", conv(padding="ZERO"), "unknown padding='ZERO'; known: 'CAUSAL', 'FULL', 'HALF', 'SAME', 'SAME_LOWER', 'VALID'"),
    ("Flax's padding", conv(padding="CIRCULAR"), "unknown padding='CIRCULAR'; use padding='SAME' with boundary='periodic'"),
    ("boundary", conv(boundary="periodical"), "unknown boundary='periodical'; did you mean 'periodic'?"),
    ("NumPy's boundary", conv(boundary="edge"), "unknown boundary='edge'; NumPy's 'edge' is 'replicate' here"),
    ("PyTorch's boundary", conv(boundary="circular"), "unknown boundary='circular'; PyTorch's 'circular' is 'periodic' here"),
    ("no such boundary", conv(boundary="torus"), "unknown boundary='torus'; known: 'constant', 'mirror', 'periodic', 'replicate', 'symmetric', 'zero'"),
    ("method", conv(method="winogard"), "unknown method='winogard'; did you mean 'winograd'"),
    ("upper case", conv(method="FFT"), "unknown method='FFT'; did you mean 'fft'?"),
    ("rounding", conv(rounding="ceiling"), "unknown rounding='ceiling'; did you mean 'ceil'?"),
    ("derivatives", conv(derivatives="fast"), "unknown derivatives='fast'; known: 'custom', 'jax'"),
    # padding
    ("three paddings", conv(padding=(1, 1, 1)), "padding=(1, 1, 1) has 3 entries for 2 spatial axes; give one per axis"),
    ("bare pair", conv(x=(9, 3), kernel=(3, 3, 4), padding=(1, 2)), "padding=(1, 2) has 2 entries for 1 spatial axes; write ((1, 2),)"),
    ("triple", conv(padding=[(1, 1, 1), 0]), "padding (1, 1, 1) of one axis has 3 numbers; write (low, high)"),
    ("idle value", conv(boundary_value=1.0), "boundary_value=1.0 has no effect with boundary='zero'; use boundary='constant'"),
    ("precision", conv(precision="hihg"), "conv: unknown precision='hihg'; did you mean 'high'"),
    # strict rounding
    ("strict", conv(x=(10, 10, 3), strides=2, rounding="strict"), "stride 2 does not divide (10 - 5) on spatial axis 0 (input 10 padded by 0 and 0, kernel 5): 1 left over; pad by 1 more, crop 1, or use rounding='floor'"),
    ("AlexNet at 224", conv(x=(224, 224, 3), kernel=(11, 11, 3, 2), strides=4, rounding="strict"), "stride 4 does not divide (224 - 11) on spatial axis 0"),
    # methods that cannot
    ("winograd 5x5", conv(method="winograd"), "method='winograd' is for windows of 3 at stride 1 without dilation, not 5x5 with strides (1, 1)"),
    ("winograd stride 2", conv(kernel=(3, 3, 3, 4), strides=2, method="winograd_f43"), "not 3x3 with strides (2, 2), kernel_dilation (1, 1), input_dilation (1, 1); use method='auto'"),
    ("toeplitz 224", lambda: jax.eval_shape(lambda x, k: ops.conv(x, k, method="toeplitz"), ones(224, 224, 64), ones(3, 3, 64, 64)), "method='toeplitz' would build banded matrices of 611,057,664 entries, more than 268,435,456; use method='auto'"),
    # arrays
    ("integer input", lambda: ops.conv(ones(*IMAGE, dtype="uint8"), ones(*KERNEL)), "x has dtype uint8, but this op is for bfloat16, float16, float32, float64, complex64, complex128; convert it, e.g. x.astype('float32')"),
    ("integer kernel", lambda: ops.conv(ones(*IMAGE), np.ones(KERNEL, "int32")), "kernel has dtype int32"),
    ("complex input of a pool", lambda: ops.max_pool(ones(*IMAGE, dtype="complex64"), (2, 2)), "x has dtype complex64"),
    ("empty image without a batch", conv(x=(0, 7, 3)), "x of shape (0, 7, 3) is empty: axis 0 has size 0, but must be >= 1; only the batch may be empty"),
    ("no channels", conv(x=(2, 7, 7, 0)), "x of shape (2, 7, 7, 0) is empty: axis 3 has size 0"),
    ("empty image", conv(x=(2, 7, 0, 3)), "x of shape (2, 7, 0, 3) is empty: axis 2 has size 0"),
    ("empty kernel", conv(kernel=(0, 5, 3, 4)), "kernel of shape (0, 5, 3, 4) is empty: axis 0 has size 0"),
    ("mask shape", conv(mask=np.ones((4, 3), bool)), "mask of shape (4, 3) does not broadcast to kernel (5, 5, 3, 4); use (C_in, C_out)"),
    ("mask dtype", conv(mask=np.ones((3, 4))), "mask has dtype float32, but must be bool; write mask != 0"),
    # transposed
    ("transposed channels", transpose(y=(2, 4, 4, 3)), "conv_transpose: y of shape (2, 4, 4, 3) has 3 channels, but kernel (3, 3, 2, 4) has 4 features"),
    ("transposed window", transpose(y=(2, 9, 9, 3), kernel=(3, 3, 2, 4)), "has 4 features; y is (*batch, *space, channels)"),
    ("transposed IOHW", transpose(y=(2, 4, 4, 16), kernel=(16, 8, 3, 3)), "kernel looks channels-first, use kernel.transpose(2, 3, 1, 0)"),
    ("transposed NCHW", transpose(y=(2, 4, 8, 8)), "y looks channels-first, use jnp.moveaxis(y, -3, -1)"),
    ("transposed rank", transpose(y=(4, 4)), "y of shape (4, 4) has 2 axes"),
    ("both shapes", transpose(output_padding=0, output_shape=(6, 6)), "output_padding=0 and output_shape=(6, 6); give only one"),
    ("output shape", transpose(strides=2, output_shape=(9, 8)), "output_shape=(9, 8) is impossible on spatial axis 1: with these options it can be 9 to 10"),
    ("output padding", transpose(strides=2, output_padding=2), "output_padding=2 is too large on spatial axis 0: with these options it can be 0 to 1, for an output of 9 to 10"),
    ("no such output", transpose(y=(1, 1, 4), padding="FULL"), "y has size 1 on spatial axis 0, but no convolution with kernel 3, stride 1, padding 'FULL'"),
    ("transposed stride", transpose(strides=0), "conv_transpose: strides=0 must be at least 1"),
    ("transposed method", transpose(strides=2, method="winograd"), "conv_transpose: method='winograd' is for windows of 3 at stride 1"),
    # the other ops
    ("depthwise channels", lambda: ops.depthwise_conv(ones(9, 9, 4), ones(3, 3, 3, 1)), "depthwise_conv: x of shape (9, 9, 4) has 4 channels, but kernel (3, 3, 3, 1) takes 3"),
    ("depthwise stride", lambda: ops.depthwise_conv(ones(9, 9, 3), ones(3, 3, 3, 1), strides=0), "depthwise_conv: strides=0 must be at least 1"),
    ("depthwise OIHW", lambda: ops.depthwise_conv(ones(9, 9, 4), ones(4, 1, 3, 3)), "kernel looks channels-first, use kernel.transpose(2, 3, 0, 1)"),
    ("depthwise rank", lambda: ops.depthwise_conv(ones(9, 4), ones(3, 3, 3, 1)), "depthwise_conv: x of shape (9, 4) has 2 axes"),
    ("depthwise NCHW", lambda: ops.depthwise_conv(ones(3, 9, 9), ones(3, 3, 3, 1)), "x looks channels-first, use jnp.moveaxis(x, -3, -1)"),
    ("separable", lambda: ops.separable_conv(ones(9, 9, 4), ones(3, 3, 4, 2), ones(4, 6)), "separable_conv: pointwise_kernel of shape (4, 6) must be (8, C_out), because depthwise_kernel of shape (3, 3, 4, 2) gives 8 features"),
    ("local output", lambda: ops.conv_local(ones(9, 9, 4), ones(8, 7, 3, 3, 4, 2)), "conv_local: kernel of shape (8, 7, 3, 3, 4, 2) is for an output of (8, 7), but x of shape (9, 9, 4) gives (7, 7)"),
    ("local axes", lambda: ops.conv_local(ones(9, 9, 4), ones(7, 7, 3, 4, 2)), "kernel of shape (7, 7, 3, 4, 2) has 5 axes, but must be (*output, *window, C_in / feature_group_count, C_out)"),
    ("local channels", lambda: ops.conv_local(ones(9, 9, 3), ones(7, 7, 3, 3, 4, 2)), "has 3 channels, but kernel (7, 7, 3, 3, 4, 2) with feature_group_count=1 takes 4"),
    ("im2col window", lambda: ops.im2col(ones(9, 9, 3), (3, 0)), "im2col: window=(3, 0) must be at least 1 on every axis, got 0"),
    ("im2col empty window", lambda: ops.im2col(ones(9, 9, 3), ()), "window=() must have one int per spatial axis"),
    ("col2im columns", lambda: ops.col2im(ones(4, 4, 9), (6, 5), (3, 3)), "col2im: columns of shape (4, 4, 9) must be (*batch, 4, 3, 9 * C) for input sizes (6, 5) and window (3, 3)"),
    ("toeplitz constant", lambda: ops.toeplitz_matrix(ones(3, 1, 1), (5,), boundary="constant"), "toeplitz_matrix: unknown boundary='constant'"),
    ("toeplitz matrix of 2^33", lambda: ops.toeplitz_matrix(ones(3, 3, 8, 8), (110, 110)), "toeplitz_matrix: the matrix would be 93312x96800, 9,032,601,600 entries, more than 2,147,483,648; use a smaller input than sizes=(110, 110)"),
    ("toeplitz sizes", lambda: ops.toeplitz_matrix(ones(3, 1, 1), (5, 5)), "sizes=(5, 5) has 2 entries for 1 spatial axes"),
    ("tune repeats", lambda: ops.tune((9, 9, 3), (3, 3, 3, 4), repeats=0), "tune: repeats=0 must be at least 1"),
    ("tune option", lambda: ops.tune((9, 9, 3), (3, 3, 3, 4), stride=2), "tune: conv has no option 'stride'; did you mean 'strides'"),
    ("pad boundary", lambda: ops.pad(ones(4, 1), [1], boundary="mirrored"), "pad: unknown boundary='mirrored'; did you mean 'mirror'?"),
    ("pad widths", lambda: ops.pad(ones(4, 1), [1, 1]), "pad: 2 widths, but x of shape (4, 1) has only 1 axes before its channels"),
    ("pad crop", lambda: ops.pad(ones(4, 1), [(-3, -1)]), "pad: widths (-3, -1) crop all of an axis of size 4"),
]
# fmt: on


@pytest.mark.parametrize(("call", "message"), [pytest.param(call, text, id=name) for name, call, text in BAD])
def test_bad_call(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    line = str(caught.value)
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_array("conv", "x", None), "conv: x must be an array of numbers, got NoneType None"),
        (
            lambda: as_array("conv", "x", [[1.0, 2.0], [3.0]]),
            "x must be an array of numbers, got list [[1.0, 2.0], [3.0]]",
        ),
        (lambda: check_number("conv", "boundary_value", "1"), "conv: boundary_value='1' must be a number"),
        (lambda: check_number("conv", "boundary_value", np.ones(2)), "must be a number"),
        (
            lambda: pair("conv", None, 5, 3, 1),
            "padding=None is not a valid padding for an axis; use a name such as 'SAME', an int, or",
        ),
        (lambda: pair("conv", 0.5, 5, 3, 1), "padding=0.5 is not a valid padding for an axis"),
        (lambda: check_rank("separable_conv", ones(3), "(*window, C, multiplier)", name="kernel"), "has no window"),
    ],
)
def test_bad_types(call, message):
    """What the annotations exclude, and the tests' type checker with them, so without the op around it."""
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)


def test_a_traced_option_is_rejected():
    with pytest.raises(UsageError, match="conv: strides must consist of Python ints that are known at compile time"):
        jax.jit(lambda stride: integer("conv", "strides", stride))(1)
