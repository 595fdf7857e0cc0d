"""Framing a drawn or photographed digit or letter as those of the training set are framed.

MNIST's digits were scaled to 20 pixels and centred by mass in 28x28 (LeCun et al. 1998), the 8x8 digits fill their
frame: a network trained on them fails on a digit somewhere on a sheet of grey paper. What the frame is like is measured
on the training set; light, contrast, size and place of the user's ink are then brought to it.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image

from cnn_jax.typed import typed

MEASURED_IMAGES = 1000
WORKING_SIDE = 1024  # larger photographs are shrunk first
FRAMED_PART = 0.9  # of the images must have a black border for the set to count as ink on a dark background
LEAST_CONTRAST = 16  # of 255: what stands out less than this from the background is not ink
LEAST_SIGNAL_TO_NOISE = 6.0
FAINT = 1 / 3  # of the lightest ink: a stroke that joins pieces
LARGE_PART = 0.5  # of the longest side of the largest piece of ink: smaller pieces are dots and dirt
USUAL_PART = 99  # percent of a training set, which have no more pieces of ink


@typed
def measure_ink_extent(images: Shaped[np.ndarray, "n height width channels"]) -> float | None:
    """How much of the frame the ink takes in a training set of light ink on a dark background.

    Args:
      images: uint8 images of the training set; the first 1,000 are measured.

    Returns:
      The median, over the images, of the longest side of the ink's bounding box as a part of the image's side:
      about 20 / 28 for MNIST, 1 for the 8x8 digits. None when the set is not grey images of that kind.

    Example:
      >>> images = np.zeros((3, 10, 10, 1), np.uint8)
      >>> images[:, 2:7, 4:6] = 255
      >>> measure_ink_extent(images)
      0.5
    """
    if images.shape[-1] != 1 or images.dtype != np.uint8:
        return None
    measured = images[:MEASURED_IMAGES, ..., 0]
    inked = [image for image in measured if np.median(border(image)) == 0 and image.any()]
    if len(inked) < FRAMED_PART * len(measured):
        return None
    extents = []
    for image in inked:
        box = _ink_box(image.astype(float), float(image.max()))
        extents.append(max((stop - start) / side for (start, stop), side in zip(box, image.shape, strict=True)))
    return float(np.median(extents))


@typed
def measure_ink_pieces(images: Shaped[np.ndarray, "n height width channels"]) -> int:
    """The number of large pieces of ink that the images of a training set have, see :func:`count_pieces`.

    Args:
      images: uint8 images of a training set for which :func:`measure_ink_extent` is not None; the first 1,000 are
        measured.

    Returns:
      The number that 99 % of the images do not exceed.

    Example:
      >>> images = np.zeros((3, 10, 10, 1), np.uint8)
      >>> images[:, 2:7, 4:6] = 255
      >>> measure_ink_pieces(images)
      1
    """
    counts = [count_pieces(ink) for ink in map(as_ink, images[:MEASURED_IMAGES, ..., 0]) if ink is not None]
    return int(np.percentile(counts, USUAL_PART)) if counts else 1


def count_pieces(ink: Float[np.ndarray, "rows columns"]) -> int:
    """Counts the pieces of ink that do not touch each other, such as the digits of a number.

    Pieces whose bounding box is less than half as long as that of the largest do not count: dots, commas, dirt.

    Args:
      ink: From 0, the background, to 1, the lightest ink. What is at least half as light is ink; what is at
        least a third as light joins pieces, because strokes are faint there.

    Example:
      >>> ink = np.zeros((10, 20))
      >>> ink[1:9, 3:5] = ink[1:9, 8:10] = ink[8, 18] = 1
      >>> count_pieces(ink)
      2
    """
    from scipy import ndimage  # which takes a fifth of a second; training does not need it

    labels, _ = ndimage.label(ink >= FAINT, structure=np.ones((3, 3)))
    boxes, strong = ndimage.find_objects(labels), set(np.unique(labels[_is_ink(ink, 1.0)]).tolist()) - {0}
    sides = [max(stop.stop - stop.start for stop in boxes[piece - 1]) for piece in strong]
    return sum(side >= LARGE_PART * max(sides) for side in sides)


def as_ink(pixels: UInt8[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"] | None:
    """The ink of an image that looks like those of the training set, from 0 to 1; None without any."""
    peak = int(pixels.max())
    return pixels / peak if peak >= LEAST_CONTRAST else None


def find_ink(pixels: UInt8[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"] | None:
    """Light ink on a dark background: how much of it is in each pixel, from 0 to 1.

    The background is a plane fitted to the border's grey values.

    Args:
      pixels: The image. A large one is shrunk to a longest side of 1,024 pixels first.

    Returns:
      The ink, of the shrunk image; None when nothing stands out from the background.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(image)
    background = _fitted_background(pixels)
    above = pixels - background
    noise = 1.4826 * np.median(np.abs(border(above)))  # a standard deviation, were it Gaussian
    peak = np.percentile(above, 99.9) if above.size > 1000 else above.max()
    if peak < max(LEAST_CONTRAST, LEAST_SIGNAL_TO_NOISE * noise):
        return None
    return np.clip((above - 2 * noise) / (peak - 2 * noise), 0, 1)


