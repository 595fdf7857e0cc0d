"""Every public op, filter and layer as a function of a batch, for tests that cover all of them.

A new public op or layer needs an entry here, which ``tests/test_every_layer.py`` checks.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_jax import filters, native, nn, ops

# Without the batch axis.
LINE, IMAGE, VOLUME, FEATURES = (9, 4), (6, 5, 4), (5, 4, 5, 4), (4,)
WIDE = (6, 5, 20)


class Program(NamedTuple):
    """A function of a batch and weights, differentiable with respect to their floating-point arrays."""

    function: Callable[..., Any]
    inputs: tuple[tuple[int, ...], ...]
    """The shapes of the batches, without the batch axis."""
    weights: Any
    """A tree of arrays."""

    def batch(self, size: int, dtype: Any = jnp.float32) -> list[jax.Array]:
        """Inputs for the function."""
        rng = np.random.default_rng(0)
        return [jnp.asarray(rng.standard_normal((size, *shape)), dtype) for shape in self.inputs]


def of_op(function: Callable[..., Any], *shapes: tuple[int, ...], image: tuple[int, ...] = IMAGE) -> Program:
    """``function(x, *weights)``; the weights are positive, since a variance must be."""
    rng = np.random.default_rng(1)
    weights = [jnp.asarray(0.1 + np.abs(rng.standard_normal(shape)), jnp.float32) for shape in shapes]
    return Program(lambda inputs, weights: function(*inputs, *weights), (image,), weights)


def of_pair(function: Callable[..., Any], first: tuple[int, ...], second: tuple[int, ...]) -> Program:
    """``function(x, y)`` of two batches."""
    return Program(lambda inputs, _: function(*inputs), (first, second), [])


def of_layer(make: Callable[[nnx.Rngs], nnx.Module], *, image: tuple[int, ...] = IMAGE, **options: Any) -> Program:
    """A layer called with options. Its other variables, such as running statistics, are among the outputs.

    It is created with abstract arrays and filled by NumPy, without compilation.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    rng = np.random.default_rng(2)
    state = jax.tree.map(lambda leaf: jnp.asarray(0.1 + np.abs(rng.standard_normal(leaf.shape)), leaf.dtype), state)
    _, parameters, rest = nnx.split(nnx.merge(graph, state), nnx.Param, ...)

    def function(inputs: list[jax.Array], parameters: nnx.State) -> Any:
        layer = nnx.merge(graph, parameters, rest)
        return layer(*inputs, **options), nnx.state(layer, nnx.BatchStat)

    return Program(function, (image,), parameters)


def _labels(x: jax.Array) -> jax.Array:
    """Class labels for a batch of any size."""
    return jnp.full(x.shape[:1], 1, jnp.int32)


def _confusion(x: jax.Array) -> jax.Array:
    return ops.confusion_matrix(_labels(x), x.argmax(axis=-1), num_classes=4)


def _counts(x: jax.Array) -> ops.ClassCounts:
    return ops.class_counts(jnp.ones(x.shape[:-1], jnp.int32), x.argmax(axis=-1), num_classes=4)


def _unpooled(x: jax.Array) -> jax.Array:
    return ops.max_unpool(*ops.max_pool(x, (2, 2), return_indices=True), (6, 5), overlap="add")


