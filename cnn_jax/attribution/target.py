"""The target that a method explains: a class, a unit or any function of the output, as one number per example.

Every method takes a ``target``:

=====================================  =================================================================================
target                                 the number that is explained
=====================================  =================================================================================
``3``, or integers of shape (N,)       the score of a class, which may differ between examples
``(activation, position, channel)``    the value of a unit; position None is the mean of a channel over all positions
a function                             a function of the output, one number per example or one for all
=====================================  =================================================================================

The ``activation`` of a unit is the name of an activation, for a network that is called as ``model(x,
return_activations=True)``. None means the output, for any function. The position is a tuple of one index per spatial
axis, () for activations without spatial axes. Indices and channels may also be arrays of shape (N,), one per example.

Under ``jit`` the value of an array is unknown. A class or index that is out of range then has a gradient of zero.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import AnyArray, as_array, check_array, check_option, concrete

Function = Callable[..., Any]
Target = Any  # a class, a unit or a function, see above
QUANTITIES = ("score", "probability")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A function of ``x``: one number per example, for the target. :func:`objective` creates it.

    Attributes:
      op: The calling function, for error messages.
      function: The function of ``x``.
      target: The target.
      of: Whether a class means its score or its probability after softmax.

    >>> model = lambda x: jnp.stack([x.sum(1), x.max(1)], axis=1)
    >>> Objective("example", model, 1)(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([2., 4.], dtype=float32)
    """

    op: str
    function: Function
    target: Target
    of: str = "score"

    def __call__(
        self, x: Shaped[Array, "n ..."], *, intercept: Mapping[str, Callable[[Any], Any]] | None = None
    ) -> Shaped[Array, "..."]:
        """The numbers, of shape (N,); of shape () if the target is a function that returns one number.

        Args:
          x: A batch of inputs.
          intercept: Functions that replace activations of the network, by the name of the activation.

        Raises:
          UsageError: The function does not take ``x``, or its output does not have the class or unit of the target.
        """
        if _is_unit(self.target):
            return self._unit(x, intercept)
        output = _call(self.op, self.function, x, intercept)
        if callable(self.target):
            return self._checked(self.target(output), len(x))
        if not isinstance(output, Array) or output.ndim != 2 or len(output) != len(x):
            raise UsageError(
                f"{self.op}: target={_shown(self.target)} is a class, for scores of shape ({len(x)}, classes), but the "
                f"output is {_described(output)}; give a unit (None, position, channel) or a function of the output"
            )
        scores = jax.nn.softmax(output) if self.of == "probability" else output
        return _entries(scores, [self._indices("target", self.target, scores.shape[1], len(x))])

    def activation(
        self, x: Shaped[Array, "n ..."], intercept: Mapping[str, Callable[[Any], Any]] | None = None
    ) -> Shaped[Array, "n *space channels"]:
        """The whole activation of the unit that is the target.

        Args:
          x: A batch of inputs.
          intercept: The same as in a call of the objective.

        Raises:
          UsageError: There is no such activation, or its axes are not those of a batch of maps.
        """
        name = self.target[0]
        if name is None:
            array = _call(self.op, self.function, x, intercept)
        else:
            (array,) = activations(self.op, self.function, x, [name], intercept)
        if not isinstance(array, Array) or array.ndim < 2 or len(array) != len(x):
            raise UsageError(
                f"{self.op}: {self._activation_name} is {_described(array)}, but a unit is an entry of an array of "
                "shape (N, *space, C)"
            )
        return array

    @property
    def _activation_name(self) -> str:
        return "the output" if self.target[0] is None else repr(self.target[0])

    def _unit(self, x: Array, intercept: Mapping[str, Callable[[Any], Any]] | None) -> Array:
        _, position, channel = self.target
        array, shown = self.activation(x, intercept), self._activation_name
        space = array.shape[1:-1]
        if position is None:
            array, position = array.mean(tuple(range(1, array.ndim - 1))), ()
        elif not isinstance(position, Sequence) or len(position) != len(space):
            raise UsageError(
                f"{self.op}: position {_shown(position)} must have one index for each of the {len(space)} spatial "
                f"axes of {shown}, which has shape {array.shape}; None is the mean over all positions"
            )
        indices = [
            self._indices(f"position of axis {axis} of {shown}", index, size, len(x))
            for axis, (index, size) in enumerate(zip(position, space, strict=False))
        ]
        return _entries(array, [*indices, self._indices(f"channel of {shown}", channel, array.shape[-1], len(x))])

    def _indices(self, what: str, value: Any, size: int, examples: int) -> int | Array:
        """A Python int, or int32 indices of shape (N,)."""
        indices = as_array(self.op, what, value)
        if not jnp.issubdtype(indices.dtype, jnp.integer) or indices.shape not in ((), (examples,)):
            raise UsageError(
                f"{self.op}: {what} {_shown(value)} must be an int or integers of shape ({examples},), one per example"
            )
        known = concrete(indices)
        if known is not None and known.size and (known.min() < 0 or known.max() >= size):
            wrong = known.min() if known.min() < 0 else known.max()
            raise UsageError(f"{self.op}: {what} {wrong} is out of range; there are {size}, from 0 to {size - 1}")
        if known is not None and known.ndim == 0:
            return int(known)
        return jnp.broadcast_to(indices, (examples,))

    def _checked(self, numbers: Any, examples: int) -> Array:
        """The result of a target that is a function."""
        fits = isinstance(numbers, Array) and jnp.issubdtype(numbers.dtype, jnp.floating)
        if not fits or numbers.shape not in ((), (examples,)):
            raise UsageError(
                f"{self.op}: the target returns {_described(numbers)}, but must return floats of shape ({examples},), "
                f"one per example, or ()"
            )
        return numbers


