"""``--mode=explain --methods=style``: the user's images in the style of another image, by the layers of a network."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import attribution, models, nn
from cnn_jax.errors import UsageError
from cnn_jax.report import figures
from cnn_jax.report.page import Section
from cnn_jax.tasks.responses import Explained

_LONGEST = 256  # sides of images, in pixels, to which larger ones are reduced
_STEPS = 300
_STYLE_LAYERS = 5


class Styled(NamedTuple):
    """An image in the style of another one.

    Attributes:
      section: For the page: the image, the style, and the image in that style.
      pixels: The image in that style, (h, w, channels), uint8.
    """

    section: Section
    pixels: Shaped[np.ndarray, "h w channels"]


def styled(
    explained: Explained,
    contents: Mapping[str, Shaped[np.ndarray, "..."]],
    style: tuple[str, Shaped[np.ndarray, "..."]],
) -> Iterator[Styled]:
    """Draws each image in the style of another one.

    The style is taken from up to five convolutions of the network, the content from one at three quarters of its depth.

    Args:
      explained: The network.
      contents: Path -> raw image, of any size.
      style: The name of the image whose style is taken, and the raw image.

    Raises:
      UsageError: The network has no convolution with several positions.
    """
    names = explained.convolutions
    if not names:
        raise UsageError("--methods=style needs a network with convolutions, whose activations are the style")
    last = len(names) - 1
    spread = {names[round(part * last / (_STYLE_LAYERS - 1))]: None for part in range(_STYLE_LAYERS)}
    content_layer, style_layers = names[round(0.75 * last)], tuple(spread)
    graph, state = nnx.split(_of_any_size(explained))
    painted = _inputs(explained, style[1])
    for path, pixels in contents.items():
        name = Path(path).name
        content = _inputs(explained, pixels)
        found = jax.device_get(
            _styled(graph, state, content, painted, content_layer, style_layers, explained.value_range)
        )
        shown = [explained.shown(array[0]) for array in (content, painted, found.images)]
        section = Section(
            f"{name} in the style of {style[0]}",
            figure=figures.gallery(shown, [name, style[0], "content and style"], columns=3, largest=3),
            alt=f"{name}, {style[0]}, and the content of the first in the style of the second",
            caption=f"Content is the activation of {content_layer}, style the products of the channels of "
            f"{', '.join(style_layers)} (Gatys, Ecker and Bethge 2016). After {_STEPS} steps the relative squared "
            f"error of the content is {found.content_losses[0]:.2f} and that of the style "
            f"{found.style_losses[0]:.3f}.",
        )
        yield Styled(section, np.round(255 * shown[-1]).astype(np.uint8))


def _of_any_size(explained: Explained) -> nn.Sequence:
    """The network for images of any size: with convolutions instead of linear layers."""
    model = explained.model
    if not any(isinstance(model.layer(name), nn.Flatten) for name in model.names):
        return model
    sliding = models.convolutionalize(model, explained.preprocess.input_shape)
    sliding.eval()
    return sliding


def _inputs(explained: Explained, pixels: Shaped[np.ndarray, "h w channels"]) -> Array:
    """A batch of one input, not larger than the longest side."""
    height, width, channels = pixels.shape
    scale = min(1.0, _LONGEST / max(height, width))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)), channels)
    sized = dataclasses.replace(explained.preprocess, input_shape=shape, resize="bilinear")
    return sized(pixels[None])


@functools.partial(jax.jit, static_argnames=("graph", "content_layer", "style_layers", "value_range"))
def _styled(
    graph: Any,
    state: Any,
    content: Array,
    style: Array,
    content_layer: str,
    style_layers: tuple[str, ...],
    value_range: tuple[float, float],
) -> attribution.StyledImages:
    """Compiled once for all images of one size."""
    return attribution.style_transfer(
        nnx.merge(graph, state),
        content,
        style,
        content_layers=[content_layer],
        style_layers=style_layers,
        steps=_STEPS,
        value_range=value_range,
    )
