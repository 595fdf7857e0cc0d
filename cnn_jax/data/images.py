"""Reading the user's own image files, in the form of the images that a network was trained on.

Any size; grey, colour, palette, transparency, 1 to 16 bits; turned as the camera says; the first frame of an animation.
What had to be assumed is returned as text beside the pixels, so that a surprising prediction can be understood.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cnn_jax.data.ink import as_ink, border, count_pieces, find_ink, frame_ink
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.files import user_path
from cnn_jax.typed import typed

# fmt: off
IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx",
    ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
)
# fmt: on
SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
MAX_PIXELS = "CNN_JAX_MAX_PIXELS"
"""The environment variable that allows images of more pixels than Pillow does."""

RESIZES = ("fit", "stretch", "crop")
DEPTHS = (8, 10, 12, 14, 16)  # bits, of the cameras and scanners whose grey values are stored in 16 bits


class ReadImage(NamedTuple):
    """An image in the network's form.

    Attributes:
      pixels: uint8, shape ``(height, width, channels)``, as in a :class:`~cnn_jax.data.Dataset`; or a volume.
      assumed: What was done to it and why, in a few words, in parts separated by semicolons; empty when it was taken as
        it is.
      hint: Why what a network says about it may be wrong; empty when nothing was found.
    """

    pixels: Shaped[np.ndarray, "*space channels"]
    assumed: str
    hint: str


@typed
def find_images(
    paths: Iterable[str | PathLike[str]],
    *,
    kind: str = "image",
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> list[Path]:
    """The image files that the user names: files as they are, folders searched to any depth.

    Args:
      paths: Files and folders; ``~`` is the home folder. In folders only the usual suffixes count, symbolic links are
        followed, and hidden files and folders are passed over; a file named itself is taken whatever its name.
      kind: What the files are called in messages.
      suffixes: The usual ones, in lower case.

    Returns:
      Each file once: in the order of ``paths``, and sorted inside a folder.

    Raises:
      UsageError: A path does not exist, a folder holds no image or cannot be listed, or no path is given.

    Example:
      >>> find_images(["no/such/image.png"])
      Traceback (most recent call last):
      cnn_jax.errors.UsageError: no/such/image.png: there is no such file or folder
    """
    found: dict[Path, None] = {}
    for path in map(user_path, paths):
        if os.path.isdir(path):  # Path.is_dir raises an error for a name that is too long
            images = sorted(file for file in files_in(path) if file.name.lower().endswith(tuple(suffixes)))
            if not images:
                raise UsageError(f"{path}: no {kind}s in this folder (looked for {' '.join(suffixes)})")
            found.update(dict.fromkeys(images))
        elif os.path.exists(path):
            found[path] = None
        else:
            pattern = "; write patterns as --images *.png, without =, for the shell" if "*" in path.name else ""
            raise UsageError(f"{path}: there is no such file or folder{pattern}")
    if not found:
        raise UsageError(f"no {kind}s given; name files or folders, separated by commas")
    return list(found)


@typed
def read_image(
    path: str | PathLike[str],
    *,
    height: int,
    width: int,
    channels: int,
    invert: Literal["auto"] | bool = "auto",
    resize: Literal["fit", "stretch", "crop"] = "fit",
    ink_extent: float | None = None,
    ink_pieces: int = 1,
    white: int | None = None,
) -> ReadImage:
    """Reads one image and brings it to the form of the images a network was trained on.

    Transparent parts become white paper, or black where what is visible is light. Grey values of more than 8 bits are
    scaled to 8: a scan of 12 bits that is stored in 16 would be black if all 16 were taken to be used. Sizes change
    with an antialiasing bilinear filter.

    Args:
      path: The file.
      height: Of the result, as in the training set.
      width: Of the result.
      channels: 1 for a network of grey images, 3 for one of colour images.
      invert: True turns dark into light. ``"auto"`` assumes a grey network trained on light ink on a dark background,
        as MNIST, Fashion-MNIST and the digits are: it inverts a grey image whose border is lighter than its inside.
        Colour images are never inverted by ``"auto"``.
      resize: ``"fit"`` keeps the aspect and fills up with the border's median colour; ``"stretch"`` does not keep it;
        ``"crop"`` keeps it and cuts the centre out.
      ink_extent: For a grey network, how much of the frame the ink takes in its training set, from
        :func:`~cnn_jax.data.ink.measure_ink_extent`: an image of another size is then framed by its ink instead of
        resized as a whole. None does not look for ink.
      ink_pieces: How many pieces of ink the images of the training set have at most, from
        :func:`~cnn_jax.data.ink.measure_ink_pieces`; more of them give a hint.
      white: The grey value of white in an image of more than 8 bits. None takes the greatest value of the fewest bits
        (8, 10, 12, 14 or 16) that the image fits in.

    Returns:
      The :class:`ReadImage`: ``pixels``, what was ``assumed``, and a ``hint``.

    Raises:
      UsageError: The file is not an image or is cut short, or an option is unknown.
    """
    if channels not in (1, 3):
        raise UsageError(f"read_image: channels={channels}; images have 1 (grey) or 3 (colour)")
    if resize not in RESIZES:
        raise UsageError(f"read_image: unknown resize={resize!r}; {nearest(resize, RESIZES)}")
    if ink_extent is not None and not 0 < ink_extent <= 1:
        raise UsageError(f"read_image: ink_extent={ink_extent} must be in (0, 1]; it is a part of the frame's side")
    assumed: list[str] = []
    image = _without_transparency(_eight_bits(_open(path, assumed), path, white, assumed), assumed)
    if channels == 1 and image.mode == "RGB" and not _is_grey(image):
        assumed.append("colour taken as grey")
    image = image.convert("L" if channels == 1 else "RGB")
    if invert == "auto":
        invert = channels == 1 and _border_is_lighter(np.asarray(image))
        if channels == 1:
            assumed.append(
                "inverted: dark ink on light paper" if invert else "not inverted: light ink on dark background"
            )
    if invert:
        image = ImageOps.invert(image)
    ink, hint = None, ""
    if channels == 1 and ink_extent is not None:
        like_training_set = image.size == (width, height)
        ink = (as_ink if like_training_set else find_ink)(np.asarray(image))
        pieces = 0 if ink is None else count_pieces(ink)
        if ink is None:
            hint = "no ink that stands out from the border"
        elif pieces > ink_pieces:
            hint = f"ink in {pieces} pieces"
        if ink is not None and not like_training_set:
            pixels = frame_ink(ink, height=height, width=width, extent=ink_extent)
            assumed.append(f"ink framed in {width}x{height} as in the training set")
            return ReadImage(pixels.reshape(height, width, channels), "; ".join(assumed), hint)
    pixels = np.asarray(_resized(image, (width, height), resize, assumed))
    return ReadImage(pixels.reshape(height, width, channels), "; ".join(assumed), hint)


def decode_image(content: bytes, path: str | PathLike[str], *, channels: int, least: int = 0) -> Image.Image:
    """An image as a training set has it: upright, 8 bits, grey or colour, of its own size.

    Args:
      content: Of the file.
      path: Its name, for messages.
      channels: 1 for grey, 3 for colour.
      least: A JPEG much larger than this is decoded at 1/2, 1/4 or 1/8, both its sides still twice this at least, as
        ``Image.thumbnail`` does; 0 for never.

    Returns:
      A Pillow image of mode ``L`` or ``RGB``; transparent parts are white, or black where what is visible is light.

    Raises:
      UsageError: It is not an image or is cut short.
    """
    image = _without_transparency(_eight_bits(_open(path, [], content, least), path, 65535, []), [])
    return _in_mode(image, "L" if channels == 1 else "RGB")


def upright_size(content: bytes) -> tuple[int, int]:
    """Width and height of an image that can be read, turned as the camera says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as when it is read
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (height, width) if on_its_side else (width, height)