def objective(op: str, function: Function, target: Target, *, of: str = "score") -> Objective:
    """Checks a function and a target, and combines them into an :class:`Objective`.

    Args:
      op: The calling function, for error messages.
      function: Any JAX function of a batch, or a Flax module.
      target: A class, a unit or a function, see :mod:`cnn_jax.attribution.target`.
      of: Whether a class means its ``'score'``, the output of the function, or its ``'probability'``, the softmax of
        the scores.

    Returns:
      A function of a batch that returns one number per example.

    Raises:
      UsageError: The function is a module in training mode or without weights; the target is none of the three;
        ``of='probability'`` is given for a target that is not a class.

    >>> numbers = objective("example", lambda x: 2 * x, target=(None, (), 0))
    >>> numbers(jnp.array([[1.0], [2.0]]))
    Array([2., 4.], dtype=float32)
    """
    check_option(op, "of", of, QUANTITIES)
    if not callable(function):
        raise UsageError(f"{op}: function={_shown(function)} must be a function of x")
    if isinstance(function, nnx.Module):
        check_ready(op, function)
    if isinstance(target, tuple | list) and not _is_unit(target):
        raise UsageError(
            f"{op}: target={_shown(target)} must be a class, a unit (activation, position, channel) with the name "
            f"of an activation or None first, or a function of the output"
        )
    if isinstance(target, str | bool | float) or target is None:
        raise UsageError(f"{op}: target={target!r} must be the number of a class, a unit or a function of the output")
    if of == "probability" and (callable(target) or _is_unit(target)):
        raise UsageError(f"{op}: of='probability' is for classes, but target={_shown(target)} is not a class")
    return Objective(op, function, target, of)


def activations(
    op: str,
    function: Function,
    x: Shaped[Array, "n ..."],
    names: Sequence[str],
    intercept: Mapping[str, Callable[[Any], Any]] | None = None,
) -> list[Array]:
    """The activations of a network with the given names.

    Args:
      op: The calling function, for error messages.
      function: A network that returns its activations, called as ``function(x, return_activations=True)``.
      x: A batch of inputs.
      names: Of the activations.
      intercept: The same as in a call of an :class:`Objective`.

    Raises:
      UsageError: The function has no named activations, or none with such a name.

    >>> def model(x, return_activations):
    ...     return x, {"twice": 2 * x}
    >>> activations("example", model, jnp.array([[1.0]]), ["twice"])
    [Array([[2.]], dtype=float32)]
    """
    _, found = _call(op, function, x, intercept, return_activations=True)
    for name in names:
        if name not in found:
            raise UsageError(f"{op}: no activation is called {name!r}; {nearest(str(name), found)}")
    return [found[name] for name in names]


