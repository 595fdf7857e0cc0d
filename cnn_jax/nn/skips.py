"""Sequences with skip connections, for networks that map images to maps, and the layers in which two paths meet."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError, nearest
from cnn_jax.geometry import Window
from cnn_jax.nn.sequence import Intercept, Join, Sequence, Visit, call_options
from cnn_jax.ops.arguments import AnyArray

INPUT = "input"  # what skips call the input of the network


class SkipSequence(Sequence):
    """Named layers that are applied one after the other, some of which also get the output of an earlier layer.

    The activations are those of a :class:`Sequence`. A layer that returns a pair, such as a :class:`MaxPool` with
    ``return_indices``, passes on its first part. A later :class:`MaxUnpool` that is connected with it gets the indices,
    and the spatial shape of what was pooled.

    Args:
      layers: A mapping from names to layers, in order.
      skips: A mapping from the name of a layer to the name of the earlier layer whose output is its second argument;
        ``'input'`` is the input of the network.

    Raises:
      UsageError: A skip connection leads from a layer that does not exist or is not earlier.

    References:
      Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical image segmentation, 2015.

    >>> from cnn_jax import nn
    >>> layers = {"conv": nn.Conv(1, 4, (3, 3), padding="VALID", rngs=nnx.Rngs(0)), "both": nn.Concatenate()}
    >>> model = SkipSequence(layers, {"both": "input"})
    >>> model(jnp.ones((8, 28, 28, 1))).shape
    (8, 26, 26, 5)
    """

    def __init__(self, layers: Mapping[str, Any], skips: Mapping[str, str]) -> None:
        super().__init__(layers)
        for target, source in skips.items():
            for name, known in ((target, self.names), (source, (INPUT, *self.names))):
                if name not in known:
                    raise UsageError(f"SkipSequence: there is no layer {name!r} to connect; {nearest(name, known)}")
            if source != INPUT and self.names.index(source) >= self.names.index(target):
                raise UsageError(f"SkipSequence: {source!r} is not before {target!r}, which gets its output")
        self.skips = tuple(skips.items())

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Applies the layers in order; for the arguments see :meth:`Sequence.__call__`."""
        options = call_options(self.names, train, rngs, return_activations, intercept)
        skips, layers = dict(self.skips), self._layers()
        kept: dict[str, tuple[Any, ...]] = {INPUT: (x,)}

        def keep(name: str, x: Any) -> None:
            kept.setdefault(name, (x,))

        for name, layer in layers.items():
            if name in skips or getattr(layer, "return_indices", False):
                layers[name] = _Connected(name, layer, skips.get(name), kept)
        sources = {name: partial(keep, name) for name in skips.values()}
        x, activations = self._apply(layers, x, keep=sources, **options)
        return (x, activations) if return_activations else x

    def flow(self, x: Any, *, visit: Visit, join: Join) -> Any:
        """Passes any value along the path of an array; see :meth:`Sequence.flow`."""
        skips, kept = dict(self.skips), {INPUT: x}
        for name in self.names:
            layer = getattr(self, name)
            x = join(name, [x, kept[skips[name]]]) if isinstance(layer, Meeting) else visit(name, layer, x)
            kept[name] = x
        return x


class _Connected:
    """A layer that gets what was kept of an earlier layer, and keeps what it returns beside its output."""

    def __init__(self, name: str, layer: Any, source: str | None, kept: dict[str, tuple[Any, ...]]) -> None:
        self._name, self._layer, self._source, self._kept = name, layer, source, kept

    def __call__(self, x: AnyArray) -> Any:
        result = self._layer(x, *(() if self._source is None else self._kept[self._source]))
        if not isinstance(result, tuple):
            return result
        y, *further = result
        self._kept[self._name] = (*further, x.shape[1:-1])
        return y


class Meeting(nnx.Module):
    """A layer in which two maps meet, of which the second is cut to the size of the first.

    Args:
      offset: Where the part that is kept begins, the same along every axis; by default it is the middle.
    """

    def __init__(self, offset: int | None = None) -> None:
        self.offset = offset


class Concatenate(Meeting):
    """The channels of an earlier map, cut to the size of the input, and behind them those of the input.

    Args:
      offset: Where the part of the earlier map that is kept begins, the same along every axis; by default it is the
        middle.

    >>> Concatenate()(jnp.ones((8, 4, 4, 2)), jnp.zeros((8, 6, 6, 3))).shape
    (8, 4, 4, 5)
    """

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"], skip: Shaped[AnyArray, "..."]
    ) -> Shaped[Array, "*batch_and_space joint"]:
        """Joins ``(*batch, *space, C)`` and an earlier map of at least this size to ``(*batch, *space, C' + C)``."""
        return jnp.concatenate([cut(skip, inputs.shape[1:-1], self.offset), inputs], axis=-1)


class Add(Meeting):
    """The sum of the input and an earlier map, which is cut to the size of the input.

    Args:
      offset: Where the part of the earlier map that is kept begins, the same along every axis; by default it is the
        middle.

    >>> Add()(jnp.ones((8, 4, 4, 2)), jnp.ones((8, 6, 6, 2)))[0, 0, 0].tolist()
    [2.0, 2.0]
    """

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"], skip: Shaped[AnyArray, "..."]
    ) -> Shaped[Array, "*batch_and_space channels"]:
        """Adds an earlier map of at least this size to ``(*batch, *space, C)``."""
        return jnp.asarray(inputs) + cut(skip, inputs.shape[1:-1], self.offset)


class CutTo(nnx.Module):
    """Cuts a map to the spatial size of an earlier one, such as the input of the network.

    Args:
      offset: Where the part that is kept begins, the same along every axis.

    >>> CutTo(offset=1)(jnp.ones((8, 6, 6, 2)), jnp.ones((8, 4, 4, 1))).shape
    (8, 4, 4, 2)
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset

    @property
    def window(self) -> Window:
        """A window of one entry, with negative padding."""
        return Window(1, padding=-self.offset)

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"], like: Shaped[AnyArray, "..."]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Cuts ``(*batch, *space, C)`` to the size of ``like``."""
        return cut(inputs, like.shape[1:-1], self.offset)


def cut(x: AnyArray, sizes: tuple[int, ...], offset: int | None = None) -> Array:
    """The part of a map that begins at an offset, by default its middle.

    Args:
      x: ``(batch, *space, C)``.
      sizes: The spatial sizes of the part.
      offset: The same along every axis.

    Raises:
      UsageError: The map is smaller than the part.

    >>> cut(jnp.arange(6.0).reshape(1, 6, 1), (3,)).ravel().tolist()
    [1.0, 2.0, 3.0]
    """
    space = x.shape[1:-1]
    fits = len(space) == len(sizes)
    parts = []
    for before, after in zip(space, sizes, strict=False):
        start = (before - after) // 2 if offset is None else offset
        fits = fits and 0 <= start <= before - after
        parts.append(slice(start, start + after))
    if not fits:
        where = "in its middle" if offset is None else f"from {offset}"
        raise UsageError(f"a map of {space} has no part of {tuple(sizes)} {where}; give a larger input")
    return jnp.asarray(x)[(slice(None), *parts)]
