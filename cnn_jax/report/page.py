"""One self-contained HTML page: numbers first, then sections of text, figures, tables and code.

The page contains its styles and images, so it can be opened offline and sent by mail. It follows the reader's light or
dark theme, and its layout adapts to small screens.
"""

import base64
import dataclasses
import io
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.report.embedding import script_hash, script_json, stylesheet
from cnn_jax.report.figures.style import styled
from cnn_jax.report.formatting import is_number
from cnn_jax.runtime.files import write_atomically
from cnn_jax.typed import typed

_DOTS_PER_INCH = 220  # the resolution of saved figures
_PIXELS_PER_INCH = 115  # the size of figures on the page, about half the resolution, for screens of double density


@typed
@dataclasses.dataclass(frozen=True)
class Headline:
    """A number at the top of the page.

    Attributes:
      label: The name of the number.
      value: The formatted value with its unit.
      reference: A formatted value to compare it with.
      reference_source: The source of the reference value.
      note: An additional line, for example how the number was measured.
    """

    label: str
    value: str
    reference: str | None = None
    reference_source: str | None = None
    note: str | None = None


@typed
@dataclasses.dataclass(frozen=True)
class Table:
    """A table with named columns.

    Attributes:
      columns: The names of the columns.
      rows: The rows, with one cell for each column. Numbers are aligned right, and ints have thousands separators. The
        second line of a name or cell is smaller. The first column stays visible when a wide table is scrolled.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise UsageError(f"Table: row {number} has {len(row)} cells but there are {len(self.columns)} columns")

    def has_numbers(self, column: int) -> bool:
        """Whether a column has numbers only, apart from empty cells."""
        values = [row[column] for row in self.rows if row[column] != ""]
        return bool(values) and all(map(is_number, values))


@typed
@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page, with its parts in the order: text, figure, table, widget, code.

    Attributes:
      title: The heading, which is also the entry in the contents and determines the file name of the figure.
      text: Paragraphs, separated by blank lines.
      figure: A matplotlib figure.
      alt: A description of the figure for screen readers. It is required for a figure.
      caption: An explanation of the figure.
      table: A table.
      code: Text in a fixed-width font, such as a config or a command.
      widget: HTML that the page's script can make interactive.
    """

    title: str
    text: str | None = None
    figure: Figure | None = None
    alt: str | None = None
    caption: str | None = None
    table: Table | None = None
    code: str | None = None
    widget: Markup | None = None

    def __post_init__(self) -> None:
        if self.figure is not None and not self.alt:
            raise UsageError(f"Section {self.title!r}: the figure needs alt='what it shows'")


@typed
@dataclasses.dataclass(frozen=True)
class Page:
    """The content of a page.

    Attributes:
      title: The title of the page.
      subtitle: One line below the title.
      headlines: The numbers at the top of the page.
      sections: The sections, in order.
      footer: The last line of the page.
      script: JavaScript for the widgets. The page's content security policy allows no other script.
      style: CSS for the widgets.
      data: JSON values for the script, stored in the element with the id ``data``.

    Example:
      >>> import tempfile
      >>> page = Page("A run", "LeNet-5 on digits", [Headline("test accuracy", "98.7%")], [Section("How", code="...")])
      >>> page.write(tempfile.mkdtemp()).name
      'report.html'
    """

    title: str
    subtitle: str = ""
    headlines: Sequence[Headline] = ()
    sections: Sequence[Section] = ()
    footer: str = ""
    script: str = ""
    style: str = ""
    data: Any = None

    @typed
    def write(self, workdir: str | os.PathLike[str], name: str = "report.html") -> Path:
        """Writes the page, and each figure as ``figures/<section>.png``.

        The same content always gives the same bytes. Files are written atomically.

        Args:
          workdir: An existing folder.
          name: The file name of the page.

        Returns:
          The path of the page.
        """
        workdir = Path(workdir)
        slugs = _slugs([section.title for section in self.sections])
        images = {}
        for slug, section in zip(slugs, self.sections, strict=True):
            if section.figure is not None:
                png = _png(section.figure)
                (workdir / "figures").mkdir(exist_ok=True)
                write_atomically(workdir / "figures" / f"{slug}.png", png)
                images[slug] = _embedded(section.figure, png)
        page = _template().render(page=self, sections=list(zip(slugs, self.sections, strict=True)), images=images)
        report = workdir / name
        write_atomically(report, page.encode())
        return report


def _slugs(titles: Sequence[str]) -> list[str]:
    """Unique file names and anchors for titles.

    >>> _slugs(["The worst mistakes", "Größe?", "The worst  mistakes!", "→"])
    ['the-worst-mistakes', 'größe', 'the-worst-mistakes-2', 'section']
    """
    taken: dict[str, None] = {}
    for title in titles:
        base = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", title).lower()).strip("-") or "section"
        slug, number = base, 1
        while slug in taken:
            number += 1
            slug = f"{base}-{number}"
        taken[slug] = None
    return list(taken)


@styled
def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # missing glyphs, for example in class names
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _embedded(figure: Figure, png: bytes) -> dict[str, str | int]:
    """The attributes of an image element: the embedded PNG, and its size, so that the browser can reserve space."""
    width, height = (round(inches * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return {"src": "data:image/png;base64," + base64.b64encode(png).decode(), "width": width, "height": height}


def _cell(value: str | int | float) -> str:
    """Formats a table cell as text.

    >>> _cell(61706), _cell(0.125), _cell("28x28x6")
    ('61,706', '0.125', '28x28x6')
    """
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if is_number(value) else str(value)


def _breakable(text: str) -> Markup:
    """Text as HTML that may be broken behind slashes.

    >>> _breakable("block/<conv>")
    Markup('block/<wbr>&lt;conv&gt;')
    """
    return Markup("/<wbr>").join(text.split("/"))


def _template() -> jinja2.Template:
    files = resources.files("cnn_jax.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["css"] = Markup(stylesheet("cnn_jax.report", "page.css"))
    environment.filters["breakable"] = _breakable
    environment.filters["cell"] = _cell
    environment.filters["hash"] = script_hash
    environment.filters["json"] = script_json
    environment.filters["paragraphs"] = lambda text: [part for part in re.split(r"\n\s*\n", text.strip()) if part]
    environment.tests["numeric"] = is_number
    return environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
