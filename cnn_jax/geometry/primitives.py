"""Rules for JAX primitives: how each one changes receptive fields, and how many products it has.

To support another primitive, add a rule to :data:`RULES`: ``rule(params, inputs, shapes, output)`` returns the place of
the output. An input is a :class:`Place`, :data:`WEIGHTS` if it depends on parameters only, or None for a constant. At
least one input is a place. ``shapes`` are the shapes of the operands and ``output`` is the shape of the output.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.extend.core import JaxprEqn

from cnn_jax.geometry.places import Place, Shape, concatenated, constant_layout, joined
from cnn_jax.geometry.windows import Window

WEIGHTS: Literal["weights"] = "weights"
Seen = Place | Literal["weights"] | None
PrimitiveRule = Callable[[dict[str, Any], Sequence[Seen], list[Shape], Shape], Place]

ELEMENTWISE = {
    *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil"),
    *("clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv"),
    *("erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "lgamma", "log"),
    *("log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "pow", "real"),
    *("reduce_precision", "rem", "reshard", "round", "rsqrt", "select_n", "sharding_constraint", "sign", "sin", "sinh"),
    *("sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor"),
}


def after_equation(equation: JaxprEqn, inputs: Sequence[Seen]) -> list[Seen]:
    """The places of an equation's outputs, from those of its inputs."""
    places = places_of(inputs)
    if not places:
        return [WEIGHTS if WEIGHTS in inputs else None] * len(equation.outvars)
    operands, outputs = ([shape_of(atom) for atom in atoms] for atoms in (equation.invars, equation.outvars))
    name = equation.primitive.name
    if name in RULES or name == "split":  # some functions put NumPy integers into the jaxpr
        params = jax.tree.map(lambda leaf: int(leaf) if isinstance(leaf, np.integer) else leaf, equation.params)
    else:
        params = equation.params
    if name == "split":
        return list(_split(params, places[0]))
    if name in ("optimization_barrier", "device_put"):
        return list(inputs)
    rule = _elementwise if name in ELEMENTWISE else RULES.get(name)
    if rule is None or len(outputs) > 1:
        return list(unknown(equation, inputs))
    return [rule(params, inputs, operands, outputs[0])]


def shape_of(atom: Any) -> Shape:
    """The shape of an operand or a result of an equation."""
    return tuple(atom.aval.shape)


def places_of(values: Sequence[Seen]) -> list[Place]:
    """The places among some values."""
    return [value for value in values if isinstance(value, Place)]


def unknown(equation: JaxprEqn, inputs: Sequence[Seen]) -> list[Place]:
    """The places of outputs with unknown dependencies: each may depend on everything that the inputs depend on."""
    return [_only_common(inputs, shape_of(atom)) for atom in equation.outvars]


def products(equation: JaxprEqn, inputs: Sequence[Seen]) -> int:
    """The number of products of weights with input-dependent values in a convolution or matrix product."""
    if len(inputs) != 2 or not places_of(inputs) or WEIGHTS not in inputs:
        return 0
    x, kernel = (shape_of(atom) for atom in equation.invars)
    output = shape_of(equation.outvars[0])
    params = equation.params
    if equation.primitive.name == "dot_general":
        return math.prod(output) * math.prod(x[axis] for axis in params["dimension_numbers"][0][0])
    if equation.primitive.name != "conv_general_dilated":
        return 0
    numbers = params["dimension_numbers"]
    window = _window(params, kernel, numbers)
    x_space, y_space = (
        [shape[axis] for axis in spec[2:]] for shape, spec in ((x, numbers.lhs_spec), (output, numbers.out_spec))
    )
    per_position = (
        kernel[numbers.rhs_spec[0]]
        * kernel[numbers.rhs_spec[1]]
        * x[numbers.lhs_spec[0]]
        // params["batch_group_count"]
    )
    return window.taps(x_space, y_space) * per_position


# --- Rules ---


