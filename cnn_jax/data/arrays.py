"""Sources that are arrays already: scikit-learn's digits, named arrays in memory, and NumPy's .npz files."""

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from os import PathLike

import numpy as np
from jaxtyping import Shaped

from cnn_jax.config import with_tuples
from cnn_jax.data.dataset import Arrays, Dataset
from cnn_jax.data.decoded import decoded_once
from cnn_jax.data.fields import IGNORED, Field, with_ignored
from cnn_jax.data.splits import PARTS, first_line, members_of_split, stratified_parts
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import check_output, open_atomically, user_path
from cnn_jax.typed import typed

DIGITS_PARTS = "train", "validation", "test"
DIGITS_TEST = 300
DIGITS_VALIDATION = 200
IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")
SPEC_KEY = "spec"  # of a .npz file with fields of any kind
MOST_CLASSES = 100_000  # by numbers alone; larger numbers are identifiers of something else


def load_digits(split: str) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 (UCI optical recognition of handwritten digits, test part).

    The grey values 0..16 become ``round(255 / 16 * value)``: 17 different uint8 values, so nothing is lost and full ink
    is 255 as in MNIST. The split is stratified by class and fixed: it depends on no seed of the run's.
    """
    # Importing scikit-learn takes a second, reading what was kept a millisecond.
    identity = f"digits with their parts, of scikit-learn {version('scikit-learn')}"
    arrays = decoded_once(identity, count=1797, num_bytes=1797 * 64, decode=_read_digits)
    members = {part: np.flatnonzero(arrays["part"] == number) for number, part in enumerate(DIGITS_PARTS)}
    chosen = members_of_split("digits", split, members)
    class_names = tuple(map(str, range(10)))
    return Dataset.of_images("digits", split, arrays["images"][chosen], arrays["labels"][chosen], class_names)


def _read_digits() -> Arrays:
    """All digits, and the part that each belongs to, as its place in ``DIGITS_PARTS``."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int32)
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    rest, test = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=DIGITS_VALIDATION, stratify=labels[rest], random_state=0)
    part = np.empty_like(labels)
    for number, members in enumerate((train, validation, test)):
        part[members] = number
    return {"images": images, "labels": labels, "part": part}


@typed
def from_arrays(
    name: str, split: str, fields: Mapping[str, Shaped[np.ndarray, "..."]], spec: Mapping[str, Field | str]
) -> Dataset:
    """One split of named arrays in memory, whatever they are.

    A source of your own is ``data.SOURCES["mine"] = lambda path, split, **_: data.from_arrays("mine", split, fields,
    spec)``.

    Args:
      name: The data set's name.
      split: A split expression over ``train``, ``validation`` and ``test``: 80, 10 and 10 % of the examples, or of each
        class where there is one label per example.
      fields: Name -> array, shape ``(n, ...)``.
      spec: The same names -> :class:`~cnn_jax.data.Field` or kind.

    Raises:
      UsageError: Arrays and spec do not fit each other, or there is no such split.

    Example:
      >>> fields = {"ecg": np.zeros((20, 100, 2), np.float32), "pulse": np.full(20, 70, np.float32)}
      >>> train = from_arrays("heart", "train", fields, {"ecg": "signal", "pulse": "target"})
      >>> len(train), train.image_shape
      (16, (100, 2))
    """
    whole = Dataset(name, "all", fields, spec)
    return _chosen(whole, split, _parts_of(whole))


def _parts_of(whole: Dataset) -> dict[str, np.ndarray]:
    single = [key for key, field in whole.spec.items() if field.kind == "label" and not field.count]
    labels = whole.fields[single[0]].tolist() if single else [0] * len(whole)
    return stratified_parts(labels, map(str, range(len(whole))))


def _chosen(whole: Dataset, split: str, members: Mapping[str, np.ndarray]) -> Dataset:
    chosen = members_of_split(whole.name, split, members)
    return dataclasses.replace(whole, split=split, fields=whole.take(chosen))


