"""Receptive fields: which part of the input a unit can see, how far apart neighbours look, and where the first does.

A field is followed layer by layer: each layer is a :class:`Step` along each axis, a sum takes the hull of its paths, a
layer that sees all of its input the hull of all positions. Fields are those of the formulas and may stick out of the
image, where a unit sees padding.

References:
  Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks, Distill, 2019.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from cnn_jax.errors import UsageError
from cnn_jax.geometry.positions import keeps_positions
from cnn_jax.geometry.windows import PerAxis, Window, window_of
from cnn_jax.ops.adaptive_pool import windows as adaptive_windows
from cnn_jax.ops.arguments import per_axis

Number = int | Fraction


class Step(NamedTuple):
    """What one layer does along one axis, in units of its input positions."""

    span: Number
    """How far apart the outermost inputs of one output are."""
    stride: Number
    """How far apart neighbouring outputs look."""
    shift: Number
    """Where the first output looks."""


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The field of a layer's units, one number per spatial axis; whole numbers, or fractions after transposed layers.

    Attributes:
      size: How many input positions the unit with the largest field can see.
      jump: How many input positions lie between the fields of neighbouring units.
      first_centre: The middle of the first unit's field: 0 is the first input position, and -0.5 its edge.

    >>> receptive_field([(5, 1), (2, 2), (5, 1)]).texts()
    ('14', '2', '6.5')
    """

    size: tuple[Number, ...]
    jump: tuple[Number, ...]
    first_centre: tuple[Number, ...]

    @classmethod
    def of_input(cls, rank: int) -> "ReceptiveField":
        """That of the input itself: each position sees itself."""
        return cls((1,) * rank, (1,) * rank, (0,) * rank)

    def through(self, steps: Sequence[Step]) -> "ReceptiveField":
        """The field behind a layer."""
        axes = zip(self.size, self.jump, self.first_centre, steps, strict=True)
        new = [
            (size + step.span * jump, jump * step.stride, centre + step.shift * jump)
            for size, jump, centre, step in axes
        ]
        size, jump, centre = zip(*new, strict=True) if new else ((), (), ())
        return ReceptiveField(_plain(size), _plain(jump), _plain(centre))

    def hull(self, other: "ReceptiveField") -> "ReceptiveField | None":
        """The smallest field with both in it; None where the two drift apart from unit to unit."""
        if self.jump != other.jump:
            return None
        low = [min(pair) for pair in zip(self._edges(-1), other._edges(-1), strict=True)]
        high = [max(pair) for pair in zip(self._edges(1), other._edges(1), strict=True)]
        sizes = [last - first + 1 for first, last in zip(low, high, strict=True)]
        centres = [Fraction(first + last) / 2 for first, last in zip(low, high, strict=True)]
        return ReceptiveField(_plain(sizes), self.jump, _plain(centres))

    def _edges(self, side: int) -> list[Number]:
        return [
            centre + side * Fraction(size - 1) / 2 for size, centre in zip(self.size, self.first_centre, strict=True)
        ]

    def texts(self) -> tuple[str, str, str]:
        """Size, jump and first centre as texts; one number where all axes have the same.

        >>> ReceptiveField((3, 5), (2, 2), (1, Fraction(1, 2))).texts()
        ('3x5', '2', '1x0.5')
        """
        return _joined(self.size), _joined(self.jump), _joined(self.first_centre)


@dataclasses.dataclass(frozen=True)
class Flow:
    """What is known of the units at one place of a network.

    Attributes:
      field: None where it cannot be told.
      sizes: Of the map whose positions the units stand for; None where they are not known.
    """

    field: ReceptiveField | None
    sizes: tuple[int, ...] | None

    def joined(self, other: "Flow") -> "Flow":
        """A sum or a concatenation."""
        field = None if self.field is None or other.field is None else self.field.hull(other.field)
        return Flow(field, self.sizes)

    def slid(self, window: Window, rank: int) -> "Flow":
        """Behind a layer with a window."""
        steps = window_steps(window, self.sizes, rank)
        sizes = None if self.sizes is None else window.output_size(self.sizes)
        return Flow(self.field and self.field.through(steps), sizes)


def window_steps(window: Window, sizes: Sequence[int] | None, rank: int) -> list[Step]:
    """The steps of a sliding window.

    >>> window_steps(Window(3, strides=2, padding=1), None, 1)
    [Step(span=2, stride=2, shift=0)]
    >>> window_steps(Window(4, padding=2, input_dilation=2), None, 1)  # a transposed convolution of stride 2
    [Step(span=1, stride=Fraction(1, 2), shift=Fraction(-1, 4))]
    """
    numbers = window.over(rank)
    axes = zip(*numbers.values(), window.pads(sizes, rank), strict=True)
    return [
        Step(
            *_plain(
                (
                    _span(kernel, stride, low, dilation, spread),
                    Fraction(stride, spread),
                    (Fraction((kernel - 1) * dilation, 2) - low) / spread,
                )
            )
        )
        for kernel, stride, dilation, spread, (low, _) in axes
    ]


def adaptive_steps(sizes: Sequence[int], output_size: Sequence[int]) -> list[Step]:
    """The steps of pools that are given their output size; where it does not divide, those of the largest window.

    >>> adaptive_steps((12, 13), (6, 6))
    [Step(span=1, stride=2, shift=Fraction(1, 2)), Step(span=2, stride=Fraction(13, 6), shift=Fraction(7, 12))]
    """
    steps = []
    for size, outputs in zip(sizes, output_size, strict=True):
        starts, stops = adaptive_windows(size, outputs)
        stride = Fraction(size, outputs)
        steps.append(Step(*_plain((int((stops - starts).max()) - 1, stride, (stride - 1) / 2))))
    return steps


