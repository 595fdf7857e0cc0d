"""A network's table in several formats: for the terminal, and as CSV, Markdown and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rich import box
from rich.table import Table

from cnn_jax.geometry.receptive_field import ReceptiveField
from cnn_jax.geometry.trace import Row, total
from cnn_jax.runtime.terminal import Console

HEADINGS = (
    "layer",
    "kind",
    "output",
    "kernel",
    "strides",
    "padding",
    "field",
    "jump",
    "centre",
    "parameters",
    "MACs",
    "connections",
    "memory",
)
_TEXT = ("layer", "kind", "padding")
# The columns that are left out in narrow terminals, in this order.
_DISPENSABLE = ("centre", "memory", "connections", "padding", "jump", "kind", "field", "strides", "kernel")

LEGEND = (
    "field: the size of a unit's receptive field in input positions. jump: the distance between the fields of "
    "neighbouring units. centre: the centre of the first unit's field. MACs: multiplications of weights with inputs "
    "for one example, without biases. connections: connections to inputs and biases, as LeCun counts them. memory: the "
    "size of the output of one example. x 3 after the kind: the layer runs three times, and all runs are counted. "
    "x ?: the layer is in a loop of unknown length, and one step is counted."
)


def cells(row: Row) -> tuple[str, ...]:
    """Formats the cells of a row.

    Args:
      row: A row of :func:`cnn_jax.geometry.trace`.

    Returns:
      One string per column of :data:`HEADINGS`; empty if there is no value.

    >>> cells(Row("s2", "AvgPool", (14, 14, 6), (2, 2), (2, 2), "VALID", activation_bytes=4704))
    ('s2', 'AvgPool', '14x14x6', '2x2', '2x2', 'VALID', '', '', '', '', '', '', '4.6 KiB')
    """
    counts = (row.parameters, row.multiply_adds, row.connections)
    return (
        row.name,
        row.kind if row.runs == 1 else f"{row.kind} x {row.runs or '?'}",
        *(_times(sizes) for sizes in (row.output_shape, row.kernel_size, row.strides)),
        _padding(row.padding),
        *_field(row.receptive_field, alone=len(row.output_shape) == 1),
        *(f"{count:,}" if count else "" for count in counts),
        _memory(row.activation_bytes),
    )


FOLDED_HEADINGS = (
    "layer\nkind",
    "output\nmemory",
    "parameters",
    "MACs",
    "kernel\nstrides, padding",
    "field\njump, centre",
    "connections",
)


def folded_cells(row: Row) -> tuple[str | int, ...]:
    """The cells of a row in fewer columns, most of them with two lines, for pages that are not wide.

    Args:
      row: A row of :func:`cnn_jax.geometry.trace`.

    Returns:
      One value per column of :data:`FOLDED_HEADINGS`: a count, or text; empty if there is no value.

    >>> folded_cells(Row("c1", "Conv", (28, 28, 6), (5, 5), (1, 1), "VALID", parameters=156, activation_bytes=18816))
    ('c1\\nConv', '28x28x6\\n18.4 KiB', 156, '', '5x5\\n1x1, VALID', '', '')
    """
    text = dict(zip(HEADINGS, cells(row), strict=True))

    def value(heading: str) -> str:
        lines = [[text[name] for name in line.split(", ") if text[name]] for line in heading.split("\n")]
        return "\n".join(", ".join(line) for line in lines).rstrip()

    counts = {"parameters": row.parameters, "MACs": row.multiply_adds, "connections": row.connections}
    return tuple(counts[heading] or "" if heading in counts else value(heading) for heading in FOLDED_HEADINGS)


def format_table(rows: Sequence[Row], *, title: str, width: int | None = None) -> Table:
    """Formats the rows as a table for the terminal, with totals in the last line.

    Args:
      rows: The rows of :func:`cnn_jax.geometry.trace`.
      title: The title above the table.
      width: The maximum width of the table in characters. Columns that do not fit are left out and named below the
        table.

    Returns:
      The ``rich`` table.

    >>> format_table([], title="empty").row_count
    0
    """
    lines = [cells(row) for row in rows]
    footers = cells(total(rows))
    widths = {
        heading: max(map(len, column)) + 2 for heading, *column in zip(HEADINGS, HEADINGS, footers, *lines, strict=True)
    }
    left_out: list[str] = []
    for heading in _DISPENSABLE:
        if width is None or sum(widths.values()) + 1 <= width:
            break
        del widths[heading]
        left_out.append(heading)
    shown = [index for index, heading in enumerate(HEADINGS) if heading in widths]
    caption = f"columns that did not fit: {', '.join(left_out)}" if left_out else None
    table = Table(
        title=title, caption=caption, show_footer=True, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    table.title_justify = table.caption_justify = "left"
    for index in shown:
        justify = "left" if HEADINGS[index] in _TEXT else "right"
        table.add_column(HEADINGS[index], footers[index], justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for line in lines:
        table.add_row(*(line[index] for index in shown))
    return table


def print_table(rows: Sequence[Row], *, title: str) -> None:
    """Prints the table at the width of the terminal; prints all columns if the output is not a terminal.

    Args:
      rows: The rows of :func:`cnn_jax.geometry.trace`.
      title: The title above the table.

    >>> print_table([Row("flatten", "Flatten", (400,))], title="one layer")
    one layer...
    """
    console = Console()
    if console.is_terminal:
        console.print(format_table(rows, title=title, width=console.width))
    else:
        Console(width=10_000).print(format_table(rows, title=title))


def to_markdown(rows: Sequence[Row], *, title: str) -> str:
    """Formats the table in Markdown, with title, totals and legend.

    Args:
      rows: The rows of :func:`cnn_jax.geometry.trace`.
      title: The heading above the table.

    Returns:
      The Markdown text.

    >>> to_markdown([Row("s2", "AvgPool", (14, 14, 6))], title="one layer").splitlines()[0]
    '## one layer'
    """
    lines = [HEADINGS, tuple("---" if heading in _TEXT else "---:" for heading in HEADINGS)]
    lines += [cells(row) for row in rows]
    lines += [tuple(f"**{cell}**" if cell else "" for cell in cells(total(rows)))]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{LEGEND}\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Formats the table as comma-separated values, without totals.

    Args:
      rows: The rows of :func:`cnn_jax.geometry.trace`.

    Returns:
      The CSV text; cells are plain numbers if possible.

    >>> print(to_csv([Row("s2", "AvgPool", (14, 14, 6), (2, 2), (2, 2), "VALID")]).splitlines()[1])
    s2,AvgPool,14x14x6,2x2,2x2,VALID,,,,0,0,0,0,1
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        record = _record(row)
        if not text.tell():
            writer.writerow(record)
        writer.writerow("x".join(map(str, value)) if isinstance(value, list) else value for value in record.values())
    return text.getvalue()


def to_json(rows: Sequence[Row], *, title: str) -> str:
    """Formats the table as JSON.

    Args:
      rows: The rows of :func:`cnn_jax.geometry.trace`.
      title: The title of the table.

    Returns:
      The JSON text of an object with the title, the rows, and their totals.

    >>> json.loads(to_json([Row("c1", "Conv", (28, 28, 6), parameters=156)], title="one layer"))["total"]["parameters"]
    156
    """
    sums = {name: value for name, value in _record(total(rows)).items() if isinstance(value, int) and name != "runs"}
    document = {"title": title, "layers": [_record(row) for row in rows], "total": sums}
    return json.dumps(document, indent=2) + "\n"


def _record(row: Row) -> dict[str, Any]:
    """A row as a dictionary of JSON values."""
    field = row.receptive_field
    numbers = {name: field and getattr(field, name) for name in ("size", "jump", "first_centre")}
    return {
        "layer": row.name,
        "kind": row.kind,
        "output_shape": list(row.output_shape),
        "kernel_size": row.kernel_size and list(row.kernel_size),
        "strides": row.strides and list(row.strides),
        "padding": None if row.padding is None else _padding(row.padding),
        **{
            f"receptive_field_{name}": values and [float(n) if isinstance(n, Fraction) else n for n in values]
            for name, values in numbers.items()
        },
        "parameters": row.parameters,
        "multiply_adds": row.multiply_adds,
        "connections": row.connections,
        "activation_bytes": row.activation_bytes,
        "runs": row.runs,
    }


def _times(sizes: Sequence[int] | None) -> str:
    return "x".join(map(str, sizes)) if sizes else ""


def _padding(padding: Any) -> str:
    """The padding in its shortest form: a name, or a single number if all sides are equal."""
    if padding is None:
        return ""
    if isinstance(padding, str | int):
        return str(padding)
    sides = {side for entry in padding for side in (entry if isinstance(entry, tuple | list) else (entry,))}
    return str(sides.pop()) if len(sides) == 1 else str(tuple(padding)).replace(" ", "")


def _field(field: ReceptiveField | None, *, alone: bool) -> tuple[str, str, str]:
    if field is None:
        return "", "", ""
    size, jump, centre = field.texts()
    return size, "" if alone else jump, centre  # a single unit has no neighbours


def _memory(size: int) -> str:
    if not size:
        return ""
    for unit, scale in {"MiB": 2**20, "KiB": 2**10}.items():
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size} B"
