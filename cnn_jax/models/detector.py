"""Networks for boxes on any network for classification: a detector, and one class and one box for each image.

The detector is that of Zhou, Wang & Krähenbühl, "Objects as points", 2019 (CenterNet), whose maps of several scales are
joined as in Lin et al., "Feature pyramid networks for object detection", CVPR 2017.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import he_normal, zeros
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.backbone import Lookup, create_backbone, maps_of
from cnn_jax.models.variant import Variant
from cnn_jax.nn.skips import Meeting
from cnn_jax.ops.arguments import AnyArray

CELL = 4
"""The number of pixels along each side of a cell of the detector's maps."""

BOX_NUMBERS = 4
"""Outputs of a cell that are not classes: where in the cell the centre is, and how large the box is."""

_RARE = -2.19  # the output for "no object" that a sigmoid makes 0.1 of, as in the paper


def detector(
    variant: Lookup,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    backbone: str = "resnet_18",
    backbone_options: Any = None,
    coarsest: int = 16,
    features: int = 64,
    cell: int = CELL,
    prototypes: int = 0,
) -> nn.SkipSequence:
    """A fully convolutional network whose output is a map of cells: a score of each class, and four numbers of a box.

    With prototypes there is a head for masks as well (Bolya et al., "YOLACT: real-time instance segmentation", ICCV
    2019): the mask of an object is a sum of prototypes, which the image has, with the coefficients of its cell.
    Prototypes are maps of pixels: a cell has one output for each pixel of each of them (sub-pixel convolution).

    It has the layers of the backbone up to its coarsest map, under their own names, so that pretrained weights fit.
    Coarse maps are enlarged by transposed convolutions and added to finer ones, down to the size of the cells.

    Args:
      variant: Finds the registry entry of the backbone.
      num_classes: The number of outputs of a cell: the classes, 4 for the box, and those of the mask, see
        :func:`mask_outputs`.
      input_shape: The shape of one input, (*space, channels); the sides are multiples of ``coarsest``.
      width: Multiplies the numbers of channels of the backbone.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      backbone: The name of a network for classification whose convolutions keep the size.
      backbone_options: Of that network; None for none.
      coarsest: The number of pixels of a cell of the coarsest map; the backbone's layers behind it are left out.
      features: The number of channels of the joined maps.
      cell: The number of pixels along each side of a cell of the output, 4 in the paper.
      prototypes: The number of prototypes of masks; 0 for boxes only.

    Raises:
      UsageError: The backbone has no maps of these sizes, or the input is not a multiple of ``coarsest``.
    """
    rank = len(input_shape) - 1
    classes = num_classes - BOX_NUMBERS - mask_outputs(prototypes, cell)
    if prototypes and (classes < 1 or rank != 2):
        raise UsageError(
            f"prototypes={prototypes}: masks are for images, and num_classes={num_classes} must include their outputs; "
            "use a task with masks, such as instance_segmentation"
        )
    if any(size % coarsest for size in input_shape[:-1]):
        raise UsageError(f"the sides of an input of this network are multiples of coarsest={coarsest}")
    base = create_backbone(variant, backbone, input_shape, width, dtype, rngs, backbone_options or {})
    layers, levels = maps_of(base, backbone, input_shape, coarsest)
    finer = [stride for stride in levels if cell <= stride < coarsest]
    for stride, name in ((cell, "cell"), (coarsest, "coarsest")):
        if stride not in levels:
            known = ", ".join(map(str, sorted(levels)))
            raise UsageError(f"{backbone} has no map with {name}={stride} pixels a cell, but of {known}")
    options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
    conv: Any = partial(nn.Conv, kernel_init=he_normal(), **options)
    norm = partial(nn.BatchNorm, momentum=0.9, **options)
    skips = {}

    def normalised(name: str) -> None:
        layers[f"{name}_bn"] = norm(features)
        layers[f"{name}_relu"] = ops.relu

    layers["reduce"] = conv(levels[coarsest][1], features, (1,) * rank, use_bias=False)
    normalised("reduce")
    before = coarsest
    for stride in sorted(finer, reverse=True):
        factor = (before // stride,) * rank
        layers[f"enlarge{stride}"] = nn.ConvTranspose(
            features, features, factor, factor, use_bias=False, kernel_init=he_normal(), **options
        )
        source, channels = levels[stride]
        layers[f"lateral{stride}"] = Lateral(channels, features, rank, **options)
        skips[f"lateral{stride}"] = source
        normalised(f"lateral{stride}")
        layers[f"smooth{stride}"] = conv(features, features, (3,) * rank, padding="SAME", use_bias=False)
        normalised(f"smooth{stride}")
        before = stride
    layers["head"] = conv(features, features, (3,) * rank, padding="SAME")
    layers["head_relu"] = ops.relu
    layers["output"] = nn.Conv(
        features,
        num_classes,
        (1,) * rank,
        kernel_init=jax.nn.initializers.normal(0.01),
        bias_init=partial(_output_bias, max(0, classes)),
        **options,
    )
    return nn.SkipSequence(layers, skips)


def mask_outputs(prototypes: int, cell: int) -> int:
    """The number of outputs of a cell that are for masks: the coefficients, and the pixels of the prototypes.

    >>> mask_outputs(8, 4)
    136
    """
    return prototypes * (1 + cell**2)


class Lateral(Meeting):
    """The sum of a map and an earlier one, whose channels a 1x1 convolution changes.

    Args:
      in_features: The number of channels of the earlier map.
      features: Those of the sum.
      rank: The number of spatial axes.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """

    def __init__(self, in_features: int, features: int, rank: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> None:
        super().__init__()
        self.conv = nn.Conv(
            in_features, features, (1,) * rank, use_bias=False, kernel_init=he_normal(), dtype=dtype, rngs=rngs
        )

    def __call__(self, inputs: Shaped[AnyArray, "..."], skip: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
        """Adds an earlier map of the same size to ``(batch, *space, features)``."""
        return jnp.asarray(inputs) + self.conv(skip)


def localizer(
    variant: Lookup,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    backbone: str = "small_cnn",
    backbone_options: Any = None,
    hidden: int = 128,
    separate: bool = False,
) -> nn.Sequence:
    """A network for classification with a second head beside its output layer, for the four numbers of a box.

    Args:
      variant: Finds the registry entry of the backbone.
      num_classes: The number of outputs: the classes, and behind them the 4 of the box.
      input_shape: The shape of one input.
      width: Multiplies the numbers of channels and hidden units of the backbone.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      backbone: The name of a network for classification whose last layer is linear.
      backbone_options: Of that network; None for none.
      hidden: The number of hidden units of the box head.
      separate: Whether the heads are trained separately: then the loss of the box changes the box head alone, and all
        other layers learn to classify.

    Raises:
      UsageError: There is no class, or the last layer of the backbone is not linear.
    """
    if num_classes <= BOX_NUMBERS:
        raise UsageError(f"num_classes={num_classes} must be the number of classes and {BOX_NUMBERS} for the box")
    base = create_backbone(variant, backbone, input_shape, width, dtype, rngs, backbone_options or {})
    *names, last = base.names
    if not isinstance(getattr(base, last), nn.Linear):
        raise UsageError(
            f"the last layer of backbone={backbone!r} is not linear; use one such as small_cnn or resnet_18"
        )
    layers = {name: getattr(base, name) for name in names}
    (units,) = geometry.output_shape(nn.Sequence(layers), input_shape)
    heads = Heads(units, num_classes, hidden, separate=separate, dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "heads": heads})


class Heads(nnx.Module):
    """A linear layer for the classes, and two for a box, side by side.

    Args:
      in_features: The number of inputs.
      outputs: The number of classes, and 4.
      hidden: The number of hidden units of the box head.
      separate: Whether the loss of the box does not reach the inputs.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """

    def __init__(
        self, in_features: int, outputs: int, hidden: int, *, separate: bool, dtype: DTypeLike | None, rngs: nnx.Rngs
    ) -> None:
        linear = partial(nn.Linear, dtype=dtype, rngs=rngs)
        self.separate = separate
        self.class_head = linear(in_features, outputs - BOX_NUMBERS, kernel_init=he_normal())
        self.box_hidden = linear(in_features, hidden, kernel_init=he_normal())
        self.box_head = linear(hidden, BOX_NUMBERS, kernel_init=zeros)

    def __call__(self, inputs: Shaped[AnyArray, "*batch features"]) -> Shaped[Array, "*batch outputs"]:
        """Scores of the classes, and behind them the four numbers."""
        x = jnp.asarray(inputs)
        box = self.box_head(ops.relu(self.box_hidden(jax.lax.stop_gradient(x) if self.separate else x)))
        return jnp.concatenate([self.class_head(x), box], axis=-1)


def _output_bias(classes: int, key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """The bias of the last layer: at first no class is likely, and nothing is known of boxes and masks."""
    return jnp.concatenate([jnp.full(classes, _RARE, dtype), jnp.zeros(shape[0] - classes, dtype)])


def variants(variant: Lookup) -> dict[str, Variant]:
    """The registry entries, which look their backbones up in the registry."""
    return {
        "detector": Variant(partial(detector, variant), (512, 512, 3), 80 + BOX_NUMBERS),
        "localizer": Variant(partial(localizer, variant), (28, 28, 1), 10 + BOX_NUMBERS),
    }
