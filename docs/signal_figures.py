"""Draws the images of signals.md: ``python docs/signal_figures.py``, from the root of a clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from cnn_jax import filters, nn, ops
from cnn_jax.config import config_module

IMAGES = Path(__file__).parent / "images"
COLOURS = ("#0072B2", "#6E7781", "#D55E00")


def signal_classes(length: int = 900) -> plt.Figure:
    """The signal of configs/signal_classes.py and the maximum of one response, coloured by the true class."""
    config = config_module("signal_classes")
    values, classes = config.signal_of(length, seed=3)
    response = filters.apply(values[:, None], -filters.laplacian_of_gaussian(1.0, rank=1))
    size = 2 * config.NEIGHBOURS + 1
    maxima = np.asarray(ops.max_pool(response, (size,), strides=1, padding="SAME"))[:, 0]
    figure, panels = plt.subplots(2, 1, figsize=(9, 3.4), sharex=True, layout="constrained")
    titles = ("the signal", f"maximum of its Laplacian of Gaussian (sigma 1) over {size} values")
    for axes, shown, title in zip(panels, (values, maxima), titles, strict=True):
        for number, colour in enumerate(COLOURS):
            axes.plot(np.where(classes == number, shown, np.nan), color=colour, label=f"class {number + 1}")
        axes.set_title(title, loc="left", size=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(ncols=3, frameon=False, loc="upper right", bbox_to_anchor=(1, 1.3))
    return figure


def moving_digits() -> plt.Figure:
    """One video of each direction."""
    config = config_module("moving_digits")
    videos = config.moving_digits("test")
    figure, panels = plt.subplots(4, config.FRAMES, figsize=(8, 4.2), layout="constrained")
    for number, row in enumerate(panels):
        video = videos.inputs[int(np.argmax(videos.labels == number))]
        row[0].set_ylabel(videos.class_names[number])
        for axes, frame in zip(row, video, strict=True):
            axes.imshow(frame[..., 0], cmap="gray")
            axes.set(xticks=[], yticks=[])
    return figure


def spectrogram() -> plt.Figure:
    """A tone that rises from 200 to 3,500 Hz within a second, and its mel spectrogram."""
    rate = 8000
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * (200 * time + 1650 * time**2)).astype(np.float32) * (time < 0.8)
    image = np.asarray(nn.Spectrogram(512, 128, num_mels=40, sample_rate=rate, floor=1.0)(tone[None, :, None]))[
        0, ..., 0
    ]
    figure, panels = plt.subplots(2, 1, figsize=(8, 3.4), layout="constrained")
    panels[0].plot(time, tone, linewidth=0.4, color=COLOURS[0])
    panels[0].set(xlim=(0, 1), yticks=[])
    panels[1].imshow(image.T, origin="lower", aspect="auto", extent=(0, 1, 0, 40))
    panels[1].set(ylabel="mel filter", xlabel="seconds")
    return figure


if __name__ == "__main__":
    for draw in (signal_classes, moving_digits, spectrogram):
        draw().savefig(IMAGES / f"{draw.__name__}.png", dpi=110)
        with Image.open(IMAGES / f"{draw.__name__}.png") as image:
            image.save(IMAGES / f"signals_{draw.__name__}.webp", quality=80)
        (IMAGES / f"{draw.__name__}.png").unlink()
