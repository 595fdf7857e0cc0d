"""Annotations of boxes as programs write them: PASCAL VOC's XML files, COCO's JSON, and YOLO's text files.

Each reader returns the images that a folder has annotations of, in one form.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # nosec: the parser of Python 3.11 and later limits the expansion of entities

from cnn_jax.data.images import files_in, is_image
from cnn_jax.data.splits import PARTS, part_of, words_of
from cnn_jax.errors import UsageError

CLASS_FILES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")
"""Files that name the classes, one a line, or as ``names`` in YAML."""


@dataclasses.dataclass(frozen=True)
class Box:
    """One object.

    Attributes:
      corners: ``(top, left, bottom, right)``, in pixels, or in parts of the image's sides.
      label: The name of its class, or its number as text.
      crowd: Whether it stands for many objects (COCO), or is difficult (VOC): it is not counted.
    """

    corners: tuple[float, float, float, float]
    label: str
    crowd: bool = False


@dataclasses.dataclass(frozen=True)
class Annotated:
    """An image and its objects.

    Attributes:
      part: ``"train"``, ``"validation"``, ``"test"``, or empty.
      image: The path of the image.
      source: The path of the annotations, for messages.
      boxes: The objects.
      size: (height, width) that the annotations say the image has; None where they do not.
      relative: Whether corners are parts of the image's sides.
    """

    part: str
    image: Path
    source: Path
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a folder has.

    Attributes:
      form: ``"VOC"``, ``"COCO"`` or ``"YOLO"``.
      images: In order of their paths.
      class_names: In order, where that is stated; empty where it is not.
      without: The number of images that nothing is said about, which are left out.
    """

    form: str
    images: tuple[Annotated, ...]
    class_names: tuple[str, ...]
    without: int = 0


def read_annotations(name: str, root: Path) -> Annotations:
    """The annotations of a folder, in the one form that it has.

    Args:
      name: Of the data set, for messages.
      root: The folder.

    Raises:
      UsageError: There are no annotations or no images, annotations of two forms, or one that cannot be read.
    """
    files = list(files_in(root))
    images = [file for file in files if is_image(file)]
    forms = {
        "VOC": [file for file in files if file.suffix.lower() == ".xml"],
        "COCO": [file for file in files if file.suffix.lower() == ".json" and _is_coco(file)],
        "YOLO": [file for file in files if file.suffix.lower() == ".txt" and _is_yolo(file, images)],
    }
    found = {form: paths for form, paths in forms.items() if paths}
    if not images or not found:
        missing = "images" if found else "annotations"
        raise UsageError(
            f"data set {name!r}: no {missing} in {root}; give images with the XML files of VOC, "
            "the JSON of COCO or the text files of YOLO"
        )
    if "COCO" in found:
        found.pop("YOLO", None)
    if len(found) > 1:
        raise UsageError(f"data set {name!r}: has annotations of {' and '.join(found)}; leave those of one form")
    ((form, paths),) = found.items()
    read = {"VOC": _voc, "COCO": _coco, "YOLO": _yolo}[form]
    return read(name, root, sorted(paths), sorted(images))


def _voc(name: str, root: Path, files: Sequence[Path], images: Sequence[Path]) -> Annotations:
    """PASCAL VOC: an XML file for each image."""
    parts = _voc_parts(root)
    from_one = 1.0 if parts else 0.0  # the corners of PASCAL VOC itself are pixels, counted from 1
    by_place = {(_part(image, root), image.stem): image for image in images}
    by_stem = _unique(images)
    found = []
    for file in files:
        try:
            tree = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: cannot be read as XML: {error}") from error
        if tree.tag != "annotation":
            continue
        part = _part(file, root)
        named = Path((tree.findtext("filename") or "").replace("\\", "/")).stem
        image = by_place.get((part, file.stem)) or by_place.get((part, named)) or by_stem.get(file.stem)
        if image is None:
            raise UsageError(f"{file}: there is no image called {file.stem!r} in {root}")
        sizes = [_number(file, tree, f"size/{side}", default=0) for side in ("height", "width")]
        boxes = []
        for place, one in enumerate(tree.iter("object"), start=1):
            label = (one.findtext("name") or "").strip()
            if not label:
                raise UsageError(f"{file}: object {place} has no name")
            top, left, bottom, right = (
                _number(file, one, f"bndbox/{side}", what=f"object {place}")
                for side in ("ymin", "xmin", "ymax", "xmax")
            )
            difficult = _number(file, one, "difficult", default=0) > 0
            boxes.append(Box((top - from_one, left - from_one, bottom, right), label, difficult))
        size = (int(sizes[0]), int(sizes[1])) if all(sizes) else None
        found.append(Annotated(parts.get(file.stem, part), image, file, tuple(boxes), size))
    used = {one.image for one in found}
    return Annotations("VOC", tuple(found), _stated(name, root), sum(image not in used for image in images))