def _elementwise(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    # Operands have the shape of the output, except for scalars and axes of size 1.
    return joined([place.broadcast(output, range(len(place.shape))) for place in places_of(inputs)])


def _broadcast(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    return _only(inputs).broadcast(output, params["broadcast_dimensions"])


def _concatenate(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    axis = params["dimension"]
    pieces = [value if isinstance(value, Place) else None for value in inputs]
    return concatenated(pieces, [shape[axis] for shape in shapes], axis)


def _stack(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    axis = params["axis"]
    place = joined(places_of(inputs))
    return place.broadcast(output, [other for other in range(len(output)) if other != axis])


def _conv(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    x, kernel = inputs
    if not isinstance(x, Place) or isinstance(kernel, Place):  # a kernel that depends on the input
        return _only_common(inputs, output)
    numbers = params["dimension_numbers"]
    examples, channels = numbers.lhs_spec[:2]
    if params["feature_group_count"] == 1:
        x = x.collapsed(channels)
    x = x.unknown(x.running(channels))
    if params["batch_group_count"] > 1:
        x = x.unknown(x.running(examples)).with_axis(examples, *constant_layout((output[numbers.out_spec[0]],))[0])
    x = x.with_axis(channels, *constant_layout((output[numbers.out_spec[1]],))[0])
    order = dict(zip(numbers.out_spec, numbers.lhs_spec, strict=True))
    place = x.transposed([order[axis] for axis in range(len(output))])
    return place.windowed(_window(params, shapes[1], numbers), numbers.out_spec[2:], output)


def _window(params: dict[str, Any], kernel: Shape, numbers: Any) -> Window:
    return Window(
        tuple(kernel[axis] for axis in numbers.rhs_spec[2:]),
        tuple(params["window_strides"]),
        tuple(params["padding"]),
        tuple(params["rhs_dilation"]),
        tuple(params["lhs_dilation"]),
    )


def _pool(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    names = ("window_dimensions", "window_strides", "padding", "window_dilation", "base_dilation")
    size, strides, padding, dilation, input_dilation = (tuple(params[name]) for name in names)
    window = Window(size, strides, padding, dilation, input_dilation)
    return places_of(inputs)[0].windowed(window, range(len(output)), output)


def _dot(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    (contracted, batches) = params["dimension_numbers"]
    sides = []
    start = len(batches[0])
    for side, value in enumerate(inputs):
        free = [axis for axis in range(len(shapes[side])) if axis not in (*contracted[side], *batches[side])]
        axes = [*range(len(batches[0])), *range(start, start + len(free))]
        start += len(free)
        if not isinstance(value, Place):
            continue
        place = value
        for axis in contracted[side]:
            # A constant matrix may be banded, as in image resizing.
            place = place.unknown(place.running(axis)) if inputs[1 - side] is None else place.collapsed(axis)
        order = [*batches[side], *free, *contracted[side]]
        place = place.transposed(order)
        for axis in reversed(range(len(axes), len(order))):
            place = place.with_axis(axis, *constant_layout((1,))[0]).squeezed(axis)
        sides.append(place.broadcast(output, axes))
    return joined(sides)


def _pad(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    if not isinstance(inputs[0], Place) or isinstance(inputs[1], Place):
        return _only_common(inputs, output)
    place = inputs[0]
    for axis, (low, _, interior) in enumerate(params["padding_config"]):
        place = place.after_window(axis, output[axis], spread=interior + 1, low=low)
    return place


def _slice(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    place = _only(inputs)
    strides = params["strides"] or (1,) * len(output)
    for axis, (start, stride) in enumerate(zip(params["start_indices"], strides, strict=True)):
        place = place.after_window(axis, output[axis], stride=stride, low=-start)
    return place


def _dynamic_slice(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    if not isinstance(inputs[0], Place) or places_of(inputs[1:]):
        return _only_common(inputs, output)
    place = inputs[0]
    for axis, size in enumerate(output):
        if shapes[0][axis] != size:
            place = place.unknown(place.running(axis)).with_axis(axis, *constant_layout((size,))[0])
    return place


def _split(params: dict[str, Any], place: Place) -> list[Place]:
    start, found = 0, []
    for size in params["sizes"]:
        found.append(place.after_window(params["axis"], size, low=-start))
        start += size
    return found


def _rev(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    place = _only(inputs)
    for axis in params["dimensions"]:
        place = place.reversed(axis)
    return place


def _reduce(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    place = _only(inputs)
    for axis in sorted(params["axes"], reverse=True):
        place = place.collapsed(axis).squeezed(axis)
    return place


def _squeeze(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    place = _only(inputs)
    for axis in sorted(params["dimensions"], reverse=True):
        place = place.squeezed(axis)
    return place


def _cumulative(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    place = _only(inputs)
    return place.unknown(place.running(params["axis"]))


def _sort(params: dict[str, Any], inputs: Sequence[Seen], shapes: list[Shape], output: Shape) -> Place:
    place, axis = _only(inputs), params["dimension"]
    return place.collapsed(axis).broadcast(output, range(len(output)))


def _only(inputs: Sequence[Seen]) -> Place:
    (place,) = places_of(inputs)
    return place


def _only_common(inputs: Sequence[Seen], output: Shape) -> Place:
    """The place of an output that may depend on everything that the inputs depend on."""
    return joined([place.only_common(output) for place in places_of(inputs)])


RULES: dict[str, PrimitiveRule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "expand_dims": _broadcast,
    "pad": _pad,
    "reshape": lambda params, inputs, shapes, output: _only(inputs).reshaped(output),
    "rev": _rev,
    "slice": _slice,
    "sort": _sort,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": lambda params, inputs, shapes, output: _only(inputs).transposed(params["permutation"]),
    **{f"reduce_{kind}": _reduce for kind in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **{f"arg{kind}": _reduce for kind in ("max", "min")},
    **{f"cum{kind}": _cumulative for kind in ("sum", "prod", "max", "min", "logsumexp")},
    **dict.fromkeys(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"), _pool),
}
