"""Figures of scores, predictions and the optimisation, such as learning curves and confusion matrices."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Shaped
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.report.figures.style import (
    BLUE,
    GREY,
    HAIRLINE,
    INK,
    MARGIN,
    OTHERS,
    VERMILLION,
    WIDTH,
    all_fitted,
    ink_on,
    labelled_bar,
    place,
    styled,
    text_width,
    tint,
)
from cnn_jax.typed import typed

_SPLIT_COLOURS = {"train": GREY, "validation": BLUE, "test": VERMILLION}


@typed
@styled
def learning_curves(rows: Sequence[Mapping[str, Any]], *, metrics: Sequence[Metric]) -> Figure:
    """Metrics as functions of the epoch, one line for each split, labelled with its last value.

    If lower is better and the values differ by more than a factor of 10, the axis is logarithmic, except for metrics
    that are fractions. A linear axis shows the range of the metric after the first tenth of the run, so that large
    initial values do not hide the later differences.

    Args:
      rows: The lines of ``metrics.jsonl``: ``{"step": 120, "epoch": 1.0, "split": "train", "loss": 0.3, ...}``.
        Values that are not finite leave a gap.
      metrics: The metrics to show, from top to bottom.

    Returns:
      A figure with one axes for each metric.

    Raises:
      UsageError: There are no metrics, or no row has one of them.

    Example:
      >>> rows = [{"step": 9 * e, "epoch": e, "split": "test", "loss": 1 / e, "accuracy": 1 - 1 / e} for e in (1, 2, 3)]
      >>> metrics = [Metric("loss", "lower"), Metric("accuracy", "higher", "%")]
      >>> [axes.get_title(loc="left") for axes in learning_curves(rows, metrics=metrics).axes]
      ['loss', 'accuracy']
    """
    known = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "epoch", "split")))
    if not metrics:
        raise UsageError("learning_curves: metrics is empty; give at least one, such as Metric('loss', 'lower')")
    for metric in metrics:
        if metric.name not in known:
            raise UsageError(f"learning_curves: no row has the metric {metric.name!r}; {nearest(metric.name, known)}")
    splits = sorted({row["split"] for row in rows}, key=lambda split: ([*_SPLIT_COLOURS, split].index(split), split))
    others = iter(OTHERS * len(splits))
    colours = {split: _SPLIT_COLOURS.get(split) or next(others) for split in splits}

    figure = Figure(figsize=(WIDTH, 0.5 + 2.1 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        lines, name = {}, metric.name
        for split in splits:
            points = [(row["epoch"], row[name]) for row in rows if row["split"] == split and name in row]
            if points:
                lines[split] = np.where(np.isfinite(points), points, np.nan).T
        for split, (epochs, values) in lines.items():
            _draw_line(axes, epochs, values, name=split, colour=colours[split], formatted=metric.format)
        _scale(axes, metric, np.concatenate(list(lines.values()), axis=1))
        axes.set_title(name, loc="left", weight="bold", pad=22)
        _colour_key(axes, columns=len(lines))
    _count_epochs(panels[-1], rows)
    return figure


OPTIMISATION = ("learning_rate", "gradient_norm", "parameter_norm")
"""The names in ``metrics.jsonl`` of the values that :func:`optimisation` shows."""


@typed
@styled
def optimisation(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The learning rate and the norms of the gradient and the parameters as functions of the epoch, with last values.

    Args:
      rows: The lines of ``metrics.jsonl``. Rows without these values are left out.

    Returns:
      A figure with one axes for each of :data:`OPTIMISATION` that any row has.

    Raises:
      UsageError: No row has any of these values.

    Example:
      >>> rows = [{"step": 9 * e, "epoch": e, "split": "train", "learning_rate": 0.1 / e} for e in (1, 2, 3)]
      >>> [axes.get_title(loc="left") for axes in optimisation(rows).axes]
      ['learning rate']
    """
    names = [name for name in OPTIMISATION if any(name in row for row in rows)]
    if not names:
        raise UsageError(f"optimisation: no row has one of {', '.join(OPTIMISATION)}")
    figure = Figure(figsize=(WIDTH, 0.5 + 1.5 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        epochs, values = np.where(np.isfinite(points), points, np.nan).T
        _draw_line(axes, epochs, values, name="train", colour=GREY, formatted=lambda value: f"{value:.3g}")
        positive = values[values > 0]
        if name == "gradient_norm" and positive.size and positive.max() / positive.min() > 10:
            _logarithmic(axes)
        elif np.isfinite(values).any():
            axes.set_ylim(0, 1.08 * np.nanmax(values) or 1)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_title(name.replace("_", " "), loc="left", weight="bold", pad=22)
        _colour_key(axes, columns=1)
    _count_epochs(panels[-1], rows)
    return figure


def _draw_line(
    axes: Axes, epochs: np.ndarray, values: np.ndarray, *, name: str, colour: str, formatted: Callable[[float], str]
) -> None:
    """Draws a line that is labelled with its name and its last finite value."""
    last = values[np.isfinite(values)][-1:]
    axes.plot(
        epochs,
        values,
        color=colour,
        label=f"{name} {formatted(last[0]) if last.size else '-'}",
        linewidth=1.1 if name == "train" else 1.8,
        marker="o" if len(values) <= 30 else "",
        markersize=2.5,
    )
    axes.grid(axis="y")


def _count_epochs(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=max(row["epoch"] for row in rows) >= 3))


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter("")


def _colour_key(axes: Axes, *, columns: int) -> None:
    """A legend above the axes, whose labels have the colours of the lines."""
    key = axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        borderpad=0,
        labelcolor="linecolor",
        handlelength=0,
        handletextpad=0,
        columnspacing=1.2,
    )
    for handle in key.legend_handles:
        if handle is not None:
            handle.set_visible(False)


