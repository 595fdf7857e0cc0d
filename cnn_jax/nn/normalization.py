"""Normalisation and dropout as layers: they take ``train`` and ``rngs`` at the call, and hide no state of either."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, ones, zeros
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.geometry import Window
from cnn_jax.nn.options import held, released
from cnn_jax.ops.arguments import AnyArray, Number, wider
from cnn_jax.ops.dropout import check_rate


class BatchNorm(nnx.Module):
    """Batch normalisation with the parameters, statistics and defaults of ``nnx.BatchNorm``, safe for large means.

    With ``train=True`` it normalises by the batch and moves the running statistics (``nnx.BatchStat``), which a caller
    who works with ``nnx.split`` and ``nnx.merge`` finds in the module's state afterwards; otherwise it uses them.

    Args:
      num_features: Number of channels, the last axis.
      momentum: The weight of the past: ``running = momentum * running + (1 - momentum) * new``. PyTorch calls
        ``1 - momentum`` momentum. The running variance is the biased one, PyTorch's is not.
      epsilon: Added to the variance.
      dtype: The type of the output; by default what the input and the parameters promote to. Statistics are computed in
        float32 at least.
      param_dtype: What parameters are made as.
      use_bias: Whether to add a trained bias.
      use_scale: Whether to multiply by a trained scale.
      bias_init: Draws the bias.
      scale_init: Draws the scale.
      axis_name: Mapped axes to average the statistics over as well.
      rngs: The source of randomness for the two.

    References:
      Ioffe and Szegedy, Batch normalization, 2015.

    >>> layer = BatchNorm(6, rngs=nnx.Rngs(0))
    >>> x = jax.random.normal(jax.random.key(0), (8, 14, 14, 6)) + 10000
    >>> layer(x, train=True).std().round(2), layer.mean[...].round()
    (Array(1., dtype=float32), Array([100., 100., 100., 100., 100., 100.], dtype=float32))
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: int | float = 0.99,
        epsilon: int | float = 1e-5,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = zeros,
        scale_init: Initializer = ones,
        axis_name: str | Sequence[str] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if not 0 <= momentum <= 1:
            raise UsageError(f"BatchNorm: momentum={momentum} must be between 0 and 1")
        self.scale = nnx.Param(scale_init(rngs.params(), (num_features,), param_dtype)) if use_scale else nnx.data(None)
        self.bias = nnx.Param(bias_init(rngs.params(), (num_features,), param_dtype)) if use_bias else nnx.data(None)
        self.mean: nnx.Variable[Array] = nnx.BatchStat(jnp.zeros(num_features, jnp.float32))
        self.var: nnx.Variable[Array] = nnx.BatchStat(jnp.ones(num_features, jnp.float32))
        self.num_features = num_features
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.axis_name = axis_name

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"], *, train: bool = False
    ) -> Shaped[Array, "*batch_and_space channels"]:
        """Normalises ``(*batch, *space, num_features)``, by the batch if ``train``, else by the running statistics."""
        if inputs.shape[-1] != self.num_features:
            raise UsageError(
                f"BatchNorm: inputs of shape {inputs.shape} have {inputs.shape[-1]} channels, "
                f"but num_features={self.num_features}; channels come last"
            )
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        options: dict[str, Any] = {"scale": scale, "bias": bias, "epsilon": self.epsilon}
        if train:
            y, mean, variance = ops.normalize_by_batch(inputs, axis_name=self.axis_name, **options)
            if 0 not in inputs.shape:  # no image, no statistics
                self.mean, self.var = self._moved(self.mean, mean), self._moved(self.var, variance)
        else:
            y = ops.batch_norm(inputs, mean=self.mean[...], variance=self.var[...], **options)
        dtype = self.dtype or wider(*(array.dtype for array in (inputs, scale, bias) if array is not None))
        return y.astype(dtype)

    def _moved(self, running: nnx.Variable[Array], new: Array) -> nnx.Variable[Array]:
        # A new variable, because a merged module shares the old one with the state that it was merged from.
        new = jax.lax.stop_gradient(new).astype(running[...].dtype)
        return running.replace(self.momentum * running[...] + (1 - self.momentum) * new)


class LocalResponseNorm(nnx.Module):
    """:func:`cnn_jax.ops.local_response_norm` as a layer.

    Args:
      size: The number of neighbouring channels, or, one int per spatial axis, a window of neighbouring positions.
      alpha: At least 0; what it is divided by is the convention.
      beta: The exponent.
      k: Greater than 0.
      convention: ``'paper'`` (AlexNet) or ``'torch'``.
      derivatives: Without effect; accepted for a release.

    >>> LocalResponseNorm(size=5)(jnp.ones((8, 27, 27, 96))).shape
    (8, 27, 27, 96)
    """

    def __init__(
        self,
        size: int | Sequence[int] = 5,
        *,
        alpha: int | float = 1e-4,
        beta: int | float = 0.75,
        k: int | float = 2.0,
        convention: str = "paper",
        derivatives: str = "custom",
    ) -> None:
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.convention = convention
        self.derivatives = derivatives

    @property
    def window(self) -> Window | None:
        """The window of neighbouring positions; None across channels."""
        if isinstance(self.size, int):
            return None
        return Window(self.size, padding=tuple((span // 2, (span - 1) // 2) for span in self.size))

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_space channels"]:
        """Normalises ``(*batch, *space, C)`` by its neighbours."""
        return ops.local_response_norm(
            inputs,
            size=self.size,
            alpha=self.alpha,
            beta=self.beta,
            k=self.k,
            convention=self.convention,
            derivatives=self.derivatives,
        )


class Dropout(nnx.Module):
    """Dropout, whose randomness is an argument of the call.

    Args:
      rate: The probability of being dropped, in [0, 1).
      broadcast_dims: Axes along which entries are dropped together; ``(1, 2)`` drops whole feature maps of images.

    References:
      Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.

    >>> layer = Dropout(0.5)
    >>> layer(jnp.ones(3)), jnp.unique(layer(jnp.ones(100), train=True, rngs=jax.random.key(0)))
    (Array([1., 1., 1.], dtype=float32), Array([0., 2.], dtype=float32))
    """

    def __init__(self, rate: Number, *, broadcast_dims: int | Sequence[int] = ()) -> None:
        self.rate = held(check_rate("Dropout", rate))
        self.broadcast_dims = broadcast_dims if isinstance(broadcast_dims, int) else tuple(broadcast_dims)

    def __call__(
        self,
        inputs: Shaped[AnyArray, "..."],
        *,
        train: bool = False,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
    ) -> Shaped[Array, "..."]:
        """Drops entries if ``train``; ``rngs`` is a JAX key, or an ``nnx.Rngs`` with a ``dropout`` stream."""
        if not train or self.rate == 0:
            return jnp.asarray(inputs)
        key = dropout_key(rngs)
        if key is None:
            raise UsageError(
                "Dropout: train=True needs randomness; pass rngs=<a JAX key>, or rngs=nnx.Rngs(dropout=key)"
            )
        return ops.dropout(inputs, released(self.rate), key=key, broadcast_dims=self.broadcast_dims)


def dropout_key(rngs: nnx.Rngs | AnyArray | None) -> AnyArray | None:
    """The JAX key in what a caller passed as ``rngs``."""
    return rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs
