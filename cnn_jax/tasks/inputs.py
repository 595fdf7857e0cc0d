"""The user's own files in the form of a run's examples, for ``--mode=predict``: one reader for each kind of input."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from cnn_jax import data
from cnn_jax.data import series, sounds, text
from cnn_jax.data.images import upright_size
from cnn_jax.errors import UsageError
from cnn_jax.tasks.sets import examples_of


class OwnInput(NamedTuple):
    """One of the user's inputs.

    Attributes:
      array: As the run's examples are, without a batch axis.
      assumed: What was done to it and why, in parts separated by semicolons.
      hint: Why what a network says about it may be wrong.
      size: The height and width of the image of the file, upright, or the sizes of a volume; empty for other inputs.
    """

    array: Shaped[np.ndarray, "..."]
    assumed: str = ""
    hint: str = ""
    size: tuple[int, ...] = ()


class OwnInputs(NamedTuple):
    """All inputs that the user names.

    Attributes:
      kind: What they are called, such as ``'image'``.
      names: Of all of them, in order: paths, with the number of the line where a file has several.
      read: Name -> input, of those that could be read.
      reasons: Name -> why it could not be read.
    """

    kind: str
    names: list[str]
    read: dict[str, OwnInput]
    reasons: dict[str, str]


def read_inputs(paths: Sequence[str], description: Mapping[str, Any], *, whole: bool = False) -> OwnInputs:
    """Reads the user's files in the form of the inputs of a run.

    Args:
      paths: Of files and folders: images; WAV files, of a run whose signals have a sampling rate; files of series;
        text files, of which each line is an input; or ``.npy`` files of volumes or video.
      description: Of the run, see :func:`cnn_jax.tasks.sets.read_description`.
      whole: Whether images, or volumes in NIfTI files, keep their own sizes, as spatial tasks need them.

    Raises:
      UsageError: A path does not exist, or a folder has no such file.
    """
    known = examples_of(description)
    kind, field = known.input_kind, known.spec[known.input_name]
    if kind == "image" or (whole and kind == "volume"):
        volumes: dict[str, Any] = {"kind": "NIfTI volume", "suffixes": data.NIFTI_SUFFIXES} if kind == "volume" else {}
        names = list(map(str, data.find_images(paths, **volumes)))
        images, reasons = (read_whole if whole else read_images)(names, description)
        read = {}
        for name, image in images.items():
            size = image.pixels.shape[:-1] if whole else upright_size(Path(name).read_bytes())[::-1]
            read[name] = OwnInput(image.pixels, image.assumed, image.hint, size)
        return OwnInputs(kind, names, read, reasons)
    called = "sound" if field.rate else kind
    files, suffixes, reader = _READERS[called]
    found = OwnInputs(called, [], {}, {})
    for file in data.find_images(paths, kind=files, suffixes=suffixes):
        try:
            inputs = reader(file, field)
        except UsageError as error:
            found.names.append(str(file))
            found.reasons[str(file)] = str(error).removeprefix(f"{file}: ")
            continue
        for place, one in inputs.items():
            name = f"{file}:{place}" if place else str(file)
            found.names.append(name)
            if isinstance(one, str):
                found.reasons[name] = one
            else:
                found.read[name] = one
    return found


def read_images(
    paths: Sequence[str], description: Mapping[str, Any]
) -> tuple[dict[str, data.ReadImage], dict[str, str]]:
    """Reads the user's images in the form of those of a run.

    Args:
      paths: Of the images.
      description: Of the run, see :func:`read_description`.

    Returns:
      The images by their paths, and for each that cannot be read the reason.
    """
    height, width, channels = description["image_shape"]
    form = {
        "height": height,
        "width": width,
        "channels": channels,
        "ink_extent": description["ink_extent"],
        "ink_pieces": description.get("ink_pieces", 1),  # which runs of earlier versions lack, like the next
        "white": description.get("white"),
        "invert": "auto" if description["ink_extent"] else False,
        "resize": description["framing"],
    }
    read, reasons = {}, {}
    for path in paths:
        try:
            read[path] = data.read_image(path, **form)
        except UsageError as error:
            reasons[path] = str(error).removeprefix(f"{path}: ")
    return read, reasons


def read_whole(
    paths: Sequence[str], description: Mapping[str, Any]
) -> tuple[dict[str, data.ReadImage], dict[str, str]]:
    """Reads the user's images or NIfTI volumes in their own sizes; arguments and result as of :func:`read_images`."""
    *space, channels = description["image_shape"]
    read, reasons = {}, {}
    for path in paths:
        try:
            if len(space) == 2:
                read[path] = data.read_whole(path, channels=channels, white=description.get("white"))
                continue
            volume = data.read_volume(path, normalize=description.get("normalize") == "each")
            if volume.shape[-1] != channels:
                raise UsageError(f"has {volume.shape[-1]} channels, but the network takes {channels}")
            read[path] = data.ReadImage(volume, "", "")
        except UsageError as error:
            reasons[path] = str(error).removeprefix(f"{path}: ")
    return read, reasons


