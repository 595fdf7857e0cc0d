"""Keys for drawing parameters, numbered by Python and not by JAX."""

import jax
from flax import nnx
from jaxtyping import Array, Shaped


class Keys(nnx.Rngs):
    """A stream of keys that takes the place of an ``nnx.Rngs`` while a network is built.

    ``nnx.Rngs`` counts in a JAX array. Under ``nnx.eval_shape`` each of its keys then costs more than the one before,
    seconds altogether for networks of a hundred layers; this one counts in an int.

    Args:
      rngs: One key is drawn from its stream of parameters.

    >>> keys = Keys(nnx.Rngs(0))
    >>> bool((keys.params() == keys.params()).all())
    False
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.root = rngs.params()
        self.drawn = 0

    def params(self) -> Shaped[Array, "..."]:
        """The next key."""
        self.drawn += 1
        return jax.random.fold_in(self.root, self.drawn)
