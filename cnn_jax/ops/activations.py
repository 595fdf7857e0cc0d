"""Activation functions that are not in ``jax.nn``: rectifiers with other backward rules, and LeCun's scaled tanh."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from cnn_jax.ops.arguments import AnyArray, check_array, check_option

RELU_RULES = ("standard", "deconvnet", "guided")


def relu(x: Shaped[AnyArray, "..."], *, rule: str = "standard") -> Shaped[Array, "..."]:
    """``max(x, 0)``, with a choice of what comes back through it.

    ==============  ==================================  ==========================================
    rule            gradient of the input               lets pass
    ==============  ==================================  ==========================================
    ``standard``    ``dy * (x > 0)``                    what the derivative says; 0 at 0
    ``deconvnet``   ``dy * (dy > 0)``                   positive gradients, whatever the input was
    ``guided``      ``dy * (dy > 0) * (x > 0)``         positive gradients at positive inputs
    ==============  ==================================  ==========================================

    The latter two are no derivatives but pictures of what excites a unit, and have no forward mode.

    Args:
      x: Any shape; bfloat16, float16, float32 or float64.
      rule: One of the table.

    Returns:
      Shape and dtype of ``x``.

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
    return jax.nn.relu(x) if rule == "standard" else _relu(rule, x)


def scaled_tanh(x: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """LeCun's activation ``1.7159 tanh(2 x / 3)``: 1 at 1, -1 at -1, and most curved there.

    Args:
      x: Any shape; bfloat16, float16, float32 or float64.

    Returns:
      Shape and dtype of ``x``.

    References:
      LeCun, Generalization and network design strategies, 1989; LeCun et al., Efficient BackProp, 1998, section 4.4.

    >>> scaled_tanh(jnp.array([-1.0, 0.0, 1.0])).round(3)
    Array([-1.,  0.,  1.], dtype=float32)
    """
    return 1.7159 * jnp.tanh(check_array("scaled_tanh", "x", x, empty=True) * (2 / 3))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _relu(rule: str, x: Array) -> Array:
    return jax.nn.relu(x)


def _relu_forward(rule: str, x: Array) -> tuple[Array, Array]:
    return jax.nn.relu(x), x


def _relu_backward(rule: str, x: Array, dy: Array) -> tuple[Array]:
    dx = jax.nn.relu(dy)
    return (dx if rule == "deconvnet" else jnp.where(x > 0, dx, jnp.zeros((), dx.dtype)),)


_relu.defvjp(_relu_forward, _relu_backward)
