"""Draws the figures of docs/sweeps.md from the folders of the sweeps.

PYTHONPATH=. python docs/sweep_figures.py runs/learning_rate_batch_size runs/optimizers runs/kernel_size_depth
"""

import sys
from pathlib import Path

import jax.numpy as jnp
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from cnn_jax import train as training
from cnn_jax.metrics import Metric
from cnn_jax.report.figures import heat_map, spreads
from cnn_jax.report.figures.style import BLUE, GREY, OTHERS, VERMILLION, WIDTH, styled
from cnn_jax.sweep.page import curve_of
from cnn_jax.sweep.table import TrialRow, read_table
from cnn_jax.sweep.trial import trial_directory

IMAGES = Path(__file__).parent / "images"
METRIC = Metric("validation/accuracy", "higher", "%")
COLOURS = {"adagrad": VERMILLION, "rmsprop": BLUE, "adam": OTHERS[0], "sgd": GREY}


def valley(sweep: Path) -> Figure:
    """The accuracy over learning rate and batch size."""
    cells: dict[int, dict[float, float]] = {}
    for row in _complete(sweep):
        own = cells.setdefault(row.overrides["batch_size"], {})
        own[row.overrides["optimizer.learning_rate"]] = row.score or 0.0
    return heat_map(cells, x_label="learning rate", y_label="batch size", metric=METRIC)


@styled
def optimizers(sweep: Path) -> Figure:
    """Above, the size of updates for a constant gradient; below, the error of each optimiser at its best rate."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(2, 3))
    for name, colour in COLOURS.items():
        above.plot(range(1, 101), _updates(name, 100), color=colour, label=name)
        best = max((row for row in _complete(sweep) if row.overrides["optimizer.name"] == name), key=_score)
        curve = curve_of(trial_directory(sweep, best.number), METRIC.name)
        rate = best.overrides["optimizer.learning_rate"]
        below.plot(
            [epoch for epoch, _ in curve],
            [1 - accuracy for _, accuracy in curve],
            color=colour,
            label=f"{name}, rate {rate:g}",
            marker="o",
            markersize=2.5,
        )
    for axes in (above, below):
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        axes.legend(
            labelcolor="linecolor",
            handlelength=0,
            ncols=2,
            loc="upper right",
            bbox_to_anchor=(1.0, 0.85 if axes is above else 1.0),
        )
    above.set_xlabel("step")
    above.set_ylabel("update / first update")
    below.set_xlabel("epoch")
    below.set_ylabel("validation error")
    ticks = (0.02, 0.03, 0.05, 0.1, 0.2)
    below.set_ylim(0.019, 0.25)
    below.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def kernels(sweep: Path) -> Figure:
    """The accuracy of each stack over the learning rate: mean and standard deviation over the seeds."""
    series: dict[str, dict[float, tuple[float, float]]] = {}
    for row in _complete(sweep):
        name = " + ".join(f"{size}x{size}" for size in row.overrides["model.options.kernel_sizes"])
        spread = (row.mean or 0.0, row.std or 0.0)
        series.setdefault(name, {})[row.overrides["optimizer.learning_rate"]] = spread
    return spreads(series, x_label="learning rate", y_label="validation accuracy")


def _complete(sweep: Path) -> list[TrialRow]:
    return [row for row in read_table(sweep) if row.state == "complete"]


def _score(row: TrialRow) -> float:
    return row.score or 0.0


def _updates(name: str, steps: int) -> list[float]:
    """The sizes of consecutive updates for a gradient of 1, relative to the first update."""
    optimizer = training.create_optimizer(name, 1.0, momentum=0.9 if name in ("sgd", "adam") else 0.0)
    params = {"w": jnp.zeros(())}
    state, found = optimizer.init(params), []
    for _ in range(steps):
        updates, state = optimizer.update({"w": jnp.ones(())}, state, params)
        found.append(float(-updates["w"]))
    return [update / found[0] for update in found]


def main() -> None:
    """Writes the three figures."""
    figures = {"sweep-valley": valley, "sweep-optimizers": optimizers, "sweep-kernels": kernels}
    for (name, draw), folder in zip(figures.items(), map(Path, sys.argv[1:]), strict=True):
        draw(folder).savefig(IMAGES / f"{name}.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
