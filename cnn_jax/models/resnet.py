"""ResNets for ImageNet, with 18 to 152 layers, and for CIFAR, with 20 to 110 layers.

He, Zhang, Ren & Sun, "Deep residual learning for image recognition", CVPR 2016. Pre-activation is by the same authors,
"Identity mappings in deep residual networks", ECCV 2016.

Layers have torchvision's names. The first are ``conv1``, ``bn1``, ``relu`` and ``maxpool``, the last ``avgpool`` and
``fc``. Block ``b`` (from 0) of stage ``s`` (from 1) is ``layer{s}_{b}``. Its activations are
``layer1_0/branch/conv1``, ``layer1_0/branch/bn1``, ..., ``layer2_0/shortcut/conv``, ``layer2_0/shortcut/bn``, and the
sum ``layer1_0/add``. The ReLU after the sum is ``layer1_0_relu``. The paper's conv2_x to conv5_x are ``layer1`` to
``layer4``.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import ones, variance_scaling, zeros
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.initializers import torch_kernel
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import AnyArray, check_option

Layers = dict[str, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Depth:
    """One column of the paper's table of architectures.

    Attributes:
      blocks: The number of blocks in each stage. Each stage after the first halves the height and width and doubles the
        channels.
      bottleneck: Whether blocks have a 1x1, a 3x3 and a 1x1 convolution, the last with 4 times the channels, instead of
        two 3x3 convolutions.
      cifar: Whether the first stage has 16 channels at full resolution, instead of 64 at a quarter.
      small: Whether the first stage has 64 channels at full resolution, for small images and volumes.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = False
    cifar: bool = False
    small: bool = False


def resnet(
    depth: Depth,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    stride: str = "v1",
    shortcut: str = "projection",
    preactivation: bool = False,
    zero_init_residual: bool = False,
) -> nn.Sequence:
    """A residual network.

    Kernels of convolutions are drawn from normal distributions of variance 2 / fan-out, as in the authors' code (He et
    al., "Delving deep into rectifiers", 2015). The output layer is initialised like PyTorch's linear layers.

    Args:
      depth: The number of blocks in each stage and their kind.
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels), or of volumes (depth, height, width, channels).
      width: Multiplies all numbers of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      stride: The convolution of a bottleneck block that has stride 2: the first 1x1 convolution (``'v1'``, the paper),
        or the 3x3 convolution (``'v1.5'``, torchvision). Blocks of two 3x3 convolutions are the same in both.
      shortcut: The shortcut where the shape changes: ``'projection'``, a 1x1 convolution, or ``'identity'`` with zeros
        for the new channels. ``'B'`` and ``'A'`` are the paper's names for the two.
      preactivation: Whether normalisation and ReLU come before each convolution, so that shortcuts are identities.
      zero_init_residual: Whether the scale of each block's last normalisation starts at 0, so that each block starts as
        its shortcut (Goyal et al., "Accurate, large minibatch SGD", 2017).

    Raises:
      UsageError: An option is unknown, or ``zero_init_residual`` is combined with ``preactivation``, whose blocks end
        in a convolution.
    """
    check_option("resnet", "stride", stride, ("v1", "v1.5"))
    check_option("resnet", "shortcut", shortcut, ("projection", "identity", "A", "B"))
    if zero_init_residual and preactivation:
        raise UsageError(
            "resnet: zero_init_residual=True needs blocks that end in a normalisation, but with preactivation=True "
            "they end in a convolution; set only one of the two"
        )
    norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)
    rank = len(input_shape) - 1
    conv = partial(_conv, rank=rank, dtype=dtype, rngs=rngs)
    base = 16 if depth.cifar else 64
    channels = scaled(base, width)
    layers: Layers = {
        "conv1": conv(input_shape[-1], channels, *((3, 1) if depth.cifar or depth.small else (7, 2))),
        "bn1": norm(channels),
        "relu": ops.relu,
    }
    if not (depth.cifar or depth.small):
        layers["maxpool"] = nn.MaxPool((3,) * rank, strides=2, padding=1)
    for stage, count in enumerate(depth.blocks):
        for index in range(count):
            step = 2 if stage and not index else 1
            middle = scaled(base * 2**stage, width)
            if depth.bottleneck:
                windows = _bottleneck(channels, middle, 4 * middle, step, stride)
            else:
                windows = [BlockConv(channels, middle, 3, step), BlockConv(middle, middle, 3)]
            features = windows[-1].features
            around: Layers | None = None
            if shortcut in ("identity", "A") and (channels != features or step > 1):
                around = {"identity": PaddedIdentity(features, strides=(step,) * rank)}
            elif channels != features or step > 1:
                around = {"conv": conv(channels, features, 1, step)} | ({} if preactivation else {"bn": norm(features)})
            name = f"layer{stage + 1}_{index}"
            if preactivation:
                # The paper's appendix: the input of the first block is activated already; in the first block of later
                # stages the shortcut shares the first activation.
                first = "activated" if not (stage or index) else "inside" if index else "shared"
                layers |= _preactivated(name, windows, around, first, conv=conv, norm=norm)
            else:
                last_norm = partial(norm, scale_init=zeros if zero_init_residual else ones)
                layers |= _postactivated(name, windows, around, conv=conv, norm=norm, last_norm=last_norm)
            channels = features
    if preactivation:
        layers |= {"bn_last": norm(channels), "relu_last": ops.relu}
    output = partial(nn.Linear, kernel_init=torch_kernel, dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "avgpool": ops.global_avg_pool, "fc": output(channels, num_classes)})


