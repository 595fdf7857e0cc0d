"""The table of a network: what each layer makes, sees, holds and costs; computed from shapes, and not run.

Layers describe themselves: see :mod:`cnn_jax.geometry.windows` for windows. A module made of named layers has a method
``flow(x, *, visit, join)``, which sends ``x`` the way that an array goes: ``visit(name, layer, x)`` is what becomes of
it in a layer, ``join(name, paths)`` where paths meet. A network that does not name its activations is followed in the
program that JAX traces of it, see :mod:`cnn_jax.geometry.program`.
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
from cnn_jax.geometry.counts import connections, multiply_adds, parameter_count
from cnn_jax.geometry.places import Place, behind
from cnn_jax.geometry.program import calls
from cnn_jax.geometry.receptive_field import Flow, ReceptiveField, join_flows
from cnn_jax.geometry.windows import window_of
from cnn_jax.ops.padding import Padding

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of a network, for one input.

    Attributes:
      name: The layer's name among the network's activations.
      kind: What it does, such as ``'Conv'``.
      output_shape: Without the batch axis.
      kernel_size: The window of a convolution or pool; None for other layers.
      strides: Its strides, likewise.
      padding: Its padding, likewise.
      receptive_field: Of one unit, and None where it cannot be told. Units without spatial axes see all of the map
        before them; those of a flattened map see what the map's units do.
      parameters: The number of trained numbers.
      multiply_adds: Multiplications of weights with inputs, for one example; biases are not counted.
      connections: As LeCun counts them, see :func:`cnn_jax.geometry.counts.connections`.
      activation_bytes: The size of the output of one example.
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


def trace(model: Any, input_shape: Sequence[int], *, train: bool = False) -> list[Row]:
    """The rows of a network's table, one for each of its activations, in order.

    Args:
      model: Called as ``model(x, return_activations=True)``, with ``model.layer(name)`` for the layer of an activation;
        or any other Flax NNX module, of which each call of a layer inside is a row. It may be one of
        ``nnx.eval_shape``, so that nothing is allocated.
      input_shape: Of one input, channels last.
      train: Trace what is run in training, auxiliary heads included; only for networks that name their activations.

    Raises:
      UsageError: No NNX module, or an input that does not fit.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", num_classes=10, input_shape=(32, 32, 1), rngs=nnx.Rngs(0))
    >>> [row] = [row for row in trace(model, (32, 32, 1)) if row.name == "c3"]
    >>> row.output_shape, row.parameters, row.multiply_adds, row.receptive_field.size
    ((10, 10, 16), 2416, 240000, (14, 14))
    """
    if not isinstance(input_shape, Sequence) or not input_shape:
        raise UsageError(
            f"trace: input_shape={input_shape!r} must be that of one input, such as (height, width, channels)"
        )
    if not callable(model) or "return_activations" not in inspect.signature(model).parameters:
        found = calls(model, tuple(input_shape), train=train)
        rows = [_row(call.name, call.layer, call.output, call.field) for call in found]
        return [
            dataclasses.replace(row, parameters=0) if call.again else row for row, call in zip(rows, found, strict=True)
        ]
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
    fields = _fields(model, tuple(input_shape), {name: one.shape[1:] for name, one in activations.items()})
    return [_row(name, model.layer(name), one, fields.get(name)) for name, one in activations.items()]


def total(rows: Sequence[Row]) -> Row:
    """The last line of a table: the sums of its columns.

    >>> total([Row("c1", "Conv", (28, 28, 6), parameters=156), Row("c1_tanh", "tanh", (28, 28, 6))]).parameters
    156
    """
    names = ("parameters", "multiply_adds", "connections", "activation_bytes")
    return Row("total", "", (), **{name: sum(getattr(row, name) for row in rows) for name in names})


def blocks(rows: Sequence[Row]) -> list[Row]:
    """A shorter table: one row for each block of layers, and none for layers that only change values.

    A block is a module at the top of the network with others inside; its row has its last layer's output and field, the
    sums of its counts, and the window of its only layer that has one, if there is a single one. Of the rest, rows
    remain that have a window, weights or parameters, or make another shape.

    Args:
      rows: Of :func:`trace`.

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


def _row(name: str, layer: Any, activation: jax.ShapeDtypeStruct, field: ReceptiveField | None) -> Row:
    shape = tuple(activation.shape[1:])
    window = window_of(layer)
    sliding = window.over(window.rank or max(1, len(shape) - 1)) if window else {}
    return Row(
        name=name,
        kind=getattr(layer, "__name__", type(layer).__name__),
        output_shape=shape,
        kernel_size=sliding.get("kernel_size"),
        # Those of a transposed convolution are what spreads its input.
        strides=tuple(map(max, zip(sliding["strides"], sliding["input_dilation"], strict=True))) if sliding else None,
        padding=getattr(layer, "padding", window.padding) if window else None,
        receptive_field=field,
        parameters=parameter_count(layer),
        multiply_adds=multiply_adds(layer, shape),
        connections=connections(layer, shape),
        activation_bytes=math.prod(shape) * activation.dtype.itemsize,
    )


def _fields(model: Any, input_shape: Shape, shapes: Mapping[str, Shape]) -> dict[str, ReceptiveField | None]:
    """The field of every activation."""
    space = input_shape[:-1]
    found: dict[str, ReceptiveField | None] = {}

    def visitor(prefix: str) -> dict[str, Callable[..., Place]]:
        def visit(name: str, layer: Any, place: Place) -> Place:
            path = prefix + name
            if hasattr(layer, "flow"):
                return layer.flow(place, **visitor(f"{path}/"))
            place = behind(layer, place, shapes.get(path))
            found[path] = place.flow.field
            return place

        def join(name: str, paths: Sequence[Place]) -> Place:
            flow = join_flows([path.flow for path in paths])
            found[prefix + name] = flow.field
            return Place(shapes.get(prefix + name), flow)

        return {"visit": visit, "join": join}

    if hasattr(model, "flow"):
        model.flow(Place(input_shape, Flow(ReceptiveField.of_input(len(space)), space)), **visitor(""))
    return found
