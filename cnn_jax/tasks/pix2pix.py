"""pix2pix: images from images, trained to be near the truth and indistinguishable from it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.errors import UsageError, nearest
from cnn_jax.models.patch_gan import patch_gan
from cnn_jax.ops.arguments import is_traced
from cnn_jax.tasks.image_to_image import ImageToImage
from cnn_jax.tasks.task import Examples

TEST_MODES = ("evaluation", "training")


class Pix2Pix(ImageToImage):
    """:class:`ImageToImage` with a PatchGAN that learns to tell predicted images from true ones, given the input.

    The network minimises its loss and, times ``config.adversarial_weight``, the cross entropy of the discriminator's
    scores of its images with "real". The paper's weight of 100 for L1 is an adversarial weight of 0.01. Both networks
    are updated once in each step, the discriminator first.

    In training, dropout is the noise of the network, and batch normalisation has the statistics of the batch. With
    ``config.test_mode='evaluation'`` there is no dropout in evaluation and prediction, and batch normalisation has its
    running averages: an image gives the same prediction whatever the seed and the other images of its batch. With
    ``'training'`` both are as in training, as in the paper: dropout depends on the run's seed alone, and the statistics
    are those of the images that are predicted together.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their two images.

    Raises:
      UsageError: As for :class:`ImageToImage`, or the adversarial weight is negative.
    """

    traced = ("adversarial_weight",)

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        super().__init__(config, examples)
        if not is_traced(config.adversarial_weight) and config.adversarial_weight < 0:
            raise UsageError(f"adversarial_weight={config.adversarial_weight} must be at least 0")
        # Runs of earlier versions lack the key.
        test_mode = config.get("test_mode", "evaluation")
        if test_mode not in TEST_MODES:
            raise UsageError(f"test_mode={test_mode!r} is unknown; {nearest(test_mode, TEST_MODES)}")
        self.test_as_training = test_mode == "training"
        self._rank = len(config.input_shape) - 1
        shapes = [examples.spec[name].shape or (config.input_shape[-1],) for name in (self._input, self._truth)]
        self._channels = sum(shape[-1] for shape in shapes)

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of the task.

        >>> Pix2Pix.default_config().adversarial_weight
        0.01
        """
        config = super().default_config()
        config.update(
            {
                "adversarial_weight": 0.01,  # of the discriminator's scores, beside the loss
                "discriminator": {"width": 1.0, "layers": 1},  # PatchGAN: 1 for patches of 16x16, 3 for 70x70
                "test_mode": "evaluation",  # or training: dropout and batch statistics at test time, as in the paper
            }
        )
        return config

    def discriminator(self, rngs: nnx.Rngs) -> nnx.Module:
        """The PatchGAN."""
        return patch_gan(self._channels, rngs=rngs, rank=self._rank, **self.config.discriminator)

    def discriminator_loss(
        self, discriminate: Callable[[Array], Array], outputs: Float[Array, "..."], batch: training.Batch
    ) -> Float[Array, ""]:
        """Half the sum of the cross entropies of true images as real and of predicted ones as generated."""
        real = discriminate(self._pair(self._cut(batch[self._truth], outputs), outputs, batch))
        generated = discriminate(self._pair(self.images(outputs, batch[self._input]), outputs, batch))
        return (_entropy(real, 1.0) + _entropy(generated, 0.0)) / 2

    def adversarial_loss(
        self, discriminate: Callable[[Array], Array], outputs: Float[Array, "..."], batch: training.Batch
    ) -> Float[Array, ""]:
        """The cross entropy of predicted images as real, weighted."""
        scores = discriminate(self._pair(self.images(outputs, batch[self._input]), outputs, batch))
        return self.config.adversarial_weight * _entropy(scores, 1.0)

    def _pair(self, images: Array, outputs: Array, batch: training.Batch) -> Array:
        """The input and an image, from -1 to 1."""
        return 2 * jnp.concatenate([self._cut(batch[self._input], outputs), images], axis=-1) - 1


def _entropy(scores: Any, label: float) -> Float[Array, ""]:
    return ops.sigmoid_cross_entropy(scores, jnp.full_like(scores, label)).mean()