def _scale(axes: Axes, metric: Metric, points: np.ndarray) -> None:
    """Sets the range and scale of the y axis from a metric's points, of shape (2, n): epochs and values."""
    epochs, values = points[:, np.isfinite(points[1])]
    if values.size == 0:
        return
    if metric.minimize and not metric.is_fraction and values.min() > 0 and values.max() / values.min() > 10:
        _logarithmic(axes)
        return
    late = values[epochs >= 0.1 * epochs.max()]
    low, high = late.min(), late.max()
    margin = 0.06 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if metric.is_fraction:
        axes.yaxis.set_major_formatter(PercentFormatter(1))


@typed
@styled
def reliability(
    count: Shaped[Array | np.ndarray, " bins"],
    confidence: Shaped[Array | np.ndarray, " bins"],
    correct: Shaped[Array | np.ndarray, " bins"],
) -> Figure:
    """A reliability diagram: the accuracy of examples by the probability of their predicted class.

    Args:
      count: The number of examples in each bin; the bins have equal width, from 0 to 1.
      confidence: The sum of their probabilities in each bin.
      correct: The number of correctly classified examples in each bin.

    Returns:
      A figure with two axes. The upper one shows the accuracy of each bin as a bar, and its mean probability as a line
      across it. The lower one shows the share of examples in each bin.

    Raises:
      UsageError: All bins are empty.

    References:
      Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, 2017, figure 1.

    Example:
      >>> figure = reliability(np.array([0, 10]), np.array([0.0, 9.0]), np.array([0, 7]))
      >>> figure.axes[0].get_ylabel(), [float(bar.get_height()) for bar in figure.axes[0].patches]
      ('accuracy', [0.7])
    """
    count, confidence, correct = (np.asarray(numbers, float) for numbers in (count, confidence, correct))
    if not count.sum() > 0:
        raise UsageError("reliability: no examples in any bin; give the sums of ops.calibration_bins")
    edges = np.linspace(0, 1, len(count) + 1)
    held, width = count > 0, 1 / len(count)
    left = edges[:-1][held]
    figure = Figure(figsize=(WIDTH, WIDTH + 0.6), layout="constrained")
    accuracy, share = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    accuracy.bar(left, (correct / np.maximum(count, 1))[held], width, align="edge", color=BLUE, edgecolor="white")
    accuracy.hlines(
        (confidence / np.maximum(count, 1))[held], left, left + width, color=VERMILLION, label="probability"
    )
    accuracy.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    accuracy.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    accuracy.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)  # above: bars may be anywhere
    share.bar(edges[:-1], count / count.sum(), width, align="edge", color=GREY, edgecolor="white")
    share.set(xlabel="probability of the predicted class", ylabel="examples")
    for axis in (accuracy.yaxis, share.xaxis, share.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@typed
@styled
def precision_recall(curves: Mapping[str, tuple[Shaped[np.ndarray, " n"], Shaped[np.ndarray, " n"]]]) -> Figure:
    """The precision of each class as a function of its recall, one line for each class.

    Args:
      curves: Class name -> recall and precision at falling thresholds; empty arrays for a class without examples.

    Returns:
      A figure with one axes.

    Raises:
      UsageError: There are no classes.

    Example:
      >>> figure = precision_recall({"cat": (np.array([0.5, 1.0]), np.array([1.0, 0.8]))})
      >>> figure.axes[0].get_xlabel(), len(figure.axes[0].lines)
      ('recall', 1)
    """
    if not curves:
        raise UsageError("precision_recall: curves is empty; give recall and precision of at least one class")
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    few = [BLUE, VERMILLION, *OTHERS]
    named = len(curves) <= 2 * len(few)
    labels = all_fitted(list(curves), 72)
    for number, (recall, precision) in enumerate(curves.values()):
        colour, style = few[number % len(few)], "-" if number < len(few) else "--"
        axes.plot(
            [0, *recall],
            [*precision[:1], *precision] if len(precision) else [np.nan],
            color=colour if named else GREY,
            linestyle=style if named else "-",
            linewidth=1.4 if named else 0.7,
            label=labels[number] if named else None,
            drawstyle="steps-pre",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    if named:
        axes.legend(loc="lower left", ncols=2)
    return figure


@typed
@styled
def code_map(
    points: Shaped[np.ndarray, "n axes"], labels: Shaped[np.ndarray, " n"] | None, class_names: Sequence[str]
) -> Figure:
    """Points of a plane, coloured by class, with the name of each class at the median of its points.

    Args:
      points: Two coordinates of each point; one is drawn as a line of points.
      labels: Class numbers; None for points of one colour.
      class_names: The name of each class.

    Raises:
      UsageError: There are no points.

    Example:
      >>> figure = code_map(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([0, 1]), ["cat", "dog"])
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['cat', 'dog']
    """
    if not len(points):
        raise UsageError("code_map: there are no points")
    across, down = points[:, 0], points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    size = max(2, min(12, 4000 / len(points)))
    if labels is None:
        axes.scatter(across, down, s=size, color=BLUE, linewidths=0)
    else:
        names = all_fitted(list(class_names), 60)
        colours = colormaps["tab10" if len(names) <= 10 else "hsv"](
            np.arange(len(names)) if len(names) <= 10 else np.linspace(0, 0.95, len(names))
        )
        for number, name in enumerate(names):
            own = labels == number
            if not own.any():
                continue
            axes.scatter(across[own], down[own], s=size, color=colours[number], alpha=0.7, linewidths=0)
            middle = float(np.median(across[own])), float(np.median(down[own]))
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colours[number], "linewidth": 0.8}
            axes.text(*middle, name, ha="center", va="center", size=9, color=INK, bbox=box)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure


@typed
@styled
def predicted_values(
    true: Shaped[np.ndarray, "n targets"], predicted: Shaped[np.ndarray, "n targets"], names: Sequence[str]
) -> Figure:
    """For each target, predicted values against true values, and residuals against predicted values.

    Args:
      true: The true values.
      predicted: The predicted values.
      names: The name of each target.

    Returns:
      A figure with one row of two axes for each target.

    Raises:
      UsageError: The shapes do not match.

    Example:
      >>> figure = predicted_values(np.array([[1.0], [2.0]]), np.array([[1.5], [2.0]]), ["length"])
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['predicted length', 'residual']
    """
    if true.shape != predicted.shape or true.shape[1:] != (len(names),):
        raise UsageError(
            f"predicted_values: true values of shape {true.shape}, predicted ones of {predicted.shape} and "
            f"{len(names)} names do not match"
        )
    figure = Figure(figsize=(WIDTH, 2.3 * len(names)), layout="constrained")
    points: dict[str, Any] = {"s": max(2, min(12, 1500 / len(true))), "color": BLUE, "alpha": 0.5, "linewidths": 0}
    line: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": "--"}
    rows = figure.subplots(len(names), 2, squeeze=False)
    for number, (name, (left, right)) in enumerate(zip(all_fitted(names, 90), rows, strict=True)):
        truth, guess = true[:, number], predicted[:, number]
        left.scatter(truth, guess, **points)
        left.axline((float(truth[0]), float(truth[0])), slope=1, **line)
        left.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
        right.scatter(guess, guess - truth, **points)
        right.axhline(0, **line)
        right.set(xlabel=f"predicted {name}", ylabel="residual")
        for axes in (left, right):
            axes.grid()
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(nbins=4))
    return figure


