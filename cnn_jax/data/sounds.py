"""Sounds from WAV files: ``sounds:path``. The class is the folder of a file, or a part of its name."""

import dataclasses
import functools
import hashlib
import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from cnn_jax.data.fields import Field
from cnn_jax.data.folder.layout import class_folders
from cnn_jax.data.images import files_in
from cnn_jax.data.named_files import class_order, is_pattern, matching_files, members_by_fields
from cnn_jax.data.records import Records
from cnn_jax.data.splits import members_of_split, mixed_order
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path
from cnn_jax.typed import typed

SUFFIXES = (".wav", ".wave")
PARTS_OF_FOLDERS = ("train", "validation", "test")
UNKNOWN_SIZES = 2**31 - 2**16  # from here on: programs that write to a pipe state no real size


class Sound(NamedTuple):
    """A sound as it is in a file.

    Attributes:
      samples: ``(length, channels)``, from -1 to 1.
      rate: Samples per second.
    """

    samples: Float32[np.ndarray, "length channels"]
    rate: int


class _File(NamedTuple):
    """What is known of a file without its samples."""

    hash: str
    rate: int
    length: int


@typed
def read_sound(file: str | os.PathLike[str], content: bytes | None = None) -> Sound:
    """The samples of a WAV file: integers of 8, 16, 24 or 32 bits, or floating point.

    16-bit samples are divided by 32,768, others by the same rule for their range.

    Args:
      file: The file.
      content: Its bytes, if they have been read.

    Raises:
      UsageError: It is no complete WAV file, or has no samples, or some that are not finite.

    Example:
      >>> import tempfile
      >>> from scipy.io import wavfile
      >>> path = tempfile.mktemp(suffix=".wav")
      >>> wavfile.write(path, 8000, np.array([0, 16384, -32768], np.int16))
      >>> read_sound(path).samples.ravel().tolist()
      [0.0, 0.5, -1.0]
    """
    from scipy.io import wavfile

    try:
        content = Path(file).read_bytes() if content is None else content
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
    if content[:4] not in (b"RIFF", b"RIFX", b"RF64"):
        raise UsageError(f"{file}: is not a WAV file; convert it to one, for example by ffmpeg")
    size = 8 + int.from_bytes(content[4:8], "big" if content[:4] == b"RIFX" else "little")
    if len(content) + 1 < size < UNKNOWN_SIZES:  # the last byte may only fill up
        raise UsageError(f"{file}: is not a complete WAV file: it has {len(content):,} of {size:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # about texts beside the samples
            rate, samples = wavfile.read(io.BytesIO(content))
    except Exception as error:  # a damaged header leads the reader anywhere
        raise UsageError(f"{file}: cannot be read as a WAV file: {' '.join(str(error).split())}") from error
    if not samples.size:
        raise UsageError(f"{file}: has no samples")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    elif not np.isfinite(samples).all():
        raise UsageError(f"{file}: holds values that are not finite")
    return Sound(np.ascontiguousarray(samples.reshape(len(samples), -1), np.float32), int(rate))


def fit_sound(
    sound: Sound, file: str | os.PathLike[str], *, rate: float | int, length: int, channels: int
) -> tuple[Float32[np.ndarray, "length channels"], list[str]]:
    """A sound in the form of a data set, and what was done to it, in a few words each.

    Args:
      sound: As it is in the file.
      file: Its name, for messages.
      rate: Samples per second of the result; another rate is resampled with a polyphase filter.
      length: Of the result: a shorter sound is followed by zeros, a longer one is cut.
      channels: Of the result; one is the mean of all.

    Raises:
      UsageError: The file has another number of channels.
    """
    samples, done = sound.samples, []
    if samples.shape[1] != channels:
        if channels != 1:
            own = samples.shape[1]
            mean = f", or to ({length}, 1) for the mean of all" if own > 1 else ""
            raise UsageError(
                f"{file}: has {own} channels, but input_shape asks for {channels}; set input_shape to ({length}, {own})"
                + mean
            )
        samples = samples.mean(axis=1, keepdims=True)
        done.append(f"mean of {sound.samples.shape[1]} channels")
    if sound.rate != rate:
        from scipy.signal import resample_poly

        up, down = int(rate), sound.rate
        common = math.gcd(up, down)
        samples = resample_poly(samples, up // common, down // common, axis=0).astype(np.float32)
        done.append(f"resampled from {sound.rate:,} to {up:,} samples per second")
    if len(samples) > length:
        done.append(f"cut to {length / rate:.3g} s")
    fitted = np.zeros((length, channels), np.float32)
    fitted[: len(samples)] = samples[:length]
    return fitted, done


def open_sounds(path: str, split: str, *, image_shape: tuple[int, ...] | None) -> Records:
    """A split of WAV files: the fields ``signal`` and ``label``.

    Args:
      path: A folder with one subfolder per class, or with such folders in ``train``, ``val`` and ``test``; or a pattern
        of file names, see :func:`~cnn_jax.data.named_files.matching_files`.
      split: A split expression. The fields of a pattern are parts, such as ``speaker-jackson``.
      image_shape: ``(length, channels)``. Most files' sampling rate is that of the set; others are resampled.

    Raises:
      UsageError: There are no such files, one cannot be read, or there is no such split.
    """
    name = f"sounds:{path}"
    if image_shape is None or len(image_shape) != 2:
        raise UsageError(f"data set {name!r}: give input_shape=(samples, channels) to bring the sounds to")
    length, channels = image_shape
    root, paths, fields = _find(name, path)
    files = [_scanned(root / file, *_stamp(root / file)) for file in paths]
    rates = Counter(file.rate for file in files)
    rate = min(rates, key=lambda one: (-rates[one], one))
    names = class_order([of_file["label"] for of_file in fields])
    labels = [names.index(of_file["label"]) for of_file in fields]
    if "" not in (parts := [of_file.get("", "") for of_file in fields]):
        order = mixed_order(paths)
        members = {part: order[np.array(parts)[order] == part] for part in PARTS_OF_FOLDERS}
        chosen = members_of_split(name, split, members)
    else:
        chosen = members_by_fields(name, split, [{k: v for k, v in f.items() if k} for f in fields], paths)
    reader = SoundReader(
        str(root), tuple(paths[e] for e in chosen), tuple(labels[e] for e in chosen), rate, length, channels
    )
    spec = {
        "signal": Field("signal", (length, channels), "float32", rate=rate),
        "label": Field("label", (), "int32", class_names=names),
    }
    return Records(
        name,
        split,
        reader,
        len(chosen),
        spec,
        identity=repr([(paths[e], files[e].hash) for e in chosen]),
        report=_report(name, files, names, rates, rate, length),
        origin="sounds",  # the identity has a hash of every file
        hashes=np.array([int(files[e].hash, 16) for e in chosen], np.uint64),
    )


@dataclasses.dataclass(frozen=True)
class SoundReader:
    """Reads examples from WAV files; see :data:`~cnn_jax.data.records.Reader`."""

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    rate: int
    length: int
    channels: int

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Signals and labels."""
        examples = []
        for index in indices:
            file = os.path.join(self.root, self.paths[index])
            signal, _ = fit_sound(read_sound(file), file, rate=self.rate, length=self.length, channels=self.channels)
            examples.append({"signal": signal, "label": self.labels[index]})
        return examples


def _find(name: str, path: str) -> tuple[Path, list[str], list[dict[str, str]]]:
    """The root, the paths of the files in it, and the fields of each; the part of a folder is the field ``""``."""
    if is_pattern(path):
        found = matching_files(name, path)
        root = Path(os.path.commonpath([file.parent for file, _ in found]))
        return root, [file.relative_to(root).as_posix() for file, _ in found], [fields for _, fields in found]
    root = user_path(path).absolute()
    if not root.is_dir():
        raise UsageError(f"data set {name!r}: there is no folder {root}")
    paths, fields = [], []
    for (part, class_name), folder in class_folders(root, source="sounds", what="WAV files").items():
        inside = [file for file in sorted(files_in(folder)) if file.suffix.lower() in SUFFIXES]
        if not inside:
            raise UsageError(f"data set {name!r}: no WAV files in {folder} (looked for {' '.join(SUFFIXES)})")
        paths += [file.relative_to(root).as_posix() for file in inside]
        fields += [{"label": class_name, "": part}] * len(inside)
    return root, paths, fields


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=100_000)
def _scanned(file: Path, size: int, modified: int) -> _File:
    content = file.read_bytes()
    sound = read_sound(file, content)
    return _File(hashlib.blake2b(content, digest_size=8).hexdigest(), sound.rate, len(sound.samples))


def _report(
    name: str, files: Sequence[_File], names: Sequence[str], rates: Mapping[int, int], rate: int, length: int
) -> str:
    seconds = sorted(file.length / file.rate for file in files)
    lines = [
        f"{name}: {len(files):,} sounds, {len(names)} classes, {rate:,} samples per second",
        f"  from {seconds[0]:.3g} to {seconds[-1]:.3g} s, median {seconds[len(seconds) // 2]:.3g} s",
    ]
    if cut := sum(one > length / rate for one in seconds):
        lines.append(f"  {cut:,} longer than {length / rate:.3g} s are cut to it")
    lines += [f"  {count:,} of {one:,} samples per second are resampled" for one, count in rates.items() if one != rate]
    return "\n".join(lines)