def whole_steps(sizes: Sequence[int]) -> list[Step]:
    """The steps of a layer that sees all positions: as a window as large as the map."""
    return [Step(*_plain((size - 1, 1, Fraction(size - 1, 2)))) for size in sizes]


def receptive_field(layers: Any, input_size: PerAxis | None = None) -> ReceptiveField:
    """The field of the last of some layers, one after the other.

    Args:
      layers: A layer, or a list. An entry is a layer or function; or a :class:`Window`, or a tuple, which stands for
        ``Window(*tuple)``: (kernel size, strides, padding, kernel dilation). Branches (``nn.Parallel``) and skips
        (``nn.Residual``) may be among them.
      input_size: Spatial sizes, one int for all axes or one per axis; needed only for ``padding='SAME'`` with a stride.

    Returns:
      One number per spatial axis: those of the layers, or a single one where all windows are given by ints.

    Raises:
      UsageError: An entry has no window and does not work position by position (flattening, global pools); for whole
        networks there is :func:`cnn_jax.geometry.trace`.

    >>> alexnet = [(11, 4, 2), (3, 2), (5, 1, 2), (3, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2)]
    >>> receptive_field(alexnet).size, receptive_field(alexnet).jump
    ((195,), (32,))
    """
    field = _over(layers, input_size, "receptive_field").field
    if field is None:
        raise UsageError("receptive_field: branches that are joined have different strides, so no one field is theirs")
    return field


def output_size(layers: Any, input_size: PerAxis) -> tuple[int, ...]:
    """The spatial sizes behind some layers.

    Args:
      layers: As for :func:`receptive_field`.
      input_size: One int per axis; or one int for one axis, or for all of those that the layers have.

    Raises:
      UsageError: A window does not fit; an entry as for :func:`receptive_field`.

    >>> output_size([(11, 4, 2), (3, 2)], 224), output_size([Window(3, 2, rounding="ceil")], (112, 110))
    ((27,), (56, 55))
    """
    sizes = _over(layers, input_size, "output_size").sizes
    assert sizes is not None
    return sizes


def _over(layers: Any, input_size: PerAxis | None, function: str) -> Flow:
    entries = list(layers) if isinstance(layers, list | tuple) else [layers]
    if isinstance(layers, tuple) and all(isinstance(entry, int) for entry in layers):
        raise UsageError(f"{function}: layers={layers} is one window; write [{layers}]")
    entries = [Window(*entry) if isinstance(entry, tuple) else entry for entry in entries]
    rank = _rank(entries) or (len(input_size) if isinstance(input_size, Sequence) else 1)
    sizes = None if input_size is None else per_axis(function, "input_size", input_size, rank)
    flow = Flow(ReceptiveField.of_input(rank), sizes)
    channels = 1

    def visit(name: str, layer: Any, flow: Flow) -> Flow:
        nonlocal channels
        if hasattr(layer, "flow"):
            return layer.flow(flow, visit=lambda inner, *args: visit(f"{name}/{inner}", *args), join=join)
        window = layer if isinstance(layer, Window) else window_of(layer)
        channels = getattr(layer, "in_features", getattr(layer, "num_features", channels))
        try:
            if window is not None:
                channels = getattr(layer, "out_features", channels)
                return flow.slid(window, rank)
        except UsageError as error:
            raise UsageError(f"{function}: layer {name}: {error}") from error
        if callable(layer) and keeps_positions(layer, (*(4,) * rank, channels)):
            return flow
        raise UsageError(
            f"{function}: layer {name} ({_name(layer)}) has no window, and does not work position by position; "
            "give a geometry.Window for it, or use geometry.trace(model, input_shape)"
        )

    def join(name: str, flows: Sequence[Flow]) -> Flow:
        return join_flows(flows)

    for index, layer in enumerate(entries):
        flow = visit(str(index), layer, flow)
    return flow


def join_flows(flows: Sequence[Flow]) -> Flow:
    """What is known behind a sum or a concatenation of paths."""
    first, *others = flows
    for other in others:
        first = first.joined(other)
    return first


def _rank(entries: Sequence[Any]) -> int | None:
    """The number of spatial axes that the first layer with one per axis has."""
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


def _span(kernel: int, stride: int, low: int, dilation: int, spread: int) -> int:
    """How far apart the outermost inputs under a window are, for the output that sees most."""
    largest = 0
    for phase in range(spread):  # of a spread-out input, only every ``spread``-th position is not a zero
        places = (phase * stride - low + tap * dilation for tap in range(kernel))
        inputs = [place // spread for place in places if place % spread == 0]
        largest = max(largest, inputs[-1] - inputs[0] if inputs else 0)
    return largest


def _name(layer: Any) -> str:
    return getattr(layer, "__name__", type(layer).__name__)


def _plain(numbers: Sequence[Number]) -> tuple[Number, ...]:
    return tuple(int(number) if number == int(number) else Fraction(number) for number in numbers)


def _joined(numbers: Sequence[Number]) -> str:
    texts = [f"{float(number):.4g}" if isinstance(number, Fraction) else str(number) for number in numbers]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)
