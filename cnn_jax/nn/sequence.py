"""Networks as sequences of named layers, which can return every activation by name."""

import inspect
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import native, ops
from cnn_jax.errors import UsageError, nearest
from cnn_jax.nn.normalization import BatchNorm, dropout_key, trains
from cnn_jax.ops.arguments import AnyArray

Activations = OrderedDict[str, Array]  # JAX sorts the keys of a plain dict
_EVALUATES = frozenset({"deterministic", "use_running_average"})  # Flax's keywords that are True in evaluation
Visit = Callable[[str, Any, Any], Any]
Join = Callable[[str, list[Any]], Any]
Intercept = Mapping[str, Callable[[Any], Any]]


class Sequence(nnx.Module):
    """Named layers that are applied one after the other.

    A layer is any function or module of one array. A layer whose signature has a keyword ``train``, ``rngs`` or
    ``return_activations`` gets that argument. Flax's own layers get ``deterministic`` and ``use_running_average``,
    which are the opposite of ``train``. A layer's name leads to its parameters, as in ``model.c1.kernel``, and is the
    key of its output in the dictionary of activations. Sequences can be nested; the names of inner layers then have the
    form ``'block/c1'``.

    Args:
      layers: A mapping from names to layers, in order.

    Attributes:
      names: The names of the layers, in order.
      input_shape: The shape (height, width, channels) of the inputs that the network was created for, if it is known.

    Raises:
      UsageError: There are no layers, a layer is not callable, or a name is reserved or contains a slash.

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
        self.names: tuple[str, ...] = ()
        for name, layer in layers.items():
            self.append(name, layer)

    def append(self, name: str, layer: Any) -> None:
        """Adds a layer at the end.

        Args:
          name: Its name, a new one.
          layer: Any function or module of one array.

        Raises:
          UsageError: It is not callable, or its name is reserved or contains a slash.
        """
        if not isinstance(name, str) or not name or "/" in name:
            raise UsageError(f"Sequence: layer name {name!r} must be a string without '/', which joins nested names")
        if hasattr(type(self), name) or name in ("names", *self.names):
            raise UsageError(f"Sequence: layer name {name!r} is an attribute of Sequence; choose another name")
        if not callable(layer):
            raise UsageError(f"Sequence: layer {name!r} is {layer!r}, which is not callable")
        setattr(self, name, layer)
        self.names = (*self.names, name)

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Applies the layers in order.

        Args:
          x: The input of the first layer.
          train: Whether batch normalisation and dropout are in training mode. By default the mode of the layers
            applies, which ``model.train()`` and ``model.eval()`` set for all layers. Layers start in training mode, as
            in Flax.
          rngs: The random numbers of dropout: a JAX key, or an ``nnx.Rngs``, from which one key is drawn. The key of
            each layer is this key, folded with the layer's name, so that adding a layer does not change the others. By
            default each layer draws from the ``nnx.Rngs`` that it was created with.
          return_activations: Whether to also return the outputs of all layers.
          intercept: Functions of activations, by the names in ``return_activations``. The result of a function
            replaces the activation; if it is None, the activation is not changed, so a function can only observe it.

        Returns:
          The output of the last layer; with ``return_activations`` a pair of this output and a dictionary from the name
          of each layer to its output, in order.

        Raises:
          UsageError: A layer raised an error; the message contains the layer's name. There is no activation with a
            name in ``intercept``.

        >>> import jax.numpy as jnp
        >>> model = Sequence({"half": lambda x: x / 2, "root": jnp.sqrt})
        >>> model(jnp.array(8.0), intercept={"half": lambda x: x + 5}).item()
        3.0
        """
        options = call_options(self.names, train, rngs, return_activations, intercept)
        x, activations = self._apply(self._layers(), x, **options)
        return (x, activations) if return_activations else x

    def rectified(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        addend: Shaped[AnyArray, "..."],
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
    ) -> Any:
        """``relu(self(x) + addend)``, for a sequence that ends in a :class:`BatchNorm`; see :meth:`__call__`."""
        options = call_options(self.names, train, rngs, return_activations, None)
        layers = self._layers()
        name, last = layers.popitem()
        x, activations = self._apply(layers, x, **options)
        check_sum(x, addend)
        x, inner = _apply_rectified(name, partial(last.rectified, addend=addend), x, **options)
        return (x, activations | inner) if return_activations else x

    def _layers(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.names}

    @staticmethod
    def _apply(
        layers: Mapping[str, Any], x: Any, *, keep: Mapping[str, Callable[[Any], None]] | None = None, **options: Any
    ) -> tuple[Any, Activations]:
        """Applies layers in order. Where a kernel computes a normalisation and the ReLU after it, it is called once.

        Args:
          layers: The layers by name.
          x: The input.
          keep: Functions that get the outputs of some layers.
          **options: Those of :func:`apply_layer`.
        """
        keep = keep or {}
        activations: Activations = OrderedDict()
        left = list(layers.items())
        while left:
            name, layer = left.pop(0)
            if left and not options["intercept"] and name not in keep and _is_rectified(layer, left[0][1], options):
                x, inner = _apply_rectified(name, layer.rectified, x, **options)
                name, _ = left.pop(0)
                activations |= inner | ({name: x} if options["activations"] else {})
            else:
                x, inner = apply_layer(name, layer, x, **options)
                activations |= inner
            if name in keep:
                keep[name](x)
        return x, activations

    def flow(self, x: Any, *, visit: Visit, join: Join) -> Any:
        """Passes any value through the layers; ``cnn_jax.geometry`` uses this to compute receptive fields.

        Args:
          x: The input value.
          visit: Returns the value after a layer: ``visit(name, layer, x)``.
          join: Returns the value where several branches meet: ``join(name, values)``.

        Returns:
          The output value.
        """
        for name in self.names:
            x = visit(name, getattr(self, name), x)
        return x

    def layer(self, name: str) -> Callable[..., Any]:
        """Returns the layer that produced the activation with the given name.

        Raises:
          UsageError: There is no such layer.

        >>> import jax.numpy as jnp
        >>> Sequence({"root": jnp.sqrt}).layer("root")(4.0).item()
        2.0
        """
        first, _, rest = name.partition("/")
        if first not in self.names:
            raise UsageError(f"no layer is called {name!r}; {nearest(first, self.names)}")
        found = getattr(self, first)
        return found.layer(rest) if rest and hasattr(found, "layer") else found


