"""Predictions as a table in the terminal, as a CSV file, and as images."""

import csv
import io
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image
from rich.cells import cell_len
from rich.table import Table

from cnn_jax import data
from cnn_jax.runtime.files import check_output, write_atomically
from cnn_jax.runtime.terminal import Console, printable, say

_MOST_ASSUMPTIONS = 10  # that are listed
_NAMED_IMAGES = 2  # an assumption about so few of the images names them
_WIDEST_CELL = 30  # longer cells are wrapped where a path would be cut otherwise
_NARROWEST_PATH = 16


def check_csv(output: str | None) -> None:
    """Checks an output file before anything is computed.

    Raises:
      UsageError: It does not end in ``.csv``, or cannot be written.
    """
    if output is not None:
        check_output(output, [".csv"], what="--output")


def write_csv(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows with the same columns to a file, and says so.

    Args:
      path: The file.
      rows: The rows; at least one.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(Path(path), out.getvalue())
    say(f"wrote {path}")


def print_table(title: str, rows: Sequence[Mapping[str, str]], *, path: str = "") -> None:
    """Prints rows with the same columns at the width of the terminal; at their own width if the output is a file.

    Args:
      title: The title above the table.
      rows: The rows; at least one.
      path: The column of paths, which are shortened in front where the terminal is too narrow.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, no_wrap=column == path, overflow="ellipsis" if column == path else "fold")
    room = max(console.width - _width_of_the_others(rows, path), _NARROWEST_PATH)
    for row in rows:
        cells = {column: printable(cell) for column, cell in row.items()}
        table.add_row(*({**cells, path: shorten_in_front(cells[path], room)} if path else cells).values())
    console.print(table)


def _width_of_the_others(rows: Sequence[Mapping[str, str]], path: str) -> int:
    """The width of a table without its column of paths: cells, two blanks and a line beside each, and the last line."""
    widths = (max(cell_len(column), *(cell_len(row[column]) for row in rows)) for column in rows[0] if column != path)
    return sum(min(width, _WIDEST_CELL) for width in widths) + 3 * len(rows[0]) + 1


def shorten_in_front(path: str, width: int) -> str:
    """Shortens a path to a width in the terminal; folders are left out before letters of the name.

    >>> shorten_in_front("scans/2024/page 1.png", 21), shorten_in_front("scans/2024/page 1.png", 20)
    ('scans/2024/page 1.png', '…/2024/page 1.png')
    >>> shorten_in_front("scans/2024/page 1.png", 8)
    '…e 1.png'
    """
    if cell_len(path) <= width:
        return path
    parts = path.split(os.sep)
    for count in range(1, len(parts)):
        shortened = os.sep.join(["…", *parts[count:]])
        if cell_len(shortened) <= width:
            return shortened
    end = parts[-1]
    while cell_len(end) > width - 1:
        end = end[1:]
    return f"…{end}"


def describe_assumptions(assumed: Mapping[str, str]) -> str:
    """What was assumed about images, once for all, in a few lines; empty if nothing was.

    Args:
      assumed: Name of an image -> what was assumed, in parts that are separated by semicolons.

    >>> print(describe_assumptions({"a.png": "inverted; turned", "b.png": "inverted", "c.png": "inverted"}))
    assumed:
      inverted
      turned (a.png)
    """
    images: dict[str, list[str]] = {}
    for image, parts in assumed.items():
        for part in filter(None, parts.split("; ")):
            images.setdefault(part, []).append(image)
    if not images:
        return ""
    lines = ["assumed:"]
    for part, named in sorted(images.items(), key=lambda item: -len(item[1]))[:_MOST_ASSUMPTIONS]:
        which = ", ".join(map(printable, named)) if len(named) <= _NAMED_IMAGES else f"{len(named)} images"
        lines.append(f"  {part}" + (f" ({which})" if len(named) < len(assumed) else ""))
    if len(images) > _MOST_ASSUMPTIONS:
        lines.append(f"  and {len(images) - _MOST_ASSUMPTIONS} more, each about fewer images; --output has all")
    return "\n".join(lines)


def write_image(path: Path, pixels: Shaped[np.ndarray, "height width *channels"]) -> None:
    """Writes an image in the format that the suffix of its path says.

    Args:
      path: The file, such as ``name.png``.
      pixels: uint8, ``(height, width)`` or with 1 or 3 channels; or another dtype that the format has.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    image.save(buffer, format=Image.registered_extensions()[path.suffix])
    write_atomically(path, buffer.getvalue())


def file_names(paths: Iterable[str]) -> dict[str, str]:
    """A name for the files of each path, without its suffix; names that several have are numbered.

    >>> file_names(["a/one.png", "b/one.png"])
    {'a/one.png': 'one', 'b/one.png': 'one-2'}
    """
    names: dict[str, str] = {}
    for path in paths:
        stem = data.stem_of(Path(path))
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        names[path] = next(name for name in itertools.chain([stem], numbered) if name not in names.values())
    return names
