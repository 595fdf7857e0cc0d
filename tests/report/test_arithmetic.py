"""Convolution arithmetic as files: the numbers are those of the ops, the files are what their endings say."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.report.arithmetic import arithmetic, main, to_gif, to_html, to_svg

TWO = (2, 2)


@pytest.mark.parametrize(
    ("size", "kernel", "options", "output"),
    [
        ((5, 5), (3, 3), {"strides": TWO, "padding": 1}, (3, 3)),  # figure 2.6 of Dumoulin and Visin
        ((6, 6), (3, 3), {"strides": TWO, "padding": 1}, (3, 3)),  # figure 2.7
        ((4, 4), (3, 3), {}, (2, 2)),
        ((5, 5), (4, 4), {"padding": 2}, (6, 6)),
        ((5, 5), (3, 3), {"padding": "HALF"}, (5, 5)),
        ((5, 5), (3, 3), {"padding": "FULL"}, (7, 7)),
        ((7, 7), (3, 3), {"dilation": TWO}, (3, 3)),
        ((5, 4), (3, 2), {"strides": (2, 1), "padding": "SAME"}, (3, 4)),
        ((4, 4), (3, 3), {"padding": 2, "boundary": "mirror"}, (6, 6)),
        ((4, 4), (3, 3), {"padding": 1, "boundary": "periodic"}, (4, 4)),
        ((4, 4), (3, 3), {"padding": -1, "boundary": "replicate"}, None),
    ],
)
def test_convolutions(size: Any, kernel: Any, options: Any, output: Any) -> None:
    if output is None:
        with pytest.raises(UsageError, match="does not fit"):
            arithmetic(size, kernel, **options)
        return
    found = arithmetic(size, kernel, **options)
    image = np.zeros(size)
    image.ravel()[found.source[found.inside]] = found.extended[found.inside]
    named = {{"dilation": "kernel_dilation"}.get(name, name): value for name, value in options.items()}
    expected = ops.conv(image[..., None], found.kernel[..., None, None].astype(float), **named)[..., 0]
    assert found.output.shape == output
    np.testing.assert_array_equal(found.output, expected)


@pytest.mark.parametrize(
    ("size", "strides", "padding", "dilation"),
    [((2, 2), (1, 1), 0, (1, 1)), ((3, 3), TWO, 1, (1, 1)), ((3, 2), (3, 2), 0, TWO)],
)
def test_transposed_convolutions_are_adjoints(size: Any, strides: Any, padding: int, dilation: Any) -> None:
    found = arithmetic(size, (3, 3), strides=strides, padding=padding, dilation=dilation, transposed=True)
    image = found.extended[found.inside & (found.source >= 0)].reshape(size)
    expected = np.zeros([(n - 1) * s + 2 * d + 1 for n, s, d in zip(size, strides, dilation, strict=True)])
    for (row, column), value in np.ndenumerate(image):  # each input adds the kernel, as it is, to the output
        for (i, j), weight in np.ndenumerate(found.kernel[::-1, ::-1]):
            expected[row * strides[0] + i * dilation[0], column * strides[1] + j * dilation[1]] += value * weight
    inner = slice(padding, -padding or None)
    np.testing.assert_array_equal(found.output, expected[inner, inner])


def test_files() -> None:
    found = arithmetic((6, 6), (3, 3), strides=TWO, padding=1)
    with Image.open(io.BytesIO(to_gif(found))) as image:
        assert (image.format, image.n_frames) == ("GIF", 9)
    svg, page = to_svg(found), to_html(found)
    assert svg.count('class="step"') == page.count('class="step"') == 9
    for line in ("6x6", f"= {found.output[2, 2]}</text>"):
        assert line in svg
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert len(svg) < 30_000


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "x.svg")
    assert main(["--input=6x5", "--kernel=3", "--padding=same", f"--output={path}"]) == 0
    assert "input 6x5, kernel 3x3, padding SAME -> 6x5" in capsys.readouterr().out
    for wrong, message in {
        "--input=two": "--input=two must be a whole number",
        "--kernel=9": "does not fit",
        "--boundary=mirrored": "unknown boundary='mirrored'",
        f"--output={tmp_path / 'x.png'}": "must end in .gif, .svg or .html",
        "--input=90": "too many",
        "--strides=0": "at least 1",
    }.items():
        assert main([f"--output={path}", wrong]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


def test_the_figures_of_the_docs_are_what_their_commands_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "convolution_arithmetic.md").read_text()
    commands = re.findall(r"^python -m cnn_jax.report.arithmetic (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs/images/arithmetic").mkdir(parents=True)
    for command in commands:
        assert main(command.split()) == 0
    written = sorted(path.name for path in (tmp_path / "docs/images/arithmetic").iterdir())
    assert written == sorted(path.name for path in (docs / "images/arithmetic").iterdir())
    assert len(written) == 13
    for name in written:
        figures = (folder / "images/arithmetic" / name for folder in (tmp_path / "docs", docs))
        assert len({figure.read_text() for figure in figures}) == 1, name