def _call(
    op: str,
    function: Function,
    x: Array,
    intercept: Mapping[str, Any] | None = None,
    *,
    return_activations: bool = False,
) -> Any:
    """The result of the function; an error of the function about its input is raised in one line."""
    options: dict[str, Any] = {"return_activations": True} if return_activations else {}
    if intercept is not None:
        options["intercept"] = intercept
    for option in options:
        if option not in _keywords(function):
            raise UsageError(
                f"{op}: {_name(function)} has no named activations: it does not take {option}=; "
                f"use nn.Sequence, or a function that returns the activation, with a target of its output"
            )
    try:
        return function(x, **options)
    except UsageError as error:
        raise UsageError(f"{op}: {error}") from error
    except (TypeError, ValueError) as error:
        message = str(error).strip().split("\n")[0]
        raise UsageError(f"{op}: {_name(function)} fails for x of shape {x.shape}: {message}") from error


def check_ready(op: str, model: nnx.Module) -> None:
    """Raises a ``UsageError`` for a module in training mode or with abstract parameters.

    In training mode batch normalisation mixes the examples of a batch, and dropout is random.
    """
    kind = type(model).__name__
    for path, module in nnx.iter_modules(model):
        where = "/".join(map(str, path))
        if any(getattr(module, mode, None) is False for mode in ("deterministic", "use_running_average")):
            layer = f" (layer {where!r})" if where else ""
            raise UsageError(f"{op}: {kind} is in training mode{layer}; call model.eval() first")
    leaves = jax.tree.leaves(nnx.state(model))
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        raise UsageError(f"{op}: {kind} has no weights, only their shapes; create it without nnx.eval_shape")


def check_images(op: str, x: Shaped[AnyArray, "..."]) -> Float[Array, "..."]:
    """Converts ``x`` to a JAX array; raises a ``UsageError`` unless it is a batch of floats."""
    array = as_array(op, "x", x)
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool:
        raise UsageError(
            f"{op}: x has dtype {array.dtype.name}, which has no gradient; give inputs as in training, "
            f"e.g. x.astype('float32') / 255"
        )
    if array.ndim == 0:
        raise UsageError(f"{op}: x is one number; give a batch of shape (N, ...), e.g. x[None] for one example")
    return check_array(op, "x", array)


def limits(op: str, value_range: tuple[int | float, int | float]) -> tuple[float, float]:
    """The range of values as two floats, checked.

    >>> limits("example", (0, 255))
    (0.0, 255.0)
    """
    pair = tuple(value_range) if isinstance(value_range, Sequence) else ()
    numbers = len(pair) == 2 and all(isinstance(limit, int | float) and math.isfinite(limit) for limit in pair)
    if not numbers or not pair[0] < pair[1]:
        raise UsageError(f"{op}: value_range={value_range!r} must be two finite numbers, the smaller first")
    return float(pair[0]), float(pair[1])


def _is_unit(target: Target) -> bool:
    return isinstance(target, tuple) and len(target) == 3 and (target[0] is None or isinstance(target[0], str))


def _entries(array: Array, indices: Sequence[int | Array]) -> Array:
    """One entry of each example, of shape (N,)."""
    if all(isinstance(index, int) for index in indices):
        return array[(slice(None), *indices)]
    where = (jnp.arange(len(array)), *indices)
    return array.at[where].get(mode="fill", fill_value=jnp.nan)


def _keywords(function: Function) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except ValueError:  # some built-in functions have no signature
        return frozenset()


def _name(function: Function) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "the function" if name == "<lambda>" else name


def _described(output: Any) -> str:
    return f"{output.dtype} of shape {output.shape}" if isinstance(output, Array) else f"a {type(output).__name__}"


def _shown(value: Any) -> str:
    return f"{value!r:.60}".replace("\n", " ")
