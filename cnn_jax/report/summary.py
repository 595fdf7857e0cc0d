"""Writes the table of a network's layers to a file, in the format given by the file extension."""

import io
from collections.abc import Sequence
from pathlib import Path

from cnn_jax import geometry
from cnn_jax.runtime.files import check_output, write_atomically
from cnn_jax.typed import typed

EXTENSIONS = (".csv", ".json", ".md", ".png")


@typed
def check_path(path: str | Path) -> None:
    """Raises a ``UsageError`` if :func:`write` cannot write to a path.

    >>> check_path("table.xlsx")
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: output=table.xlsx must end in .csv, .json, .md or .png
    """
    check_output(path, EXTENSIONS)


@typed
def write(path: str | Path, rows: Sequence[geometry.Row], *, title: str, input_shape: Sequence[int]) -> None:
    """Writes a table, or for ``.png`` the figure of :func:`cnn_jax.report.figures.network`.

    Args:
      path: A file in an existing folder, which ends in one of :data:`EXTENSIONS`.
      rows: The rows returned by :func:`cnn_jax.geometry.trace`.
      title: The name of the network.
      input_shape: The shape of one input, (height, width, channels).

    Raises:
      UsageError: The extension is unknown, or the folder does not exist.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> write(path, [geometry.Row("tanh", "tanh", (28, 28, 6))], title="one layer", input_shape=(28, 28, 6))
    >>> path.read_text().splitlines()[1]
    'tanh,tanh,28x28x6,,,,,,,0,0,0,0,1'
    """
    check_path(path)
    match Path(path).suffix.lower():
        case ".csv":
            content: str | bytes = geometry.to_csv(rows)
        case ".json":
            content = geometry.to_json(rows, title=title)
        case ".md":
            content = geometry.to_markdown(rows, title=title)
        case _:
            from cnn_jax.report.figures import network  # importing matplotlib is slow

            png = io.BytesIO()
            network(rows, input_shape, title=title).savefig(png, format="png", dpi=200)
            content = png.getvalue()
    write_atomically(Path(path), content)
