"""The table of a network: output, receptive field, parameters and cost of each layer, computed from shapes only.

The attributes of a layer describe its window, see :mod:`cnn_jax.geometry.windows`. A module made of named layers has a
method ``flow(x, *, visit, join)``, which passes ``x`` through the layers: ``visit(name, layer, x)`` returns the value
after a layer, and ``join(name, values)`` the value where branches meet. For a network that does not name its
activations, the jaxpr is analysed, see :mod:`cnn_jax.geometry.program`.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_jax.errors import UsageError
from cnn_jax.geometry.counts import connections, multiply_adds, trained
from cnn_jax.geometry.fields import ReceptiveField
from cnn_jax.geometry.places import Place, Shape, concatenated, joined
from cnn_jax.geometry.positions import after_layer
from cnn_jax.geometry.program import is_layer, traced
from cnn_jax.geometry.windows import window_of
from cnn_jax.ops.padding import Padding


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of a network, for one input.

    Attributes:
      name: The layer's name among the network's activations.
      kind: The type of the layer, such as ``'Conv'``.
      output_shape: The output shape without the batch axis.
      kernel_size: The window of a convolution or pool; None for other layers.
      strides: The strides of the window; None for other layers.
      padding: The padding of the window; None for other layers.
      receptive_field: The receptive field of one unit; None if it is unknown. Units without spatial axes depend on the
        whole preceding map. Units of a flattened map have the fields of the map's units.
      parameters: The number of parameters, without those that an earlier row has counted.
      multiply_adds: Multiplications of weights with inputs, for one example; biases are not counted. See
        :func:`cnn_jax.geometry.counts.multiply_adds` for padding and for transposed convolutions.
      connections: The number of connections as LeCun counts them, see :func:`cnn_jax.geometry.counts.connections`.
      activation_bytes: The size of the output of one example, in bytes.
      runs: The number of times that the layer runs for one input, as inside ``lax.scan`` or ``jax.vmap``. The counts
        above are for all runs. It is None inside ``lax.while_loop``, where the counts are for one step.
    """

    name: str
    kind: str
    output_shape: Shape
    kernel_size: Shape | None = None
    strides: Shape | None = None
    padding: Padding | None = None
    receptive_field: ReceptiveField | None = None
    parameters: int = 0
    multiply_adds: int = 0
    connections: int = 0
    activation_bytes: int = 0
    runs: int | None = 1


def trace(model: Any, input_shape: Sequence[int], *, train: bool = False) -> list[Row]:
    """Computes the rows of a network's table, one for each of its activations, in order.

    Args:
      model: A network that is called as ``model(x, return_activations=True)`` and returns the layer of an activation by
        ``model.layer(name)``; or any other Flax NNX module, in which each call of an inner layer is a row. It may come
        from ``nnx.eval_shape``, so that no memory is allocated.
      input_shape: The shape of one input, with channels last.
      train: Whether to trace the network in training mode, including auxiliary heads; only for networks that name their
        activations.

    Returns:
      The rows of the table.

    Raises:
      UsageError: The model is not an NNX module, or the input does not fit.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", num_classes=10, input_shape=(32, 32, 1), rngs=nnx.Rngs(0))
    >>> [row] = [row for row in trace(model, (32, 32, 1)) if row.name == "c3"]
    >>> row.output_shape, row.parameters, row.multiply_adds, row.receptive_field.size
    ((10, 10, 16), 2416, 240000, (14, 14))
    """
    if not isinstance(input_shape, Sequence) or not input_shape:
        raise UsageError(
            f"trace: input_shape={input_shape!r} must be the shape of one input, such as (height, width, channels)"
        )
    if not callable(model) or "return_activations" not in inspect.signature(model).parameters:
        if train and isinstance(model, nnx.Module):
            kind = type(model).__name__
            raise UsageError(f"trace: train=True is for networks that name their activations, which {kind} does not")
        return _unnamed(model, Place.of_input((1, *input_shape), len(input_shape) - 1))[0]
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    graph, state = nnx.split(model)

    def run(state: Any, x: jax.Array, key: jax.Array) -> Any:
        merged = nnx.merge(graph, state)
        options = {"train": True, "rngs": key} if train else {}
        if not train:
            merged.eval()
        return merged(x, return_activations=True, **options)[1]

    activations = jax.eval_shape(run, state, x, key)
    followed = _followed(model, tuple(input_shape), {name: one.shape[1:] for name, one in activations.items()})
    rows, counted = [], set[int]()
    for name, one in activations.items():
        layer, output = model.layer(name), jax.ShapeDtypeStruct(one.shape[1:], one.dtype)
        shape, field, products = followed.get(name, (output.shape, None, 0))
        row = _row(name, layer, shape, output, field, products)
        rows.append(dataclasses.replace(row, parameters=_new_parameters(layer, counted)))
    return rows


def total(rows: Sequence[Row]) -> Row:
    """Computes the last line of a table.

    Args:
      rows: The rows of :func:`trace`.

    Returns:
      A row with the sums of the columns.

    >>> total([Row("c1", "Conv", (28, 28, 6), parameters=156), Row("c1_tanh", "tanh", (28, 28, 6))]).parameters
    156
    """
    names = ("parameters", "multiply_adds", "connections", "activation_bytes")
    return Row("total", "", (), **{name: sum(getattr(row, name) for row in rows) for name in names})


