"""Inception-ResNet-v1: residual blocks whose branches are inception blocks.

Szegedy, Ioffe, Vanhoucke & Alemi, "Inception-v4, Inception-ResNet and the impact of residual connections on learning",
AAAI 2017: figures 10 to 15, and table 1 for the first reduction.

Layers: ``stem``, ``a_0`` to ``a_4``, ``reduction_a``, ``b_0`` to ``b_9``, ``reduction_b``, ``c_0`` to ``c_4``,
``avgpool``, ``dropout``, ``fc``. The layers ``a``, ``b`` and ``c`` are the paper's Inception-ResNet-A, -B and -C, and
the reductions its Reduction-A and -B. The activations of a block are called ``a_0/branch/mixed/1x1/conv``, ...,
``a_0/branch/mixed/concatenate``, ``a_0/branch/linear``, ``a_0/branch/scale`` and ``a_0/add``. The ReLU after the block
is ``a_0_relu``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import variance_scaling
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.models.conv_unit import conv_unit
from cnn_jax.models.variant import Variant, scaled

Layers = dict[str, Callable[..., Any]]
Chain = Sequence[tuple[int, int | tuple[int, int]]]  # channels and window size of consecutive convolutions

# For each kind of block: the number of blocks, the factor that scales the branch, and the branch.
_BLOCKS: dict[str, tuple[int, float, tuple[Chain, ...]]] = {
    "a": (5, 0.17, ([(32, 1)], [(32, 1), (32, 3)], [(32, 1), (32, 3), (32, 3)])),
    "b": (10, 0.10, ([(128, 1)], [(128, 1), (128, (1, 7)), (128, (7, 1))])),
    "c": (5, 0.20, ([(192, 1)], [(192, 1), (192, (1, 3)), (192, (3, 1))])),
}
_REDUCTIONS: dict[str, tuple[Chain, ...]] = {
    "a": ([(384, 3)], [(192, 1), (192, 3), (256, 3)]),
    "b": ([(256, 1), (384, 3)], [(256, 1), (256, 3)], [(256, 1), (256, 3), (256, 3)]),
}


def inception_resnet_v1(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
) -> nn.Sequence:
    """Inception-ResNet-v1, for 299x299 images.

    Details that the paper does not specify follow the authors' TensorFlow code. The residuals are scaled by 0.17, 0.10
    and 0.20 (the paper says "between 0.1 and 0.3"). The convolution before the sum has a bias and no normalisation.
    Kernels are drawn from a truncated normal distribution of variance 2 / fan-in.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies all numbers of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """
    init = variance_scaling(2.0, "fan_in", "truncated_normal")
    unit = partial(conv_unit, kernel_init=init, dtype=dtype, rngs=rngs)
    linear = partial(nn.Conv, kernel_size=(1, 1), kernel_init=init, dtype=dtype, rngs=rngs)
    numbers = [scaled(number, width) for number in (32, 32, 64, 80, 192, 256)]
    channels = numbers[-1]
    layers: Layers = {"stem": _stem(input_shape[-1], numbers, unit=unit)}
    for kind, (count, factor, chains) in _BLOCKS.items():
        for index in range(count):
            mixed = {_chain_name(chain): _chain(channels, chain, width, unit=unit) for chain in chains}
            joint = sum(scaled(chain[-1][0], width) for chain in chains)
            branch = {"mixed": nn.Parallel(mixed), "linear": linear(joint, channels), "scale": nn.Scale(factor)}
            layers |= {f"{kind}_{index}": nn.Residual(branch), f"{kind}_{index}_relu": ops.relu}
        if kind in _REDUCTIONS:
            chains = _REDUCTIONS[kind]
            reduction: Layers = {
                f"{number}": _chain(channels, chain, width, halve=True, unit=unit)
                for number, chain in enumerate(chains)
            }
            layers[f"reduction_{kind}"] = nn.Parallel({"pool": nn.MaxPool((3, 3), strides=2), **reduction})
            channels += sum(scaled(chain[-1][0], width) for chain in chains)
    fc = nn.Linear(channels, num_classes, kernel_init=variance_scaling(1.0, "fan_in", "normal"), dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "avgpool": ops.global_avg_pool, "dropout": nn.Dropout(0.2), "fc": fc})


def _stem(channels: int, numbers: Sequence[int], *, unit: Callable[..., nn.Sequence]) -> nn.Sequence:
    """The stem of figure 14, which reduces 299x299 inputs to 35x35."""
    ins = [channels, *numbers]
    return nn.Sequence(
        {
            "conv1": unit(ins[0], ins[1], 3, strides=2, padding="VALID"),
            "conv2": unit(ins[1], ins[2], 3, padding="VALID"),
            "conv3": unit(ins[2], ins[3], 3),
            "pool": nn.MaxPool((3, 3), strides=2),
            "conv4": unit(ins[3], ins[4], 1),
            "conv5": unit(ins[4], ins[5], 3, padding="VALID"),
            "conv6": unit(ins[5], ins[6], 3, strides=2, padding="VALID"),
        }
    )


def _chain_name(chain: Chain) -> str:
    """The name of a branch: the window sizes of its convolutions after the first, or of its only one."""
    _, *rest = chain
    return "_".join(
        "x".join(map(str, size)) if isinstance(size, tuple) else f"{size}x{size}" for _, size in rest or chain
    )


def _chain(
    channels: int, chain: Chain, width: float, *, halve: bool = False, unit: Callable[..., nn.Sequence]
) -> nn.Sequence:
    """Consecutive convolutions ``conv1``, ``conv2``, ...; with ``halve`` the last one has stride 2."""
    layers: Layers = {}
    for place, (number, size) in enumerate(chain, start=1):
        features = scaled(number, width)
        last = {"strides": 2, "padding": "VALID"} if halve and place == len(chain) else {}
        layers[f"conv{place}"] = unit(channels, features, size, **last)
        channels = features
    return nn.Sequence(layers)


VARIANTS = {"inception_resnet_v1": Variant(inception_resnet_v1, (299, 299, 3), 1000)}
