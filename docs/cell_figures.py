"""Draws the image of cells.md: ``python docs/cell_figures.py``, from the root of a clone."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from jaxtyping import Array

from cnn_jax import attribution, config, data, filters, models
from cnn_jax.models.neocognitron import CCells, self_organize
from cnn_jax.tasks import run
from cnn_jax.tasks.saved import load_run

IMAGES = Path(__file__).parent / "images"
SHOWN = 4  # units in one panel
COLOURS = plt.get_cmap("tab10").colors


def first_layer() -> np.ndarray:
    """The first kernels of LeNet-5, trained on the embedded digits, (5, 5, 6)."""
    settings = config.load_config("lenet5_digits")
    with tempfile.TemporaryDirectory() as folder:
        run.train(settings, Path(folder))
        network, state = load_run(settings, Path(folder))
        first = network.first(state)
        model = network.model(first.params, first.model_state)
    return np.asarray(model.c1.kernel[...])[..., 0, :]


def s_cells() -> nnx.Module:
    """The first stage of a Neocognitron that has seen digits."""
    digits = data.load("digits", "train[:300]").images
    shown = jax.image.resize(jnp.asarray(digits, jnp.float32) / 255, (300, 16, 16, 1), "bilinear")
    model = models.create("neocognitron", rngs=nnx.Rngs(0))
    return nnx.jit(lambda model: self_organize(model, shown))(model).s1


def draw_curves(axis: plt.Axes, found: attribution.TuningCurves, title: str) -> None:
    """The curves of the most selective units, each in units of its maximum, over the direction of the stripes."""
    best = np.argsort(-np.asarray(found.selectivity))[:SHOWN]
    for unit, colour in zip(best, COLOURS, strict=False):
        curve = np.asarray(found.curves[:, unit])
        angles = [*np.asarray(found.angles), 180]
        axis.plot(angles, [*curve / curve.max(), curve[0] / curve.max()], color=colour, linewidth=1.5)
    axis.set(title=title, xlabel="direction of the stripes, degrees", xticks=range(0, 181, 45), ylim=(0, 1.05))


def of_kernels(kernels: np.ndarray, wavelength: float) -> attribution.TuningCurves:
    """The tuning of linear cells with kernels of shape (h, w, units)."""

    def respond(images: Array) -> Array:
        return jnp.einsum("nhwc,hwu->nu", images, jnp.asarray(kernels))

    return attribution.tuning_curves(respond, (*kernels.shape[:2], 1), wavelength=wavelength)


def main() -> None:
    """Draws the six panels."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    gabors = np.stack([filters.gabor(8, angle=angle, radius=16) for angle in (0, 45, 90, 135)], axis=-1)
    draw_curves(axes[0, 0], of_kernels(gabors, 8), "Gabor filters")
    draw_curves(axes[0, 1], of_kernels(first_layer(), 5), "LeNet-5, first layer, on digits")
    cells = s_cells()
    middle = attribution.tuning_curves(
        lambda images: cells(images)[:, 2, 2], (5, 5, 1), wavelength=5, mean=0.5, contrast=0.5
    )
    draw_curves(axes[0, 2], middle, "S-cells of the Neocognitron, on digits")
    axes[0, 0].set_ylabel("response / largest")

    phases = np.arange(0, 361, 10)
    stripes = jnp.stack([filters.grating((65, 65), 8, phase=phase) for phase in phases.tolist()])[..., None]
    simple = np.maximum(np.asarray(filters.apply(stripes, filters.gabor(8)))[:, 32, 32, 0], 0)
    complex_cell = np.asarray(filters.energy(stripes, 8))[:, 32, 32, 0]
    axes[1, 0].plot(phases, simple, color=COLOURS[0], label="simple: Gabor and rectifier")
    axes[1, 0].plot(phases, complex_cell, color=COLOURS[3], label="complex: energy model")
    axes[1, 0].set(title="Phase", xlabel="phase of the grating, degrees", ylabel="response", xticks=range(0, 361, 90))
    axes[1, 0].legend(frameon=False, fontsize=8, loc="center")

    line = jnp.stack([jnp.zeros((33, 33)).at[:, 16 + shift].set(1.0) for shift in range(-10, 11)])[..., None]
    simple = np.maximum(np.asarray(filters.apply(line, filters.gabor(8, angle=90)))[:, 16, 16, 0], 0)
    complex_cell = np.asarray(filters.energy(line, 8, angle=90))[:, 16, 16, 0]
    for responses, colour, label in ((simple, COLOURS[0], "simple"), (complex_cell, COLOURS[3], "complex")):
        axes[1, 1].plot(range(-10, 11), responses / responses.max(), color=colour, label=label)
    axes[1, 1].set(title="Position of a line", xlabel="distance from the centre, pixels")
    axes[1, 1].legend(frameon=False, fontsize=8)

    active = jnp.stack([jnp.zeros((15, 15, 2)).at[7, column, 0].set(1.0) for column in range(15)])
    responses = np.asarray(CCells((5, 5), padding="SAME")(active))[:, 7, 7, 0]
    axes[1, 2].step(range(-7, 8), np.asarray(active[:, 7, 7, 0]), where="mid", color=COLOURS[0], label="S-cell")
    axes[1, 2].step(range(-7, 8), responses / responses.max(), where="mid", color=COLOURS[3], label="C-cell, 5x5")
    axes[1, 2].set(title="Position of a feature", xlabel="distance from the centre, cells")
    axes[1, 2].legend(frameon=False, fontsize=8)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "cells.webp", dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