def frame_ink(
    ink: Float[np.ndarray, "rows columns"], *, height: int, width: int, extent: float
) -> UInt8[np.ndarray, "height width"]:
    """Brings ink to the brightness, contrast, size and place that a training set has.

    The lightest ink becomes white. The ink's bounding box is scaled to ``extent`` of the frame and its centre of mass
    put in the middle, as far as it stays inside.

    Args:
      ink: From :func:`find_ink`.
      height: Of the result.
      width: Of the result.
      extent: From :func:`measure_ink_extent`.
    """
    box = _ink_box(ink, 1.0)
    scale = extent * min(side / (stop - start) for (start, stop), side in zip(box, (height, width), strict=True))
    frame = (height / scale, width / scale)  # in the image's pixels
    room = math.ceil(max(frame))  # so that the frame may reach beyond the image
    inside = ink[slice(*box[0]), slice(*box[1])]
    frame_top, frame_left = (
        room + box[axis][0] + _frame_start(inside.sum(axis=1 - axis), length) for axis, length in enumerate(frame)
    )
    framed = np.asarray(
        Image.fromarray(np.pad(ink, room).astype(np.float32)).resize(
            (width, height),
            Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR,
            box=(frame_left, frame_top, frame_left + frame[1], frame_top + frame[0]),
        )
    )
    return np.rint(np.clip(framed / framed.max(), 0, 1) * 255).astype(np.uint8)


def border(pixels: Shaped[np.ndarray, "rows columns *channels"]) -> Shaped[np.ndarray, "count *channels"]:
    """The outermost pixels, one sixteenth of the shorter side deep, as a list."""
    return pixels[_border_mask(pixels.shape)]


def _border_mask(shape: tuple[int, ...]) -> np.ndarray:
    depth = max(1, min(shape[:2]) // 16)
    mask = np.ones(shape[:2], bool)
    mask[depth:-depth, depth:-depth] = False
    return mask


def _fitted_background(pixels: UInt8[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """The plane through the border's grey values: light falls on paper from one side."""
    rows, columns = np.indices(pixels.shape)
    terms = np.stack([np.ones(pixels.shape), rows / pixels.shape[0], columns / pixels.shape[1]], axis=-1)
    mask = _border_mask(pixels.shape)
    coefficients, *_ = np.linalg.lstsq(terms[mask], pixels[mask].astype(float))
    return terms @ coefficients


def _ink_box(ink: Float[np.ndarray, "rows columns"], peak: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The (start, stop) rows and columns of what is at least half as light as the lightest ink."""
    rows, columns = (np.flatnonzero(_is_ink(ink, peak).any(axis=axis)) for axis in (1, 0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)


def _is_ink(ink: Float[np.ndarray, "rows columns"], peak: float) -> Bool[np.ndarray, "rows columns"]:
    return ink >= peak / 2


def _frame_start(profile: Float[np.ndarray, " side"], length: float) -> float:
    """Where a frame begins whose middle is the ink's centre of mass, or as near to it as holds all of the ink."""
    centre = np.average(np.arange(len(profile)) + 0.5, weights=profile)
    return float(np.clip(centre - length / 2, len(profile) - length, 0))