_Read = Mapping[int, OwnInput | str]
"""Number of a line, 0 for the whole file -> an input, or why it cannot be taken."""


def _sound(file: Path, field: data.Field) -> _Read:
    length, channels = field.shape or ()
    sound = data.read_sound(file)
    signal, done = sounds.fit_sound(sound, file, rate=field.rate or sound.rate, length=length, channels=channels)
    return {0: OwnInput(signal, "; ".join(done), "" if np.any(signal) else "silence")}


def _series(file: Path, field: data.Field) -> _Read:
    shape = field.shape or ()
    found = series.read_series(file, length=shape[0])
    inputs: dict[int, OwnInput | str] = {}
    for line, values in zip(found.lines, found.values, strict=True):
        (length, channels), (wanted, wanted_channels) = values.shape, shape
        other = f"has {length} values of {channels} channels, not {wanted} of {wanted_channels} as those of the run"
        inputs[line if len(found.values) > 1 else 0] = OwnInput(values) if values.shape == shape else other
    return inputs


def _texts(file: Path, field: data.Field) -> _Read:
    (length,) = field.shape or ()
    lines = {number: line for number, line in enumerate(text.read_lines(file), start=1) if line}
    words = {number: text.tokenize(line) for number, line in lines.items()}
    tokens, _ = text.encode(list(words.values()), field.class_names, length)
    found: dict[int, OwnInput | str] = {}
    for row, (number, of_line) in zip(tokens, words.items(), strict=True):
        unknown = [word for word in of_line[:length] if word not in field.class_names]
        hint = "no known word" if len(unknown) == len(of_line[:length]) else ""
        listed = ", ".join(unknown[:3]) + (" ..." if len(unknown) > 3 else "")
        cut = f"cut to {length} words" if len(of_line) > length else ""
        said = [cut, f"unknown words: {listed}" if unknown else ""]
        found[number] = OwnInput(row, "; ".join(filter(None, said)), hint)
    return found


def _array(file: Path, field: data.Field) -> _Read:
    try:
        loaded = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{file}: is not a readable .npy or .npz file of numbers") from error
    if not isinstance(loaded, np.ndarray):
        with loaded:
            arrays = [loaded[name] for name in loaded.files]
        if len(arrays) != 1:
            raise UsageError(f"{file}: has {len(arrays)} arrays; save the one of the {field.kind} as a .npy file")
        (loaded,) = arrays
    shape = field.shape or ()
    array = loaded[..., np.newaxis] if loaded.shape == shape[:-1] and shape[-1] == 1 else loaded
    fits = array.dtype.name == field.dtype or (field.dtype == "float32" and array.dtype.kind == "f")
    if array.shape != shape or not fits:
        raise UsageError(f"{file}: is {loaded.dtype} {loaded.shape}; the run's {field.kind}s are {field.dtype} {shape}")
    return {0: OwnInput(array.astype(field.dtype))}


_READERS: dict[str, tuple[str, tuple[str, ...], Callable[[Path, data.Field], _Read]]] = {
    "sound": ("WAV file", sounds.SUFFIXES, _sound),
    "signal": ("series file", series.SUFFIXES, _series),
    "text": ("text file", (".txt",), _texts),
    "volume": ("NumPy file", (".npy", ".npz"), _array),
    "video": ("NumPy file", (".npy", ".npz"), _array),
}
"""What the user gives -> what its files are called, their suffixes, and the function that reads one."""
