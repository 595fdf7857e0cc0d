"""Convolution arithmetic as an animation: a kernel slides over an input, with all numbers.

``python -m cnn_jax.report.arithmetic --input=6 --kernel=3 --strides=2 --padding=1 --output=x.gif`` writes figure 2.7
of Dumoulin and Visin, with values. The file is a GIF, an SVG that plays by itself, or an HTML page with buttons.

References:
  Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
"""

import argparse
import dataclasses
import html
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageDraw, ImageFont

from cnn_jax.errors import UsageError
from cnn_jax.ops.padding import BOUNDARIES, Padding, check_boundary, dilated, slide
from cnn_jax.report.embedding import script_hash
from cnn_jax.runtime.command import exit_code
from cnn_jax.runtime.files import check_output, write_atomically
from cnn_jax.runtime.terminal import say
from cnn_jax.typed import typed

MOST_FRAMES = 400
_CELL, _GAP, _MARGIN, _LINE = 34, 26, 12, 17
_COLORS = {
    "input": "#cfe6f7",
    "padding": "#f3f3f3",
    "hole": "#ffffff",
    "window": "#f6b26b",
    "output": "#d3ebcf",
    "current": "#5fae57",
    "waiting": "#ffffff",
    "line": "#6b7280",
    "text": "#111827",
    "small": "#9a3412",
}


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One convolution of a map with one channel, and where all of its numbers come from.

    Attributes:
      source: The index into the input of every cell of the extended input, (rows, columns); -1 for zeros.
      extended: The extended input: spread by the strides of a transposed convolution, and padded.
      inside: Where the extended input is the input itself.
      kernel: As it is applied, (rows, columns); of a transposed convolution it is flipped.
      windows: The positions in the extended input of the window of each output: (outputs, entries, 2).
      output: The result, (rows, columns).
      title: What it is, in one line.
    """

    source: Shaped[np.ndarray, "rows columns"]
    extended: Shaped[np.ndarray, "rows columns"]
    inside: Shaped[np.ndarray, "rows columns"]
    kernel: Shaped[np.ndarray, "height width"]
    windows: Shaped[np.ndarray, "outputs entries 2"]
    output: Shaped[np.ndarray, "rows2 columns2"]
    title: str


@typed
def arithmetic(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    padding: Padding = 0,
    dilation: Sequence[int] = (1, 1),
    boundary: str = "zero",
    transposed: bool = False,
) -> Arithmetic:
    """All numbers of a convolution of small integers.

    Args:
      input_size: Rows and columns of the input.
      kernel_size: Rows and columns of the kernel.
      strides: Of the rows and the columns. A transposed convolution spreads its input by them.
      padding: As in :func:`cnn_jax.ops.conv`; of a transposed convolution, that of the convolution it transposes.
      dilation: Of the kernel.
      boundary: The values of the padding; see :func:`cnn_jax.ops.pad`.
      transposed: Whether this is a transposed convolution, :func:`cnn_jax.ops.conv_transpose`.

    Raises:
      UsageError: The window does not fit, or an option is unknown.

    >>> arithmetic((6, 6), (3, 3), strides=(2, 2), padding=1).output.shape
    (3, 3)
    """
    op = "arithmetic"
    check_boundary(op, boundary, 0.0)
    if min(*input_size, *kernel_size, *strides, *dilation) < 1:
        raise UsageError(f"{op}: input, kernel, strides and dilation must be at least 1")
    values = (np.arange(input_size[0] * input_size[1]) * 7 % 11 % 4).reshape(input_size)
    kernel = np.array([0, 1, 2, 2, 2, 0, 0, 1, 2])[np.arange(kernel_size[0] * kernel_size[1]) % 9].reshape(kernel_size)
    spread: tuple[int, ...] = (1, 1)
    steps, pads = tuple(strides), padding
    if transposed:
        if boundary != "zero":
            raise UsageError(f"{op}: a transposed convolution has no boundary values; leave out boundary={boundary!r}")
        spread, steps, pads = tuple(strides), (1, 1), _transposed_padding(padding, kernel_size, dilation)
        kernel = kernel[::-1, ::-1]
    options: dict[str, Any] = {"dilation": tuple(dilation), "input_dilation": spread}
    sliding = slide(op, input_size, kernel_size, strides=steps, padding=pads, **options)
    rows, columns = (
        _sources(size, rate, low, high, boundary)
        for size, rate, (low, high) in zip(input_size, spread, sliding.padding, strict=True)
    )
    outside = (rows[:, None] < 0) | (columns < 0)
    source = np.where(outside, -1, rows[:, None] * input_size[1] + columns)
    extended = np.where(outside, 0, values.ravel()[source])
    within = [
        (np.arange(len(axis)) >= low) & (np.arange(len(axis)) < low + (size - 1) * rate + 1)
        for axis, size, rate, (low, _) in zip((rows, columns), input_size, spread, sliding.padding, strict=True)
    ]
    offsets = np.stack(np.meshgrid(*map(np.arange, kernel_size), indexing="ij"), -1).reshape(-1, 2) * dilation
    starts = np.stack(np.meshgrid(*map(np.arange, sliding.output), indexing="ij"), -1).reshape(-1, 2) * steps
    windows = starts[:, None] + offsets
    output = (extended[windows[..., 0], windows[..., 1]] * kernel.ravel()).sum(axis=1).reshape(sliding.output)
    words = [f"input {_by(input_size)}", f"kernel {_by(kernel_size)}"]
    words += [f"strides {_by(strides)}"] if max(strides) > 1 else []
    words += [f"padding {padding}"] if padding not in (0, "VALID") else []
    words += [f"boundary {boundary}"] if boundary != "zero" else []
    words += [f"dilation {_by(dilation)}"] if max(dilation) > 1 else []
    title = ("transposed convolution: " if transposed else "") + ", ".join(words) + f" -> {_by(sliding.output)}"
    return Arithmetic(source, extended, within[0][:, None] & within[1], kernel, windows, output, title)


def _transposed_padding(padding: Padding, kernel_size: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """The padding of the spread input, from that of the convolution that is transposed."""
    if padding == "VALID":
        padding = 0
    if not isinstance(padding, int):
        raise UsageError(f"arithmetic: give the padding of a transposed convolution as a number, not {padding!r}")
    reaches = dilated(kernel_size, dilation)
    if padding > min(reaches) - 1:
        raise UsageError(f"arithmetic: padding={padding} of a transposed convolution is at most {min(reaches) - 1}")
    return [(reach - 1 - padding,) * 2 for reach in reaches]


def _sources(size: int, spread: int, low: int, high: int, boundary: str) -> np.ndarray:
    """The input index behind each position of an extended axis; -1 for zeros."""
    places = np.full((size - 1) * spread + 1, -1)
    places[::spread] = np.arange(size)
    around = (max(low, 0), max(high, 0))
    if boundary in ("zero", "constant"):  # whose value is 0 here
        places = np.pad(places, around, constant_values=-1)
    else:
        places = np.pad(places, around, mode=BOUNDARIES[boundary])  # type: ignore[call-overload]
    return places[max(-low, 0) : len(places) - max(-high, 0)]


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


@dataclasses.dataclass(frozen=True)
class _Cell:
    x: int
    y: int
    fill: str
    text: str
    small: str = ""
    dashed: bool = False


@dataclasses.dataclass(frozen=True)
class _Frame:
    cells: list[_Cell]
    lines: list[str]


def _frames(found: Arithmetic) -> list[_Frame]:
    """What is drawn for each output."""
    if len(found.windows) > MOST_FRAMES:
        raise UsageError(f"arithmetic: {len(found.windows)} steps are too many for a file, at most {MOST_FRAMES}")
    left = 2 * _MARGIN + _CELL * found.extended.shape[1] + _GAP
    frames = []
    for step, window in enumerate(found.windows):
        weights = {tuple(place): weight for place, weight in zip(window.tolist(), found.kernel.ravel(), strict=True)}
        cells = []
        for (row, column), value in np.ndenumerate(found.extended):
            kind = "input" if found.source[row, column] >= 0 and found.inside[row, column] else "padding"
            if found.inside[row, column] and found.source[row, column] < 0:
                kind = "hole"
            seen = (row, column) in weights
            cells.append(
                _Cell(
                    _MARGIN + column * _CELL,
                    _MARGIN + _LINE + 8 + row * _CELL,
                    _COLORS["window" if seen else kind],
                    str(value),
                    f"x{weights[row, column]}" if seen else "",
                    dashed=kind != "input",
                )
            )
        for index, value in enumerate(found.output.ravel()):
            row, column = divmod(index, found.output.shape[1])
            kind = "current" if index == step else "output" if index < step else "waiting"
            top = _MARGIN + _LINE + 8 + row * _CELL
            cells.append(_Cell(left + column * _CELL, top, _COLORS[kind], str(value) if index <= step else ""))
        read = found.extended[window[:, 0], window[:, 1]]
        products = [f"{value}x{weight}" for value, weight in zip(read, found.kernel.ravel(), strict=True)]
        frames.append(_Frame(cells, _wrapped(f"{' + '.join(products)} = {found.output.ravel()[step]}", found)))
    return frames


def _size(found: Arithmetic) -> tuple[int, int]:
    width = 3 * _MARGIN + _CELL * (found.extended.shape[1] + found.output.shape[1]) + _GAP
    width = max(width, 2 * _MARGIN + 7 * len(found.title))
    rows = max(found.extended.shape[0], found.output.shape[0])
    longest = " + ".join(f"{found.extended.max()}x{weight}" for weight in found.kernel.ravel())
    longest += f" = {found.output.max()}"
    lines = -(-7 * len(longest) // (width - 2 * _MARGIN)) + 1
    return width, _MARGIN * 2 + _LINE + 8 + _CELL * rows + 10 + _LINE * lines


def _wrapped(text: str, found: Arithmetic) -> list[str]:
    room, lines = (_size(found)[0] - 2 * _MARGIN) // 7, [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) + 1 > room:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


@typed
def to_gif(found: Arithmetic, *, milliseconds: int = 700) -> bytes:
    """The animation as a GIF."""
    width, height = _size(found)
    small, normal = ImageFont.load_default(9), ImageFont.load_default(13)
    images = []
    for frame in _frames(found):
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        draw.text((_MARGIN, _MARGIN - 4), found.title, fill=_COLORS["text"], font=normal)
        for cell in frame.cells:
            box = (cell.x, cell.y, cell.x + _CELL, cell.y + _CELL)
            draw.rectangle(box, fill=cell.fill, outline="#c7ccd4" if cell.dashed else _COLORS["line"])
            middle = (cell.x + _CELL / 2, cell.y + _CELL / 2)
            draw.text(middle, cell.text, fill=_COLORS["text"], font=normal, anchor="mm")
            corner = (cell.x + _CELL - 2, cell.y + _CELL - 2)
            draw.text(corner, cell.small, fill=_COLORS["small"], font=small, anchor="rs")
        bottom = max(cell.y for cell in frame.cells) + _CELL + 12
        for number, line in enumerate(frame.lines):
            draw.text((_MARGIN, bottom + _LINE * number), line, fill=_COLORS["text"], font=normal)
        images.append(image.quantize(32, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True)
    return buffer.getvalue()


@typed
def to_svg(found: Arithmetic, *, seconds: float = 0.7, plays: bool = True) -> str:
    """The animation as an SVG image; each step is a group with the class ``step``."""
    width, height = _size(found)
    frames = _frames(found)
    total = len(frames)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="DejaVu Sans, Arial, sans-serif" text-anchor="middle">',
        f"<title>{html.escape(found.title)}</title>",
        "<style>text{font-size:13px;fill:#111827}.k{font-size:9px;fill:#9a3412;text-anchor:end}.l{text-anchor:start}"
        "rect{stroke:#6b7280}.d{stroke:#c7ccd4}"
        + (
            f".step{{visibility:hidden;animation:show {seconds * total:g}s step-end infinite}}"
            f"@keyframes show{{0%{{visibility:visible}}{100 / total:.4f}%{{visibility:hidden}}}}"
            if plays
            else ".step{visibility:hidden}"
        )
        + "</style>",
        f'<rect width="{width}" height="{height}" fill="#fff" class="d"/>',
        f'<text class="l" x="{_MARGIN}" y="{_MARGIN + 9}">{html.escape(found.title)}</text>',
    ]
    inputs = found.extended.size
    last = frames[-1].cells[inputs:]
    # What every step shares is drawn once: input cells below the steps and their values above them, and all outputs
    # below them. A step covers the outputs that are not computed yet.
    parts += [_svg_cell(dataclasses.replace(cell, text="", small="")) for cell in _plain(frames, inputs)]
    parts += [_svg_cell(dataclasses.replace(cell, fill=_COLORS["output"])) for cell in last]
    bottom = max(cell.y for cell in frames[0].cells) + _CELL + 24
    for step, frame in enumerate(frames):
        delay = f' style="animation-delay:{seconds * step:g}s"' if plays else ""
        window = [cell for cell in frame.cells[:inputs] if cell.small]
        later = frame.cells[inputs + step + 1 :]
        drawn = [
            _svg_boxes(window, _COLORS["window"]),
            *(
                f'<text class="k" x="{cell.x + _CELL - 2}" y="{cell.y + _CELL - 3}">{cell.small}</text>'
                for cell in window
            ),
            _svg_boxes(later, _COLORS["waiting"]) if later else "",
            _svg_cell(frame.cells[inputs + step]),
            *(
                f'<text class="l" x="{_MARGIN}" y="{bottom + _LINE * number}">{html.escape(line)}</text>'
                for number, line in enumerate(frame.lines)
            ),
        ]
        parts.append(f'<g class="step"{delay}>{"".join(drawn)}</g>')
    parts += [_svg_text(cell) for cell in frames[0].cells[:inputs]]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _plain(frames: list[_Frame], inputs: int) -> list[_Cell]:
    """The cells of the input as they look outside of the window."""
    looks = zip(*(frame.cells[:inputs] for frame in frames), strict=True)
    return [next((cell for cell in cells if not cell.small), cells[0]) for cells in looks]


def _svg_boxes(cells: list[_Cell], fill: str) -> str:
    """Several cells as one path."""
    path = "".join(f"M{cell.x} {cell.y}h{_CELL}v{_CELL}h-{_CELL}z" for cell in cells)
    return f'<path d="{path}" fill="{fill}" stroke="{_COLORS["line"]}"/>'


def _svg_cell(cell: _Cell) -> str:
    dashed = ' class="d"' if cell.dashed else ""
    box = f'<rect x="{cell.x}" y="{cell.y}" width="{_CELL}" height="{_CELL}" fill="{cell.fill}"{dashed}/>'
    return box + (_svg_text(cell) if cell.text else "")


def _svg_text(cell: _Cell) -> str:
    return f'<text x="{cell.x + _CELL // 2}" y="{cell.y + _CELL // 2 + 4}">{cell.text}</text>'


_SCRIPT = """
const steps = [...document.querySelectorAll(".step")];
let at = 0, timer = null;
const show = (next) => {
  at = (next + steps.length) % steps.length;
  steps.forEach((step, i) => { step.style.visibility = i === at ? "visible" : "hidden"; });
  document.getElementById("at").textContent = `step ${at + 1} of ${steps.length}`;
};
const play = () => {
  if (timer) { clearInterval(timer); timer = null; } else timer = setInterval(() => show(at + 1), 700);
  document.getElementById("play").textContent = timer ? "pause" : "play";
};
document.getElementById("back").onclick = () => show(at - 1);
document.getElementById("next").onclick = () => show(at + 1);
document.getElementById("play").onclick = play;
addEventListener("keydown", ({ key }) => {
  if (key === "ArrowLeft") show(at - 1);
  if (key === "ArrowRight") show(at + 1);
});
show(0);
"""


@typed
def to_html(found: Arithmetic) -> str:
    """The steps as a self-contained page with buttons; the arrow keys work, too."""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src '{script_hash(_SCRIPT)}'"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" '
        f'content="width=device-width, initial-scale=1">\n<meta http-equiv="Content-Security-Policy" '
        f'content="{policy}">\n<title>{html.escape(found.title)}</title>\n'
        "<style>:root{color-scheme:light dark}body{margin:1rem;font:15px system-ui,sans-serif}"
        "svg{display:block;max-width:100%;height:auto;margin-bottom:1rem}"
        "button{min-height:2.2rem;font:inherit}</style>\n"
        f"{to_svg(found, plays=False)}"
        '<button id="back">back</button> <button id="play">play</button> <button id="next">step</button> '
        f'<span id="at" aria-live="polite"></span>\n<script>{_SCRIPT}</script>\n</html>\n'
    )


@typed
def write(path: Path, found: Arithmetic) -> None:
    """Writes the animation in the format of the file's ending: ``.gif``, ``.svg`` or ``.html``."""
    makers: dict[str, Any] = {".gif": to_gif, ".svg": to_svg, ".html": to_html}
    check_output(path, list(makers), what="--output")
    write_atomically(path, makers[path.suffix.lower()](found))


