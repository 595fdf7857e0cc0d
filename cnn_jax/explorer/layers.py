"""One layer as a record: the kind of computation, its numbers and its arrays, which ``kernels.js`` computes.

Several layers share a kind. A trained subsampling is a depthwise convolution, and averages, adaptive averages and
enlargements are all weighted sums along the rows and then the columns of a map.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.geometry.windows import numbered_padding
from cnn_jax.models.airbench import gelu
from cnn_jax.models.autoencoder import unflatten
from cnn_jax.models.fcn import AddScores
from cnn_jax.models.resnet import PaddedIdentity
from cnn_jax.nn.skips import Meeting
from cnn_jax.ops.adaptive_pool import windows as adaptive_windows
from cnn_jax.ops.arguments import one_or_several, per_axis
from cnn_jax.ops.normalization import neighbourhood
from cnn_jax.ops.padding import dilated, slide
from cnn_jax.ops.taps import Axis
from cnn_jax.ops.unpool import interpolation

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """What one layer computes.

    Attributes:
      kind: The name of the function in ``kernels.js``.
      about: What it is, in a few words.
      options: Numbers and names, as JSON values.
      arrays: The parameters, by the names that the function knows.
    """

    kind: str
    about: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


FUNCTIONS: Mapping[Callable[..., Any], str] = {
    ops.relu: "relu",
    jax.nn.relu: "relu",
    jax.nn.relu6: "relu6",
    jnp.tanh: "tanh",
    jax.nn.tanh: "tanh",
    ops.scaled_tanh: "scaled_tanh",
    jax.nn.sigmoid: "sigmoid",
    gelu: "gelu",
    jax.nn.silu: "silu",
    jax.nn.softplus: "softplus",
    jax.nn.elu: "elu",
    jnp.negative: "negative",
    jnp.square: "square",
    jnp.abs: "absolute",
}
"""Elementwise function -> its name in ``kernels.js``."""

_ABOUT = {
    "relu": "ReLU, max(x, 0)",
    "relu6": "ReLU6, min(max(x, 0), 6)",
    "scaled_tanh": "scaled tanh, 1.7159 tanh(2x/3)",
    "gelu": "exact GELU",
    "negative": "the negative of each value",
}


def record(layer: Any, shape: Shape) -> Record | None:
    """What a layer computes on one input; None for a layer that the page cannot compute.

    Args:
      layer: The layer or function.
      shape: Of one input, without the batch axis: (height, width, channels) or (features,).

    >>> record(nn.Scale(0.5), (10,)).options
    {'function': 'scale', 'factor': 0.5}
    >>> record(lambda x: x, (10,)) is None
    True
    """
    try:
        if layer in FUNCTIONS:
            name = FUNCTIONS[layer]
            return Record("elementwise", _ABOUT.get(name, name), {"function": name})
    except TypeError:  # an unhashable callable
        return None
    if layer is jax.nn.softmax:
        return Record("softmax", "softmax, e^x / sum of e^x")
    if layer is nn.flatten:
        return _flatten(layer, shape)
    if layer in (ops.global_avg_pool, ops.global_max_pool) and len(shape) == 3:
        return _global_pool(layer, shape)
    return _of_module(layer, shape)


@functools.singledispatch
def _of_module(layer: Any, shape: Shape) -> Record | None:
    return None


@_of_module.register
def _conv(layer: nn.Conv, shape: Shape) -> Record | None:
    if layer.conv_general_dilated is not jax.lax.conv_general_dilated or len(shape) != 3:
        return None
    padding, boundary = layer._padding()
    kernel = np.asarray(layer.kernel[...])
    if layer.mask is not None:
        kernel = np.where(np.broadcast_to(layer.mask, kernel.shape), kernel * np.asarray(layer.mask), 0)
    if layer.flip_kernel:
        kernel = kernel[::-1, ::-1]
    return _convolution(
        layer,
        shape,
        kernel,
        layer.bias,
        padding=padding,
        boundary=boundary,
        kernel_dilation=layer.kernel_dilation,
        input_dilation=layer.input_dilation,
        groups=layer.feature_group_count,
    )


@_of_module.register
def _conv_local(layer: nn.ConvLocal, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    return _convolution(
        layer,
        shape,
        np.asarray(layer.kernel[...]),
        layer.bias,
        padding=layer.padding,
        boundary=layer.boundary,
        kernel_dilation=layer.kernel_dilation,
        input_dilation=layer.input_dilation,
        groups=layer.feature_group_count,
    )


@_of_module.register
def _conv_transpose(layer: nn.ConvTranspose, shape: Shape) -> Record | None:
    if len(shape) != 3 or layer.padding == "CIRCULAR":
        return None
    kernel = np.asarray(layer.kernel[...])
    if layer.mask is not None:
        kernel = np.where(np.broadcast_to(layer.mask, kernel.shape), kernel * np.asarray(layer.mask), 0)
    if layer.transpose_kernel:
        kernel = kernel[::-1, ::-1].swapaxes(-1, -2)
    return _convolution(
        layer,
        shape,
        kernel,
        layer.bias,
        strides=(1, 1),
        padding=layer.window.padding,
        kernel_dilation=layer.kernel_dilation,
        input_dilation=layer.strides,
        what="transposed convolution",
    )


@_of_module.register
def _table_conv(layer: nn.TableConv, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    weights = np.asarray(layer.kernel[...])
    kernel = np.zeros((*layer.kernel_size, layer.in_features, layer.out_features), np.float32)
    seen = np.concatenate([np.array(inputs) for inputs in layer.table])
    by = np.repeat(np.arange(layer.out_features), [len(inputs) for inputs in layer.table])
    kernel[..., seen, by] = weights
    return _convolution(
        layer,
        shape,
        kernel,
        layer.bias,
        padding=layer.padding,
        boundary=layer.boundary,
        what="convolution of some of the channels",
    )


@_of_module.register
def _subsampling(layer: nn.Subsampling, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    coefficient = np.asarray(layer.coefficient[...])
    kernel = np.broadcast_to(coefficient, (*layer.window_shape, 1, layer.features))
    return _convolution(
        layer,
        shape,
        kernel,
        layer.bias,
        padding="VALID",
        groups=layer.features,
        what="trained subsampling",
    )


@_of_module.register
def _padded_identity(layer: PaddedIdentity, shape: Shape) -> Record | None:
    kernel = np.eye(shape[-1], layer.features, dtype=np.float32)[None, None]
    return _convolution(layer, shape, kernel, None, padding="VALID", what="subsampling with zeros as new channels")


def _convolution(
    layer: Any,
    shape: Shape,
    kernel: np.ndarray,
    bias: Any,
    *,
    padding: Any,
    strides: Sequence[int] | None = None,
    boundary: str = "zero",
    kernel_dilation: Sequence[int] = (1, 1),
    input_dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    what: str = "convolution",
) -> Record:
    """Any convolution of a map; a kernel of six axes has another window for each position."""
    window = kernel.shape[-4:-2]
    strides = tuple(layer.strides if strides is None else strides)
    sliding = slide(
        what,
        shape[:2],
        window,
        strides=strides,
        padding=numbered_padding(padding, dilated(window, kernel_dilation)),
        dilation=tuple(kernel_dilation),
        input_dilation=tuple(input_dilation),
        rounding=getattr(layer, "rounding", "floor"),
    )
    axes = [
        {
            "size": size,
            "output": output,
            "window": span,
            "stride": stride,
            "low": low,
            "dilation": rate,
            "spread": spread,
            "boundary": boundary,
        }
        for size, output, span, stride, (low, _), rate, spread in zip(
            shape[:2],
            sliding.output,
            window,
            strides,
            sliding.padding,
            kernel_dilation,
            input_dilation,
            strict=True,
        )
    ]
    channels, features = kernel.shape[-2] * groups, kernel.shape[-1]
    words = [f"{window[0]}x{window[1]} {what}", f"{channels} to {features} channels"]
    words += [f"stride {_by(strides)}"] if max(strides) > 1 else []
    words += [f"dilation {_by(kernel_dilation)}"] if max(kernel_dilation) > 1 else []
    words += [f"input spread by {_by(input_dilation)}"] if max(input_dilation) > 1 else []
    words += [f"{groups} groups"] if groups > 1 else []
    padded = any(number > 0 for pair in sliding.padding for number in pair)
    words += [f"padding {_padding(sliding.padding)}"] if padded else []
    words += [f"boundary {boundary}"] if boundary != "zero" else []
    arrays = {"kernel": kernel} | ({} if bias is None else {"bias": np.asarray(bias[...])})
    options = {
        "rows": axes[0],
        "columns": axes[1],
        "groups": groups,
        "boundary_value": float(getattr(layer, "boundary_value", 0.0)) if boundary == "constant" else 0.0,
    }
    return Record("conv", ", ".join(words), options, arrays)


@_of_module.register
def _max_pool(layer: nn.MaxPool, shape: Shape) -> Record | None:
    found = None if layer.return_indices else max_pool(layer, shape)
    return found and found[0]


def max_pool(layer: nn.MaxPool, shape: Shape) -> tuple[Record, Shape] | None:
    """The maxima of a pool, which may also return their positions, and their shape."""
    if len(shape) != 3:
        return None
    axes = _pool_axes(layer, shape)
    options = {name: {"taps": _taps(axis)} for name, axis in axes.items()}
    record = Record("max", _pool_words("maximum", axes), options)
    return record, (len(options["rows"]["taps"]), len(options["columns"]["taps"]), shape[-1])


def unpooled(layer: nn.MaxUnpool, pool: Record | None, shape: Shape) -> tuple[Record, Shape] | None:
    """Values at the positions where a max pool found its maxima.

    Args:
      layer: The unpooling.
      pool: The record of the pool.
      shape: Of the map that was pooled.
    """
    if pool is None or pool.kind != "max":
        return None
    about = "each value where the pool found its maximum, and zeros"
    return Record("unpool", about, {**pool.options, "overlap": layer.overlap}), shape


def of_two_maps(layer: Any, skip: Shape, shape: Shape) -> tuple[Record, Shape] | None:
    """What a layer of a skip connection computes, and its shape; None for one that the page cannot compute.

    Args:
      layer: The layer.
      skip: The shape of the earlier map, of which a part is read.
      shape: That of the layer's input.
    """
    if len(shape) != 3 or len(skip) != 3:
        return None
    if isinstance(layer, nn.CutTo):
        output = (*skip[:2], shape[-1])
        return Record(
            "concatenate", _cut_words("the map", layer.offset), {"cuts": [_start(layer, shape, skip)]}
        ), output
    if not isinstance(layer, Meeting):
        return None
    start = _start(layer, skip, shape)
    cuts = {"cuts": [start, [0, 0]]} if any(start) else {}
    if isinstance(layer, nn.Concatenate):
        about = _cut_words("the channels of an earlier map, then those of the input", start[0])
        return Record("concatenate", about, cuts), (*shape[:2], skip[-1] + shape[-1])
    if isinstance(layer, nn.Add):
        return Record("add", _cut_words("the sum of an earlier map and the input", start[0]), cuts), shape
    if isinstance(layer, AddScores):
        score = layer.score
        ends = [size - first - part for size, first, part in zip(skip, start, shape[:2], strict=False)]
        padding = [(-first, -end) for first, end in zip(start, ends, strict=True)]
        what = "convolution of an earlier map, plus the input"
        return _convolution(score, skip, np.asarray(score.kernel[...]), score.bias, padding=padding, what=what), shape
    return None


def _start(layer: Any, before: Shape, after: Shape) -> list[int]:
    """Where the part of a map begins that is cut to the size of another."""
    return [(a - b) // 2 if layer.offset is None else layer.offset for a, b in zip(before[:2], after[:2], strict=True)]


def _cut_words(what: str, start: int) -> str:
    return f"{what}, cut from row {start}" if start else what


@_of_module.register
def _lp_pool(layer: nn.LpPool, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    axes = _pool_axes(layer, shape)
    options: dict[str, Any] = {name: {"taps": _taps(axis)} for name, axis in axes.items()}
    return Record("lp", _pool_words(f"{layer.p}-norm", axes), {**options, "p": float(layer.p)})


@_of_module.register
def _avg_pool(layer: nn.AvgPool, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    axes, options = _pool_axes(layer, shape), {}
    for name, axis in axes.items():
        counts = axis.inside(padded=layer.count_include_pad).sum(axis=1)
        options[name] = {
            "taps": _taps(axis),
            "weights": [[1 / int(count)] * axis.window for count in counts],
        }
    return Record("average", _pool_words("average", axes), options)


def _pool_axes(layer: Any, shape: Shape) -> dict[str, Axis]:
    """The windows of a pool along rows and columns. A negative padding is a tap that begins inside."""
    window, strides, dilation = (
        per_axis("pool", name, getattr(layer, name), 2) for name in ("window_shape", "strides", "dilation")
    )
    sliding = slide(
        "pool",
        shape[:2],
        window,
        strides=strides,
        padding=layer.padding,
        dilation=dilation,
        rounding=layer.rounding,
        noun="window",
    )
    return {
        name: Axis(index, size, span, stride, rate, low, high, output)
        for index, (name, size, span, stride, rate, (low, high), output) in enumerate(
            zip(
                ("rows", "columns"),
                shape[:2],
                window,
                strides,
                dilation,
                sliding.padding,
                sliding.output,
                strict=True,
            )
        )
    }


def _taps(axis: Axis) -> list[list[int]]:
    """The input positions of each window; -1 outside of the input."""
    return np.where(axis.inside(), axis.positions(), -1).tolist()


def _pool_words(what: str, axes: Mapping[str, Axis]) -> str:
    rows, columns = axes["rows"], axes["columns"]
    return f"{what} of {rows.window}x{columns.window}, stride {_by((rows.stride, columns.stride))}"


@_of_module.register
def _adaptive_avg_pool(layer: nn.AdaptiveAvgPool, shape: Shape) -> Record | None:
    return _adaptive("average", layer.output_size, shape)


@_of_module.register
def _adaptive_max_pool(layer: nn.AdaptiveMaxPool, shape: Shape) -> Record | None:
    return None if layer.return_indices else _adaptive("max", layer.output_size, shape)


def _global_pool(function: Any, shape: Shape) -> Record | None:
    found = _adaptive("average" if function is ops.global_avg_pool else "max", 1, shape)
    return found and dataclasses.replace(found, about=found.about.replace("1x1 windows", "the whole map"))


def _adaptive(kind: str, output_size: Any, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    options, sizes = {}, per_axis("pool", "output_size", output_size, 2)
    for name, size, output in zip(("rows", "columns"), shape[:2], sizes, strict=True):
        starts, stops = adaptive_windows(size, output)
        longest = int((stops - starts).max())
        places = [
            [*range(a, b), *[-1] * (longest - b + a)] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)
        ]
        weights = [[1 / (b - a)] * longest for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        options[name] = {"taps": places} | ({"weights": weights} if kind == "average" else {})
    word = {"average": "average", "max": "maximum"}[kind]
    return Record(kind, f"{word} of {sizes[0]}x{sizes[1]} windows", options)


@_of_module.register
def _upsample(layer: nn.Upsample, shape: Shape) -> Record | None:
    if len(shape) != 3:
        return None
    factors = per_axis("upsample", "scale", one_or_several("upsample", "scale", layer.scale), 2)
    matrices = []
    for size, factor in zip(shape[:2], factors, strict=True):
        index = np.arange(size * factor)
        if layer.method == "bilinear":
            matrices.append(interpolation(size, factor, layer.align_corners))
        else:
            nearest = index[:, None] // factor == np.arange(size)
            matrices.append(nearest * (1 if layer.method == "nearest" else (index % factor == 0)[:, None]))
    return Record("average", f"enlarged {_by(factors)} times, {layer.method}", matrix_options(*matrices))


def matrix_options(rows: np.ndarray, columns: np.ndarray) -> dict[str, Any]:
    """The options of the kind ``average`` for any linear maps along the rows and the columns, given as matrices.

    >>> matrix_options(np.array([[0.5, 0.5, 0.0]]), np.eye(1))["rows"]
    {'taps': [[0, 1]], 'weights': [[0.5, 0.5]]}
    """
    options = {}
    for name, matrix in (("rows", rows), ("columns", columns)):
        found = [np.flatnonzero(row) for row in matrix]
        longest = max(1, *(len(places) for places in found))
        options[name] = {
            "taps": [[*places.tolist(), *[-1] * (longest - len(places))] for places in found],
            "weights": [
                [*row[places].tolist(), *[0.0] * (longest - len(places))]
                for row, places in zip(matrix, found, strict=True)
            ],
        }
    return options


@_of_module.register
def _batch_norm(layer: nnx.BatchNorm, shape: Shape) -> Record | None:
    if layer.axis not in (-1, len(shape)):
        return None
    variance = np.asarray(layer.var[...], np.float64)
    factor = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale is not None:
        factor = factor * np.asarray(layer.scale[...])
    return normalization(
        np.asarray(layer.mean[...]),
        factor,
        None if layer.bias is None else np.asarray(layer.bias[...]),
        "batch normalisation with its running statistics",
    )


def normalization(mean: np.ndarray, factor: np.ndarray, bias: np.ndarray | None, about: str) -> Record:
    """``(x - mean) * factor + bias`` per channel."""
    arrays = {"mean": mean, "factor": factor} | ({} if bias is None else {"bias": bias})
    return Record("norm", about, {}, {name: np.asarray(array, np.float32) for name, array in arrays.items()})


@_of_module.register
def _local_response_norm(layer: nn.LocalResponseNorm, shape: Shape) -> Record | None:
    if not isinstance(layer.size, int) and (len(shape) != 3 or len(layer.size) != 2):
        return None
    sizes = (layer.size,) if isinstance(layer.size, int) else tuple(layer.size)
    weight = layer.alpha if layer.convention == "paper" else layer.alpha / math.prod(sizes)
    options = {
        "around": [list(pair) for pair in neighbourhood(sizes, layer.convention)],
        "alpha": float(weight),
        "beta": float(layer.beta),
        "k": float(layer.k),
    }
    across = f"{sizes[0]} channels" if len(sizes) == 1 else f"{_by(sizes)} positions"
    return Record("lrn", f"local response normalisation over {across}", options)


@_of_module.register
def _dropout(layer: nnx.Dropout, shape: Shape) -> Record | None:
    return Record("elementwise", "dropout, which does nothing in evaluation", {"function": "identity"})


@_of_module.register
def _noise(layer: nn.GaussianNoise, shape: Shape) -> Record | None:
    return Record("elementwise", "noise, which is added in training only", {"function": "identity"})


@_of_module.register(nn.Flatten)
def _flatten(layer: Any, shape: Shape) -> Record | None:
    return Record("flatten", "all values in a row: by rows, columns, channels")


@_of_module.register
def _partial(layer: functools.partial, shape: Shape) -> Record | None:
    return Record("flatten", "the values as rows, columns and channels") if layer.func is unflatten else None


@_of_module.register
def _linear(layer: nnx.Linear, shape: Shape) -> Record | None:
    kernel = np.asarray(layer.kernel[...])
    arrays = {"kernel": kernel} | ({} if layer.bias is None else {"bias": np.asarray(layer.bias[...])})
    return Record("linear", f"linear, {kernel.shape[0]:,} to {kernel.shape[1]:,} values", {}, arrays)


@_of_module.register
def _rbf(layer: nn.RBFOutput, shape: Shape) -> Record | None:
    about = "squared distances to the codes of the classes"
    return Record("rbf", about, {}, {"centers": np.asarray(layer.centers[...])})


@_of_module.register
def _scale(layer: nn.Scale, shape: Shape) -> Record | None:
    options = {"function": "scale", "factor": float(layer.factor)}
    return Record("elementwise", f"times {layer.factor:g}", options)


def refusal(name: str, layer: Any) -> UsageError:
    """The error for a layer that the page cannot compute."""
    what = getattr(layer, "__name__", type(layer).__name__)
    return UsageError(
        f"the explorer cannot compute layer {name!r} ({what}); it computes the layers of cnn_jax.nn for images, "
        "and the common activation functions"
    )


def _by(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))


def _padding(pairs: Sequence[tuple[int, int]]) -> str:
    numbers = {number for pair in pairs for number in pair}
    return str(numbers.pop()) if len(numbers) == 1 else ", ".join(f"{low}+{high}" for low, high in pairs)
