"""The networks of CycleGAN: two that translate images in opposite directions, and their discriminators.

Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using cycle-consistent adversarial networks", ICCV 2017.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.nn.normalization import dropout_key
from cnn_jax.nn.sequence import Activations, Intercept
from cnn_jax.ops.arguments import AnyArray


class Cycle(nn.Parallel):
    """Two networks, ``forward`` from the first domain to the second, and ``backward``.

    An image, ``(batch, *space, channels)``, is translated by both, whatever its domain is, and both translations are
    side by side in the channels of the output. A pair, with an image of each domain side by side, is also translated
    back. Its output has the images of :attr:`PARTS`, the last two only with ``keep``.

    Inputs are from -1 to 1. Outputs are before their activation function: half of them, as tanh, is from -1 to 1.

    Args:
      forward: From the first domain to the second, of as many channels.
      backward: From the second to the first.
      channels: Of an image.
      keep: Whether each image of a pair is also given to the network of the other direction, which should keep it.
    """

    PARTS = ("second", "first", "first again", "second again", "second kept", "first kept")
    """What the output for a pair is made of: both translations, both translations back, and each image after the
    network whose outputs are in the image's own domain."""

    def __init__(self, forward: nn.Sequence, backward: nn.Sequence, channels: int, *, keep: bool = True) -> None:
        super().__init__({"forward": forward, "backward": backward})
        self.channels, self.keep = channels, keep

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Translates images or pairs; of pairs there are no activations. For arguments see ``Sequence.__call__``."""
        if x.shape[-1] == self.channels:
            options: dict[str, Any] = {"return_activations": return_activations, "intercept": intercept}
            return super().__call__(x, train=train, rngs=rngs, **options)
        key = dropout_key(rngs)
        keys = iter((None,) * 4 if key is None else jax.random.split(key, 4))

        def translated(name: str, *images: Array) -> list[Array]:
            y = getattr(self, name)(jnp.concatenate(images), train=train, rngs=next(keys))
            if y.shape[1:-1] != x.shape[1:-1]:
                raise UsageError(
                    f"the network makes images of {y.shape[1:-1]} from images of {x.shape[1:-1]}, which cannot be "
                    "translated back; use one that keeps the size, such as resnet_generator or u_net_padded"
                )
            return jnp.split(y, len(images))

        first, second = jnp.split(jnp.asarray(x), 2, axis=-1)
        to_second, *second_kept = translated("forward", first, *([second] if self.keep else []))
        to_first, *first_kept = translated("backward", second, *([first] if self.keep else []))
        (first_again,) = translated("backward", jnp.tanh(to_second / 2))
        (second_again,) = translated("forward", jnp.tanh(to_first / 2))
        parts = (to_second, to_first, first_again, second_again, *second_kept, *first_kept)
        joint = jnp.concatenate(parts, axis=-1)
        return (joint, Activations()) if return_activations else joint


class Past(nnx.Variable):
    """What a :class:`Pool` keeps between steps."""


class Pool(nnx.Module):
    """Generated images of earlier steps, of which a discriminator is shown some (Shrivastava et al. 2017).

    The first images fill the pool and are passed on. Then each image is passed on with a probability of a half.
    Otherwise an image of the pool is passed on, and the new one takes its place.

    Args:
      size: The number of images, a multiple of the number in a batch.
      shape: Of an image.
      rngs: Draws the number that the choices depend on.
    """

    def __init__(self, size: int, shape: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.images: nnx.Variable[Array] = Past(jnp.zeros((size, *shape), jnp.float32))
        self.batches: nnx.Variable[Array] = Past(jnp.zeros((), jnp.int32))
        self.number = Past(jax.random.bits(rngs.params(), (), jnp.uint32))

    def __call__(self, images: Shaped[Array, "batch *shape"]) -> Shaped[Array, "batch *shape"]:
        """Passes on new images or old ones, and keeps new ones."""
        kept, batches = self.images.get_value(), self.batches.get_value()
        count, size = len(images), len(kept)
        key, coins = jax.random.split(jax.random.fold_in(jax.random.key(self.number.get_value()), batches))
        filling = (batches + 1) * count <= size
        # No place twice, so that the order in which images are kept does not matter.
        places = jnp.where(
            filling, (batches * count + jnp.arange(count)) % size, jax.random.permutation(key, size)[:count]
        )
        exchanged = ~filling & jax.random.bernoulli(coins, 0.5, (count,))
        old = kept[places]
        choose = exchanged.reshape(-1, *(1,) * (images.ndim - 1))
        self.images = self.images.replace(kept.at[places].set(jnp.where(choose | filling, images, old)))
        self.batches = self.batches.replace(jnp.minimum(batches, jnp.iinfo(jnp.int32).max // count - 1) + 1)
        return jnp.where(choose, old, images)


class Discriminators(nnx.Module):
    """A discriminator for each domain, and the pools of the generated images that they are shown.

    Args:
      first: Of the first domain.
      second: Of the second.
      pools: For each of both; None for none.
    """

    def __init__(self, first: nn.Sequence, second: nn.Sequence, pools: tuple[Pool, Pool] | None) -> None:
        self.first, self.second = first, second
        self.pools = nnx.data(list(pools) if pools else [])

    def __call__(
        self,
        first: Shaped[Array, "batch *space channels"],
        second: Shaped[Array, "batch *space channels"],
        *,
        train: bool | None = None,
        pooled: bool = False,
    ) -> tuple[Array, Array]:
        """The scores of images of both domains.

        Args:
          first: From -1 to 1, of the first domain.
          second: Of the second.
          train: As for ``Sequence``.
          pooled: Whether generated images go through the pools.
        """
        if pooled and self.pools:
            first, second = self.pools[0](first), self.pools[1](second)
        return self.first(first, train=train), self.second(second, train=train)
