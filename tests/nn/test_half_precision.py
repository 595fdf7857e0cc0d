"""The sums of all ops and layers in bfloat16 and float16, for values and gradients, against float32.

The sizes are so large that a sum in half precision is wrong: a sum of ones stops at 256 in bfloat16, and at 2,048 in
float16. All numbers are positive, so that they do not cancel, and have few digits, so that both types represent them.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import filters, nn, ops
from tests.compiled import compiled

IMAGES = (4, 64, 64, 2)  # 16,384 terms for each channel
MAP = (1, 72, 72, 2)
KEY = jax.random.key(0)
RNGS = nnx.Rngs(0)
PEAK = np.zeros((1, 5000, 1), np.float32)
PEAK[:, 2500] = 8


def of_batch(x, scale, bias):
    return ops.normalize_by_batch(x, scale=scale, bias=bias)[0]


def of_vectors(x, mean, variance, scale, bias):
    return ops.batch_norm(x, mean=mean, variance=variance, scale=scale, bias=bias)


def loss(function, outputs):
    return function(outputs, jnp.zeros(outputs.shape[:-1], jnp.int32)).astype(outputs.dtype)


def loss_of_images(function, outputs):
    return function(outputs, jnp.asarray(np.indices(outputs.shape[:-1]).sum(axis=0) % 2)).astype(outputs.dtype)


def rounded(function, outputs, targets):
    return function(outputs, targets).astype(outputs.dtype)


def of_shares(function, logits, labels):
    """Applies a loss to labels between 1/4 and 3/4."""
    return function(logits, labels / 2).sum(axis=-1, dtype=jnp.float32).astype(logits.dtype)


def balanced_of_many():
    return ops.balanced_class_weights(jnp.arange(16384) % 4 // 3, num_classes=2)


def confidences(x):
    bins = ops.calibration_bins(x / 2, jnp.zeros(x.shape[:1], jnp.int32), bins=1)
    return bins.confidence.astype(x.dtype)


def unpool(overlap, y):
    return ops.max_unpool(y, jnp.zeros(y.shape, jnp.int32), (3, 3), overlap=overlap)


# the name of a public op, possibly with a variant: the op, and the shapes of its arrays
OPS = {
    "conv": (functools.partial(ops.conv, padding="SAME"), [IMAGES, (3, 3, 2, 4)]),
    "conv of one channel": (ops.conv, [(*IMAGES[:3], 1), (3, 3, 1, 2)]),
    "conv with strides": (functools.partial(ops.conv, strides=2), [(8, 96, 96, 2), (3, 3, 2, 4)]),
    "conv in groups": (functools.partial(ops.conv, feature_group_count=2), [(*IMAGES[:3], 4), (3, 3, 2, 4)]),
    "conv of positions": (ops.conv, [IMAGES, (1, 1, 2, 4)]),
    "conv in three dimensions": (ops.conv, [(4, 8, 32, 32, 2), (2, 2, 2, 2, 4)]),
    "conv, repeating the border": (
        functools.partial(ops.conv, padding=40, boundary="replicate"),
        [(1, 4, 4, 2), (3, 3, 2, 2)],
    ),
    "conv by im2col": (functools.partial(ops.conv, method="im2col"), [IMAGES, (3, 3, 2, 4)]),
    "conv by fft": (functools.partial(ops.conv, method="fft"), [IMAGES, (3, 3, 2, 4)]),
    "conv by toeplitz": (functools.partial(ops.conv, method="toeplitz"), [(512, 5, 5, 2), (3, 3, 2, 4)]),
    "conv_transpose": (functools.partial(ops.conv_transpose, strides=2), [IMAGES, (2, 2, 3, 2)]),
    "conv_local": (ops.conv_local, [(8192, 3, 3, 2), (2, 2, 2, 2, 2, 2)]),
    "depthwise_conv": (functools.partial(ops.depthwise_conv, padding="SAME"), [IMAGES, (3, 3, 2, 2)]),
    "conv in one dimension": (ops.conv, [(4096, 6, 8), (3, 8, 4)]),
    "separable_conv": (ops.separable_conv, [(2, 64, 64, 2), (2, 2, 2, 2), (4, 3)]),
    "im2col": (lambda x: ops.im2col(x, (8, 8)), [(1, 16, 16, 2)]),
    "col2im": (lambda columns: ops.col2im(columns, (16, 16), (8, 8)), [(1, 9, 9, 2 * 64)]),
    "toeplitz_matrix": (lambda kernel: ops.toeplitz_matrix(kernel, (20, 20)), [(3, 3, 1, 1)]),
    "max_pool": (lambda x: ops.max_pool(x + PEAK, (5001,), strides=1, padding="SAME"), [(1, 5000, 2)]),
    **{
        f"pad {boundary}": (functools.partial(ops.pad, widths=[(70, 70)] * 2, boundary=boundary), [(2, 2, 2, 2)])
        for boundary in ("replicate", "periodic", "mirror", "symmetric")
    },
    "avg_pool": (functools.partial(ops.avg_pool, window=(65, 65), strides=1, padding="SAME"), [MAP]),
    "lp_pool": (functools.partial(ops.lp_pool, window=(65, 65), strides=1, padding="SAME"), [MAP]),
    "max_pool to all": (functools.partial(ops.max_pool, window=(3, 3), strides=1, ties="all"), [MAP]),
    "max_pool in parts": (functools.partial(ops.max_pool, window=(3, 3), strides=1, ties="split"), [MAP]),
    "adaptive_avg_pool": (functools.partial(ops.adaptive_avg_pool, output_size=(1, 80)), [MAP]),
    "adaptive_max_pool": (functools.partial(ops.adaptive_max_pool, output_size=(80, 80)), [(2, 1, 1, 2)]),
    "global_avg_pool": (ops.global_avg_pool, [MAP]),
    "global_max_pool": (ops.global_max_pool, [MAP]),
    "max_unpool": (functools.partial(unpool, "add"), [MAP]),
    "max_unpool, one value": (functools.partial(unpool, "set"), [(2, 2, 2, 2)]),
    "upsample nearest": (functools.partial(ops.upsample, scale=(72, 72)), [(2, 2, 2, 2)]),
    "upsample bilinear": (functools.partial(ops.upsample, scale=(72, 72), method="bilinear"), [(2, 2, 2, 2)]),
    "upsample bed_of_nails": (functools.partial(ops.upsample, scale=(2, 2), method="bed_of_nails"), [(2, 2, 2, 2)]),
    "batch_statistics": (lambda x: ops.batch_statistics(x)[0].astype(x.dtype), [IMAGES]),
    "batch_norm": (of_vectors, [IMAGES, (2,), (2,), (2,), (2,)]),
    "normalize_by_batch": (of_batch, [IMAGES, (2,), (2,)]),
    "local_response_norm": (functools.partial(ops.local_response_norm, size=511, alpha=0.01), [(1, 2, 8192)]),
    "local_response_norm within": (functools.partial(ops.local_response_norm, size=(65, 65), alpha=1e-4), [MAP]),
    "dropout": (functools.partial(ops.dropout, rate=0.5, key=KEY, broadcast_dims=(1, 2)), [IMAGES]),
    "spatial_dropout": (functools.partial(ops.spatial_dropout, rate=0.5, key=KEY), [IMAGES]),
    "relu": (ops.relu, [(8,)]),
    "scaled_tanh": (ops.scaled_tanh, [(8,)]),
    "rbf_output": (lambda x, centers: ops.rbf_output(x + 2, centers), [(8192, 3), (4, 3)]),
    "rbf_output of many": (lambda x, centers: ops.rbf_output(x + 2, centers), [(3, 6000), (2, 6000)]),
    "softmax_cross_entropy": (functools.partial(loss, ops.softmax_cross_entropy), [(2, 8192)]),
    "softmax_focal_loss": (functools.partial(loss, ops.softmax_focal_loss), [(2, 8192)]),
    "squared_error": (functools.partial(loss, ops.squared_error), [(2, 8192)]),
    **{
        name: (functools.partial(rounded, getattr(ops, name)), [(2, 8192), (2, 8192)])
        for name in ("mean_squared_error", "mean_absolute_error", "huber_loss")
    },
    "sigmoid_cross_entropy": (functools.partial(of_shares, ops.sigmoid_cross_entropy), [(2, 8192), (2, 8192)]),
    "sigmoid_focal_loss": (functools.partial(of_shares, ops.sigmoid_focal_loss), [(2, 8192), (2, 8192)]),
    "balanced_class_weights": (lambda x: x * jnp.astype(balanced_of_many(), x.dtype), [(2,)]),
    "soft_dice_loss": (functools.partial(loss_of_images, ops.soft_dice_loss), [(2, 64, 64, 2)]),
    "stft": (lambda x, window: ops.stft(x, window, hop_length=64)[0], [(1, 1024, 2), (512,)]),
    "spectrogram": (functools.partial(ops.spectrogram, hop_length=16), [(1, 1024, 2), (64,)]),
    "psnr": (functools.partial(rounded, ops.psnr), [MAP, MAP]),
    "ssim": (functools.partial(rounded, ops.ssim), [MAP, MAP]),
    "calibration_bins": (confidences, [(8192, 3)]),
    "filters.apply": (filters.apply, [(1, 8, 8, 512), (3, 3)]),
}

MODULES = {
    "Conv": (nn.Conv(2, 4, (3, 3), rngs=RNGS), IMAGES),
    "Conv with a mask": (nn.Conv(2, 2, (3, 3), mask=np.eye(2), rngs=RNGS), IMAGES),
    "ConvTranspose": (nn.ConvTranspose(2, 3, (2, 2), strides=2, rngs=RNGS), IMAGES),
    "ConvTranspose circular": (nn.ConvTranspose(2, 3, (2, 2), padding="CIRCULAR", rngs=RNGS), IMAGES),
    "SeparableConv": (nn.SeparableConv(2, 3, (2, 2), rngs=RNGS), (2, 64, 64, 2)),
    "ConvLocal": (nn.ConvLocal(2, 2, (2, 2), input_size=(3, 3), padding="VALID", rngs=RNGS), (8192, 3, 3, 2)),
    "TableConv": (nn.TableConv(2, [(0,), (0, 1)], (3, 3), rngs=RNGS), IMAGES),
    "TableConv of units": (nn.TableConv(2, [(0,), (0, 1)], (3, 3), bias_space=(3, 3), rngs=RNGS), (5120, 3, 3, 2)),
    "Subsampling": (nn.Subsampling(2, (2, 2), rngs=RNGS), (4, 128, 128, 2)),
    "Linear": (nn.Linear(2, 3, rngs=RNGS), (16384, 2)),
    "Linear on images": (nn.Linear(2, 3, rngs=RNGS), IMAGES),
    "Embed": (nn.Embed(2, 3, rngs=RNGS), (4, 4096)),
    "BatchNorm": (nn.BatchNorm(2, rngs=RNGS), IMAGES),
    "InstanceNorm": (nn.InstanceNorm(), IMAGES),
    "BatchNorm in evaluation": (nn.BatchNorm(2, use_running_average=True, rngs=RNGS), IMAGES),
}
# Metrics that count in integers for every dtype of their inputs; tests/ops/test_metrics.py has their values.
COUNTS = {
    *("in_top_k", "confusion_matrix", "precision_recall_f1", "macro_average", "expected_calibration_error"),
    *("class_counts", "overlaps"),
    "mel_filters",  # takes no array
    "non_maximum_suppression",
}
# Each number has a few terms and no sum in half precision; tests/ops/test_boxes.py and tests/parity have their values.
WITHOUT_SUMS = {"box_area", "box_iou", "generalized_box_iou", "lab_to_rgb", "rgb_to_lab"}
# Layers without parameters call one op of the table, or other layers.
WITHOUT_PARAMETERS = {
    *("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "LpPool", "MaxPool", "MaxUnpool", "Upsample", "Dropout"),
    *("Flatten", "LocalResponseNorm", "RBFOutput", "Scale", "Auxiliary", "Parallel", "Residual", "Sequence"),
    *("Add", "Concatenate", "CutTo", "SkipSequence", "GaussianNoise", "Spectrogram"),
    "ConvMaxOverTime",  # a Conv and a maximum, whose ties depend on the precision
}


def numbers(shape, seed):
    """Random numbers from 0.5, 0.625, ..., 1.5."""
    return (np.random.default_rng(seed).integers(4, 13, shape) / 8).astype(np.float32)


def like(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([numbers(leaf.shape, seed + place) for place, leaf in enumerate(leaves)])


def of_module(module):
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    return (lambda params, x: nnx.merge(graph, params, rest)(x)), params


def cases():
    for name, (op, shapes) in OPS.items():
        yield name, op, [numbers(shape, seed) for seed, shape in enumerate(shapes)]
    for name, (module, shape) in MODULES.items():
        function, params = of_module(module)
        yield name, function, [like(params, 1), numbers(shape, 0)]


CASES = {name: (function, arguments) for name, function, arguments in cases()}


def value_and_gradients(function, dtype, arguments):
    arguments = jax.tree.map(lambda array: jnp.asarray(array, dtype), arguments)
    y, pull_back = jax.vjp(function, *arguments)
    return y, pull_back(jnp.asarray(numbers(y.shape, 9), y.dtype))


@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_float32(name):
    function, arguments = CASES[name]

    @compiled
    def run(arguments):
        return [value_and_gradients(function, dtype, arguments) for dtype in ("float32", "bfloat16", "float16")]

    exact, *halves = map(jax.tree.leaves, run(arguments))
    for dtype, half in zip(("bfloat16", "float16"), halves, strict=True):
        for actual, expected in zip(half, exact, strict=True):
            actual, expected = np.float64(actual), np.float64(expected)
            bound = float(jnp.finfo(dtype).eps) * np.abs(expected).max()
            np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def test_every_op_and_layer_is_in_the_table():
    functions = (
        {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))} - {"tune"} - COUNTS - WITHOUT_SUMS
    )
    assert functions == {name for name in functions if any(case.split()[0].strip(",") == name for case in OPS)}
    layers = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    assert layers - WITHOUT_PARAMETERS == {case.split()[0] for case in MODULES}
