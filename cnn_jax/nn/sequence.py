"""Networks as named layers, whose every intermediate can be asked for by name."""

import inspect
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError, nearest
from cnn_jax.nn.normalization import dropout_key
from cnn_jax.ops.arguments import AnyArray

Activations = OrderedDict[str, Array]  # JAX would sort the names of a plain dict wherever it passes one on
_EVALUATES = frozenset({"deterministic", "use_running_average"})  # keywords of Flax's layers
Visit = Callable[[str, Any, Any], Any]
Join = Callable[[str, list[Any]], Any]


class Sequence(nnx.Module):
    """Layers one after the other, each with a name.

    A layer is any function or module of one array. Those that take a keyword ``train``, ``rngs`` or
    ``return_activations`` are given it: the rule is to be read off the signature of the layer. Flax's own layers are
    given ``deterministic`` and ``use_running_average``, which say the opposite of ``train``. A layer's parameters are
    found under its name, ``model.c1.kernel``, and so is its output, in the dictionary of activations. Sequences nest,
    and name what is inside ``'block/c1'``.

    Args:
      layers: Name to layer, in order.

    Attributes:
      names: Those of the layers, in order.
      input_shape: (height, width, channels) of the inputs it was made for, if whoever made it said so.

    Raises:
      UsageError: No layers, a layer that cannot be called, a name that is taken or has a slash in it.

    >>> import jax.numpy as jnp
    >>> from cnn_jax import nn
    >>> rngs = nnx.Rngs(0)
    >>> model = nn.Sequence({"c1": nn.Conv(1, 6, (5, 5), rngs=rngs), "tanh": jnp.tanh, "s2": nn.AvgPool((2, 2))})
    >>> output, activations = model(jnp.ones((8, 28, 28, 1)), return_activations=True)
    >>> {name: array.shape for name, array in activations.items()}
    {'c1': (8, 28, 28, 6), 'tanh': (8, 28, 28, 6), 's2': (8, 14, 14, 6)}
    >>> model.c1.kernel.shape
    (5, 5, 1, 6)
    """

    input_shape: tuple[int, ...] | None = None

    def __init__(self, layers: Mapping[str, Any]) -> None:
        if not layers:
            raise UsageError("Sequence: layers is empty; give at least one named layer")
        for name, layer in layers.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise UsageError(f"Sequence: layer name {name!r} must be a text without '/', which joins nested names")
            if hasattr(type(self), name) or name == "names":
                raise UsageError(f"Sequence: layer name {name!r} is the name of a member of Sequence; choose another")
            if not callable(layer):
                raise UsageError(f"Sequence: layer {name!r} is {layer!r}, which cannot be called")
            setattr(self, name, layer)
        self.names = tuple(layers)

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
    ) -> Any:
        """Applies the layers in order.

        Args:
          x: The input of the first layer.
          train: Whether batch statistics and dropout do what they do in training. By default that is left to the
            layers, of which ``model.train()`` and ``model.eval()`` tell all at once; they start in training, as Flax's.
          rngs: The randomness of dropout: a JAX key, or an ``nnx.Rngs``, from which one key is drawn. Every layer's own
            key is that, folded with the layer's name, so that adding a layer leaves the others as they were. By default
            each layer draws from the ``nnx.Rngs`` that it was made with.
          return_activations: Also return what every layer made.

        Returns:
          The output of the last layer; with ``return_activations`` a pair of that and a dict from the name of each
          layer to its output, in order.

        Raises:
          UsageError: The error of a layer, with its name.
        """
        key = dropout_key(rngs)
        activations: Activations = OrderedDict()
        for name in self.names:
            x, inner = apply_layer(name, getattr(self, name), x, train=train, key=key, activations=return_activations)
            activations |= inner
        return (x, activations) if return_activations else x

    def flow(self, x: Any, *, visit: Visit, join: Join) -> Any:
        """Sends anything the way that an array goes; so ``cnn_jax.geometry`` follows a receptive field.

        Args:
          x: What enters.
          visit: ``visit(name, layer, x)`` is what becomes of it in a layer.
          join: ``join(name, paths)`` is what becomes of several where paths meet.

        Returns:
          What leaves.
        """
        for name in self.names:
            x = visit(name, getattr(self, name), x)
        return x

    def layer(self, name: str) -> Callable[..., Any]:
        """The layer that made the activation of that name.

        Raises:
          UsageError: There is none.

        >>> import jax.numpy as jnp
        >>> Sequence({"root": jnp.sqrt}).layer("root")(4.0).item()
        2.0
        """
        first, _, rest = name.partition("/")
        if first not in self.names:
            raise UsageError(f"no layer is called {name!r}; {nearest(first, self.names)}")
        found = getattr(self, first)
        return found.layer(rest) if rest and hasattr(found, "layer") else found


def apply_layer(
    name: str, layer: Callable[..., Any], x: AnyArray, *, train: bool | None, key: AnyArray | None, activations: bool
) -> tuple[Any, Activations]:
    """Calls a layer with the keywords it takes; returns its output and, if asked, its activations under its name."""
    takes = _keywords(layer)
    options: dict[str, Any] = {}
    if train is not None:
        options |= {"train": train} if "train" in takes else dict.fromkeys(takes & _EVALUATES, not train)
    if "rngs" in takes and key is not None:
        options["rngs"] = jax.random.fold_in(key, zlib.crc32(name.encode()))
    nested = activations and "return_activations" in takes
    if nested:
        options["return_activations"] = True
    try:
        result = layer(x, **options)
    except UsageError as error:
        raise UsageError(f"layer {name!r}: {error}") from error
    if not nested:
        return result, OrderedDict({name: result} if activations else {})
    output, inner = result
    return output, OrderedDict((f"{name}/{inside}", array) for inside, array in inner.items())


def _keywords(layer: Callable[..., Any]) -> frozenset[str]:
    """Those of the keywords that a layer's signature has."""
    try:
        parameters = inspect.signature(layer).parameters
    except ValueError:  # some built-in functions have none to read
        return frozenset()
    return frozenset(parameters) & {"train", "rngs", "return_activations", *_EVALUATES}
