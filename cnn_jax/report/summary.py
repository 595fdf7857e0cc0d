"""A network's table as a file, in the form that the file's name asks for."""

import io
from collections.abc import Sequence
from pathlib import Path

from cnn_jax import geometry
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import write_atomically

EXTENSIONS = (".csv", ".json", ".md", ".png")


def check_path(path: str | Path) -> None:
    """Raises a ``UsageError`` for a file that :func:`write` could not write.

    >>> check_path("table.xlsx")
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: output 'table.xlsx' must end in .csv, .json, .md or .png
    """
    if Path(path).suffix not in EXTENSIONS:
        *others, last = EXTENSIONS
        raise UsageError(f"output {str(path)!r} must end in {', '.join(others)} or {last}")
    if not Path(path).parent.is_dir():
        raise UsageError(f"output {str(path)!r}: there is no folder {str(Path(path).parent)!r}; make it first")


def write(path: str | Path, rows: Sequence[geometry.Row], *, title: str, input_shape: Sequence[int]) -> None:
    """Writes a table, or for ``.png`` the picture of :func:`cnn_jax.report.figures.network`.

    Args:
      path: Ends in one of :data:`EXTENSIONS`; its folder exists.
      rows: Of :func:`cnn_jax.geometry.trace`.
      title: Of the network.
      input_shape: Of one input.

    Raises:
      UsageError: Another extension, or no such folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> write(path, [geometry.Row("tanh", "tanh", (28, 28, 6))], title="one layer", input_shape=(28, 28, 6))
    >>> path.read_text().splitlines()[1]
    'tanh,tanh,28x28x6,,,,,,,0,0,0,0'
    """
    check_path(path)
    match Path(path).suffix:
        case ".csv":
            content: str | bytes = geometry.to_csv(rows)
        case ".json":
            content = geometry.to_json(rows, title=title)
        case ".md":
            content = geometry.to_markdown(rows, title=title)
        case _:
            from cnn_jax.report.figures import network  # matplotlib takes its time to import

            picture = io.BytesIO()
            network(rows, input_shape, title=title).savefig(picture, format="png", dpi=200)
            content = picture.getvalue()
    write_atomically(Path(path), content)
