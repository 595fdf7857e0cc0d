"""CycleGAN: images of one domain become images of another one, learned without pairs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped
from ml_collections import ConfigDict

from cnn_jax import nn, ops
from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.models.cycle import Cycle, Discriminators, Pool
from cnn_jax.models.patch_gan import patch_gan
from cnn_jax.ops.arguments import by, is_traced, may_differ_from_zero
from cnn_jax.tasks.image_to_image import ImageToImage, scaled
from cnn_jax.tasks.task import Examples, Results, mean_over

RANGE = -1.0, 1.0  # of the network's inputs, which outputs become inputs again
DIRECTIONS = 2


class CycleGAN(ImageToImage):
    """Two networks that translate between two domains, each trained against a discriminator (Zhu et al. 2017).

    The fields are those of :class:`ImageToImage`: ``image``, of the first domain, and one other image, of the second.
    In training nothing compares the two: the losses are those of images of either domain. Each network minimises the
    squared distance of a PatchGAN's scores of its images from 1, that of "real"; and, times ``config.cycle_weight``,
    the mean absolute error of images that are translated and translated back; and, times ``config.identity_weight``,
    that of images of its own output's domain. Errors are those of pixels from -1 to 1, as in the paper. The
    discriminators also see images of earlier steps, from pools.

    If the examples of evaluation are pairs (``config.paired``), the scores are the errors of :class:`ImageToImage` over
    both directions, also of each, such as ``mae_to_colour``; these pairs are no part of the training. The score
    ``cycle`` is the mean absolute error of images that are translated there and back.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: An image of each domain.

    Raises:
      UsageError: As for :class:`ImageToImage`, or the numbers of channels differ, or a value in the config is out of
        its range.
    """

    traced = ("adversarial_weight", "cycle_weight", "identity_weight")

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        one, two = (examples.spec[name].shape or tuple(config.input_shape) for name in (self._input, self._truth))
        if one != two:
            raise UsageError(
                f"data set {examples.name!r}: {self._input} is {by(one)}, but {self._truth} is {by(two)}; cyclegan "
                "needs images of one shape: grey images among colours repeat their channel"
            )
        if config.predicts != "pixels":
            raise UsageError(f"predicts={config.predicts!r} has no meaning for cyclegan; use 'pixels'")
        if tuple(config.data.pixel_range) != RANGE:
            raise UsageError(
                f"data.pixel_range={tuple(config.data.pixel_range)} must be {RANGE} for cyclegan, where outputs of one "
                "network are inputs of the other"
            )
        for key in self.traced:
            if not is_traced(config[key]) and config[key] < 0:
                raise UsageError(f"{key}={config[key]} must be at least 0")
        if config.pool and config.pool < config.batch_size:
            raise UsageError(
                f"pool={config.pool} is smaller than batch_size={config.batch_size}; use at least that, or 0 for none"
            )
        if config.pool and config.parallel == "pmap":
            raise UsageError("pool needs parallel='jit', where all devices share one pool; or use pool=0")
        self._shape = tuple(config.input_shape)
        self.names = self._truth, self._input  # what is predicted in each direction

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of the task.

        >>> CycleGAN.default_config().cycle_weight
        10.0
        """
        config = super().default_config()
        config.update(
            {
                "cycle_weight": 10.0,  # of images that are translated and translated back
                "identity_weight": 0.0,  # of images that are in the domain already; 5.0 keeps colours of paintings
                "adversarial_weight": 1.0,  # of the discriminators' scores
                "pool": 50,  # generated images of each domain that are kept for the discriminators; 0 for none
                "paired": True,  # whether validation and test examples are pairs, whose errors are scores
                "discriminator": {"width": 1.0, "layers": 3},  # PatchGAN: 1 for patches of 16x16, 3 for 70x70
                "data": {"pixel_range": RANGE},
            }
        )
        return config

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """The errors of pairs, if there are any; the error of translating there and back; and the loss."""
        pairs = super().metrics(config)[:-1] if config.paired else ()
        return (*pairs, Metric("cycle", "lower", "%"), Metric("loss", "lower"))

    def assemble(self, create: Callable[[Key[Array, ""]], nn.Sequence], key: Key[Array, ""]) -> nn.Sequence:
        """Both networks, which are of one kind."""
        forward, backward = (create(own) for own in jax.random.split(key))
        return Cycle(forward, backward, self._shape[-1], keep=may_differ_from_zero(self.config.identity_weight))

    def network_input(self, batch: Mapping[str, Any], name: str) -> Any:
        """An image of each domain, side by side."""
        images = [batch[self._input], batch[self._truth]]
        if images[0].dtype != images[1].dtype:
            images = [scaled(one) for one in images]
        of_numpy = isinstance(images[0], np.ndarray)
        return (np if of_numpy else jnp).concatenate(images, axis=-1)

    def discriminator(self, rngs: nnx.Rngs) -> nnx.Module:
        """A PatchGAN for each domain, with pools."""
        options = {"rank": len(self._shape) - 1, "instance_norm": True, **self.config.discriminator}
        first, second = (patch_gan(self._shape[-1], rngs=rngs, **options) for _ in range(DIRECTIONS))
        size = self.config.pool // self.config.batch_size * self.config.batch_size
        pools = (Pool(size, self._shape, rngs=rngs), Pool(size, self._shape, rngs=rngs)) if size else None
        return Discriminators(first, second, pools)

    def discriminator_loss(
        self, discriminate: Callable[..., Any], outputs: Float[Array, "..."], batch: training.Batch
    ) -> Float[Array, ""]:
        """Half the squared distances of the scores from 1 for real and from 0 for generated images, of both domains."""
        second, first, *_ = self._parts(outputs)
        real = discriminate(*(2 * image - 1 for image in self._images(batch)))
        generated = discriminate(first, second, pooled=True)
        return sum(
            (_distance(one, 1.0) + _distance(other, 0.0)) / 2 for one, other in zip(real, generated, strict=True)
        )

    def adversarial_loss(
        self, discriminate: Callable[..., Any], outputs: Float[Array, "..."], batch: training.Batch
    ) -> Float[Array, ""]:
        """The squared distances of the scores of generated images from 1, weighted."""
        second, first, *_ = self._parts(outputs)
        return self.config.adversarial_weight * sum(_distance(scores, 1.0) for scores in discriminate(first, second))

    def loss(self, outputs: Float[Array, "batch *space channels"], batch: training.Batch) -> Float[Array, ""]:
        """The weighted errors of the cycles and of the images that are in the domain already."""
        return self._losses(outputs, batch).mean()

    def measure(self, outputs: Float[Array, "batch *space channels"], batch: training.Batch) -> training.Metrics:
        """The loss and the error of the cycles; in evaluation also the errors of pairs."""
        images, parts = self._images(batch), self._pixels(outputs)
        cycles = _both(_error(again, image) for again, image in zip(parts[2:4], images, strict=True))
        metrics: training.Metrics = {
            "loss": mean_over(self._losses(outputs, batch), batch),
            "cycle": mean_over(cycles, batch),
        }
        if "mask" not in batch or not self.config.paired:
            return metrics
        pairs = list(zip(parts[:2], images[::-1], strict=True))
        errors = [_error(*pair) for pair in pairs]
        each = {"mae": _both(errors), "psnr": _both(ops.psnr(*pair) for pair in pairs)}
        each["ssim"] = _both(ops.ssim(*pair, window=self.config.ssim_window) for pair in pairs)
        metrics |= {name: mean_over(values, batch) for name, values in each.items()}
        return metrics | {f"mae_to_{name}": mean_over(own, batch) for name, own in zip(self.names, errors, strict=True)}

    def predict(self, outputs: Float[Array, "batch *space channels"]) -> Float[Array, "batch *space channels"]:
        """Pixels from 0 to 1, of an image in both directions, or of a pair; see :class:`cnn_jax.models.cycle.Cycle`."""
        return jax.nn.sigmoid(outputs.astype(jnp.float32))

    def translated(self, predictions: Shaped[np.ndarray, "n *space channels"]) -> list[Shaped[np.ndarray, "..."]]:
        """The images of :attr:`names`, from 0 to 1.

        Args:
          predictions: Of :meth:`predict`: of images both translations, of pairs that of each image.
        """
        return _split(predictions, self._shape[-1])[:DIRECTIONS]

    def there_and_back(self, predictions: Shaped[np.ndarray, "n *space channels"]) -> list[Shaped[np.ndarray, "..."]]:
        """The images of both domains after the network and the other network, from 0 to 1.

        Args:
          predictions: Of pairs.
        """
        return _split(predictions, self._shape[-1])[2:4]

    def rows(self, predictions: Float[np.ndarray, "n *space channels"]) -> list[dict[str, Any]]:
        """The mean value of each channel, of both translations."""
        space = tuple(range(1, predictions.ndim - 1))
        means = [images.mean(axis=space) for images in self.translated(predictions)]
        columns = [f"to {name}, mean {channel}" for name in self.names for channel in self.outputs]
        return [dict(zip(columns, row.tolist(), strict=True)) for row in np.concatenate(means, axis=-1)]

    def compared(
        self, predictions: Float[np.ndarray, "n *space channels"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """The error of each image in each direction, if there are pairs."""
        if not self.config.paired:
            return [{} for _ in predictions]
        images = self.translated(predictions)
        scores = [self.image_scores(one, batch[name]) for one, name in zip(images, self.names, strict=True)]
        return [
            {
                f"{metric} to {name}": f"{values[number]:.6f}"
                for name, own in zip(self.names, scores, strict=True)
                for metric, values in own.items()
            }
            for number in range(len(predictions))
        ]

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """The image in each direction as PNG, with the name of the field that it is like."""
        from cnn_jax.tasks.image_to_image_report import write_pixels  # brings in matplotlib

        for domain, pixels in zip(self.names, self.translated(prediction), strict=True):
            write_pixels(folder / f"{name}_to_{domain}.png", pixels)

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """The metrics, and the error of each direction."""
        share = Metric("mae", "lower", "%")
        each = {name: share.format(scores[name]) for name in map("mae_to_{}".format, self.names) if name in scores}
        return super().describe(scores) | each

    def headlines(self, results: Results) -> list[Any]:
        """The errors of pairs, if there are any, and of translating there and back."""
        from cnn_jax.tasks.cyclegan_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Images there and back; beside the truth where there are pairs."""
        from cnn_jax.tasks.cyclegan_report import sections

        return sections(self, results)

    def typical(self, results: Results) -> tuple[int, str]:
        """The first test image."""
        return 0, f"test {results.test_set.input_kind} 0"

    def _images(self, batch: training.Batch) -> list[Float[Array, "batch *space channels"]]:
        """The images of both domains, from 0 to 1."""
        return [scaled(batch[self._input]), scaled(batch[self._truth])]

    def _parts(self, outputs: Array) -> list[Float[Array, "batch *space channels"]]:
        """The images of :attr:`Cycle.PARTS`, from -1 to 1."""
        return _split(jnp.tanh(outputs.astype(jnp.float32) / 2), self._shape[-1])

    def _pixels(self, outputs: Array) -> list[Float[Array, "batch *space channels"]]:
        """The images of :attr:`Cycle.PARTS`, from 0 to 1."""
        return _split(self.predict(outputs), self._shape[-1])

    def _losses(self, outputs: Array, batch: training.Batch) -> Float[Array, " batch"]:
        first, second = (2 * image - 1 for image in self._images(batch))
        _, _, first_again, second_again, *kept = self._parts(outputs)
        of = jnp.abs if self.config.loss == "l1" else jnp.square

        def error(one: Array, other: Array) -> Array:
            return of(one - other).mean(range(1, one.ndim))

        total = self.config.cycle_weight * (error(first_again, first) + error(second_again, second))
        if kept:
            total = total + self.config.identity_weight * (error(kept[0], second) + error(kept[1], first))
        return total


def _split(images: Any, channels: int) -> list[Any]:
    return [images[..., first : first + channels] for first in range(0, images.shape[-1], channels)]


def _both(values: Iterable[Array]) -> Float[Array, " batch"]:
    """The mean over both directions."""
    return jnp.stack(list(values)).mean(axis=0)


def _error(images: Array, truth: Array) -> Float[Array, " batch"]:
    return jnp.abs(images - truth).mean(range(1, images.ndim))


def _distance(scores: Array, label: float) -> Any:
    return jnp.square(scores.astype(jnp.float32) - label).mean()