def blocks(rows: Sequence[Row]) -> list[Row]:
    """Shortens a table to one row per block of layers and leaves out layers that only change values.

    A block is a top-level module of the network that has submodules. Its row has the output and field of its last layer
    and the sums of its counts. It has a window if exactly one of its layers has one. Other rows remain if they have a
    window, weights or parameters, or change the shape.

    Args:
      rows: The rows of :func:`trace`.

    Returns:
      The rows of the shorter table.

    >>> conv = Row("block/conv", "Conv", (28, 28, 6), (5, 5), (1, 1), "VALID", parameters=156, multiply_adds=117_600)
    >>> relu = Row("block/relu", "relu", (28, 28, 6))
    >>> [(row.name, row.kind, row.kernel_size, row.parameters) for row in blocks([conv, relu])]
    [('block', 'block', (5, 5), 156)]
    """
    found: list[Row] = []
    shape: Shape | None = None
    for name, group in groupby(rows, key=lambda row: row.name.partition("/")[0]):
        inside = list(group)
        last = inside[-1]
        if last.name != name:
            windows = [row for row in inside if row.kernel_size]
            shown = windows[0] if len(windows) == 1 else last
            found.append(
                dataclasses.replace(
                    total(inside),
                    name=name,
                    kind="block",
                    output_shape=last.output_shape,
                    receptive_field=last.receptive_field,
                    kernel_size=shown.kernel_size,
                    strides=shown.strides,
                    padding=shown.padding,
                )
            )
        elif last.kernel_size or last.multiply_adds or last.parameters or last.output_shape != shape:
            found.append(last)
        shape = last.output_shape
    return found


def _unnamed(model: Any, place: Place) -> tuple[list[Row], Place | None]:
    """The rows of a network without named activations, and the place of its output.

    There is one row for each call of a layer, and one for products with weights outside layers.
    """
    program = traced(model, place)
    rows, counted = [], set[int]()
    for call in program.calls:
        runs = call.runs or 1
        row = _row(call.name, call.called, call.input_shape, call.output, call.field, call.products // runs)
        row = dataclasses.replace(row, parameters=_new_parameters(call.layer, counted))
        counts = {name: getattr(row, name) * runs for name in ("multiply_adds", "connections", "activation_bytes")}
        rows.append(dataclasses.replace(row, **counts, runs=call.runs))
    inside = {variable for _, module in nnx.iter_modules(model) if is_layer(module) for variable in trained(module)}
    own = sum(size for variable, size in trained(model).items() if variable not in inside)
    if own or program.products:
        rows.append(
            Row("", type(model).__name__, program.output.shape[1:], parameters=own, multiply_adds=program.products)
        )
    return rows, program.place


def _new_parameters(layer: Any, counted: set[int]) -> int:
    """Counts the parameters of a layer that are not in ``counted``, and adds them to it."""
    parameters = trained(layer)
    new = sum(size for variable, size in parameters.items() if variable not in counted)
    counted |= set(parameters)
    return new


def _row(
    name: str,
    layer: Any,
    input_shape: Shape,
    output: jax.ShapeDtypeStruct,
    field: ReceptiveField | None,
    products: int,
) -> Row:
    """The row of one run of a layer, without its parameters."""
    shape, window = tuple(output.shape), window_of(layer)
    sliding = window.over(window.rank or max(1, len(shape) - 1)) if window else {}
    return Row(
        name=name,
        kind=getattr(layer, "__name__", type(layer).__name__),
        output_shape=shape,
        kernel_size=sliding.get("kernel_size"),
        # The strides of a transposed convolution are the dilation of its input.
        strides=tuple(map(max, zip(sliding["strides"], sliding["input_dilation"], strict=True))) if sliding else None,
        padding=getattr(layer, "padding", window.padding) if window else None,
        receptive_field=field,
        multiply_adds=multiply_adds(layer, input_shape, shape, products),
        connections=connections(layer, input_shape, shape, products),
        activation_bytes=math.prod(shape) * output.dtype.itemsize,
    )


def _cut(place: Place, shape: Shape, offset: int | None) -> Place:
    """The place of a part of a map, which has the spatial sizes of ``shape`` and is its middle by default."""
    for axis, size in enumerate(shape[:-1], start=1):
        before = place.shape[axis]
        if before != size:
            low = (before - size) // 2 if offset is None else offset
            place = place.after_window(axis, size, low=-low)
    return place


def _followed(
    model: Any, input_shape: Shape, shapes: Mapping[str, Shape]
) -> dict[str, tuple[Shape, ReceptiveField | None, int]]:
    """For every activation, the input shape of its layer, its field, and the number of products in the layer."""
    found: dict[str, tuple[Shape, ReceptiveField | None, int]] = {}

    def visitor(prefix: str) -> dict[str, Callable[..., Any]]:
        def visit(name: str, layer: Any, place: Place | None) -> Place | None:
            path = prefix + name
            if hasattr(layer, "flow"):
                return layer.flow(place, **visitor(f"{path}/"))
            if place is None or path not in shapes:  # the layer does not run
                return None
            before, shape = place.shape[1:], (1, *shapes[path])
            if isinstance(layer, nnx.Module) and callable(layer) and not is_layer(layer):
                rows, result = _unnamed(layer, place)
                place, products = result or place.only_common(shape), total(rows).multiply_adds
            else:
                place, products = after_layer(layer, place, shape)
            found[path] = before, place.receptive_field, products
            return place

        def join(name: str, paths: Sequence[Place | None]) -> Place | None:
            places, shape = [place for place in paths if place is not None], shapes.get(prefix + name)
            if len(places) < len(paths) or shape is None:
                return None
            places = [_cut(place, shape, getattr(model.layer(prefix + name), "offset", None)) for place in places]
            channels = [place.shape[-1] for place in places]
            add = channels[0] == shape[-1]
            place = joined(places) if add else concatenated(places, channels, len(places[0].layout) - 1)
            found[prefix + name] = shape, place.receptive_field, 0
            return place

        return {"visit": visit, "join": join}

    if hasattr(model, "flow"):
        model.flow(Place.of_input((1, *input_shape), len(input_shape) - 1), **visitor(""))
    return found