SLIDING = {"strides": 2, "padding": 1, "rounding": "ceil"}
KEY = jax.random.key(0)
OPS: dict[str, Callable[[], Program]] = {
    "adaptive_avg_pool": lambda: of_op(lambda x: ops.adaptive_avg_pool(x, (4, 3))),
    "adaptive_avg_pool of an int": lambda: of_op(lambda x: ops.adaptive_avg_pool(x, 3)),
    "adaptive_max_pool": lambda: of_op(lambda x: ops.adaptive_max_pool(x, (4, 3), return_indices=True)),
    "avg_pool": lambda: of_op(lambda x: ops.avg_pool(x, (2, 3), **SLIDING, count_include_pad=False)),
    "avg_pool, wide": lambda: of_op(lambda x: ops.avg_pool(x, (5, 5), strides=1)),
    "avg_pool of an int": lambda: of_op(lambda x: ops.avg_pool(x, 2), image=VOLUME),
    "balanced_class_weights": lambda: of_op(
        lambda x: x * ops.balanced_class_weights(_labels(x), num_classes=4)[None].astype(x.dtype), image=FEATURES
    ),
    "batch_norm": lambda: of_op(
        lambda x, mean, variance, scale, bias: ops.batch_norm(x, mean=mean, variance=variance, scale=scale, bias=bias),
        *[(4,)] * 4,
    ),
    "batch_statistics": lambda: of_op(ops.batch_statistics),
    "calibration_bins": lambda: of_op(lambda x: ops.calibration_bins(jax.nn.softmax(x), _labels(x)), image=FEATURES),
    "class_counts": lambda: of_op(lambda x: (x, _counts(x))),
    "col2im": lambda: of_op(lambda x: ops.col2im(ops.im2col(x, (2, 3), padding=1), (6, 5), (2, 3), padding=1)),
    "confusion_matrix": lambda: of_op(lambda x: (x, _confusion(x)), image=FEATURES),
    "conv": lambda: of_op(lambda x, k: ops.conv(x, k, padding="SAME"), (3, 3, 4, 6)),
    "conv, line": lambda: of_op(lambda x, k: ops.conv(x, k, padding="CAUSAL"), (3, 4, 6), image=LINE),
    "conv, volume": lambda: of_op(lambda x, k: ops.conv(x, k, **SLIDING), (3, 2, 3, 4, 6), image=VOLUME),
    "conv, strided": lambda: of_op(lambda x, k: ops.conv(x, k, **SLIDING), (3, 3, 4, 6)),
    "conv, wide": lambda: of_op(lambda x, k: ops.conv(x, k, **SLIDING), (3, 3, 20, 8), image=WIDE),
    "conv, dilated": lambda: of_op(
        lambda x, k: ops.conv(x, k, input_dilation=2, kernel_dilation=2, padding=(-1, (3, -2))), (3, 3, 4, 6)
    ),
    "conv, mirror": lambda: of_op(lambda x, k: ops.conv(x, k, padding=2, boundary="mirror"), (3, 3, 4, 6)),
    "conv, constant": lambda: of_op(
        lambda x, k: ops.conv(x, k, padding=2, boundary="constant", boundary_value=2.0), (3, 3, 4, 6)
    ),
    "conv, masked and flipped": lambda: of_op(
        lambda x, k: ops.conv(x, k, mask=np.arange(24).reshape(4, 6) % 3 > 0, flip_kernel=True), (3, 3, 4, 6)
    ),
    "conv, groups": lambda: of_op(lambda x, k: ops.conv(x, k, feature_group_count=2), (3, 3, 2, 6)),
    "conv, one window": lambda: of_op(ops.conv, (6, 5, 4, 7)),
    "conv, one by one": lambda: of_op(ops.conv, (1, 1, 4, 7)),
    "conv, derivatives of JAX": lambda: of_op(lambda x, k: ops.conv(x, k, derivatives="jax"), (3, 3, 4, 6)),
    "conv, cropped to nothing": lambda: of_op(
        lambda x, k: ops.conv(x, k, input_dilation=4, padding=[(-1, -18), (0, 0)]), (2, 2, 4, 3)
    ),
    **{
        f"conv by {method}": lambda method=method: of_op(
            lambda x, k: ops.conv(x, k, padding=1, feature_group_count=2, method=method), (3, 3, 2, 6)
        )
        for method in ops.METHODS
        if method != "native" or native.is_enabled()
    },
    "conv_local": lambda: of_op(
        lambda x, k: ops.conv_local(x, k, padding=1, strides=2, feature_group_count=2), (3, 3, 3, 3, 2, 6)
    ),
    "conv_transpose": lambda: of_op(lambda y, k: ops.conv_transpose(y, k, strides=2, padding=1), (3, 3, 2, 4)),
    "conv_transpose, mirror": lambda: of_op(
        lambda y, k: ops.conv_transpose(y, k, padding=1, boundary="mirror", input_dilation=2), (4, 3, 2, 4)
    ),
    "depthwise_conv": lambda: of_op(lambda x, k: ops.depthwise_conv(x, k, padding="SAME", strides=2), (3, 3, 4, 2)),
    "box_area": lambda: of_op(ops.box_area, image=FEATURES),
    "box_iou": lambda: of_pair(ops.box_iou, FEATURES, FEATURES),
    "depthwise_conv, line": lambda: of_op(ops.depthwise_conv, (3, 4, 1), image=LINE),
    "dropout": lambda: of_op(lambda x: ops.dropout(x, 0.5, key=KEY)),
    "expected_calibration_error": lambda: of_op(
        lambda x: ops.expected_calibration_error(ops.calibration_bins(jax.nn.softmax(x), _labels(x))), image=FEATURES
    ),
    "generalized_box_iou": lambda: of_pair(ops.generalized_box_iou, FEATURES, FEATURES),
    "global_avg_pool": lambda: of_op(ops.global_avg_pool),
    "global_max_pool": lambda: of_op(lambda x: ops.global_max_pool(x, keepdims=True)),
    "huber_loss": lambda: of_pair(ops.huber_loss, FEATURES, FEATURES),
    "in_top_k": lambda: of_op(lambda x: (x, ops.in_top_k(x, _labels(x), k=2)), image=FEATURES),
    "im2col": lambda: of_op(lambda x: ops.im2col(x, (2, 3), **SLIDING)),
    "lab_to_rgb": lambda: of_op(lambda x: ops.lab_to_rgb(20 * x[..., :3])),
    "local_response_norm": lambda: of_op(ops.local_response_norm),
    "local_response_norm within channels": lambda: of_op(
        lambda x: ops.local_response_norm(x, size=(3, 2), convention="torch")
    ),
    "lp_pool": lambda: of_op(lambda x: ops.lp_pool(x, (2, 3), p=3, **SLIDING)),
    "lp_pool, even": lambda: of_op(lambda x: ops.lp_pool(x, (2, 3))),
    "macro_average": lambda: of_op(lambda x: ops.macro_average(_confusion(x)), image=FEATURES),
    "max_pool": lambda: of_op(lambda x: ops.max_pool(x, (2, 3), **SLIDING)),
    "max_pool, wide": lambda: of_op(lambda x: ops.max_pool(x, (5, 5), return_indices=True)),
    "max_pool, indices": lambda: of_op(lambda x: ops.max_pool(x, (2, 3), **SLIDING, return_indices=True), image=WIDE),
    "max_pool, split ties": lambda: of_op(lambda x: ops.max_pool(x, (2, 3), **SLIDING, ties="split")),
    "max_pool, dilated": lambda: of_op(lambda x: ops.max_pool(x, (2, 2), dilation=2, padding=((1, -1), 0))),
    "max_pool of an int": lambda: of_op(lambda x: ops.max_pool(x, 2), image=LINE),
    "max_unpool": lambda: of_op(_unpooled),
    "mean_absolute_error": lambda: of_pair(ops.mean_absolute_error, FEATURES, FEATURES),
    "mean_squared_error": lambda: of_pair(ops.mean_squared_error, FEATURES, FEATURES),
    "non_maximum_suppression": lambda: of_op(lambda x: (x, ops.non_maximum_suppression(x, x[..., 0])), image=LINE),
    "normalize_by_batch": lambda: of_op(
        lambda x, scale, bias: ops.normalize_by_batch(x, scale=scale, bias=bias), (4,), (4,)
    ),
    "overlaps": lambda: of_op(lambda x: (x, ops.overlaps(_counts(x), empty=1.0))),
    **{
        f"pad, {boundary}": lambda boundary=boundary: of_op(
            lambda x: ops.pad(x, [(2, 1), -1], boundary=boundary, boundary_value=2.0 if boundary == "constant" else 0.0)
        )
        for boundary in ("zero", "constant", "replicate", "mirror", "symmetric", "periodic")
    },
    "precision_recall_f1": lambda: of_op(lambda x: ops.precision_recall_f1(_confusion(x)), image=FEATURES),
    "psnr": lambda: of_pair(ops.psnr, IMAGE, IMAGE),
    "rbf_output": lambda: of_op(ops.rbf_output, (3, 4), image=FEATURES),
    **{
        f"relu, {rule}": lambda rule=rule: of_op(lambda x: ops.relu(x, rule=rule))
        for rule in ("standard", "deconvnet", "guided")
    },
    "spectrogram": lambda: of_op(lambda x, w: ops.spectrogram(x, w, hop_length=2), (4,), image=LINE),
    "ssim": lambda: of_pair(lambda x, y: ops.ssim(x, y, window="uniform"), (8, 7, 2), (8, 7, 2)),
    "stft": lambda: of_op(lambda x, w: ops.stft(x, w, hop_length=2), (5,), image=LINE),
    "rgb_to_lab": lambda: of_op(lambda x: ops.rgb_to_lab(x[..., :3])),
    "scaled_tanh": lambda: of_op(ops.scaled_tanh),
    "separable_conv": lambda: of_op(ops.separable_conv, (3, 3, 4, 2), (8, 5)),
    "sigmoid_cross_entropy": lambda: of_pair(
        lambda x, labels: ops.sigmoid_cross_entropy(x, labels > 0, label_smoothing=0.1, pos_weight=(1, 2, 3, 4)),
        FEATURES,
        FEATURES,
    ),
    "sigmoid_focal_loss": lambda: of_pair(
        lambda x, labels: ops.sigmoid_focal_loss(x, jax.nn.sigmoid(labels)), FEATURES, FEATURES
    ),
    "soft_dice_loss": lambda: of_op(
        lambda x: ops.soft_dice_loss(x, jnp.ones(x.shape[:-1], jnp.int32), class_weights=(1, 2, 3, 4))
    ),
    "softmax_cross_entropy": lambda: of_op(
        lambda x: ops.softmax_cross_entropy(x, _labels(x), label_smoothing=0.1, class_weights=(1, 2, 3, 4)),
        image=FEATURES,
    ),
    "softmax_cross_entropy of distributions": lambda: of_pair(
        lambda x, labels: ops.softmax_cross_entropy(x, jax.nn.softmax(labels)), FEATURES, FEATURES
    ),
    "softmax_focal_loss": lambda: of_op(lambda x: ops.softmax_focal_loss(x, _labels(x)), image=FEATURES),
    "spatial_dropout": lambda: of_op(lambda x: ops.spatial_dropout(x, 0.5, key=KEY)),
    "squared_error": lambda: of_op(lambda x: ops.squared_error(x, _labels(x)), image=FEATURES),
    "toeplitz_matrix": lambda: of_op(
        lambda x, k: x.reshape(x.shape[0], 120) @ ops.toeplitz_matrix(k, (6, 5), feature_group_count=2).T,
        (3, 3, 2, 4),
    ),
    **{
        f"upsample, {method}": lambda method=method: of_op(lambda x: ops.upsample(x, (2, 3), method=method))
        for method in ("nearest", "bilinear", "bed_of_nails")
    },
    "upsample of an int": lambda: of_op(
        lambda x: ops.upsample(x, 2, method="bilinear", align_corners=True), image=LINE
    ),
    "filters.apply": lambda: of_op(lambda x, k: filters.apply(x, k, flip_kernel=True), (3, 3)),
    "filters.energy": lambda: of_op(lambda x: filters.energy(x, 4), image=(6, 5, 1)),
    "filters.canny": lambda: of_op(lambda x: (x, filters.canny(x))),
    "filters.hog": lambda: of_op(lambda x: filters.hog(x, pixels_per_cell=2, convention="paper"), image=(6, 5, 1)),
}
# Other kernels of image processing, which have no input arrays.
FILTERS: dict[str, Callable[[], jax.Array]] = {
    **filters.KERNELS,
    "grating": lambda: filters.grating((5, 6), 4),
    "laplacian_of_gaussian_section": lambda: filters.laplacian_of_gaussian_section(1.0),
}
MASK = np.arange(24).reshape(4, 6) % 3 > 0
LAYERS: dict[str, Callable[[], Program]] = {
    "AdaptiveAvgPool": lambda: of_layer(lambda rngs: nn.AdaptiveAvgPool(3)),
    "AdaptiveMaxPool": lambda: of_layer(lambda rngs: nn.AdaptiveMaxPool((3, 2))),
    "Add": lambda: of_layer(lambda rngs: nn.SkipSequence({"half": _half, "add": nn.Add()}, {"add": "input"})),
    "Auxiliary": lambda: of_layer(
        lambda rngs: nn.Auxiliary({"pool": ops.global_avg_pool, "logits": nn.Linear(4, 3, rngs=rngs)}),
        train=True,
        return_activations=True,
    ),
    "AvgPool": lambda: of_layer(lambda rngs: nn.AvgPool(2, padding=1)),
    "BatchNorm": lambda: of_layer(lambda rngs: nn.BatchNorm(4, rngs=rngs)),
    "BatchNorm in training": lambda: of_layer(lambda rngs: nn.BatchNorm(4, rngs=rngs), train=True),
    "Concatenate": lambda: of_layer(
        lambda rngs: nn.SkipSequence(
            {"conv": nn.Conv(4, 2, (3, 3), padding="VALID", rngs=rngs), "both": nn.Concatenate()}, {"both": "input"}
        )
    ),
    "Conv": lambda: of_layer(lambda rngs: nn.Conv(4, 6, (3, 3), mask=MASK, rngs=rngs)),
    "Conv, numeric mask": lambda: of_layer(lambda rngs: nn.Conv(4, 6, (3, 3), mask=MASK.astype(np.int32), rngs=rngs)),
    "Conv, circular": lambda: of_layer(lambda rngs: nn.Conv(4, 6, 3, padding="CIRCULAR", rngs=rngs), image=LINE),
    "Conv, sums wider": lambda: of_layer(
        lambda rngs: nn.Conv(4, 6, (3, 3), preferred_element_type=jnp.float32, rngs=rngs)
    ),
    "ConvLocal": lambda: of_layer(lambda rngs: nn.ConvLocal(4, 6, (3, 3), input_size=(6, 5), rngs=rngs)),
    "ConvMaxOverTime": lambda: of_layer(lambda rngs: nn.ConvMaxOverTime(4, 6, 3, rngs=rngs), image=LINE),
    "ConvTranspose": lambda: of_layer(lambda rngs: nn.ConvTranspose(4, 6, (3, 3), strides=2, rngs=rngs)),
    "ConvTranspose, circular": lambda: of_layer(
        lambda rngs: nn.ConvTranspose(4, 6, (3, 3), strides=2, padding="CIRCULAR", mask=MASK, rngs=rngs)
    ),
    "CutTo": lambda: of_layer(
        lambda rngs: nn.SkipSequence({"pad": nn.Upsample(2), "cut": nn.CutTo(1)}, {"cut": "input"})
    ),
    "Dropout": lambda: of_layer(lambda rngs: nn.Dropout(0.5), train=True, rngs=KEY),
    "Embed": lambda: of_layer(lambda rngs: nn.Embed(8, 3, rngs=rngs), image=(9,)),
    "Flatten": lambda: of_layer(lambda rngs: nn.Flatten(IMAGE)),
    "GaussianNoise": lambda: of_layer(lambda rngs: nn.GaussianNoise(0.5), train=True, rngs=KEY),
    "InstanceNorm": lambda: of_layer(lambda rngs: nn.InstanceNorm()),
    "Linear": lambda: of_layer(lambda rngs: nn.Linear(4, 3, rngs=rngs)),
    "LocalResponseNorm": lambda: of_layer(lambda rngs: nn.LocalResponseNorm()),
    "LpPool": lambda: of_layer(lambda rngs: nn.LpPool(2, p=4)),
    "MaxPool": lambda: of_layer(lambda rngs: nn.MaxPool(2, strides=1, dilation=2)),
    "MaxUnpool": lambda: of_layer(lambda rngs: _PoolAndBack()),
    "Spectrogram": lambda: of_layer(lambda rngs: nn.Spectrogram(4, 2, num_mels=2, sample_rate=8), image=LINE),
    "Parallel": lambda: of_layer(
        lambda rngs: nn.Parallel({"a": nn.Conv(4, 2, (1, 1), rngs=rngs), "b": nn.Conv(4, 3, (3, 3), rngs=rngs)})
    ),
    "RBFOutput": lambda: of_layer(lambda rngs: nn.RBFOutput(np.ones((3, 4), np.float32)), image=FEATURES),
    "Residual": lambda: of_layer(lambda rngs: nn.Residual({"conv": nn.Conv(4, 4, (3, 3), rngs=rngs)})),
    "Scale": lambda: of_layer(lambda rngs: nn.Scale(0.5)),
    "SeparableConv": lambda: of_layer(lambda rngs: nn.SeparableConv(4, 6, (3, 3), rngs=rngs)),
    "Sequence": lambda: of_layer(
        lambda rngs: nn.Sequence({"conv": nn.Conv(4, 6, (3, 3), rngs=rngs), "flatten": nn.flatten}),
        return_activations=True,
    ),
    "SkipSequence": lambda: of_layer(
        lambda rngs: nn.SkipSequence(
            {"pool": nn.MaxPool((2, 2), return_indices=True), "unpool": nn.MaxUnpool(strides=2)}, {"unpool": "pool"}
        ),
        return_activations=True,
    ),
    "Subsampling": lambda: of_layer(lambda rngs: nn.Subsampling(4, (2, 2), rngs=rngs)),
    "TableConv": lambda: of_layer(
        lambda rngs: nn.TableConv(4, [(0, 1), (1, 2, 3)], (3, 3), padding="VALID", bias_space=(4, 3), rngs=rngs)
    ),
    "Upsample": lambda: of_layer(lambda rngs: nn.Upsample(2, method="bilinear")),
    "flatten": lambda: of_op(nn.flatten),
}
PROGRAMS = {**OPS, **LAYERS}


def _half(x: jax.Array) -> jax.Array:
    return x / 2


class _PoolAndBack(nnx.Module):
    def __init__(self) -> None:
        self.pool, self.unpool = nn.MaxPool((2, 2), return_indices=True), nn.MaxUnpool((6, 5))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.unpool(*self.pool(x))


def outputs_and_gradients(program: Program) -> Callable[..., Any]:
    """A function of inputs and weights that returns the outputs and the gradients of the sum of their squares."""

    def loss(inputs: list[jax.Array], weights: Any) -> tuple[jax.Array, Any]:
        outputs = program.function(inputs, weights)
        return sum(jnp.square(y.astype(jnp.float32)).sum() for y in floating(outputs)), outputs

    def run(inputs: list[jax.Array], weights: Any) -> tuple[Any, Any]:
        gradients, outputs = jax.grad(loss, (0, 1), has_aux=True)(inputs, weights)
        return outputs, gradients

    return run


def floating(tree: Any) -> Iterator[jax.Array]:
    """The floating-point leaves."""
    return (leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating))
