"""Which folders of a folder of images are the parts of the set, and which are its classes."""

from collections.abc import Sequence
from pathlib import Path

from cnn_jax.data.images import is_hidden, is_image
from cnn_jax.data.splits import PARTS, part_of, words_of
from cnn_jax.errors import UsageError


def class_folders(root: Path, *, source: str = "folder", what: str = "images") -> dict[tuple[str, str], Path]:
    """The folder of each (part, class); the part is empty where there are none.

    Args:
      root: Its subfolders are the classes, or the parts with the classes in them. Parts may be called ``train``,
        ``Training``, ``val``, ``dev``, ``test_set`` and the like, see :func:`~cnn_jax.data.splits.part_of`.
      source: What the name of the data set begins with, for messages.
      what: What is in the folders, for messages.

    Raises:
      UsageError: There are no classes, or what seem to be classes are parts or lead to others.

    Example:
      >>> import tempfile
      >>> root = Path(tempfile.mkdtemp())
      >>> for path in ("Training/cat", "Testing/cat"):
      ...     (root / path).mkdir(parents=True)
      >>> list(class_folders(root))
      [('test', 'cat'), ('train', 'cat')]
    """
    where, inside = f"data set '{source}:{root}'", _subfolders(root)
    if not inside:
        raise UsageError(f"{where}: has no subfolders; put the {what} of each class in one of its own")
    parts = {folder: part_of(folder.name) for folder in inside}
    has_classes = any(part == "train" and _subfolders(folder) for folder, part in parts.items())
    if not has_classes and not all(parts.values()):  # a class may be called 'train', too
        _check_classes(where, inside)
        return {("", folder.name): folder for folder in inside}
    unknown = [folder.name for folder, part in parts.items() if not part]
    if unknown:
        raise UsageError(
            f"{where}: has 'train' beside {', '.join(map(repr, unknown[:5]))}; beside it may only be "
            "'val' and 'test', each with one subfolder per class"
        )
    for part in dict.fromkeys(parts.values()):
        same = [folder.name for folder in inside if parts[folder] == part]
        if len(same) > 1:
            raise UsageError(f"{where}: {' and '.join(map(repr, same))} are both for {part}; leave one of them")
    if not has_classes:
        trained = [folder.name for folder, part in parts.items() if part == "train"]
        held = f"{trained[0]!r} has no subfolders" if trained else "has no 'train'"
        raise UsageError(f"{where}: {held}; make a folder 'train' with one subfolder for each class")
    folders: dict[tuple[str, str], Path] = {}
    for folder, part in parts.items():
        classes = _subfolders(folder)
        _check_classes(where, classes)
        folders |= {(part, class_folder.name): class_folder for class_folder in classes}
    for part, name in folders:
        if ("train", name) not in folders:
            raise UsageError(f"{where}: class {name!r} is in {part!r}, but not in 'train'")
    return folders


def _check_classes(where: str, folders: Sequence[Path]) -> None:
    """Rejects folders that only lead to others: a single one, and parts whose names are not quite those."""
    leading = [folder for folder in folders if _subfolders(folder) and not any(map(is_image, listed(folder)))]
    if len(folders) == len(leading) == 1:
        inner = ", ".join(repr(path.name) for path in _subfolders(leading[0])[:5])
        raise UsageError(
            f"{where}: all is in one folder, {leading[0].name!r}, which would be the only class; if its folders "
            f"({inner}) are the classes, name that folder instead or move them up"
        )
    alike = {folder.name: PARTS[word] for folder in leading for word in words_of(folder.name) if word in PARTS}
    if len(alike) > 1 and "train" in alike.values():
        raise UsageError(
            f"{where}: {', '.join(map(repr, alike))} look like parts and not like classes; call them 'train', 'val' "
            "and 'test'"
        )


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in listed(folder) if path.is_dir()]


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without what is hidden.

    Raises:
      UsageError: It cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed: {error.strerror}") from error