def load_npz(path: str, split: str, *, ignore_label: int = IGNORED, axes: int = 3) -> Dataset:
    """Examples from a NumPy file.

    Args:
      path: A .npz file with ``images`` and ``labels`` (or ``x`` and ``y``), which are split 80, 10, 10 % by class; or
        with a pair for each part: ``x_train``, ``y_train``, ``x_test``, ``y_test``, also ``x_validation``; or
        ``train_images``, ``train_labels``, ``val_images`` and so on, as MedMNIST has them. Images: ``(n, height,
        width)`` or ``(n, height, width, channels)``, integers from 0 to 255 or floats from 0 to 1. Labels: ``(n,)``,
        whole numbers or names. ``class_names``, if it is there, names the numbers. A file with an entry ``spec`` has
        other fields, see :func:`save_npz`.
      split: A split expression.
      axes: Of one example, without a spec: 3 for images, (height, width, channels); 4 for volumes, (depth, height,
        width, channels), as MedMNIST's 3-D sets have them; 2 for signals, (length, channels). The axis of a single
        channel may be missing.
      ignore_label: The number that means "not labelled"; -1 has this meaning for the labels of images only.

    Raises:
      UsageError: The file is not like that.
    """
    file, name = user_path(path), f"npz:{path}"
    try:
        with open(file, "rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in arrays.files}
    except FileNotFoundError as error:
        raise UsageError(f"data set {name!r}: there is no file {file}") from error
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        hint = "; save names as text, by names.astype(str)" if "Object arrays" in str(error) else ""
        raise UsageError(f"data set {name!r}: {file} is not a readable .npz file: {first_line(error)}{hint}") from error
    parts = _described_parts if SPEC_KEY in found else _labelled_parts
    whole, members = parts(name, found, ignore_label, axes)
    return _chosen(whole, split, _parts_of(whole) if members is None else members)


@typed
def save_npz(path: str | PathLike[str], parts: Mapping[str, Dataset]) -> None:
    """Writes data sets of any fields to a NumPy file, to be read as ``npz:path``.

    The file has each array as ``<field>_<part>``, or ``<field>`` where the only part is ``all``; and an array called
    ``spec`` with what was said of the fields, as JSON: ``{"scan": {"kind": "image"}, "organ": {"kind": "mask",
    "class_names": ["none", "liver"], "outside": 0}}``. Another program can write the same by ``numpy.savez``.

    Args:
      path: Of the file, ending in ``.npz``.
      parts: ``"train"``, ``"validation"``, ``"test"`` -> their examples; or ``"all"``, which is split when it is read.

    Raises:
      UsageError: The file cannot be written, the parts are others, or they have different fields.

    Example:
      >>> import tempfile
      >>> fields = {"scan": np.zeros((3, 4, 4, 1), np.uint8), "area": np.ones(3, np.float32)}
      >>> scans = Dataset("scans", "all", fields, {"scan": "image", "area": "target"})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_npz(f"{folder}/scans.npz", {"train": scans, "test": scans.part(0, 1)})
      ...     len(load_npz(f"{folder}/scans.npz", "test"))
      1
    """
    path = user_path(path)
    check_output(path, [".npz"], what="save_npz: path")
    if not parts or not (set(parts) <= set(PARTS) or set(parts) == {"all"}):
        raise UsageError(f"save_npz: parts {', '.join(parts) or 'none'}; give train, validation, test, or all alone")
    specs = [found.spec for found in parts.values()]
    if any(spec != specs[0] for spec in specs):
        raise UsageError("save_npz: the parts have different fields; bring them to one form")
    said = {
        name: {key: value for key, value in field.identity if key not in ("shape", "dtype")}
        for name, field in specs[0].items()
    }
    arrays = {
        name if part == "all" else f"{name}_{part}": array
        for part, found in parts.items()
        for name, array in found.fields.items()
    }
    if SPEC_KEY in arrays:
        raise UsageError(f"save_npz: a field cannot be called {SPEC_KEY!r}")
    with open_atomically(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in {**arrays, SPEC_KEY: np.array(json.dumps(said))}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


Parts = tuple[Dataset, dict[str, np.ndarray] | None]
"""All examples, and which of them are of which part; None where they are not divided."""


def _described_parts(name: str, found: dict[str, np.ndarray], ignore_label: int, _axes: int) -> Parts:
    """A file that says what its fields are."""
    try:
        said = json.loads(str(found[SPEC_KEY]))
        spec = {field: Field(**with_tuples(options)) for field, options in said.items()}
    except (ValueError, TypeError, AttributeError) as error:
        reason = (
            str(error).removeprefix("Field: ") if isinstance(error, UsageError) else "give JSON as save_npz writes it"
        )
        raise UsageError(f"data set {name!r}: its entry {SPEC_KEY!r} is not a spec of fields: {reason}") from error
    spec = with_ignored(name, spec, ignore_label)
    parts = _keys_of_parts(name, found, {field: (field,) for field in spec})
    if not parts or not spec:
        raise UsageError(
            f"data set {name!r}: its spec names {', '.join(spec) or 'no fields'}, but it holds "
            f"{', '.join(sorted(found))}"
        )
    sets = {
        part: Dataset(name, part, {field: found[key] for field, key in keys.items()}, spec)
        for part, keys in parts.items()
    }
    shapes = {
        part: {field: (about.dtype, about.shape) for field, about in one.spec.items()} for part, one in sets.items()
    }
    first = next(iter(shapes))
    for part, shape in shapes.items():
        if shape != shapes[first]:
            raise UsageError(f"data set {name!r}: fields of {part} are {shape}, of {first} {shapes[first]}")
    together = {field: np.concatenate([one.fields[field] for one in sets.values()]) for field in spec}
    return Dataset(name, "all", together, spec), _members({part: len(one) for part, one in sets.items()})


def _keys_of_parts(name: str, found: Iterable[str], fields: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Part -> field -> the name of its array, for the parts that have all fields.

    Args:
      name: The data set's, for messages.
      found: The names in the file.
      fields: Field -> what it may be called; with the part before or behind, joined by ``_``.
    """
    parts: dict[str, dict[str, list[str]]] = {}
    for word, part in {"": "all", **PARTS}.items():
        for field, names in fields.items():
            wanted = {key for key in names for key in ((f"{key}_{word}", f"{word}_{key}") if word else (key,))}
            own = parts.setdefault(part, {}).setdefault(field, [])
            own += [key for key in found if key in wanted] or [key for key in found if key.lower() in wanted]
    complete: dict[str, dict[str, str]] = {}
    for part, keys_of in parts.items():
        if not all(keys_of.values()):
            continue
        for field, keys in keys_of.items():
            if len(keys) > 1:
                raise UsageError(f"data set {name!r}: {' and '.join(keys)} are both {field} of {part}; leave one out")
        complete[part] = {field: key for field, (key,) in keys_of.items()}
    if "all" in complete and len(complete) > 1:
        listed = ", ".join(key for keys_of in complete.values() for key in keys_of.values())
        raise UsageError(f"data set {name!r}: holds {listed}; name the part of each, such as x_train and x_test")
    return complete


def _members(sizes: dict[str, int]) -> dict[str, np.ndarray] | None:
    """The examples of each part, one part behind the other."""
    if "all" in sizes:
        return None
    ends = np.cumsum(list(sizes.values()))
    return {part: np.arange(end - size, end) for (part, size), end in zip(sizes.items(), ends, strict=True)}


def _labelled_parts(name: str, found: dict[str, np.ndarray], ignore_label: int, axes: int) -> Parts:
    """A file of images, volumes or signals and labels, known by their names."""
    keys = _keys_of_parts(name, found, {"images": IMAGE_KEYS, "labels": LABEL_KEYS})
    pairs = {part: (found[keys_of["images"]], found[keys_of["labels"]]) for part, keys_of in keys.items()}
    if not pairs:
        raise UsageError(
            f"data set {name!r}: holds {', '.join(sorted(found)) or 'nothing'}; give it images and labels, or x and y, "
            "or x_train, y_train, x_test, y_test, or train_images, train_labels, test_images, test_labels, or other "
            "fields with a spec as data.save_npz writes it"
        )
    kind = _KINDS.get(axes, "image")
    parts = {part: (_values(name, x, kind), _one_each(name, x, y)) for part, (x, y) in pairs.items()}
    kinds = {part: (str(x.dtype), *x.shape[1:]) for part, (x, _) in parts.items()}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{part} {dtype} {shape}" for part, (dtype, *shape) in kinds.items())
        raise UsageError(f"data set {name!r}: images of different kinds ({listed}); bring them to one form")
    images = np.concatenate([x for x, _ in parts.values()])
    labels = np.concatenate([y for _, y in parts.values()])
    labels, class_names = _labels(name, labels, found.get("class_names"), ignore_label)
    ignored = ignore_label if (labels == ignore_label).any() else None
    spec = {kind: Field(kind), "label": Field("label", class_names=class_names, ignored=ignored)}
    whole = Dataset(name, "all", {kind: images, "label": labels}, spec)
    return whole, _members({part: len(x) for part, (x, _) in parts.items()})


_KINDS = {2: "signal", 3: "image", 4: "volume"}
_SIDES = {"signal": "length", "image": "height, width", "volume": "depth, height, width"}


def _values(name: str, values: np.ndarray, kind: str) -> np.ndarray:
    """Arrays of a kind, with channels last."""
    sides = _SIDES[kind]
    rank = 1 + len(sides.split(","))
    if values.ndim == rank:
        values = values[..., np.newaxis]
    if values.ndim != rank + 1 or (kind != "signal" and values.shape[-1] not in (1, 3)):
        last = "channels" if kind == "signal" else "1 or 3"
        hint = "; channels must be last" if values.ndim == rank + 1 and values.shape[1] in (1, 3) else ""
        if not hint and kind == "image" and values.ndim in (4, 5):
            hint = "; for volumes set input_shape=(depth, height, width, channels), or write a spec, see data.save_npz"
        raise UsageError(
            f"data set {name!r}: {kind}s of shape {values.shape}; give (n, {sides}) or (n, {sides}, {last}){hint}"
        )
    if kind == "signal":
        return values.astype(np.float32)
    return _pixels(name, values)


def _pixels(name: str, images: np.ndarray) -> np.ndarray:
    """uint8 or float32."""
    if images.dtype == np.uint8 or not images.size:
        return images
    low, high = images.min(), images.max()
    if np.issubdtype(images.dtype, np.integer) and low >= 0 and high <= 255:
        return images.astype(np.uint8)
    if np.issubdtype(images.dtype, np.floating) and low >= 0 and high <= 1:
        return images.astype(np.float32)
    raise UsageError(
        f"data set {name!r}: {images.dtype} images from {low:g} to {high:g}; give integers from 0 to 255 or floats "
        "from 0 to 1"
    )


def _one_each(name: str, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels of shape ``(n,)``, as many as there are images."""
    if labels.ndim > 1 and labels.shape[1:] != (1,) * (labels.ndim - 1):
        one_hot = labels.ndim == 2 and (np.count_nonzero(labels, axis=1) == 1).all()
        several = "or write several per image with a spec, see data.save_npz"
        hint = "of one-hot rows their argmax" if one_hot else several
        raise UsageError(f"data set {name!r}: labels of shape {labels.shape}; give (n,), {hint}")
    if labels.size != len(images):
        raise UsageError(f"data set {name!r}: {len(images)} images, but {labels.size} labels")
    return labels.reshape(-1)


def _labels(
    name: str, labels: np.ndarray, class_names: np.ndarray | None, ignore_label: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers, and the names of the classes."""
    if labels.dtype.kind in "US":
        words, labels = np.unique(labels, return_inverse=True)
        return labels.astype(np.int32), _texts(name, words)
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"data set {name!r}: {labels.dtype} labels; give whole numbers from 0, or names")
    # Python's integers: NumPy makes floats of uint64 and int64 together.
    known = labels[labels != ignore_label]
    low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
    names = tuple(map(str, range(min(high, MOST_CLASSES) + 1))) if class_names is None else _texts(name, class_names)
    if not 0 <= low <= high < min(len(names), MOST_CLASSES):
        allowed = f"0 to {len(names) - 1}, one for each of the class_names" if class_names is not None else "0 upwards"
        wrong = low if low < 0 else high
        raise UsageError(
            f"data set {name!r}: labels from {low} to {high}; give class numbers from {allowed}, and set "
            f"ignore_label={wrong} if {wrong} means not labelled"
        )
    return labels.astype(np.int32), names


def _texts(name: str, texts: np.ndarray) -> tuple[str, ...]:
    """Class names, which may be stored as bytes in UTF-8."""
    try:
        return tuple(text.decode() if isinstance(text, bytes) else str(text) for text in texts.reshape(-1).tolist())
    except UnicodeDecodeError as error:
        raise UsageError(f"data set {name!r}: the class name {error.object!r} is not UTF-8 text") from error
