"""Volumes in NIfTI files (``.nii``, ``.nii.gz``), read and written by ``nibabel`` (the extra ``nifti``)."""

import gzip
import os
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.runtime.extras import require
from cnn_jax.typed import typed

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_READ_AT_ONCE = 2**20


@typed
def is_nifti(file: Path) -> bool:
    """Whether a file is a NIfTI volume by its name.

    >>> is_nifti(Path("scan.nii.gz")), is_nifti(Path("scan.gz"))
    (True, False)
    """
    return file.name.lower().endswith(NIFTI_SUFFIXES)


@typed
def stem_of(file: Path) -> str:
    """The name of a file without its suffix, which of NIfTI files may have two parts.

    >>> stem_of(Path("a/scan.1.nii.gz")), stem_of(Path("photo.1.png"))
    ('scan.1', 'photo.1')
    """
    name = file.name
    return name[: name.lower().rindex(".nii")] if is_nifti(file) else file.stem


@typed
def read_volume(path: str | PathLike[str], *, normalize: bool = False) -> Float32[np.ndarray, "*space channels"]:
    """A volume with its channels last, in the axes of the file.

    Args:
      path: Of a NIfTI file with three axes, or with four, of which the last one is that of channels.
      normalize: Whether values are shifted and scaled to mean 0 and standard deviation 1 in each channel, for scanners
        whose intensities have no common scale. Otherwise they are as in the file.

    Raises:
      UsageError: ``nibabel`` is not installed, or the file is no complete NIfTI file, or its values are not finite.
    """
    volume = np.asarray(_array(path), np.float32)
    volume = volume[..., None] if volume.ndim == 3 else volume
    if volume.ndim != 4 or not volume.size:
        raise UsageError(f"{path}: has shape {volume.shape}; give three axes, and a fourth for channels")
    if not np.isfinite(volume).all():
        raise UsageError(f"{path}: holds values that are not finite")
    if not normalize:
        return volume
    space = (0, 1, 2)
    mean, std = volume.mean(axis=space, dtype=np.float64), volume.std(axis=space, dtype=np.float64)
    return ((volume - mean) / np.where(std > 0, std, 1)).astype(np.float32)


def read_label_volume(path: str | PathLike[str]) -> Int32[np.ndarray, "*space"]:
    """The class numbers of a NIfTI file, rounded, because scaled integers may be read as 1.00000002.

    Args:
      path: Of a NIfTI file with three axes.

    Raises:
      UsageError: ``nibabel`` is not installed, or the file is not like that.
    """
    values = _array(path)
    values = values[..., 0] if values.ndim == 4 and values.shape[-1] == 1 else values
    rounded = values if values.dtype.kind in "iu" else np.rint(np.nan_to_num(values, nan=-1))
    if values.ndim != 3 or np.abs(values - rounded).max(initial=0) > 0.01:
        raise UsageError(f"{path}: is not a volume of class numbers: shape {values.shape}, dtype {values.dtype}")
    return rounded.astype(np.int32)


@typed
def write_label_volume(path: str | PathLike[str], classes: Shaped[np.ndarray, "..."], *, like: Any) -> None:
    """Writes class numbers to a NIfTI file with the affine and the units of another one.

    Args:
      path: Of the new file, ending in ``.nii`` or ``.nii.gz``.
      classes: Of the shape of the other volume.
      like: The path of the other file.

    Raises:
      UsageError: ``nibabel`` is not installed, or the other file cannot be read.
    """
    nibabel = _nibabel()
    source = _opened(like)
    header = source.header.copy()
    header.set_data_dtype(np.uint8 if classes.max(initial=0) < 256 else np.int16)
    header.set_slope_inter(1, 0)
    kind = type(source) if type(source) in (nibabel.Nifti1Image, nibabel.Nifti2Image) else nibabel.Nifti1Image
    temporary = Path(path).with_name(f".{os.getpid()}.{Path(path).name}")  # the suffix decides about compression
    try:
        nibabel.save(kind(classes.astype(header.get_data_dtype()), source.affine, header), temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _nibabel() -> Any:
    return require("nibabel", "nifti", "NIfTI files")


def _opened(path: str | PathLike[str]) -> Any:
    nibabel = _nibabel()
    try:
        return nibabel.load(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file") from error
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"{path}: is not a readable NIfTI file: {' '.join(str(error).split())}") from error


def _array(path: str | PathLike[str]) -> np.ndarray:
    opened = _opened(path)
    try:
        if str(path).lower().endswith(".gz"):
            # nibabel stops at the end of the array, before the checksum, and returns damaged values without an error.
            with gzip.open(path) as whole:
                while whole.read(_READ_AT_ONCE):
                    pass
        values = np.asanyarray(opened.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"{path}: is not a complete NIfTI file: {' '.join(str(error).split())}") from error
    if values.dtype.kind not in "biuf":  # colours are records, and there are complex volumes
        raise UsageError(f"{path}: holds values of type {values.dtype}; give real numbers, channels on a fourth axis")
    return values
