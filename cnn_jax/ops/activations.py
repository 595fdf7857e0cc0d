"""Activation functions that ``jax.nn`` does not have: ReLU with other backward rules, and LeCun's scaled tanh."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, check_array, check_option
from cnn_jax.ops.primitives import gradient_rule
from cnn_jax.ops.wide import in_float32

RELU_RULES = ("standard", "deconvnet", "guided")


def relu(x: Shaped[AnyArray, "..."], *, rule: str = "standard") -> Shaped[Array, "..."]:
    """Computes ``max(x, 0)``, with a choice of backward rules.

    ==============  ==================================  ==========================================
    rule            gradient of the input               meaning
    ==============  ==================================  ==========================================
    ``standard``    ``dy * (x > 0)``                    the derivative, which is 0 at 0
    ``deconvnet``   ``dy * (dy > 0)``                   positive gradients, for any input
    ``guided``      ``dy * (dy > 0) * (x > 0)``         positive gradients at positive inputs
    ==============  ==================================  ==========================================

    The last two rules are not derivatives. They serve to visualise which inputs excite a unit. They do not support
    forward-mode differentiation.

    Args:
      x: Any shape; bfloat16, float16, float32 or float64.
      rule: One of the rules in the table.

    Returns:
      An array with the shape and dtype of ``x``.

    Raises:
      UsageError: An unknown rule.

    References:
      Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014 (deconvnet); Springenberg et al.,
      Striving for simplicity: the all convolutional net, 2015 (guided backpropagation).

    >>> x, dy = jnp.array([-1.0, 1.0, 1.0]), jnp.array([1.0, 1.0, -1.0])
    >>> for rule in ("standard", "deconvnet", "guided"):
    ...     print(jax.vjp(lambda x: relu(x, rule=rule), x)[1](dy)[0])
    [ 0.  1. -1.]
    [1. 1. 0.]
    [0. 1. 0.]
    """
    op = "relu"
    check_option(op, "rule", rule, RELU_RULES)
    x = check_array(op, "x", x, empty=True)
    return jax.nn.relu(x) if rule == "standard" else rectified(rule, math.inf, x)


def scaled_tanh(x: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """LeCun's activation ``1.7159 tanh(2 x / 3)``: it is 1 at 1 and -1 at -1, where its curvature is largest.

    Args:
      x: Any shape; bfloat16, float16, float32 or float64.

    Returns:
      An array with the shape and dtype of ``x``.

    References:
      LeCun, Generalization and network design strategies, 1989; LeCun et al., Efficient BackProp, 1998, section 4.4.

    >>> scaled_tanh(jnp.array([-1.0, 0.0, 1.0])).round(3)
    Array([-1.,  0.,  1.], dtype=float32)
    """
    return in_float32(lambda x: 1.7159 * jnp.tanh(x * (2 / 3)), check_array("scaled_tanh", "x", x, empty=True))


def _no_forward_mode(dx: Array, x: Array, *, rule: str, cap: float) -> Array:
    raise UsageError(
        f"relu: rule={rule!r} changes only gradients and has no forward mode; "
        f"use jax.grad or jax.vjp, or rule='standard' for jvp, linearize, jacfwd and hessian"
    )


def _passed_back(dy: Array, x: Array, *, rule: str, cap: float) -> Array:
    if rule == "rising":
        towards = jnp.where(x <= 0, dy > 0, dy < 0)  # into the range that has a derivative
        return jnp.where((x > 0) & (x < cap) | towards, dy, jnp.zeros((), dy.dtype))
    passed = jax.nn.relu(dy)
    return passed if rule == "deconvnet" else jnp.where((x > 0) & (x < cap), passed, jnp.zeros((), passed.dtype))


_rule = gradient_rule("relu_rule", _passed_back, _no_forward_mode, static=("rule", "cap"))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def rectified(rule: str, cap: float, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """``min(max(x, 0), cap)`` with the backward rule ``'deconvnet'`` or ``'guided'`` of :func:`relu`, or ``'rising'``.

    Above the cap, as below 0, guided passes no gradients back, and deconvnet passes all positive ones. ``'rising'`` is
    the derivative, and outside the range also passes what moves ``x`` towards it, if gradients are ascended: a start
    for the maximisation of an output whose rectifiers are silent.
    """
    y = jax.nn.relu(x)
    return y if cap == math.inf else jnp.minimum(y, jnp.asarray(cap, y.dtype))


@rectified.defjvp
def _rectified_jvp(rule: str, cap: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return rectified(rule, cap, x), _rule.bind(dx, lax.stop_gradient(x), rule=rule, cap=cap)