def _sizes(what: str, text: str) -> tuple[int, int]:
    """Rows and columns from a text such as ``'6'`` or ``'6x5'``."""
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--{what}={text} must be a whole number, or rows x columns such as 6x5")
    return int(parts[0]), int(parts[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 with one line on stderr for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.report.arithmetic", description="Draws how a convolution computes each of its outputs."
    )
    parser.add_argument("--input", default="5", help="rows and columns, such as 6 or 6x5")
    parser.add_argument("--kernel", default="3", help="rows and columns")
    parser.add_argument("--strides", default="1")
    parser.add_argument("--padding", default="0", help="a number, or a name such as SAME, HALF or FULL")
    parser.add_argument("--dilation", default="1", help="of the kernel")
    parser.add_argument("--boundary", default="zero", help="the values of the padding: " + ", ".join(BOUNDARIES))
    parser.add_argument("--transposed", action="store_true", help="the transposed convolution")
    parser.add_argument("--output", required=True, help="a .gif, .svg or .html file")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)

    def draw() -> None:
        padding = options.padding
        found = arithmetic(
            _sizes("input", options.input),
            _sizes("kernel", options.kernel),
            strides=_sizes("strides", options.strides),
            padding=int(padding) if padding.lstrip("-").isdecimal() else padding.upper(),
            dilation=_sizes("dilation", options.dilation),
            boundary=options.boundary,
            transposed=options.transposed,
        )
        write(Path(options.output), found)
        say(f"{found.title}; wrote {options.output}")

    return exit_code(draw, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
