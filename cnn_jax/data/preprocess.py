"""From images to a network's input: one small object, used alike by training, evaluation and prediction."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from cnn_jax.data.augment.by_kind import Fields
from cnn_jax.data.augment.movement import Cropped, Frame, Movement, Windowed
from cnn_jax.data.dataset import IMAGE_DTYPES, Dataset
from cnn_jax.data.fields import INPUT_KINDS, Spec
from cnn_jax.data.records import Records, sampled_parts
from cnn_jax.errors import UsageError, nearest
from cnn_jax.typed import typed

RESIZE_METHODS = ("nearest", "bilinear", "bicubic", "lanczos3")
MEASURED_AT_ONCE = 1024
MEASURED_AT_MOST = 10_000  # of a set that is left on disk


@typed
@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Brings images to the network's size and normalises them: ``(pixels - mean) / std``. A pure JAX function.

    Pixels are first scaled to 0..1 (uint8 is divided by 255, floating point is taken as it is), then brought to size.

    Attributes:
      input_shape: Of the network's input: ``(height, width, channels)`` of images; ``(length, channels)`` of signals,
        ``(depth, height, width, channels)`` of volumes, ``(frames, height, width, channels)`` of video; ``(length,)``
        of text, whose token numbers stay as they are.
      mean: Per channel, on the scale 0..1.
      std: Per channel, on the scale 0..1.
      resize: How other sizes reach ``input_shape``: ``"pad"`` with zeros on all sides, an odd one at the bottom and
        right (MNIST's 28x28 to LeNet-5's 32x32); ``"crop"`` to the middle; a method of ``jax.image.resize``,
        antialiased: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"lanczos3"``; or ``"none"``: other sizes are
        an error.

    Raises:
      UsageError: The fields do not fit each other, or a call's images cannot be brought to ``input_shape``.

    Example:
      >>> preprocess = Preprocess((32, 32, 1), mean=(0.5,), std=(0.25,), resize="pad")
      >>> inputs = preprocess(np.full((2, 28, 28, 1), 255, np.uint8))
      >>> inputs.shape, float(inputs[0, 0, 0, 0]), float(inputs[0, 16, 16, 0])
      ((2, 32, 32, 1), -2.0, 2.0)
    """

    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "none"

    def __post_init__(self) -> None:
        known = ("none", "pad", "crop", *RESIZE_METHODS)
        if self.resize not in known:
            raise UsageError(f"Preprocess: unknown resize={self.resize!r}; {nearest(self.resize, known)}")
        if not 1 <= len(self.input_shape) <= 4 or min(self.input_shape) < 1:
            raise UsageError(
                f"Preprocess: input_shape={self.input_shape}; give (height, width, channels), all positive"
            )
        channels = _channels(self.input_shape)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise UsageError(f"Preprocess: {name} has {len(values)} values for {channels} channels; give one each")
        if not all(value > 0 for value in self.std):
            raise UsageError(f"Preprocess: std={self.std} must be positive; a channel that never changes has no std")

    @classmethod
    def scaled(cls, input_shape: Sequence[int], *, resize: str = "none") -> "Preprocess":
        """Brings inputs to size and pixels to 0..1, without normalising them.

        Args:
          input_shape: Of the network's input.
          resize: As in the class.

        Raises:
          UsageError: As in the class.

        Example:
          >>> round(Preprocess.scaled((1, 1, 1))(np.full((1, 1, 1, 1), 51, np.uint8)).item(), 6)
          0.2
        """
        channels = _channels(input_shape)
        return cls(tuple(input_shape), mean=(0.0,) * channels, std=(1.0,) * channels, resize=resize)

    @classmethod
    @typed
    def measure(cls, dataset: Dataset | Records, input_shape: Sequence[int], *, resize: str = "none") -> "Preprocess":
        """Takes mean and std per channel from a training set, as the network sees it: after scaling and resizing.

        Args:
          dataset: The training set.
          input_shape: ``(height, width, channels)`` of the network's input.
          resize: As in the class.

        Returns:
          The ``Preprocess`` whose output on ``dataset`` has mean 0 and standard deviation 1 in each channel.

        Raises:
          UsageError: As in the class.

        Example:
          >>> from cnn_jax import data
          >>> digits = data.load("digits", "train")
          >>> Preprocess.measure(digits, (8, 8, 1))(digits.images).std().round(4).item()
          1.0
        """
        channels, scale = _channels(input_shape), cls.scaled(input_shape, resize=resize)
        if dataset.input_kind == "text":
            return scale
        some = jax.ShapeDtypeStruct((1, *dataset.image_shape), dataset.dtype)
        jax.eval_shape(scale, some)  # what does not fit is an error here
        # Where pixels are only moved it is enough to count how often each value occurs.
        moved = resize not in RESIZE_METHODS or dataset.image_shape == scale.input_shape
        counted = moved and dataset.dtype == "uint8"
        values = np.arange(256) / 255
        total, total_of_squares = np.zeros(channels), np.zeros(channels)
        count = 0
        for part in sampled_parts(dataset, most=MEASURED_AT_MOST, at_once=MEASURED_AT_ONCE):
            images = part.inputs
            count += len(images) * math.prod(scale.input_shape[:-1])
            if counted:
                pixels = scale._resized(images)
                counts = np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(channels)])
                total += counts @ values
                total_of_squares += counts @ np.square(values)
            else:
                pixels = np.asarray(scale(images), np.float64)
                total += pixels.sum(axis=tuple(range(pixels.ndim - 1)))
                total_of_squares += np.square(pixels).sum(axis=tuple(range(pixels.ndim - 1)))
        mean = total / count
        std = np.sqrt(np.maximum(total_of_squares / count - mean**2, 0))
        return dataclasses.replace(scale, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    @classmethod
    def ranged(cls, input_shape: Sequence[int], low: float, high: float, *, resize: str = "none") -> "Preprocess":
        """Brings black to ``low`` and white to ``high`` in every channel, whatever the set, as the first networks did.

        Args:
          input_shape: ``(height, width, channels)`` of the network's input.
          low: What a pixel of 0 becomes.
          high: What a pixel of 1 (255) becomes.
          resize: As in the class.

        Raises:
          UsageError: When ``low`` is not below ``high``, or as in the class.

        Example:
          >>> lenet_1989 = Preprocess.ranged((1, 3, 1), -1.0, 1.0)
          >>> lenet_1989(np.array([0, 0.5, 1], np.float32).reshape(1, 1, 3, 1)).ravel().tolist()
          [-1.0, 0.0, 1.0]
        """
        if not low < high:
            raise UsageError(
                f"Preprocess: the range ({low}, {high}) must rise from the value of black to that of white"
            )
        channels = _channels(input_shape)
        mean, std = -low / (high - low), 1 / (high - low)
        return cls(tuple(input_shape), mean=(mean,) * channels, std=(std,) * channels, resize=resize)

    def __call__(self, images: Shaped[Array | np.ndarray, "..."]) -> Shaped[Array, "n ..."]:
        """The network's input for a batch of images.

        Args:
          images: uint8 (0..255) or float32 (0..1), shape ``(n, height, width, channels)`` of any height and width; or
            volumes, video or signals, as ``input_shape`` is; or token numbers of texts.

        Returns:
          float32 of shape ``(n, *input_shape)``; of texts the int32 token numbers.
        """
        if len(self.input_shape) == 1:
            return self._tokens(images)
        if images.ndim != 1 + len(self.input_shape):
            axes = _AXES[len(self.input_shape)]
            single = images.ndim == len(self.input_shape)
            hint = "write images[None] for one" if single else f"set input_shape to {images.shape[1:]}"
            raise UsageError(
                f"Preprocess: inputs have shape {images.shape}, but input_shape={self.input_shape} needs "
                f"(n, {axes}); {hint}"
            )
        if images.dtype.name not in IMAGE_DTYPES:
            raise UsageError(f"Preprocess: inputs are {images.dtype}; give {' or '.join(IMAGE_DTYPES)}")
        if images.shape[-1] != self.input_shape[-1]:
            raise UsageError(
                f"Preprocess: inputs have {images.shape[-1]} channels, the network's input has {self.input_shape[-1]}; "
                f"set input_shape to {(*self.input_shape[:-1], images.shape[-1])}"
            )
        pixels = jnp.asarray(images, jnp.float32)
        if images.dtype == jnp.uint8:
            pixels = pixels / 255
        last = (1,) * (pixels.ndim - 1) + (-1,)
        mean, std = (jnp.asarray(numbers, jnp.float32).reshape(last) for numbers in (self.mean, self.std))
        return (jnp.asarray(self._resized(pixels)) - mean) / std

    def _tokens(self, texts: Shaped[Array | np.ndarray, "..."]) -> Shaped[Array, "n length"]:
        if texts.ndim > 2:
            raise UsageError(
                f"Preprocess: input_shape={self.input_shape} is for texts; for inputs of shape {texts.shape[1:]} give "
                "(height, width, channels), or the axes that they have"
            )
        if texts.shape[1:] != self.input_shape:
            raise UsageError(
                f"Preprocess: texts of shape {texts.shape} do not have the {self.input_shape[0]} token numbers of "
                f"input_shape={self.input_shape}; set it to {texts.shape[1:]}"
            )
        return jnp.asarray(texts)

    def batch(self, batch: Mapping[str, Array | np.ndarray], spec: Spec) -> dict[str, Any]:
        """All fields of a batch in the form that the network and its loss need, each by its kind.

        Images, volumes, video and signals become the network's input. Masks are resized, padded and cropped with them:
        they take the nearest pixel, and ``field.outside`` where there is padding. Boxes are moved and clipped, too, and
        removed where nothing is left of them. Other fields, and arrays that are not in the spec, stay as they are.

        Args:
          batch: Name -> array, shape ``(n, ...)``.
          spec: Of the examples, as a data set has it.

        Raises:
          UsageError: A field cannot be brought to ``input_shape``, or its size is not that of the others.

        Example:
          >>> from cnn_jax.data import Field
          >>> preprocess = Preprocess((4, 4, 1), mean=(0.0,), std=(1.0,), resize="pad")
          >>> batch = {"image": np.ones((1, 2, 2, 1), np.float32), "inside": np.ones((1, 2, 2), np.uint8)}
          >>> spec = {"image": Field("image"), "inside": Field("mask", outside=0)}
          >>> preprocess.batch(batch, spec)["inside"][0, 1].tolist()
          [0, 1, 1, 0]
        """
        fields = Fields({name: batch[name] for name in spec}, spec)
        inputs = {name: self(batch[name]) for name in fields.of_kinds(*INPUT_KINDS)}
        others = {name: field for name, field in spec.items() if name not in inputs}
        before = fields.frame("Preprocess")
        wanted = {
            axis: size for name in inputs for axis, size in zip(fields.axes(name), self.input_shape, strict=False)
        }
        changed = {axis: size for axis, size in wanted.items() if size != before[axis]}
        if changed:
            rest = Fields({name: batch[name] for name in others}, others)
            return {**batch, **inputs, **rest.moved(self._movement(len(fields), before, changed), before).arrays}
        return {**batch, **inputs}

    def _movement(self, count: int, before: Frame, wanted: Frame) -> Movement:
        """What resizing, padding and cropping is to masks and boxes."""
        if self.resize in RESIZE_METHODS:
            starts = {axis: jnp.zeros(count) for axis in wanted}
            return Windowed(starts, {axis: jnp.full(count, float(before[axis])) for axis in wanted}, wanted)
        missing = {axis: size - before[axis] for axis, size in wanted.items()}
        padding = max(0, *missing.values())
        starts = {axis: jnp.full(count, padding + _start(pixels)) for axis, pixels in missing.items()}
        return Cropped(starts, wanted, padding)

    def _resized(
        self, pixels: Shaped[Array | np.ndarray, "n *_ channels"]
    ) -> Shaped[Array | np.ndarray, "n *sides channels"]:
        sizes, wanted = pixels.shape[1:-1], self.input_shape[:-1]
        if sizes == wanted:
            return pixels
        if self.resize in RESIZE_METHODS:
            return jax.image.resize(pixels, (len(pixels), *self.input_shape), self.resize)
        missing = [after - before for before, after in zip(sizes, wanted, strict=True)]
        if self.resize == "crop" and max(missing) <= 0:
            starts = map(_start, missing)
            return pixels[:, *(slice(start, start + size) for start, size in zip(starts, wanted, strict=True))]
        if self.resize != "pad" or min(missing) < 0:
            raise UsageError(
                f"Preprocess: images of {'x'.join(map(str, sizes))} do not become {'x'.join(map(str, wanted))} with "
                f"resize={self.resize!r}; use resize='bilinear'" + (" or 'pad'" if min(missing) >= 0 else "")
            )
        widths = [(0, 0), *((-_start(pixel), pixel + _start(pixel)) for pixel in missing), (0, 0)]
        return np.pad(pixels, widths) if isinstance(pixels, np.ndarray) else jnp.pad(pixels, widths)


_AXES = {
    1: "length",
    2: "length, channels",
    3: "height, width, channels",
    4: "depth or frames, height, width, channels",
}


def _channels(input_shape: Sequence[int]) -> int:
    """The number of channels that are normalised; the token numbers of a text have none."""
    return input_shape[-1] if len(input_shape) > 1 else 0


def _start(missing: int) -> int:
    """Where padding (below 0) or cropping begins, for the number of missing pixels (below 0: of those too many)."""
    return -missing // 2 if missing < 0 else -(missing // 2)