@typed
@styled
def confusion_matrix(counts: Shaped[Array | np.ndarray, "..."], class_names: Sequence[str]) -> Figure:
    """The confusion matrix: correct predictions in blue, mistakes in vermillion.

    The shade of a correct prediction is the class's recall. The shade of a mistake is its count, on a separate scale,
    so that a few mistakes are visible next to many correct predictions. If the numbers do not fit into the cells, the
    most frequent mistakes are listed below the matrix.

    Args:
      counts: The counts, ints of shape (classes, classes). Rows are true classes, columns are predicted classes.
      class_names: The name of each class.

    Returns:
      A figure with the matrix and, if there is one, the list below it.

    Raises:
      UsageError: ``counts`` is not square, has values that are not whole numbers of at least 0, or does not match the
        number of names.

    Example:
      >>> figure = confusion_matrix(np.array([[9, 1], [0, 10]]), ["cat", "dog"])
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['9', '1', '10', 'recall', '90.0%', '100.0%']
    """
    counts = np.asarray(counts)
    n = len(class_names)
    if counts.shape != (n, n) or n == 0:
        raise UsageError(
            f"confusion_matrix: counts has shape {counts.shape} but there are {n} class names; it must be ({n}, {n})"
        )
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise UsageError(f"confusion_matrix: counts must be whole numbers >= 0, not {counts.dtype} >= {counts.min()}")
    totals = counts.sum(axis=1)
    wrong = counts * (1 - np.eye(n, dtype=counts.dtype))
    names = _ClassNames(class_names)
    side = names.side
    cell = 72 * side / n
    size = min(9, 0.8 * cell / text_width(f"{counts.max()}", size=1))
    numbered = size >= 5.5
    pairs = [] if numbered else _most_confused(wrong, class_names)

    top, listed = 0.3, 0.32 * len(pairs) + 0.4 if pairs else 0
    figure = Figure(figsize=(WIDTH, top + side + names.below + listed))
    matrix = place(figure, names.left, top, side, side)
    shades = np.empty((n, n, 3))
    for row, column in np.ndindex(n, n):
        if row == column:
            shades[row, column] = tint(BLUE, counts[row, row] / max(totals[row], 1))
        else:
            shades[row, column] = tint(VERMILLION, math.sqrt(counts[row, column] / max(wrong.max(), 1)))
    matrix.imshow(shades)
    if numbered:
        for row, column in np.argwhere(counts):
            colour = ink_on(shades[row, column])
            matrix.text(column, row, f"{counts[row, column]}", size=size, color=colour, **_CENTRED)
    if names.every == 1:  # each row has room for a line of text
        inch = n / side
        right = n - 0.5 + 0.08 * inch
        matrix.text(right, -0.5 - 0.06 * inch, "recall", size=9, color=GREY, ha="left", va="bottom")
        for row in range(n):
            recall = f"{counts[row, row] / totals[row]:.1%}" if totals[row] else "none"
            matrix.text(right, row, recall, size=names.size, color=INK, ha="left", va="center")
        matrix.hlines(np.arange(n + 1) - 0.5, -0.5, n - 0.5, color=HAIRLINE, linewidth=0.6)
        matrix.vlines(np.arange(n + 1) - 0.5, -0.5, n - 0.5, color=HAIRLINE, linewidth=0.6)
    names.label(matrix)
    if pairs:
        _draw_pairs(place(figure, MARGIN, top + side + names.below + 0.3, WIDTH - 2 * MARGIN, listed - 0.4), pairs)
    return figure


