"""The table of a network: each layer's output shape, kernel, parameters and multiply-adds, computed and not run."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from rich import box
from rich.table import Table

HEADINGS = ("layer", "kind", "output", "kernel", "strides", "padding", "parameters", "MACs")


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of a network, for one input.

    Attributes:
      name: the layer's name among the network's activations.
      kind: what it does, such as ``'Conv'``.
      output_shape: without the batch axis.
      kernel_size: the window of a convolution or pool; None for other layers.
      strides: its strides, likewise.
      padding: its padding, likewise.
      parameters: the number of trained numbers.
      multiply_adds: multiplications of a kernel with its input, for one example; biases are not counted.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    kernel_size: tuple[int, ...] | None
    strides: tuple[int, ...] | None
    padding: str | None
    parameters: int
    multiply_adds: int


def trace(model: Any, input_shape: tuple[int, ...]) -> list[Row]:
    """The rows of a network's table, one for each of its activations, in order.

    Args:
      model: called as ``model(x, return_activations=True)``, with ``model.layer(name)`` for the layer of an activation;
        it may be one of ``nnx.eval_shape``, so that nothing is allocated.
      input_shape: of one input, channels last.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", num_classes=10, input_shape=(32, 32, 1), rngs=nnx.Rngs(0))
    >>> [(row.output_shape, row.parameters, row.multiply_adds) for row in trace(model, (32, 32, 1)) if row.name == "c3"]
    [((10, 10, 16), 2416, 240000)]
    """
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    graph, state = nnx.split(model)
    _, activations = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x, return_activations=True), state, x)
    return [_row(name, model.layer(name), tuple(activation.shape[1:])) for name, activation in activations.items()]


def parameter_count(model: Any) -> int:
    """The number of trained numbers in a module.

    >>> parameter_count(nnx.Linear(28 * 28, 10, rngs=nnx.Rngs(0)))
    7850
    """
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def total(rows: Sequence[Row]) -> Row:
    """The last line of a table: the sums of its columns.

    >>> total([Row("c1", "Conv", (28, 28, 6), (5, 5), (1, 1), "VALID", 156, 117600)]).parameters
    156
    """
    parameters, multiply_adds = (sum(getattr(row, name) for row in rows) for name in ("parameters", "multiply_adds"))
    return Row("total", "", (), None, None, None, parameters, multiply_adds)


def format_table(rows: Sequence[Row], *, title: str) -> Table:
    """The rows as a table for the terminal, with totals below.

    >>> format_table([], title="empty").row_count
    0
    """
    table = Table(title=title, title_justify="left", show_footer=True, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, footer in zip(HEADINGS, cells(total(rows)), strict=True):
        text = heading in ("layer", "kind", "padding")
        table.add_column(heading, footer, justify="left" if text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    return table


def cells(row: Row) -> tuple[str, ...]:
    """A row as texts in the order of :data:`HEADINGS`, blank where there is nothing to say.

    >>> cells(Row("s2", "AvgPool", (14, 14, 6), (2, 2), (2, 2), "VALID", 0, 0))
    ('s2', 'AvgPool', '14x14x6', '2x2', '2x2', 'VALID', '', '')
    """

    def times(sizes: tuple[int, ...] | None) -> str:
        return "x".join(map(str, sizes)) if sizes else ""

    numbers = (f"{number:,}" if number else "" for number in (row.parameters, row.multiply_adds))
    shapes = (times(row.output_shape), times(row.kernel_size), times(row.strides))
    return (row.name, row.kind, *shapes, row.padding or "", *numbers)


def _row(name: str, layer: Any, output_shape: tuple[int, ...]) -> Row:
    is_module = isinstance(layer, nnx.Module)
    window = getattr(layer, "kernel_size", None) or getattr(layer, "window_shape", None)
    kernel = getattr(layer, "kernel", None)
    return Row(
        name=name,
        kind=type(layer).__name__ if is_module else getattr(layer, "__name__", str(layer)),
        output_shape=output_shape,
        kernel_size=tuple(window) if window else None,
        strides=_per_axis(layer.strides, len(window)) if window else None,
        padding=str(layer.padding) if window else None,
        parameters=parameter_count(layer) if is_module else 0,
        multiply_adds=kernel.size * math.prod(output_shape[:-1]) if kernel is not None else 0,
    )


def _per_axis(strides: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    if strides is None:
        return (1,) * rank
    return (strides,) * rank if isinstance(strides, int) else tuple(strides)