def has_sixteen_bits(path: Path) -> bool:
    """Whether an image has grey values of more than 8 bits; False where it cannot be read."""
    _raise_limit()
    with warnings.catch_warnings(), contextlib.suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.mode.startswith("I")
    return False


def resize_image(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """Brings an image to ``(width, height)``; ``resize`` as in :func:`read_image`."""
    return _resized(image, size, resize, [])


def resize_mask(image: Image.Image, size: tuple[int, int], resize: str, *, fill: int) -> Image.Image:
    """Brings class numbers to ``(width, height)`` as :func:`resize_image` an image, by those of the nearest pixels.

    Args:
      image: Of mode ``L``.
      size: The new width and height.
      resize: As in :func:`read_image`.
      fill: The class number of what is added at the borders.
    """
    return _resized(image, size, resize, [], resample=Image.Resampling.NEAREST, fill=fill)


def open_image(path: str | PathLike[str]) -> Image.Image:
    """An image with the values of its file, turned as the camera says.

    Args:
      path: The file.

    Raises:
      UsageError: It is not an image or is cut short.
    """
    return _open(path, [])


@typed
def read_whole(path: str | PathLike[str], *, channels: int, white: int | None = None) -> ReadImage:
    """Reads an image in its own size, neither inverted nor framed, for networks that take images of any size.

    Args:
      path: The file.
      channels: 1 for a network of grey images, 3 for one of colour images.
      white: As in :func:`read_image`.

    Raises:
      UsageError: The file is not an image or is cut short.
    """
    assumed: list[str] = []
    image = _without_transparency(_eight_bits(_open(path, assumed), path, white, assumed), assumed)
    if channels == 1 and image.mode == "RGB" and not _is_grey(image):
        assumed.append("colour taken as grey")
    pixels = np.asarray(_in_mode(image, "L" if channels == 1 else "RGB"))
    return ReadImage(pixels.reshape(*pixels.shape[:2], channels), "; ".join(assumed), "")


def files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder, to any depth and through symbolic links, without those that are hidden or the system's.

    A folder that several links lead to is entered once, so that links in a circle end.

    Raises:
      UsageError: A folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    entered = set()
    for path, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(path, name) for name in files if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's, such as ``.git`` or the ``__MACOSX`` of a zip file."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_image(file: Path) -> bool:
    """Whether a file is an image by its name; a link that leads nowhere is one that cannot be read."""
    return file.suffix.lower() in IMAGE_SUFFIXES and (file.is_file() or not file.exists())


def _open(path: str | PathLike[str], assumed: list[str], content: bytes | None = None, least: int = 0) -> Image.Image:
    """The decoded first frame, upright."""
    _raise_limit()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, or damaged metadata beside intact pixels
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                if getattr(image, "n_frames", 1) > 1:
                    assumed.append(f"first of {image.n_frames} frames")  # type: ignore[attr-defined]
                if least:
                    image.draft("", (2 * least, 2 * least))  # no other mode; only JPEG files use it
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return image
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UsageError(
            f"{path}: has more than {most:,} pixels, which would take much memory; to read it, set the environment "
            f"variable {MAX_PIXELS} to a larger number"
        ) from error
    except UnidentifiedImageError as error:  # whose own text has an address in memory
        empty = os.path.getsize(path) == 0 if content is None else not content
        reason = "it is empty" if empty else "it is in no known format"
        raise UsageError(f"{path}: cannot be read as an image: {reason}") from error
    except Exception as error:  # decoders raise whatever a damaged file leads them into
        reason = str(error).partition("\n")[0].replace(repr(str(path)), "the file")
        raise UsageError(f"{path}: cannot be read as an image: {reason or type(error).__name__}") from error


def _raise_limit() -> None:
    """Lets Pillow read as many pixels as the user allows."""
    allowed = os.environ.get(MAX_PIXELS, "").replace("_", "")
    if not allowed:
        return
    if not allowed.isdecimal():
        raise UsageError(f"{MAX_PIXELS}={os.environ[MAX_PIXELS]} must be a whole number of pixels")
    Image.MAX_IMAGE_PIXELS = -(-int(allowed) // 2)  # Pillow warns from there on, and refuses twice as many


def _eight_bits(image: Image.Image, path: str | PathLike[str], white: int | None, assumed: list[str]) -> Image.Image:
    """One of Pillow's modes L, RGB, LA, RGBA."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow also delivers as 32-bit integers
        pixels = np.asarray(image, np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UsageError(f"{path}: grey values from {pixels.min()} to {pixels.max()}; save it with 8 or 16 bits")
        if white is None:
            bits = next(bits for bits in DEPTHS if pixels.max() < 2**bits)
            white = 2**bits - 1
            if bits < 16:
                assumed.append(f"{bits} of 16 bits used: white is {white}")
        return Image.fromarray(np.rint(np.minimum(pixels / white, 1) * 255).astype(np.uint8))
    if image.mode == "F":
        raise UsageError(f"{path}: has floating point pixels; save it with 8 or 16 bits")
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return _in_mode(image, "LA" if grey else "RGBA")
    return _in_mode(image, "L" if grey else "RGB")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which would copy every image


def _without_transparency(image: Image.Image, assumed: list[str]) -> Image.Image:
    """Transparent parts on white paper, or on black where what is visible is light."""
    if image.mode not in ("LA", "RGBA"):
        return image
    opaque = image.convert(image.mode.removesuffix("A"))
    alpha = image.getchannel("A")
    weights = np.asarray(alpha, np.float64)
    if weights.min() == 255:
        return opaque
    visible = np.average(np.asarray(opaque.convert("L"), np.float64), weights=weights) if weights.any() else 0.0
    background = "white" if visible < 128 else "black"
    assumed.append(f"transparent parts taken as {background}")
    return Image.composite(opaque, Image.new(opaque.mode, opaque.size, background), alpha)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (np.asarray(channel) for channel in image.split())
    return bool((red == green).all() and (green == blue).all())


def _border_is_lighter(pixels: UInt8[np.ndarray, "height width"]) -> bool:
    """Whether the background (the border's median) is lighter than the image is on average."""
    return bool(np.median(border(pixels)) > pixels.mean())


def _resized(
    image: Image.Image,
    size: tuple[int, int],
    resize: str,
    assumed: list[str],
    *,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    fill: int | None = None,
) -> Image.Image:
    """An image of another size; ``fill`` replaces the border's median where the aspect is kept by filling up."""
    if image.size == size:
        return image
    (width, height), (wanted_width, wanted_height) = image.size, size
    assumed.append(f"{width}x{height} resized to {wanted_width}x{wanted_height} ({resize})")
    if resize == "stretch" or width * wanted_height == height * wanted_width:
        return image.resize(size, resample)
    if resize == "crop":
        return ImageOps.fit(image, size, resample)
    scale = min(wanted_width / width, wanted_height / height)
    inner = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), resample)
    if fill is None:
        background = np.median(border(np.asarray(image)), axis=0).astype(int)
        colour = tuple(np.atleast_1d(background).tolist())
    else:
        colour = (fill,)
    framed = Image.new(image.mode, size, colour)
    framed.paste(inner, ((wanted_width - inner.width) // 2, (wanted_height - inner.height) // 2))
    return framed
