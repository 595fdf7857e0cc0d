"""Gradients of any JAX function with another backward rule for ReLUs: deconvnets and guided backpropagation.

The function is traced to a jaxpr, its rectifiers are found (see :mod:`cnn_jax.attribution.rectifiers`), and the jaxpr
is evaluated with replaced rectifiers. This also replaces functional and reused ReLUs and those in ``jit``,
``checkpoint``, ``scan``, ``cond`` or ``vmap``. A receipt lists them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import JaxprEqn
from jaxtyping import Array, Shaped

from cnn_jax.attribution.gradients import total
from cnn_jax.attribution.rectifiers import LOOKALIKES, Found, Rectifier, find
from cnn_jax.attribution.target import Function, Target, check_images, objective
from cnn_jax.errors import UsageError
from cnn_jax.jaxprs import CHECKPOINTS, AnyJaxpr, Interpreter, Values, constants_and_carried, traced
from cnn_jax.ops.activations import rectified
from cnn_jax.ops.arguments import AnyArray, check_option


@dataclasses.dataclass(frozen=True)
class Receipt:
    """The rectifiers that :func:`deconvnet` or :func:`guided_backpropagation` replaced in a function, and others.

    Attributes:
      rule: The backward rule, such as ``'deconvnet'`` or ``'guided'``.
      replaced: The rectifiers that got this rule, in the order of the jaxpr.
      left_alone: Operations that look like rectifiers but were not changed.
      opened: Functions with a custom derivative rule that contain rectifiers. Their rule was ignored.
    """

    rule: str
    replaced: tuple[Rectifier, ...]
    left_alone: tuple[Rectifier, ...] = ()
    opened: tuple[Rectifier, ...] = ()

    def __str__(self) -> str:
        """One line per entry.

        >>> print(Receipt("guided", (Rectifier("relu", "relu1", "net.py:12 (forward)"),)))
        guided: 1 rectifier replaced, 0 look-alikes left alone, 0 derivative rules ignored
          replaced: relu in 'relu1' at net.py:12 (forward)
        """
        parts = {"replaced": self.replaced, "left alone": self.left_alone, "rule ignored": self.opened}
        number = len(self.replaced)
        first = (
            f"{self.rule}: {number} rectifier{'s' * (number != 1)} replaced, {len(self.left_alone)} look-alikes left "
            f"alone, {len(self.opened)} derivative rules ignored"
        )
        return "\n".join([first, *(f"  {part}: {entry}" for part, entries in parts.items() for entry in entries)])


def deconvnet(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    of: str = "score",
    also: Sequence[str] = (),
    return_receipt: bool = False,
) -> Any:
    """Computes the gradient with the deconvnet rule for ReLUs: only positive gradients pass, whatever the input.

    The result may be negative, because the backward pass ends with a convolution. Max pools pass gradients to the
    maxima, like unpooling with switches.

    Args:
      function: Any JAX function of ``x`` with at least one rectifier; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: A class, a unit or a function of the output; see :mod:`cnn_jax.attribution.target`.
      of: Whether a class means its ``'score'`` or its ``'probability'``, as in :func:`cnn_jax.attribution.gradient`.
      also: Which written-out rectifiers also get the rule: ``'maximum'`` for ``jnp.maximum(x, 0)``, ``'where'`` for
        ``jnp.where(x > 0, x, 0)``, ``'clip'`` for ``jnp.clip(x, 0, cap)``. By default only ``jax.nn.relu``,
        ``jax.nn.relu6`` and ``cnn_jax.ops.relu`` get it, because normalisations contain ``maximum(0, variance)``.
      return_receipt: Whether to also return a :class:`Receipt`, which says which rectifiers were replaced, and where.
        This does not work under ``jit`` and ``vmap``, which return arrays only.

    Returns:
      An array with the shape and dtype of ``x``; with ``return_receipt`` a pair of this array and the receipt.

    Raises:
      UsageError: There is no rectifier between ``x`` and the target, or one is in a loop of unknown length; the input,
        the function or the target is not valid.

    References:
      Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[5.0, 0.0, -5.0, 10.0]])
    >>> deconvnet(lambda x: 10 * jax.nn.relu(x), x, target=lambda y: y.sum(1))
    Array([[10., 10., 10., 10.]], dtype=float32)
    """
    return _backpropagate("deconvnet", "deconvnet", function, x, target, of, also, return_receipt)


def guided_backpropagation(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    of: str = "score",
    also: Sequence[str] = (),
    return_receipt: bool = False,
) -> Any:
    """Computes the gradient with the guided rule for ReLUs: only positive gradients pass, where the input is positive.

    The rule applies to all rectifiers, also those after dense layers. Where a ``relu6`` is at its cap, its derivative
    is zero and nothing passes. The result may be negative, as for :func:`deconvnet`.

    Args:
      function: Any JAX function of ``x`` with at least one rectifier; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: A class, a unit or a function of the output; see :mod:`cnn_jax.attribution.target`.
      of: The same as in :func:`deconvnet`.
      also: The same as in :func:`deconvnet`.
      return_receipt: The same as in :func:`deconvnet`.

    Returns:
      An array with the shape and dtype of ``x``; with ``return_receipt`` a pair of this array and the receipt.

    Raises:
      UsageError: The same as for :func:`deconvnet`.

    References:
      Springenberg et al., Striving for simplicity: the all convolutional net, 2015.

    >>> import jax.numpy as jnp
    >>> from cnn_jax import models
    >>> model = models.create("small_cnn", input_shape=(16, 16, 3))
    >>> found, receipt = guided_backpropagation(model, jnp.ones((2, 16, 16, 3)), target=3, return_receipt=True)
    >>> found.shape, [rectifier.layer for rectifier in receipt.replaced]
    ((2, 16, 16, 3), ['relu1', 'relu2', 'relu3', 'fc_relu'])
    """
    return _backpropagate("guided_backpropagation", "guided", function, x, target, of, also, return_receipt)


def _backpropagate(
    op: str,
    rule: str,
    function: Function,
    x: AnyArray,
    target: Target,
    of: str,
    also: Sequence[str],
    return_receipt: bool,
) -> Any:
    for name in [also] if isinstance(also, str) else also:
        check_option(op, "also", name, LOOKALIKES)
    numbers, x = objective(op, function, target, of=of), check_images(op, x)
    run, receipt = rewritten(op, rule, lambda x: total(numbers(x)), x, also=also)
    if not receipt.replaced:
        raise UsageError(f"{op}: no rectifier between x and the target{_hint(receipt.left_alone)}")
    gradient = jax.grad(run)(x)
    return (gradient, receipt) if return_receipt else gradient


def rewritten(
    op: str, rule: str, function: Callable[[Array], Array], x: Shaped[Array, "..."], *, also: Sequence[str] = ()
) -> tuple[Callable[[Array], Any], Receipt]:
    """A function whose rectifiers have another backward rule.

    Args:
      op: The calling function, for error messages.
      rule: A rule of :func:`cnn_jax.ops.activations.rectified`.
      function: A function of one array that returns one array.
      x: The array, or one of the same shape and dtype.
      also: The look-alikes that count as rectifiers.

    Returns:
      The function, for arrays of the shape and dtype of ``x``, and the receipt.

    >>> import jax.numpy as jnp
    >>> run, receipt = rewritten("example", "deconvnet", lambda x: 3 * jax.nn.relu(x).sum(), jnp.zeros(2))
    >>> jax.grad(run)(jnp.array([-1.0, 1.0])), len(receipt.replaced)
    (Array([3., 3.], dtype=float32), 1)
    """
    program = traced(function, x)
    found = find(program, op, (also,) if isinstance(also, str) else tuple(also))
    roles = ("replace", "leave", "open")
    receipt = Receipt(rule, *(tuple(note.rectifier for note in found if note.role == role) for role in roles))
    return lambda x: _Rewriter(rule, found).run(program, [x])[0], receipt


def _hint(left_alone: Sequence[Rectifier]) -> str:
    if not left_alone:
        return "; use gradient, or a network with ReLUs"
    kinds = sorted({entry.kind for entry in left_alone} & set(LOOKALIKES))
    asked = f"; if it is an activation, pass also={tuple(kinds)!r}" if kinds else ""
    return f", only {left_alone[0]}" + (f" and {len(left_alone) - 1} more" if left_alone[1:] else "") + asked


class _Rewriter(Interpreter[Any]):
    """Evaluates a jaxpr with replaced rectifiers. Its values are arrays.

    Equations without rectifiers inside are evaluated unchanged, so functions keep their custom derivative rules.
    """

    def __init__(self, rule: str, found: Sequence[Found]) -> None:
        super().__init__()
        self.rule = rule
        self.replaced = {note.path: note for note in found if note.role == "replace"}
        self.opened = {path[:depth] for path in self.replaced for depth in range(1, len(path))}

    def constant(self, number: Any) -> Any:
        return number

    def outputs(self, equation: JaxprEqn, inputs: Values) -> Values:
        note = self.replaced.get(self.path)
        if note is not None:
            return [rectified(self.rule, note.cap, inputs[note.operand])]
        return super().outputs(equation, inputs) if self.path in self.opened else self.equation(equation, inputs)

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        primitive = equation.primitive
        with equation.ctx.manager:
            result = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
        return list(result) if primitive.multiple_results else [result]

    def call(self, equation: JaxprEqn, program: AnyJaxpr, inputs: Values) -> Values:
        if equation.primitive.name not in CHECKPOINTS:
            return self.run(program, inputs)
        options = {name: equation.params[name] for name in ("prevent_cse", "policy")}
        return jax.checkpoint(self._inside(program), **options)(*inputs)

    def scan(self, equation: JaxprEqn, inputs: Values) -> Values:
        (consts, carried), params = constants_and_carried(equation), equation.params
        step = self._inside(params["jaxpr"])

        def body(carry: Values, elements: Values) -> tuple[Values, Values]:
            outputs = step(*inputs[:consts], *carry, *elements)
            return outputs[:carried], outputs[carried:]

        carry, xs = inputs[consts : consts + carried], inputs[consts + carried :]
        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, stacked = lax.scan(body, carry, xs, **options)
        return [*carry, *stacked]

    def cond(self, equation: JaxprEqn, inputs: Values) -> Values:
        branches = []
        for index, branch in enumerate(equation.params["branches"]):
            with self.at(index):
                branches.append(self._inside(branch))
        return lax.switch(inputs[0], branches, *inputs[1:])

    def _inside(self, program: AnyJaxpr) -> Any:
        """The program of the current equation as a function, which JAX traces later."""
        path, enclosing = self.path, self.enclosing

        def run(*inputs: Any) -> Values:
            before, self.path, self.enclosing = (self.path, self.enclosing), path, enclosing
            outputs = self.run(program, list(inputs))
            self.path, self.enclosing = before
            return outputs

        return run
