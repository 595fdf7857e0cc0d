"""Random keys for parameters, counted by a Python int."""

import jax
from flax import nnx
from jaxtyping import Array, Shaped


class Keys(nnx.Rngs):
    """A stream of keys that replaces an ``nnx.Rngs`` while a network is built.

    The counter of ``nnx.Rngs`` is a JAX array. Under ``nnx.eval_shape`` each key then takes longer than the previous
    one, which adds up to seconds for networks of a hundred layers. The counter of this class is a Python int.

    Args:
      rngs: One key is drawn from its ``params`` stream; all keys are derived from it.

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