def call_options(
    names: Collection[str],
    train: bool | None,
    rngs: nnx.Rngs | AnyArray | None,
    return_activations: bool,
    intercept: Intercept | None,
) -> dict[str, Any]:
    """The options of :func:`apply_layer`, from the options of a call; raises a ``UsageError`` for unknown names."""
    for path in intercept or {}:
        if path.partition("/")[0] not in names:
            raise UsageError(f"no activation is called {path!r}; {nearest(path.partition('/')[0], names)}")
    return {
        "train": train,
        "key": dropout_key(rngs),
        "activations": return_activations,
        "intercept": intercept or {},
    }


def apply_layer(
    name: str,
    layer: Callable[..., Any],
    x: AnyArray,
    *,
    train: bool | None,
    key: AnyArray | None,
    activations: bool,
    intercept: Intercept,
) -> tuple[Any, Activations]:
    """Calls a layer with the keywords that it accepts; returns its output and, if requested, its activations."""
    takes = _keywords(layer)
    options: dict[str, Any] = {}
    if train is not None:
        options |= {"train": train} if "train" in takes else dict.fromkeys(takes & _EVALUATES, not train)
    if "rngs" in takes and key is not None:
        options["rngs"] = jax.random.fold_in(key, zlib.crc32(name.encode()))
    nested = activations and "return_activations" in takes
    if nested:
        options["return_activations"] = True
    if inside := {path.removeprefix(f"{name}/"): f for path, f in intercept.items() if path.startswith(f"{name}/")}:
        if "intercept" not in takes:
            raise UsageError(f"no activation is called '{name}/{next(iter(inside))}'; layer {name!r} has none inside")
        options["intercept"] = inside
    if name in intercept and "return_activations" in takes:
        raise UsageError(f"{name!r} is no activation but consists of layers; name one of them, '{name}/...'")
    try:
        with jax.named_scope(name):  # for profiles, and to show where an operation comes from
            result = layer(x, **options)
    except UsageError as error:
        raise UsageError(f"layer {name!r}: {error}") from error
    if nested:
        output, inner = result
        return output, OrderedDict((f"{name}/{inside}", array) for inside, array in inner.items())
    result = intercepted(name, result, intercept)
    return result, OrderedDict({name: result} if activations else {})


def check_sum(branch: AnyArray, shortcut: AnyArray) -> None:
    """Raises a ``UsageError`` if the output of a branch and that of its shortcut have different shapes."""
    if branch.shape != shortcut.shape:
        raise UsageError(
            f"Residual: the branch gives {branch.shape}, but the shortcut gives {shortcut.shape}; "
            f"give the shortcut a 1x1 convolution with the strides and features of the branch"
        )


def _is_rectified(layer: Any, after: Any, options: Mapping[str, Any]) -> bool:
    """Whether a kernel may compute a layer in training and the ReLU after it together."""
    if not (native.is_wanted() and after in (ops.relu, jax.nn.relu) and hasattr(layer, "rectified")):
        return False
    last = layer.last_normalization() if hasattr(layer, "last_normalization") else layer
    return isinstance(last, BatchNorm) and trains(last, "use_running_average", None, options["train"])


def _apply_rectified(
    name: str, layer: Callable[..., Any], x: Any, *, activations: bool, **options: Any
) -> tuple[Any, Activations]:
    """:func:`apply_layer` for a method ``rectified``, of a layer with or without activations inside."""
    if "return_activations" in _keywords(layer):
        return apply_layer(name, layer, x, activations=activations, **options)
    (y, before), _ = apply_layer(name, layer, x, activations=False, **options)
    return y, OrderedDict({name: before()} if activations else {})


def intercepted(name: str, array: Any, intercept: Intercept | None) -> Any:
    """An activation, or its replacement."""
    replaced = intercept[name](array) if intercept and name in intercept else None
    return array if replaced is None else replaced


def _keywords(layer: Callable[..., Any]) -> frozenset[str]:
    """The keywords of a sequence that a layer's signature has."""
    try:
        parameters = inspect.signature(layer).parameters
    except ValueError:  # some built-in functions have no signature
        return frozenset()
    return frozenset(parameters) & {"train", "rngs", "return_activations", "intercept", *_EVALUATES}