class BlockConv(NamedTuple):
    """A convolution of a block: input channels, output channels, window size and stride."""

    channels: int
    features: int
    size: int
    stride: int = 1


def _bottleneck(channels: int, middle: int, features: int, step: int, stride: str) -> list[BlockConv]:
    first, second = (step, 1) if stride == "v1" else (1, step)
    return [
        BlockConv(channels, middle, 1, first),
        BlockConv(middle, middle, 3, second),
        BlockConv(middle, features, 1),
    ]


def _postactivated(
    name: str,
    windows: Sequence[BlockConv],
    around: Layers | None,
    *,
    conv: Callable[..., nn.Conv],
    norm: Callable[..., nn.BatchNorm],
    last_norm: Callable[..., nn.BatchNorm],
) -> Layers:
    """The block of the first paper: convolution, normalisation, ReLU. The last ReLU comes after the sum."""
    branch: Layers = {}
    for place, window in enumerate(windows, start=1):
        branch[f"conv{place}"] = conv(*window)
        if place == len(windows):
            branch[f"bn{place}"] = last_norm(window.features)
        else:
            branch |= {f"bn{place}": norm(window.features), f"relu{place}": ops.relu}
    return {name: nn.Residual(branch, around), f"{name}_relu": ops.relu}


def _preactivated(
    name: str,
    windows: Sequence[BlockConv],
    around: Layers | None,
    first: str,
    *,
    conv: Callable[..., nn.Conv],
    norm: Callable[..., nn.BatchNorm],
) -> Layers:
    """The block of the second paper: normalisation, ReLU, convolution.

    ``first`` is the position of the first normalisation and ReLU: ``'inside'`` the branch, ``'shared'`` with the
    shortcut (before the block), or ``'activated'`` if the input is activated already and the block has none.
    """
    before: Layers = {}
    branch: Layers = {}
    for place, window in enumerate(windows, start=1):
        if place > 1 or first == "inside":
            branch |= {f"bn{place}": norm(window.channels), f"relu{place}": ops.relu}
        elif first == "shared":
            before = {f"{name}_bn1": norm(window.channels), f"{name}_relu1": ops.relu}
        branch[f"conv{place}"] = conv(*window)
    return {**before, name: nn.Residual(branch, around)}


class PaddedIdentity(nnx.Module):
    """The shortcut without parameters: subsampling by the strides, and zeros for the additional channels.

    Args:
      features: The number of output channels.
      strides: The strides, one int for each spatial axis.

    >>> PaddedIdentity(32, strides=(2, 2))(jnp.ones((8, 32, 32, 16))).shape
    (8, 16, 16, 32)
    """

    def __init__(self, features: int, *, strides: tuple[int, ...]) -> None:
        self.features = features
        self.kernel_size = (1,) * len(strides)
        self.strides = strides
        self.padding = "VALID"

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output features"]:
        """Maps ``(*batch, *space, C)`` to ``(*batch, *output, features)``."""
        steps = tuple(slice(None, None, stride) for stride in self.strides)
        x = jnp.asarray(inputs)[(..., *steps, slice(None))]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.features - x.shape[-1])])


def _conv(
    channels: int, features: int, size: int, stride: int = 1, *, rank: int, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Conv:
    return nn.Conv(
        channels,
        features,
        (size,) * rank,
        stride,
        padding="HALF",
        use_bias=False,
        kernel_init=variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        rngs=rngs,
    )


_IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_CIFAR = (20, 32, 44, 56, 110)  # 6 n + 2 layers: n blocks in each of three stages

VARIANTS = (
    {
        f"resnet_{depth}": Variant(partial(resnet, Depth(blocks, bottleneck=depth >= 50)), (224, 224, 3), 1000)
        for depth, blocks in _IMAGENET.items()
    }
    | {
        f"resnet_{depth}": Variant(
            partial(resnet, Depth(((depth - 2) // 6,) * 3, cifar=True), shortcut="identity"), (32, 32, 3), 10
        )
        for depth in _CIFAR
    }
    | {"resnet_18_3d": Variant(partial(resnet, Depth(_IMAGENET[18], small=True)), (28, 28, 28, 1), 10)}
)
