"""Draws the images of augmentation.md: ``python docs/augmentation_figures.py``, from the root of a clone."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from cnn_jax.data import Field, augment

IMAGES = Path(__file__).parent / "images"
SIDE = 192
VIEWS = 5
SHOWN = {
    "flip": "flip",
    "alternating_flip": "alternating_flip",
    "pad_and_crop": "pad_and_crop(padding=24, mode='mirror')",
    "random_crop": "random_crop(size=(128, 128), sides=(128, 256))",
    "random_resized_crop": "random_resized_crop(scale=(0.1, 1.0))",
    "affine": "affine(rotation=20, scale=(0.8, 1.2), squeeze=0.15, shear=0.2)",
    "elastic": "elastic(alpha=150, sigma=8, mode='mirror')",
    "brightness": "brightness",
    "contrast": "contrast(strength=0.7)",
    "saturation": "saturation(strength=0.9)",
    "color_pca": "color_pca(std=1.0)",
    "cutout": "cutout(size=80, fill=0.5)",
    "mixup": "mixup(alpha=1.0)",
    "cutmix": "cutmix",
}


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's temple and flower, cropped to squares, with values from 0 to 1."""
    temple, flower = load_sample_images().images

    def square(pixels: np.ndarray, left: int) -> np.ndarray:
        side = pixels.shape[0]
        image = Image.fromarray(pixels[:, left : left + side])
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float32) / 255

    return square(temple, 0), square(flower, 120)


def row(name: str, images: list[np.ndarray], titles: list[str], boxes: Sequence[np.ndarray] = ()) -> None:
    """Saves images side by side, with a title above each, and the outline of a box in each if there are boxes."""
    figure, axes = plt.subplots(1, len(images), figsize=(1.6 * len(images), 1.86), layout="constrained")
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.imshow(np.clip(image, 0, 1))
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    for axis, (top, left, bottom, right) in zip(axes, boxes, strict=False):
        axis.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="yellow"))
    figure.savefig(IMAGES / f"augment_{name}.webp", dpi=120, pil_kwargs={"quality": 82})
    plt.close(figure)


def views(call: str, image: np.ndarray, other: np.ndarray) -> tuple[list[np.ndarray], list[str]]:
    """The results for five examples of a batch, with a title for each."""
    covariance = augment.color_covariance(np.stack([image, other]))
    augmentation = augment.Augmentation([call], num_classes=2, covariance=covariance)
    batch_of = [other if augmentation.mixes and place % 2 else image for place in range(VIEWS + 1)]
    labels = [int(augmentation.mixes and place % 2) for place in range(VIEWS + 1)]
    batch = {"image": jnp.array(batch_of), "label": jnp.array(labels), "index": jnp.arange(VIEWS + 1)}
    if call == "alternating_flip":  # the same image in successive epochs
        results = [augmentation(jax.random.key(1), batch, step=0, epoch=epoch)["image"][0] for epoch in range(VIEWS)]
        return [np.asarray(result) for result in results], [f"epoch {epoch}" for epoch in range(VIEWS)]
    result = augmentation(jax.random.key(4), batch, step=0, epoch=0)
    titles = [""] * VIEWS
    if augmentation.mixes:
        titles = [f"{100 * float(weight):.0f} % temple" for weight in result["label"][:VIEWS, 0]]
    return list(np.asarray(result["image"][:VIEWS])), titles


def by_kind(image: np.ndarray) -> None:
    """Saves views of an image with its mask and a box, which are moved together."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = ((rows - 105) ** 2 + (columns - 95) ** 2 < 55**2).astype(np.uint8)
    spec = {
        "image": Field("image"),
        "circle": Field("mask", outside=255),
        "boxes": Field("boxes", count="objects"),
        "objects": Field("count"),
    }
    batch = {
        "image": np.array([image] * VIEWS),
        "circle": np.array([mask] * VIEWS),
        "boxes": np.full((VIEWS, 1, 4), [50, 40, 160, 150], np.float32),
        "objects": np.ones(VIEWS, np.int32),
    }
    calls = ["flip", "affine(rotation=25, scale=(0.7, 1.1), translation=0.1)"]
    moved = augment.Augmentation(calls, spec=spec)(jax.random.key(2), batch, step=0, epoch=0)
    views = [{name: array[0] for name, array in batch.items()}]
    views += [{name: np.asarray(array[place]) for name, array in moved.items()} for place in range(VIEWS)]
    colours = {1: (0.0, 0.8, 1.0), 255: (0.1, 0.1, 0.4)}  # of the mask, and of what comes from outside

    def coloured(view: dict[str, np.ndarray]) -> np.ndarray:
        shown = view["image"]
        for number, colour in colours.items():
            shown = np.where((view["circle"] == number)[..., None], (shown + np.array(colour)) / 2, shown)
        return shown

    boxes = [view["boxes"][0] - 0.5 for view in views]
    row("by_kind", [coloured(view) for view in views], ["example", *[""] * VIEWS], boxes)


def main() -> None:
    """Draws all figures."""
    IMAGES.mkdir(exist_ok=True)
    temple, flower = photographs()
    for name, call in SHOWN.items():
        images, titles = views(call, temple, flower)
        row(name, [temple, *images], ["image", *titles])
    by_kind(temple)
    places = ["top left", "top right", "bottom left", "bottom right", "centre"]
    crops = augment.ten_crop(jnp.array(temple)[None], size=(128, 128))[:, 0]
    row("ten_crop", [temple, *np.asarray(crops[:5])], ["image", *places])
    row("mirror", [temple, temple[:, ::-1]], ["image", "mirrored"])


if __name__ == "__main__":
    main()
