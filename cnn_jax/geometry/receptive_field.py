"""Receptive fields and output sizes of plain lists of layers, for which channels need not be known."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from cnn_jax.errors import UsageError
from cnn_jax.geometry.fields import ReceptiveField, adaptive_field
from cnn_jax.geometry.positions import keeps_positions
from cnn_jax.geometry.windows import PerAxis, Window, adaptive_size, window_of
from cnn_jax.ops.arguments import per_axis


@dataclasses.dataclass(frozen=True)
class Flow:
    """The receptive field and map size at one point of a network.

    Attributes:
      field: The receptive field of a unit; None if it is unknown.
      sizes: The spatial sizes of the map; None if they are unknown.
    """

    field: ReceptiveField | None
    sizes: tuple[int, ...] | None

    def joined(self, other: "Flow") -> "Flow":
        """The flow after a sum or a concatenation."""
        field = None if self.field is None or other.field is None else self.field.hull(other.field)
        return Flow(field, self.sizes)

    def after_window(self, window: Window) -> "Flow":
        """The flow after a layer with a window."""
        sizes = None if self.sizes is None else window.output_size(self.sizes)
        return Flow(self.field and self.field.after_window(window, self.sizes), sizes)

    def adapted(self, output_size: Sequence[int]) -> "Flow":
        """The flow after an adaptive pool; the sizes before it must be known."""
        assert self.sizes is not None
        field = self.field and self.field.through(adaptive_field(self.sizes, output_size))
        return Flow(field, tuple(output_size))


def receptive_field(layers: Any, input_size: PerAxis | None = None) -> ReceptiveField:
    """Computes the receptive field after a sequence of layers.

    Args:
      layers: A layer, a list of layers, or a mapping from names to layers. An entry is a layer, a function, a
        :class:`Window`, or a tuple for ``Window(*tuple)``: (kernel size, strides, padding, kernel dilation). Branches
        (``nn.Parallel``) and shortcuts (``nn.Residual``) are supported.
      input_size: The spatial sizes of the input, one int for all axes or one per axis. They are needed only for
        ``padding='SAME'`` with a stride, and for adaptive pools.

    Returns:
      The receptive field, with one number per spatial axis; with a single number if all windows are given by ints.

    Raises:
      UsageError: An entry has no window and does not act on each position separately, such as flattening and global
        pools. For such networks use :func:`cnn_jax.geometry.trace`.

    >>> alexnet = [(11, 4, 2), (3, 2), (5, 1, 2), (3, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2)]
    >>> receptive_field(alexnet).size, receptive_field(alexnet).jump
    ((195,), (32,))
    """
    field = _over(layers, input_size, "receptive_field").field
    if field is None:
        raise UsageError(
            "receptive_field: the joined branches have different strides, so they have no common receptive field"
        )
    return field


def output_size(layers: Any, input_size: PerAxis) -> tuple[int, ...]:
    """Computes the spatial sizes after a sequence of layers.

    Args:
      layers: The same as in :func:`receptive_field`.
      input_size: The spatial sizes of the input: one int per axis, or one int for all axes.

    Returns:
      The spatial sizes, one int per axis.

    Raises:
      UsageError: A window does not fit; see also :func:`receptive_field`.

    >>> output_size([(11, 4, 2), (3, 2)], 224), output_size([Window(3, 2, rounding="ceil")], (112, 110))
    ((27,), (56, 55))
    """
    sizes = _over(layers, input_size, "output_size").sizes
    assert sizes is not None
    return sizes


def _over(layers: Any, input_size: PerAxis | None, function: str) -> Flow:
    if isinstance(layers, tuple) and all(isinstance(entry, int) for entry in layers):
        raise UsageError(f"{function}: layers={layers} is one window; write [{layers}]")
    given = layers if isinstance(layers, list | tuple | Mapping) else [layers]
    given = given if isinstance(given, Mapping) else dict(enumerate(given))
    named = {str(name): _window(function, name, entry) for name, entry in given.items()}
    entries = list(named.values())
    rank = _rank(entries) or (len(input_size) if isinstance(input_size, Sequence) else 1)
    sizes = None if input_size is None else per_axis(function, "input_size", input_size, rank)
    flow = Flow(ReceptiveField.of_input(rank), sizes)
    channels = 1

    def visit(name: str, layer: Any, flow: Flow) -> Flow:
        nonlocal channels
        if hasattr(layer, "flow"):
            return layer.flow(flow, visit=lambda inner, *args: visit(f"{name}/{inner}", *args), join=_joined)
        window = layer if isinstance(layer, Window) else window_of(layer)
        channels = getattr(layer, "in_features", getattr(layer, "num_features", channels))
        try:
            if window is not None:
                channels = getattr(layer, "out_features", channels)
                return flow.after_window(window)
        except UsageError as error:
            raise UsageError(f"{function}: layer {name}: {error}") from error
        given_size = adaptive_size(layer, rank)
        if given_size is not None:
            if flow.sizes is None:
                raise UsageError(
                    f"{function}: layer {name}: its receptive field depends on the size of its input; give input_size"
                )
            return flow.adapted(given_size)
        if callable(layer) and keeps_positions(layer, (*(4,) * rank, channels)):
            return flow
        raise UsageError(
            f"{function}: layer {name} ({_name(layer)}) has no window and does not act on each position separately; "
            "give a geometry.Window for it, or use geometry.trace or geometry.output_shape(layers, input_shape)"
        )

    for name, layer in named.items():
        flow = visit(name, layer, flow)
    return flow


def _window(function: str, name: Any, entry: Any) -> Any:
    """Converts a tuple to a window; returns a layer unchanged."""
    if not isinstance(entry, tuple):
        return entry
    if not 1 <= len(entry) <= 4:
        raise UsageError(
            f"{function}: layer {name}: {entry} must be (kernel size, strides, padding, kernel dilation), "
            "or a prefix of it; "
            "use geometry.Window for other options"
        )
    return Window(*entry)


def _joined(name: str, flows: Sequence[Flow]) -> Flow:
    return reduce(Flow.joined, flows)


def _rank(entries: Sequence[Any]) -> int | None:
    """The number of spatial axes, from the first layer that has one int per axis."""
    found: list[int] = []

    def visit(name: str, layer: Any, x: None) -> None:
        if hasattr(layer, "flow"):
            layer.flow(x, visit=visit, join=lambda name, paths: None)
            return
        window = layer if isinstance(layer, Window) else window_of(layer)
        if window is not None and window.rank is not None:
            found.append(window.rank)

    for entry in entries:
        visit("", entry, None)
    return found[0] if found else None


def _name(layer: Any) -> str:
    return getattr(layer, "__name__", type(layer).__name__)
