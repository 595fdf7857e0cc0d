"""Sources that are arrays already: scikit-learn's digits, and NumPy's .npz files."""

import zipfile
from pathlib import Path

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.splits import first_line, members_of_split, stratified_parts
from cnn_jax.errors import UsageError

DIGITS_TEST = 300
DIGITS_VALIDATION = 200
IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")
PARTS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}


def load_digits(split: str) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 (UCI optical recognition of handwritten digits, test part).

    The grey values 0..16 become ``round(255 / 16 * value)``: 17 different uint8 values, so nothing is lost and full ink
    is 255 as in MNIST. The split is stratified by class and fixed: it depends on no seed of the run's.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int32)
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]

    rest, test = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=DIGITS_VALIDATION, stratify=labels[rest], random_state=0)
    members = {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}

    chosen = members_of_split("digits", split, members)
    class_names = tuple(str(class_name) for class_name in bunch.target_names)
    return Dataset.of_images("digits", split, images[chosen], labels[chosen], class_names)


def load_npz(path: str, split: str) -> Dataset:
    """Pictures and labels from a NumPy file.

    Args:
        path: a .npz file with ``images`` and ``labels`` (or ``x`` and ``y``), which are split 80, 10, 10 % by class;
            or with a pair for each part: ``x_train``, ``y_train``, ``x_test``, ``y_test``, also ``x_validation``.
            Pictures: ``(n, height, width)`` or ``(n, height, width, channels)``, integers from 0 to 255 or floats from
            0 to 1. Labels: ``(n,)``, whole numbers or names. ``class_names``, if it is there, names the numbers.
        split: a split expression.

    Raises:
        UsageError: when the file is not like that.
    """
    file, name = Path(path).expanduser(), f"npz:{path}"
    try:
        with open(file, "rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in arrays.files}
    except FileNotFoundError as error:
        raise UsageError(f"data set {name!r}: there is no file {file}") from error
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"data set {name!r}: {file} is no readable .npz file: {first_line(error)}") from error
    pairs = {
        part: (found[f"{x}{suffix}"], found[f"{y}{suffix}"])
        for suffix, part in {"": "all", **{f"_{alias}": part for alias, part in PARTS.items()}}.items()
        for x, y in zip(IMAGE_KEYS, LABEL_KEYS, strict=True)
        if f"{x}{suffix}" in found and f"{y}{suffix}" in found
    }
    if not pairs:
        raise UsageError(
            f"data set {name!r}: holds {', '.join(sorted(found)) or 'nothing'}; give it images and labels, or x and y, "
            "or x_train, y_train, x_test, y_test"
        )
    parts = {part: (_pixels(name, x), _one_each(name, x, y)) for part, (x, y) in pairs.items()}
    kinds = {part: (str(x.dtype), *x.shape[1:]) for part, (x, _) in parts.items()}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{part} {dtype} {shape}" for part, (dtype, *shape) in kinds.items())
        raise UsageError(f"data set {name!r}: pictures of different kinds ({listed}); bring them to one form")
    images = np.concatenate([x for x, _ in parts.values()])
    labels, class_names = _labels(name, np.concatenate([y for _, y in parts.values()]), found.get("class_names"))
    if "all" in parts:
        members = stratified_parts(labels.tolist(), map(str, range(len(labels))))
    else:
        ends = np.cumsum([len(x) for x, _ in parts.values()])
        members = {part: np.arange(end - len(x), end) for (part, (x, _)), end in zip(parts.items(), ends, strict=True)}
    chosen = members_of_split(name, split, members)
    return Dataset.of_images(name, split, images[chosen], labels[chosen], class_names)


def _pixels(name: str, images: np.ndarray) -> np.ndarray:
    """uint8 or float32 with channels last."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        hint = "; channels must be last" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise UsageError(
            f"data set {name!r}: pictures of shape {images.shape}; give (n, height, width) or "
            f"(n, height, width, 1 or 3){hint}"
        )
    if images.dtype == np.uint8 or not images.size:
        return images
    low, high = images.min(), images.max()
    if np.issubdtype(images.dtype, np.integer) and low >= 0 and high <= 255:
        return images.astype(np.uint8)
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return images.astype(np.float32)
    raise UsageError(
        f"data set {name!r}: {images.dtype} pictures from {low:g} to {high:g}; give integers from 0 to 255 or floats "
        "from 0 to 1"
    )


def _one_each(name: str, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels of shape ``(n,)``, as many as there are pictures."""
    if labels.ndim > 1 and labels.shape[1:] != (1,) * (labels.ndim - 1):
        raise UsageError(f"data set {name!r}: labels of shape {labels.shape}; give (n,), of one-hot rows their argmax")
    if labels.size != len(images):
        raise UsageError(f"data set {name!r}: {len(images)} pictures, but {labels.size} labels")
    return labels.reshape(-1)


def _labels(name: str, labels: np.ndarray, class_names: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    if labels.dtype.kind in "US":
        names, labels = np.unique(labels, return_inverse=True)
        return labels.astype(np.int32), tuple(map(str, names))
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"data set {name!r}: {labels.dtype} labels; give whole numbers from 0, or names")
    if class_names is None:
        class_names = np.arange(max(labels.max(initial=0) + 1, 1))
    return labels.astype(np.int32), tuple(map(str, class_names))
