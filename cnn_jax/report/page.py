"""One self-contained HTML page: numbers first, then sections of text, figures, tables and code.

The page loads nothing: styles and pictures are inside it, so it opens offline and can be mailed. It follows the
reader's light or dark theme, and reads on a phone as on a desk.
"""

import base64
import dataclasses
import hashlib
import io
import json
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
from cnn_jax.report.figures.style import styled
from cnn_jax.runtime.files import write_atomically

_DOTS_PER_INCH = 220  # of the saved pictures
_PIXELS_PER_INCH = 115  # at which the page shows them where there is room: half as many, for screens of double density


@dataclasses.dataclass(frozen=True)
class Headline:
    """A number that the page opens with.

    Attributes:
      label: What it is.
      value: As it is to be read, unit included.
      reference: The value to compare it with.
      reference_source: Where that value is from.
      note: One more line, such as how it was measured.
    """

    label: str
    value: str
    reference: str | None = None
    reference_source: str | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
      columns: The names.
      rows: One cell a column; numbers are set flush right, whole ones with thousands separators.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise UsageError(f"Table: row {number} has {len(row)} cells but there are {len(self.columns)} columns")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page, in the order: text, figure, table, widget, code.

    Attributes:
      title: Its heading, its entry in the contents, and the name of its figure's file.
      text: Paragraphs, separated by blank lines.
      figure: A matplotlib figure.
      alt: What the figure shows, for those who cannot see it; a figure needs one.
      caption: How to read the figure.
      table: A table.
      code: Text in a fixed-width font, such as a config or a command.
      widget: HTML, for what the page's script brings to life; before the code.
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


@dataclasses.dataclass(frozen=True)
class Page:
    """A page to be written.

    Attributes:
      title: The page's name.
      subtitle: One line below it.
      headlines: The numbers it opens with.
      sections: What follows.
      footer: Its last line.
      script: What brings its widgets to life; the only one that the page lets a browser run.
      style: Of its widgets.
      data: JSON values, which the script finds in the element ``data``.

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

    def write(self, workdir: str | os.PathLike[str], name: str = "report.html") -> Path:
        """Writes the page, and each figure as ``figures/<section>.png`` too.

        The same page gives the same bytes, and no file is ever seen half written.

        Args:
          workdir: An existing folder.
          name: Of the page's file.

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
    """File names and anchors from titles, each once.

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
        warnings.filterwarnings("ignore", "Glyph")  # a class name in a script that the font lacks: the page has it, too
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _embedded(figure: Figure, png: bytes) -> dict[str, str | int]:
    """The attributes of an image element: the picture itself, and the size that the browser keeps free for it."""
    width, height = (round(inches * _PIXELS_PER_INCH) for inches in figure.get_size_inches())
    return {"src": "data:image/png;base64," + base64.b64encode(png).decode(), "width": width, "height": height}


def _is_number(cell: str | int | float) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(value: str | int | float) -> str:
    """A table's cell as text.

    >>> _cell(61706), _cell(0.125), _cell("28x28x6")
    ('61,706', '0.125', '28x28x6')
    """
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if _is_number(value) else str(value)


def _script_hash(script: str) -> str:
    """What a content security policy names a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(values: Any) -> Markup:
    """JSON that cannot end the element it stands in.

    >>> _json({"name": "</script>"})
    Markup('{"name":"\\\\u003c/script>"}')
    """
    return Markup(json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _template() -> jinja2.Template:
    files = resources.files("cnn_jax.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["css"] = Markup(files.joinpath("page.css").read_text(encoding="utf-8"))
    environment.filters["cell"] = _cell
    environment.filters["hash"] = _script_hash
    environment.filters["json"] = _json
    environment.filters["paragraphs"] = lambda text: [part for part in re.split(r"\n\s*\n", text.strip()) if part]
    environment.tests["numeric"] = _is_number
    return environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
