"""Draws the images of filters.md: ``python docs/filter_figures.py``, from the root of a clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from cnn_jax import filters

IMAGES = Path(__file__).parent / "images"
COLUMNS = 4
SUMS_TO_ONE = ("identity", "box", "binomial", "gaussian", "canny_gaussian", "trapezoid", "simpson", "sharpen")
STRIPES = ("line", "gabor")


def photograph() -> np.ndarray:
    """A square of scikit-learn's temple in grey, 192 x 192, with values from 0 to 1."""
    temple = Image.fromarray(load_sample_images().images[0][:, :427]).convert("L")
    return np.asarray(temple.resize((192, 192), Image.Resampling.LANCZOS), np.float32) / 255


def tiles(
    name: str, shown: dict[str, tuple[np.ndarray, np.ndarray | None]], *, columns: int = COLUMNS, signed: bool = False
) -> None:
    """Saves images in rows, each with its title and, in a corner, the kernel that made it.

    Images from 0 to 1, or ``signed`` ones, in which grey is 0.
    """
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.75 * rows), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, (image, kernel)) in zip(axes.flat, shown.items(), strict=False):
        most = np.quantile(np.abs(image), 0.998) if signed else 1
        axis.imshow(image, cmap="gray", vmin=-most if signed else 0, vmax=most)
        axis.set_title(title, fontsize=10, family="monospace")
        if kernel is not None:
            corner = axis.inset_axes((0.72, 0.72, 0.26, 0.26))
            limit = np.abs(kernel).max()
            corner.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
            corner.set(xticks=[], yticks=[])
    figure.savefig(IMAGES / f"{name}.webp", dpi=110, pil_kwargs={"quality": 80})
    plt.close(figure)


def kernels(image: np.ndarray) -> None:
    """Saves the photograph under each of the named kernels, in three groups."""
    groups: dict[str, dict[str, tuple[np.ndarray, np.ndarray | None]]] = {
        "filters_smoothing": {"the photograph": (image, None)},
        "filters_edges": {},
        "filters_stripes": {},
    }
    for call, make in filters.KERNELS.items():
        kernel, name = make(), call.partition("(")[0]
        group = (
            "filters_smoothing" if name in SUMS_TO_ONE else "filters_stripes" if name in STRIPES else "filters_edges"
        )
        filtered = np.asarray(filters.apply(jnp.asarray(image)[..., None], kernel))[..., 0]
        title = call.removesuffix("()").replace("finite_difference", "difference").replace("axis=1, kind=", "")
        groups[group][title] = (filtered, np.asarray(kernel))
    for name, shown in groups.items():
        tiles(name, shown, signed=name != "filters_smoothing")


def stars(image: np.ndarray, cell: int = 8) -> np.ndarray:
    """Histograms of oriented gradients as a star in each cell: a line along the edge for each bin, as light as it."""
    framed = np.pad(image, cell, mode="edge")
    blocks = np.asarray(filters.hog(jnp.asarray(framed)[..., None], pixels_per_cell=cell, cells_per_block=3))
    blocks = blocks.reshape(*blocks.shape[:2], 9, -1)[:, :, 4]  # of each block the cell in the middle
    scale, drawn = 4, np.zeros((4 * image.shape[0], 4 * image.shape[1]), np.float32)
    reach = np.arange(-cell * scale // 2 + 2, cell * scale // 2 - 1)
    for (row, column, number), strength in np.ndenumerate(blocks):
        turn = np.radians((number + 0.5) * 180 / blocks.shape[-1])  # of the gradient; the edge is at a right angle
        middle = (np.array([row, column]) + 0.5) * cell * scale
        places = (middle[:, None] + np.array([[np.cos(turn)], [-np.sin(turn)]]) * reach).round().astype(int)
        drawn[tuple(places)] = np.maximum(drawn[tuple(places)], strength)
    return np.sqrt(np.minimum(drawn / 0.25, 1))


def features(image: np.ndarray) -> None:
    """Saves Canny's edges and the histograms of the photograph."""
    x = jnp.asarray(image)[..., None]
    found = {
        "canny(sigma=1)": filters.canny(x),
        "canny(sigma=3)": filters.canny(x, sigma=3),
        "low=0.2, high=1": filters.canny(x, low=0.2, high=1),
    }
    shown = {title: (np.asarray(edges[..., 0], np.float32), None) for title, edges in found.items()}
    tiles("filters_features", {**shown, "hog": (stars(image), None)}, columns=2)


def main() -> None:
    """Draws all figures."""
    IMAGES.mkdir(exist_ok=True)
    image = photograph()
    kernels(image)
    features(image)


if __name__ == "__main__":
    main()
