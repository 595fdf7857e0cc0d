"""Figures that compare several runs: the errors of methods, and a score as a function of one or two quantities."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.report.figures.style import (
    BLUE,
    GREY,
    HAIRLINE,
    INK,
    OTHERS,
    VERMILLION,
    WIDTH,
    all_fitted,
    ink_on,
    styled,
    text_width,
    tint,
)
from cnn_jax.report.formatting import format_value
from cnn_jax.typed import typed

Spread = tuple[float, float]
"""A mean and a standard deviation."""


@typed
@styled
def errors(rows: Sequence[tuple[str, float, float | None]]) -> Figure:
    """The error of each method as a dot and its published error as a mark, on a logarithmic axis if none is 0.

    Args:
      rows: From top to bottom, the name of the method, its error, and the published error or None. Errors are fractions
        of 1.

    Raises:
      UsageError: There are no rows, or an error is negative.

    Example:
      >>> errors([("linear", 0.08, 0.12), ("LeNet-5", 0.009, 0.0095)]).axes[0].get_xscale()
      'log'
    """
    if not rows:
        raise UsageError("errors: no rows; give at least one (method, error, published error)")
    for name, error, published in rows:
        if error < 0 or (published is not None and published < 0):
            raise UsageError(f"errors: {name!r} has error {error}, published {published}; neither may be negative")
    numbers = [number for _, *pair in rows for number in pair if number is not None]
    names = [textwrap.fill(name, 20) for name, *_ in rows]
    row = max(0.36, 0.17 * max(name.count("\n") + 1 for name in names))
    figure = Figure(figsize=(WIDTH, 0.75 + row * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, error, published) in enumerate(rows):
        axes.axhline(place, color=HAIRLINE, linewidth=0.6)
        if published is not None:
            axes.plot([published] * 2, [place - 0.3, place + 0.3], color=VERMILLION, linewidth=2.2)
        axes.plot(error, place, "o", color=BLUE, markersize=7)
        axes.text(1.02, place, f"{error:.2%}", transform=axes.get_yaxis_transform(), va="center_baseline", color=INK)
    if min(numbers) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(numbers) / 1.4, max(numbers) * 1.4)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(numbers) < 20 * min(numbers) else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(-0.03 * max(numbers) or -0.01, 1.1 * max(numbers) or 0.1)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_yticks(range(len(rows)), names, color=INK)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.grid(axis="x")
    figure.supxlabel("test error (dot: measured, mark: published)", size="medium", color=GREY)
    return figure


@typed
@styled
def spreads(series: Mapping[str, Mapping[Any, Spread]], *, x_label: str, y_label: str, log_x: bool = True) -> Figure:
    """A score as a function of a quantity, one line for each method, with a band of one standard deviation.

    Args:
      series: The method's name -> quantity -> (mean, standard deviation). Scores are fractions of 1.
      x_label: The label of the quantity.
      y_label: The label of the score.
      log_x: Whether the axis of the quantity is logarithmic.

    Raises:
      UsageError: There are no series, or a series has no points.

    Example:
      >>> series = {"kept": {10: (0.5, 0.02), 100: (0.8, 0.01)}, "scratch": {10: (0.3, 0.05), 100: (0.7, 0.02)}}
      >>> len(spreads(series, x_label="examples", y_label="test accuracy").axes[0].lines)
      2
    """
    if not series or not all(series.values()):
        raise UsageError("spreads: series needs at least one line, each with at least one point")
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    for colour, (name, points) in zip((BLUE, VERMILLION, GREY, *OTHERS) * len(series), series.items(), strict=False):
        x = np.array(sorted(points))
        means, deviations = np.array([points[value] for value in x]).T
        axes.plot(x, means, color=colour, marker="o", markersize=4, label=name)
        axes.fill_between(x, means - deviations, means + deviations, color=colour, alpha=0.15, linewidth=0)
    if log_x:
        axes.set_xscale("log")
    ticks = sorted({value for points in series.values() for value in points})
    axes.set_xticks(ticks, [f"{value:,g}" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(loc="best", labelcolor="linecolor", handlelength=0)
    return figure


@typed
@styled
def panels_of_lines(
    panels: Mapping[str, Mapping[str, Mapping[float | int, Sequence[float]]]], *, y_labels: tuple[str, str]
) -> Figure:
    """Two scores as functions of several quantities, a panel for each quantity and a colour for each method.

    Args:
      panels: The label of a quantity -> the method's name -> quantity -> the two scores, fractions of 1. The second
        score is dashed.
      y_labels: What the two scores are.

    Raises:
      UsageError: There are no panels, or one has no lines.

    Example:
      >>> panels = {"degrees": {"LeNet": {0: (0.99, 1.0), 90: (0.2, 0.2)}}, "shift": {"LeNet": {0: (0.99, 1.0)}}}
      >>> len(panels_of_lines(panels, y_labels=("accuracy", "agreement")).axes[0].lines)
      2
    """
    if not panels or not all(panels.values()):
        raise UsageError("panels_of_lines: panels needs at least one panel, each with at least one line")
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = dict(zip(names, (BLUE, VERMILLION, GREY, *OTHERS) * len(names), strict=False))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (label, lines) in zip(grid.flat, panels.items(), strict=False):
        for name, points in lines.items():
            x = sorted(points)
            for which, style in enumerate(("-", "--")):
                y = [points[value][which] for value in x]
                shown = name if style == "-" else None
                axes.plot(x, y, style, color=colours[name], marker="o", markersize=3, linewidth=1.2, label=shown)
        axes.set_xlabel(label)
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y")
    figure.supxlabel(f"solid: {y_labels[0]}, dashed: {y_labels[1]}", size="medium", color=GREY)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, labelcolor="linecolor", handlelength=0)
    return figure


@typed
@styled
def heat_map(
    cells: Mapping[Any, Mapping[Any, float]],
    *,
    x_label: str,
    y_label: str,
    metric: Metric,
    bracketed: Collection[tuple[Any, Any]] = (),
) -> Figure:
    """A heat map of a score over two quantities: better scores are darker, and the best cell is framed.

    Shades depend on the rank, so that a few very bad scores do not make all others look alike. Pairs without a score
    are empty.

    Args:
      cells: Value on the vertical axis -> value on the horizontal axis -> score.
      x_label: The label of the horizontal axis.
      y_label: The label of the vertical axis.
      metric: The metric of the scores.
      bracketed: Pairs (value on the vertical axis, value on the horizontal axis) whose scores are written in brackets,
        because they are not comparable, and are never framed.

    Raises:
      UsageError: There are no scores.

    Example:
      >>> accuracy = Metric("accuracy", "higher", "%")
      >>> figure = heat_map({32: {0.1: 0.9, 1.0: 0.8}}, x_label="rate", y_label="batch", metric=accuracy)
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['90.0', '80.0']
    """
    across = _ordered(value for row in cells.values() for value in row)
    down = _ordered(cells)[::-1]
    if not across:
        raise UsageError("heat_map: cells has no score; give at least one, as {down: {across: score}}")
    ranked = sorted({score for row in cells.values() for score in row.values()}, key=metric.utility)
    framed = (score for y, row in cells.items() for x, score in row.items() if (y, x) not in bracketed)
    best = max(framed, key=metric.utility, default=None)
    share = {score: place / max(len(ranked) - 1, 1) for place, score in enumerate(ranked)}
    side = (WIDTH - 0.9) / len(across)
    size = min(9, 72 * side / 3.2)
    columns, rows = (all_fitted([format_value(value) for value in values], 90) for values in (across, down))
    widest = max(text_width(f"{column}  ") for column in columns) / 72
    upright = widest <= side
    height = 1.0 + min(side, 0.6) * len(down) + (0 if upright else widest - 0.15)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    shades = np.ones((len(down), len(across), 3))
    for row, column in np.ndindex(len(down), len(across)):
        score = cells[down[row]].get(across[column])
        if score is None:
            continue
        shades[row, column] = tint(BLUE, 0.04 + 0.96 * share[score])
        text = f"{100 * score:.1f}" if metric.is_fraction else f"{score:.3g}"
        comparable = (down[row], across[column]) not in bracketed
        colour = ink_on(shades[row, column])
        text = text if comparable else f"({text})"
        axes.text(column, row, text, size=size, color=colour, ha="center", va="center_baseline")
        if comparable and score == best:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=VERMILLION, linewidth=2.2))
    axes.imshow(shades, aspect="auto")
    axes.set_title(", ".join(filter(None, (metric.name, metric.unit))), loc="left", color=GREY)
    axes.set_xticks(range(len(across)), columns, rotation=0 if upright else 90)
    axes.set_yticks(range(len(down)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure


def _ordered(values: Iterable[Any]) -> list[Any]:
    """The distinct values: numbers sorted, other values in their original order."""
    found = list(dict.fromkeys(values))
    return sorted(found) if all(isinstance(value, int | float) for value in found) else found