_CENTRED: dict[str, Any] = {"ha": "center", "va": "center_baseline"}


class _ClassNames:
    """The names along both axes of a confusion matrix, and the room that they and the recall need, in inches.

    Attributes:
      side: The width and height of the matrix.
      left: The space on its left.
      below: The space below it.
      size: The size of the names in points.
      every: Every how many classes there is a name; more than 1 if the cells are small.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        n, label, gap = len(class_names), 0.22, 0.06
        widest = 90 if n <= 6 else 62  # points
        cell = 72 * (WIDTH - 1.9) / n
        self.size = max(6.5, min(9, 0.85 * cell))
        self.every = math.ceil(1.15 * self.size / cell)
        self._shown = range(0, n, self.every)
        self._names = all_fitted([class_names[index] for index in self._shown], widest, size=self.size)
        widths = [text_width(f"{name} ", size=self.size) for name in self._names]
        recall = max(text_width("100.0%", size=self.size), text_width("recall")) / 72
        self.left = MARGIN + label + max(widths) / 72 + gap
        self.side = WIDTH - self.left - 0.1 - recall - MARGIN
        self._upright = max(widths) <= 72 * self.side / n * self.every
        self.below = gap + (1.3 * self.size if self._upright else max(widths)) / 72 + label + MARGIN

    def label(self, axes: Axes) -> None:
        """Writes the names."""
        axes.set_xticks(self._shown, self._names, rotation=0 if self._upright else 90, size=self.size, color=INK)
        axes.set_yticks(self._shown, self._names, size=self.size, color=INK)
        axes.tick_params(length=0, pad=2)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")


def _most_confused(wrong: np.ndarray, class_names: Sequence[str], most: int = 10) -> list[tuple[str, int]]:
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [tuple(map(int, np.unravel_index(index, wrong.shape))) for index in order if wrong.flat[index]]
    classes = list(dict.fromkeys(index for pair in pairs for index in pair))
    names = dict(zip(classes, all_fitted([class_names[index] for index in classes], 135), strict=True))
    return [(f"{names[true]} → {names[predicted]}", int(wrong[true, predicted])) for true, predicted in pairs]


def _draw_pairs(axes: Axes, pairs: Sequence[tuple[str, int]]) -> None:
    axes.set_title("most frequent mistakes, true → predicted", loc="left", color=GREY)
    for row, (name, count) in enumerate(pairs):
        labelled_bar(axes, row, name, f"{count}", count / pairs[0][1], VERMILLION, width=72 * WIDTH)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(pairs) - 0.7, -0.6)
