"""LeNets: the network of 1989, LeNet-1, LeNet-5 as published, and LeNet-5 as it is taught today.

- LeCun, Boser, Denker, Henderson, Howard, Hubbard & Jackel, "Backpropagation applied to handwritten zip code
  recognition", Neural Computation 1(4), 1989: ``lenet_1989``.
- The same, "Handwritten digit recognition with a back-propagation network", NIPS 2, 1989: ``lenet_1``.
- LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998:
  ``lenet_5`` and, simplified, ``lenet_5_modern``.

The published ones are trained with squared errors against targets of -1 and +1 (1989), or with the distances to codes
(1998); the largest output is the class in all of them, so that any classification loss can train them.
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

# What each map of a layer sees of the layer below. The paper of 1989 says of its H2 only that each map sees 8 of 12;
# these are three sets of four maps, such that every map below is seen equally often.
H2_OF_1989 = [(0, 1, 2, 3, 4, 5, 6, 7)] * 4 + [(4, 5, 6, 7, 8, 9, 10, 11)] * 4 + [(0, 1, 2, 3, 8, 9, 10, 11)] * 4
H3_OF_LENET_1 = [(0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1), (2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3)]
C3_OF_LENET_5 = [
    *[(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)],
    *[(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)],
    *[(0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)],
]

# The codes of the digits 0 to 9 in LeNet-5's output layer: pictures of 12 rows and 7 columns.
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
    """The first: two strided convolutions without pooling, a bias for every unit; 9,760 parameters, 64,660 connections.

    Images are 16x16 in the range -1 to 1, and go on beyond their edges as background, -1. So do the maps of H1.
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
    features = _squashed(
        {
            "h1": strided(input_shape[-1], [range(input_shape[-1])] * h1, bias_space=half),
            "h2": strided(h1, resampled(H2_OF_1989, 12, h1, h2), bias_space=quarter),
        }
    )
    shape = geometry.output_shape(features, input_shape)
    classifier = {"h3": linear(math.prod(shape), h3), "output": linear(h3, num_classes)}
    return nn.Sequence(features | {"flatten": nn.Flatten(shape)} | _squashed(classifier))


def lenet_1(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """The first with subsampling: 2,578 parameters, 98,442 connections; images are 28x28."""
    h1, h3 = (scaled(channels, width) for channels in (4, 12))
    conv, partial_conv, subsampling, linear = _layers_of_1989(dtype, rngs)
    features = _squashed(
        {
            "h1": conv(input_shape[-1], h1),
            "h2": subsampling(h1),
            "h3": partial_conv(h1, resampled(H3_OF_LENET_1, 4, h1, h3)),
            "h4": subsampling(h3),
        }
    )
    shape = geometry.output_shape(features, input_shape)
    output = linear(math.prod(shape), num_classes)
    return nn.Sequence(features | {"flatten": nn.Flatten(shape)} | _squashed({"output": output}))


def lenet_5(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """LeNet-5 as published: 60,000 parameters, 340,908 connections; images are 32x32, background -0.1, ink 1.175.

    The layer ``output`` is the distance of F6 to the fixed code of each class, and ``log_likelihood`` its negative, of
    which the largest is the class; the softmax cross-entropy of that is the paper's criterion without its constant
    (its equation 9 with j to infinity). The codes are pictures of the digits for ten classes, and random otherwise, so
    F6 has 84 units at any width, and distances to the codes are float32 whatever layers compute in.
    """
    c1, c3, c5 = (scaled(channels, width) for channels in (6, 16, 120))
    conv, partial_conv, subsampling, linear = _layers_of_1989(dtype, rngs)
    features = _squashed(
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
        | _squashed({"f6": linear(math.prod(shape), CODE_LENGTH)})
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
    """LeNet-5 with full connections, plain tanh and averages, and a linear output for the softmax: 61,706 parameters.

    Options:
      dropout_rate: the probability of dropping a unit of F6; without it, 0, there is no such layer.

    Initialised with LeCun's later rule, a standard deviation of one over the root of the fan-in, which keeps tanh out
    of saturation (LeCun, Bottou, Orr & Müller, "Efficient BackProp", 1998).
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
    """The centres of LeNet-5's output, (num_classes, 84), each -1 or +1: pictures of the ten digits, or random ones.

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
    """A published table of connections between layers of other numbers of maps, by the nearest published map.

    Args:
      table: for every map of the upper layer, the maps of the lower one that it sees.
      published: the number of maps of the lower layer.
      in_features: the number that there is.
      out_features: of the upper layer. A map that would be left with none to see sees them all.

    >>> resampled([(0, 1), (1, 2), (0, 2), (0, 1, 2)], 3, 6, 2)
    [(0, 1, 2, 3), (0, 1, 4, 5)]
    """
    seen = [{*table[out * len(table) // out_features]} for out in range(out_features)]
    maps = range(in_features)
    return [tuple(map for map in maps if map * published // in_features in inputs) or tuple(maps) for inputs in seen]


def _layers_of_1989(dtype: DTypeLike | None, rngs: nnx.Rngs) -> tuple[Callable[..., Any], ...]:
    """What lenet_1 and lenet_5 are made of: convolution, the same with a table, subsampling, full connections."""
    drawn: dict[str, Any] = {"kernel_init": lecun_1989, "dtype": dtype, "rngs": rngs}
    return (
        partial(nn.Conv, kernel_size=(5, 5), padding="VALID", **drawn),
        partial(nn.TableConv, kernel_size=(5, 5), padding="VALID", **drawn),
        partial(nn.Subsampling, window_shape=(2, 2), coefficient_init=uniform(2.4 / 4), dtype=dtype, rngs=rngs),
        partial(nn.Linear, **drawn),
    )


def _squashed(layers: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The layers, and LeCun's tanh after each."""
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
