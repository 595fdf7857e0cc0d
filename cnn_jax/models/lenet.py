"""The LeNet family: the network of 1989, LeNet-1, LeNet-5 as published, and LeNet-5 as it is taught today.

- LeCun, Boser, Denker, Henderson, Howard, Hubbard & Jackel, "Backpropagation applied to handwritten zip code
  recognition", Neural Computation 1(4), 1989: ``lenet_1989``.
- The same authors, "Handwritten digit recognition with a back-propagation network", NIPS 2, 1989: ``lenet_1``.
- LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998:
  ``lenet_5`` and, simplified, ``lenet_5_modern``.

The published networks are trained with squared errors against targets of -1 and +1 (1989), or with the distances to
class codes (1998). In all of them the largest output is the predicted class, so any classification loss can be used.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn, ops
from cnn_jax.models.initializers import lecun_1989, uniform
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import Number, may_differ_from_zero

# For each feature map, the indices of the input feature maps that it is connected to. The paper of 1989 only says that
# each map of H2 is connected to 8 of 12 maps. These are three sets of four maps each, so that all inputs are used
# equally often.
H2_OF_1989 = [(0, 1, 2, 3, 4, 5, 6, 7)] * 4 + [(4, 5, 6, 7, 8, 9, 10, 11)] * 4 + [(0, 1, 2, 3, 8, 9, 10, 11)] * 4
H3_OF_LENET_1 = [(0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1), (2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3)]
C3_OF_LENET_5 = [
    *[(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)],
    *[(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)],
    *[(0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)],
]

# The codes of the digits 0 to 9 in LeNet-5's output layer: bitmaps of 12 rows and 7 columns.
DIGITS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... #####.. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""
CODE_LENGTH = 12 * 7


def lenet_1989(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """The network of 1989: two strided convolutions without pooling, and a bias for every unit.

    It has 9,760 parameters and 64,660 connections. Images are 16x16 with values between -1 and 1. The input and the
    feature maps of H1 are padded with the background value, -1.
    """
    h1, h2, h3 = (scaled(channels, width) for channels in (12, 12, 30))
    strided = partial(
        nn.TableConv,
        kernel_size=(5, 5),
        strides=2,
        padding=((2, 1), (2, 1)),
        boundary="constant",
        boundary_value=-1.0,
        dtype=dtype,
        kernel_init=lecun_1989,
        rngs=rngs,
    )
    *_, linear = _layers_of_1989(dtype, rngs)
    half = tuple(size // 2 for size in input_shape[:-1])
    quarter = tuple(size // 2 for size in half)
    features = _with_tanh(
        {
            "h1": strided(input_shape[-1], [range(input_shape[-1])] * h1, bias_space=half),
            "h2": strided(h1, resampled(H2_OF_1989, 12, h1, h2), bias_space=quarter),
        }
    )
    shape = geometry.output_shape(features, input_shape)
    classifier = {"h3": linear(math.prod(shape), h3), "output": linear(h3, num_classes)}
    return nn.Sequence(features | {"flatten": nn.Flatten(shape)} | _with_tanh(classifier))


def lenet_1(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """LeNet-1, the first network with subsampling, for 28x28 images: 2,578 parameters, 98,442 connections."""
    h1, h3 = (scaled(channels, width) for channels in (4, 12))
    conv, partial_conv, subsampling, linear = _layers_of_1989(dtype, rngs)
    features = _with_tanh(
        {
            "h1": conv(input_shape[-1], h1),
            "h2": subsampling(h1),
            "h3": partial_conv(h1, resampled(H3_OF_LENET_1, 4, h1, h3)),
            "h4": subsampling(h3),
        }
    )
    shape = geometry.output_shape(features, input_shape)
    output = linear(math.prod(shape), num_classes)
    return nn.Sequence(features | {"flatten": nn.Flatten(shape)} | _with_tanh({"output": output}))


def lenet_5(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """LeNet-5 as published, for 32x32 images: 60,000 parameters, 340,908 connections.

    Images have the value -0.1 for background and 1.175 for ink. The layer ``output`` is the squared distance of F6 to
    the fixed code of each class. ``log_likelihood`` is its negative; the largest is the predicted class. Softmax
    cross-entropy of these values is the paper's criterion without the constant (equation 9 with j to infinity). For ten
    classes the codes are bitmaps of the digits; otherwise they are random. F6 has 84 units at any width, because the
    codes have 84 values. Distances are computed in float32 for any ``dtype``.
    """
    c1, c3, c5 = (scaled(channels, width) for channels in (6, 16, 120))
    conv, partial_conv, subsampling, linear = _layers_of_1989(dtype, rngs)
    features = _with_tanh(
        {
            "c1": conv(input_shape[-1], c1),
            "s2": subsampling(c1),
            "c3": partial_conv(c1, resampled(C3_OF_LENET_5, 6, c1, c3)),
            "s4": subsampling(c3),
            "c5": conv(c3, c5),
        }
    )
    shape = geometry.output_shape(features, input_shape)
    return nn.Sequence(
        features
        | {"flatten": nn.Flatten(shape)}
        | _with_tanh({"f6": linear(math.prod(shape), CODE_LENGTH)})
        | {"output": nn.RBFOutput(class_codes(num_classes, rngs)), "log_likelihood": jnp.negative}
    )


def lenet_5_modern(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    dropout_rate: Number = 0.0,
) -> nn.Sequence:
    """LeNet-5 with all channels connected, plain tanh, average pools and a linear output: 61,706 parameters.

    Kernels are initialised with LeCun's later rule, a standard deviation of 1 / sqrt(fan-in), which keeps tanh out of
    saturation (LeCun, Bottou, Orr & Müller, "Efficient BackProp", 1998).

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies the number of channels and hidden units.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      dropout_rate: The probability of dropping a unit of F6. With the default 0 the network has no dropout layer.
    """
    conv = partial(nn.Conv, kernel_size=(5, 5), padding="VALID", dtype=dtype, rngs=rngs)
    linear = partial(nn.Linear, dtype=dtype, rngs=rngs)
    c1, c3, c5, f6 = (scaled(channels, width) for channels in (6, 16, 120, 84))
    features: dict[str, Callable[..., Any]] = {
        "c1": conv(input_shape[-1], c1),
        "c1_tanh": jnp.tanh,
        "s2": nn.AvgPool((2, 2), strides=(2, 2)),
        "c3": conv(c1, c3),
        "c3_tanh": jnp.tanh,
        "s4": nn.AvgPool((2, 2), strides=(2, 2)),
    }
    shape = geometry.output_shape(features, input_shape)
    return nn.Sequence(
        {
            **features,
            "flatten": nn.Flatten(shape),
            "c5": linear(math.prod(shape), c5),
            "c5_tanh": jnp.tanh,
            "f6": linear(c5, f6),
            "f6_tanh": jnp.tanh,
            **({"f6_dropout": nn.Dropout(dropout_rate)} if may_differ_from_zero(dropout_rate) else {}),
            "output": linear(f6, num_classes),
        }
    )


def class_codes(num_classes: int, rngs: nnx.Rngs) -> jax.Array:
    """The class codes of LeNet-5's output layer, of shape (num_classes, 84), with values -1 and +1.

    For ten classes they are bitmaps of the digits; for any other number they are random.

    >>> class_codes(10, nnx.Rngs(0))[7].reshape(12, 7)[0]
    Array([1., 1., 1., 1., 1., 1., 1.], dtype=float32)
    """
    if num_classes != 10:
        return jax.random.rademacher(rngs.params(), (num_classes, CODE_LENGTH), jnp.float32)
    rows = np.array([list(row) for row in DIGITS.split()]).reshape(12, 10, 7)
    return jnp.where(rows.swapaxes(0, 1).reshape(10, CODE_LENGTH) == "#", 1.0, jnp.float32(-1.0))


def resampled(
    table: Sequence[Sequence[int]], published: int, in_features: int, out_features: int
) -> list[tuple[int, ...]]:
    """Adapts a published connection table to other numbers of feature maps, by the nearest published map.

    Args:
      table: For each output map, the input maps that it is connected to.
      published: The number of input maps that the table is for.
      in_features: The actual number of input maps.
      out_features: The actual number of output maps. An output map that would have no inputs is connected to all.

    >>> resampled([(0, 1), (1, 2), (0, 2), (0, 1, 2)], 3, 6, 2)
    [(0, 1, 2, 3), (0, 1, 4, 5)]
    """
    seen = [{*table[out * len(table) // out_features]} for out in range(out_features)]
    maps = range(in_features)
    return [tuple(map for map in maps if map * published // in_features in inputs) or tuple(maps) for inputs in seen]


def _layers_of_1989(dtype: DTypeLike | None, rngs: nnx.Rngs) -> tuple[Callable[..., Any], ...]:
    """The layers of lenet_1 and lenet_5: convolution, convolution with a connection table, subsampling, linear."""
    drawn: dict[str, Any] = {"kernel_init": lecun_1989, "dtype": dtype, "rngs": rngs}
    return (
        partial(nn.Conv, kernel_size=(5, 5), padding="VALID", **drawn),
        partial(nn.TableConv, kernel_size=(5, 5), padding="VALID", **drawn),
        partial(nn.Subsampling, window_shape=(2, 2), coefficient_init=uniform(2.4 / 4), dtype=dtype, rngs=rngs),
        partial(nn.Linear, **drawn),
    )


def _with_tanh(layers: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The layers, each followed by LeCun's scaled tanh."""
    return {
        key: value
        for name, layer in layers.items()
        for key, value in ((name, layer), (f"{name}_tanh", ops.scaled_tanh))
    }


VARIANTS = {
    "lenet_1989": Variant(lenet_1989, (16, 16, 1), 10),
    "lenet_1": Variant(lenet_1, (28, 28, 1), 10),
    "lenet_5": Variant(lenet_5, (32, 32, 1), 10),
    "lenet_5_modern": Variant(lenet_5_modern, (32, 32, 1), 10),
}
