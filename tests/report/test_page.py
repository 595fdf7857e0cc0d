import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from cnn_jax.errors import UsageError
from cnn_jax.report.figures import confusion_matrix, filters
from cnn_jax.report.page import Headline, Page, Section, Table

HOSTILE = """<script>alert("1")</script> & 'quotes' {{ 7 * 7 }}"""
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Reader(HTMLParser):
    """A page as its elements (tag, attributes) and text; fails on tags that do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.declaration = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make_page() -> Page:
    return Page(
        "LeNet-5 on digits",
        "61,706 parameters",
        [Headline("test accuracy", "98.7%", "99.05%", "LeCun et al. 1998", "300 images"), Headline("time", "21 s")],
        [
            Section(
                "Confusion", figure=confusion_matrix(np.eye(3, dtype=int), list("abc")), alt="3 hits", caption="Rows."
            ),
            Section("First-layer filters", "One.\n\nTwo.", figure=filters(np.ones((5, 5, 1, 6))), alt="6 filters"),
            Section("Network", table=Table(["layer", "parameters", "share"], [["conv", 61706, 0.5], ["pool", 0, 1.0]])),
            Section("Config", code='{\n  "seed": 0\n}'),
        ],
        "cnn_jax",
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page().write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def reader(written: Path) -> Reader:
    return Reader(written.read_text(encoding="utf-8"))


def test_the_page_loads_nothing(written: Path, reader: Reader) -> None:
    loading = [(tag, *item) for tag, attributes in reader.elements for item in attributes.items() if tag != "a"]
    sources = [(tag, value) for tag, name, value in loading if name in ("src", "href", "srcset", "poster", "data")]
    assert len(sources) == 3  # two figures and the icon that browsers would otherwise ask for
    assert all(value is not None and value.startswith("data:") for _, value in sources)
    assert all((link["href"] or "").startswith("#") for link in reader.all("a"))
    [css] = reader.texts["style"]
    assert not re.search(r"@import|url\(|https?:", css)
    [policy] = [meta["content"] for meta in reader.all("meta") if "http-equiv" in meta]
    assert (policy or "").startswith("default-src 'none'")
    assert not reader.all("script")
    assert "http" not in written.read_text().replace("http-equiv", "")


def test_pictures_have_words_and_their_size(reader: Reader) -> None:
    images = reader.all("img")
    assert [image["alt"] for image in images] == ["3 hits", "6 filters"]
    for image in images:
        header, data = (image["src"] or "").split(",")
        assert header == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            shown = int(image["width"] or 0), int(image["height"] or 0)
            assert picture.width > 1.8 * shown[0]  # sharp on high-density screens
            np.testing.assert_allclose(picture.width / picture.height, shown[0] / shown[1], rtol=0.02)


def test_the_files_are_the_pictures_of_the_page(written: Path, reader: Reader) -> None:
    files = sorted((written.parent / "figures").iterdir())
    assert [file.name for file in files] == ["confusion.png", "first-layer-filters.png"]
    embedded = [base64.b64decode((image["src"] or "").split(",")[1]) for image in reader.all("img")]
    assert [file.read_bytes() for file in files] == embedded
    assert sorted(path.name for path in written.parent.iterdir()) == ["figures", "report.html"]


def test_structure_for_readers_who_listen(reader: Reader) -> None:
    assert reader.declaration == "doctype html"
    assert reader.all("html") == [{"lang": "en"}]
    headings = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h\d", tag)]
    assert headings == [1, 2, 2, 2, 2]
    for tag in ("header", "nav", "main", "footer"):
        assert len(reader.all(tag)) == 1
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [link["href"] for link in reader.all("a")] == [f"#{section['id']}" for section in reader.all("section")]
    assert reader.texts["a"] == reader.texts["h2"] == ["Confusion", "First-layer filters", "Network", "Config"]
    assert all(section["aria-labelledby"] in ids for section in reader.all("section"))
    assert any("width=device-width" in (meta.get("content") or "") for meta in reader.all("meta"))


def test_numbers_stand_beside_their_reference(reader: Reader) -> None:
    assert reader.texts["dt"] == ["test accuracy", "time"]
    assert [text.strip() for text in reader.texts["dd"]] == ["98.7%", "reference", "300 images", "21 s"]
    assert reader.texts["b"] == ["99.05%"]
    assert reader.texts["span"] == ["LeCun et al. 1998"]


def test_tables_text_and_code(reader: Reader) -> None:
    assert reader.texts["th"] == ["layer", "parameters", "share"]
    assert reader.texts["td"] == ["conv", "61,706", "0.5", "pool", "0", "1"]
    assert [cell.get("class") for cell in reader.all("td")] == [None, "number", "number"] * 2
    assert {"One.", "Two."} <= set(reader.texts["p"])
    assert reader.texts["code"] == ['{\n  "seed": 0\n}']


def test_the_same_page_has_the_same_bytes(written: Path, tmp_path: Path) -> None:
    with matplotlib.rc_context({"savefig.bbox": "tight", "font.size": 30, "savefig.facecolor": "red"}):
        again = make_page().write(tmp_path)
    assert again.read_bytes() == written.read_bytes()
    again_over_itself = make_page().write(tmp_path)
    assert again_over_itself.read_bytes() == written.read_bytes()


def test_text_is_text_whatever_it_holds(tmp_path: Path) -> None:
    figure = filters(np.ones((2, 2, 1, 1)))
    figure.text(0, 0, "猫")  # not in the font
    section = Section(HOSTILE, HOSTILE, figure, HOSTILE, HOSTILE, Table([HOSTILE], [[HOSTILE]]), HOSTILE)
    page = Page(HOSTILE, HOSTILE, [Headline(*[HOSTILE] * 5)], [section, section], HOSTILE)
    reader = Reader(page.write(tmp_path).read_text(encoding="utf-8"))
    assert not reader.all("script")
    for tag in ("title", "h1", "h2", "dt", "th", "td", "code", "figcaption", "a", "b"):
        assert set(reader.texts[tag]) == {HOSTILE}, tag
    assert {image["alt"] for image in reader.all("img")} == {HOSTILE}
    assert len(list((tmp_path / "figures").iterdir())) == 2
    assert all(re.fullmatch(r"[\w-]+\.png", path.name) for path in (tmp_path / "figures").iterdir())


def test_a_page_needs_no_more_than_a_title(tmp_path: Path) -> None:
    reader = Reader(Page("Only this").write(tmp_path).read_text())
    assert reader.texts["h1"] == ["Only this"]
    assert not reader.all("nav")
    assert not reader.all("dl")


def test_a_page_that_cannot_be_written_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = make_page().write(tmp_path)
    before = report.read_bytes()

    class Full(io.FileIO):
        def write(self, content: bytes) -> int:
            super().write(content[: len(content) // 2])
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr("cnn_jax.runtime.files.open", Full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        Page("Another").write(tmp_path)
    assert report.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "report.html"]


def test_a_figure_needs_words_and_a_table_whole_rows() -> None:
    with pytest.raises(UsageError, match="Section 'Maps': the figure needs alt="):
        Section("Maps", figure=filters(np.ones((2, 2, 1, 1))))
    with pytest.raises(UsageError, match="row 1 has 1 cells but there are 2 columns"):
        Table(["a", "b"], [[1, 2], [3]])