def _voc_parts(root: Path) -> dict[str, str]:
    """The part of each image of PASCAL VOC itself, by the lists in ``ImageSets/Main``."""
    parts: dict[str, str] = {}
    for lists in sorted(root.glob("**/ImageSets/Main")):
        for word in ("train", "val", "test"):
            file = lists / f"{word}.txt"
            if file.is_file():
                parts |= dict.fromkeys(
                    (line.split()[0] for line in file.read_text().splitlines() if line.strip()), PARTS[word]
                )
    return parts


def _number(file: Path, tree: Any, path: str, *, default: int | float | None = None, what: str = "") -> float:
    text = tree.findtext(path)
    where = f"{file}: {what}: " if what else f"{file}: "
    if text is None or not text.strip():
        if default is None:
            raise UsageError(f"{where}there is no {path}")
        return float(default)
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}{path} is {text.strip()!r}, not a number") from None


def _is_coco(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8-sig") as opened:
            start = opened.read(1 << 20)
    except (OSError, UnicodeDecodeError):
        return False
    return '"images"' in start or '"annotations"' in start


def _coco(name: str, root: Path, files: Sequence[Path], images: Sequence[Path]) -> Annotations:
    """COCO: a JSON file for each part."""
    by_path = {image.relative_to(root).as_posix(): image for image in images}
    by_name: dict[str, list[Path]] = {}
    for own in images:
        by_name.setdefault(own.name, []).append(own)
    found: list[Annotated] = []
    names: dict[int, str] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
            listed = {one["id"]: one for one in content["images"]}
            files_of = {number: str(one["file_name"]).replace("\\", "/") for number, one in listed.items()}
            categories = {int(one["id"]): str(one["name"]) for one in content.get("categories", [])}
            objects: dict[Any, list[Box]] = {number: [] for number in listed}
            for one in content.get("annotations", []):
                number = one.get("category_id")
                if one["image_id"] not in objects:
                    raise UsageError(
                        f"{file}: annotation {one.get('id')} is of image {one['image_id']}, which is not listed"
                    )
                left, top, width, height = map(float, one["bbox"])
                label = categories.get(number, f"category {number}")
                corners = (top, left, top + height, left + width)
                objects[one["image_id"]].append(Box(corners, label, bool(one.get("iscrowd", 0))))
        except UsageError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise UsageError(f"{file}: is not as COCO's files are: {type(error).__name__} {error}") from error
        for number, label in categories.items():
            if names.setdefault(number, label) != label:
                raise UsageError(f"{file}: category {number} is {label!r}, but {names[number]!r} in another file")
        part = _part(file, root) or _part_of_stem(file.stem)
        folder = file.parent.relative_to(root).as_posix()
        for number, one in listed.items():
            given = files_of[number]
            places = [f"{folder}/{given}", f"{folder}/images/{given}", given, f"images/{given}"]
            at = next((by_path[place] for place in map(_normal, places) if place in by_path), None)
            alike = by_name.get(Path(given).name, [])
            same = [other for other in alike if _part(other, root) == part] if len(alike) > 1 else alike
            image = at or (same[0] if len(same) == 1 else None)
            if image is None:
                raise UsageError(
                    f"{file}: there is no image {given!r} in {root}"
                    + (f", but {len(alike)} called so" if alike else "")
                )
            size = (int(one["height"]), int(one["width"])) if one.get("height") and one.get("width") else None
            found.append(Annotated(part or _part(image, root), image, file, tuple(objects[number]), size))
    used = {one.image for one in found}
    order = sorted(found, key=lambda one: str(one.image))
    return Annotations(
        "COCO",
        tuple(order),
        tuple(names[number] for number in sorted(names)),
        sum(image not in used for image in images),
    )


def _normal(path: str) -> str:
    return path.removeprefix("./")


def _is_yolo(file: Path, images: Sequence[Path]) -> bool:
    """Whether it is beside an image of its name, or in a folder called labels."""
    if file.name in CLASS_FILES:
        return False
    if "labels" in (part.lower() for part in file.parts):
        return True
    return any(image.parent == file.parent and image.stem == file.stem for image in images)


def _yolo(name: str, root: Path, files: Sequence[Path], images: Sequence[Path]) -> Annotations:
    """YOLO: a text file for each image, with a class number, the centre and the size in each line."""
    class_names = _stated(name, root)
    by_path = {file.with_suffix("").as_posix(): file for file in files}
    found = []
    for image in images:
        file = next((by_path[path] for path in _label_paths(image) if path in by_path), None)
        boxes = _yolo_boxes(file, class_names) if file else ()
        found.append(Annotated(_part(image, root), image, file or image, boxes, relative=True))
    used = {one.source for one in found}
    lost = [file for file in files if file not in used]
    if lost:
        raise UsageError(f"{lost[0]}: there is no image called {lost[0].stem!r} in {root}")
    return Annotations("YOLO", tuple(found), class_names)


def _label_paths(image: Path) -> list[str]:
    stem = image.with_suffix("").as_posix()
    return [stem, re.sub(r"/images/(?!.*/images/)", "/labels/", stem)]


def _yolo_boxes(file: Path, class_names: Sequence[str]) -> tuple[Box, ...]:
    boxes = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            index = int(words[0])
            across, down, width, height = map(float, words[1:5])
            if len(words) not in (5, 6):
                raise ValueError
        except ValueError:
            raise UsageError(f"{file}: line {number} is not 'class x y width height': {line.strip()[:60]!r}") from None
        known = 0 <= index < len(class_names)
        label = class_names[index] if known else str(index) if not class_names else f"class {index}"
        boxes.append(Box((down - height / 2, across - width / 2, down + height / 2, across + width / 2), label))
    return tuple(boxes)


def _stated(name: str, root: Path) -> tuple[str, ...]:
    """The names of the classes in a file that says them; empty without one."""
    for file in (root / file for file in CLASS_FILES):
        if not file.is_file():
            continue
        if file.suffix != ".yaml":
            return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
        import yaml

        try:
            names = yaml.safe_load(file.read_text())["names"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise UsageError(f"data set {name!r}: {file} has no 'names' such as [cat, dog]") from error
        return tuple(map(str, names.values() if isinstance(names, Mapping) else names))
    return ()


def _part(path: Path, root: Path) -> str:
    """The part that one of a path's folders names, or empty."""
    parts = [found for folder in path.relative_to(root).parent.parts if (found := part_of(re.sub(r"\d+$", "", folder)))]
    return parts[-1] if parts else ""


def _part_of_stem(stem: str) -> str:
    """The part in a file's name, such as ``instances_train2017``; empty if there is none, or several."""
    words = {PARTS[word] for word in (re.sub(r"\d+$", "", word) for word in words_of(stem)) if word in PARTS}
    return words.pop() if len(words) == 1 else ""


def _unique(images: Iterable[Path]) -> dict[str, Path]:
    """Images by their names without suffix, of those that only one image has."""
    found: dict[str, list[Path]] = {}
    for image in images:
        found.setdefault(image.stem, []).append(image)
    return {stem: paths[0] for stem, paths in found.items() if len(paths) == 1}
