"""Normalisation and dropout as layers.

Whether :class:`BatchNorm` and :class:`Dropout` do what they do in training is said by ``train`` at the call; else by
the argument that Flax has for it; else by the attribute of that name, which ``model.train()`` and ``model.eval()`` set.
"""

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import TraceContextError
from flax.nnx.nn.dtypes import canonicalize_dtype, promote_dtype
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.geometry import Window
from cnn_jax.nn.options import held, released
from cnn_jax.ops.arguments import AnyArray, Number, as_dtype, wider
from cnn_jax.ops.dropout import check_rate
from cnn_jax.ops.normalization import neighbourhood


class BatchNorm(nnx.BatchNorm):
    """``nnx.BatchNorm`` that is safe for large means and in half precision, with ``train`` as one more argument.

    In training it normalises by the batch and moves the running statistics (``nnx.BatchStat``); otherwise it uses them.
    Statistics, normalisation, scale and bias are computed in float32 at least, and rounded once, at the end.

    Args:
      num_features: Number of channels.
      use_running_average: Whether to normalise by the running statistics; ``model.eval()`` and ``model.train()`` set
        this attribute, and what is passed at a call goes before it.
      axis: Where the channels are; the last axis by default.
      momentum: The weight of the past: ``running = momentum * running + (1 - momentum) * new``. PyTorch calls
        ``1 - momentum`` momentum. The running variance is the biased one, PyTorch's is not.
      epsilon: Added to the variance.
      dtype: The type of the output; by default what the input, the parameters and the statistics promote to.
      param_dtype: What parameters are made as.
      use_bias: Whether to add a trained bias.
      use_scale: Whether to multiply by a trained scale.
      bias_init: Draws the bias.
      scale_init: Draws the scale.
      axis_name: Mapped axes to average the statistics over as well.
      axis_index_groups: Groups of indices along the mapped axis, each averaged by itself.
      use_fast_variance: Without effect: the variance is taken fast and of distances from an estimate of the mean.
      promote_dtype: Flax's way to choose what to compute in.
      rngs: The source of randomness for the parameters.
      bias_metadata: Metadata of the bias's ``nnx.Param``.
      scale_metadata: Metadata of the scale's ``nnx.Param``.

    Raises:
      UsageError: A momentum outside [0, 1]; at a call, another number of channels.

    References:
      Ioffe and Szegedy, Batch normalization, 2015.

    >>> layer = BatchNorm(6, rngs=nnx.Rngs(0))
    >>> x = jax.random.normal(jax.random.key(0), (8, 14, 14, 6)) + 10000
    >>> layer(x).std().round(2), layer.mean[...].round()
    (Array(1., dtype=float32), Array([100., 100., 100., 100., 100., 100.], dtype=float32))
    """

    @functools.wraps(nnx.BatchNorm.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"BatchNorm: momentum={self.momentum} must be between 0 and 1")

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        use_running_average: bool | None = None,
        *,
        mask: Shaped[AnyArray, "..."] | None = None,
        train: bool | None = None,
    ) -> Shaped[Array, "..."]:
        """Normalises ``(*batch, *space, num_features)``.

        Args:
          x: The channels are the axis ``axis``.
          use_running_average: Goes before the attribute of that name.
          mask: Booleans that broadcast to ``x``: which entries the statistics of a batch are taken of. Over mapped axes
            each entry counts the same; ``nnx.BatchNorm`` averages the means of devices, however many entries each has.
          train: Goes before both.
        """
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        arrays = x, self.mean[...], self.var[...], scale, bias
        with jax.numpy_dtype_promotion("standard"):
            dtype = canonicalize_dtype(*arrays, dtype=self.dtype)
        if self.promote_dtype is not promote_dtype:  # the user's own; Flax's would round what is to be rounded once
            arrays = self.promote_dtype(arrays, dtype=self.dtype)
            dtype = canonicalize_dtype(arrays[0], *arrays[3:], dtype=self.dtype)
        x, mean, variance, scale, bias = arrays
        x = as_dtype(jnp.moveaxis(x, self.axis, -1), wider(x.dtype, jnp.float32))
        if x.shape[-1] != self.num_features:
            raise UsageError(
                f"BatchNorm: inputs of shape {arrays[0].shape} have {x.shape[-1]} channels on axis {self.axis}, "
                f"but num_features={self.num_features}; channels come last unless axis says otherwise"
            )
        options: dict[str, Any] = {"scale": scale, "bias": bias, "epsilon": self.epsilon}
        if trains(self, "use_running_average", use_running_average, train):
            if mask is not None:
                mask = jnp.moveaxis(jnp.broadcast_to(mask, arrays[0].shape), self.axis, -1)
            y, mean, variance = ops.normalize_by_batch(
                x, axis_name=self.axis_name, axis_index_groups=self.axis_index_groups, mask=mask, **options
            )
            if 0 not in x.shape:  # no image, no statistics
                self._move("mean", mean)
                self._move("var", variance)
        else:
            y = ops.batch_norm(x, mean=mean, variance=variance, **options)
        return jnp.moveaxis(as_dtype(y, dtype), -1, self.axis)

    def _move(self, name: str, new: Array) -> None:
        running = getattr(self, name)
        new = jax.lax.stop_gradient(new).astype(running[...].dtype)
        moved = self.momentum * running[...] + (1 - self.momentum) * new
        try:
            running[...] = moved
        except TraceContextError:  # it belongs to the state that this module was merged from, outside of a gradient
            setattr(self, name, running.replace(moved))


class LocalResponseNorm(nnx.Module):
    """:func:`cnn_jax.ops.local_response_norm` as a layer.

    Args:
      size: The number of neighbouring channels, or, one int per spatial axis, a window of neighbouring positions.
      alpha: At least 0; what it is divided by is the convention.
      beta: The exponent.
      k: Greater than 0.
      convention: ``'paper'`` (AlexNet), ``'torch'`` or ``'onnx'``.
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
        return Window(self.size, padding=neighbourhood(self.size, self.convention))

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


class Dropout(nnx.Dropout):
    """``nnx.Dropout`` with ``train`` as one more argument.

    Args:
      rate: The probability of being dropped, in [0, 1].
      broadcast_dims: Axes along which entries are dropped together; ``(1, 2)`` drops whole feature maps of images.
      deterministic: Whether to drop nothing; ``model.eval()`` and ``model.train()`` set this attribute, and what is
        passed at a call goes before it.
      rng_collection: The name of the stream of random numbers, in an ``nnx.Rngs``.
      rngs: The source of randomness where a call brings none: an ``nnx.Rngs``, or a stream of one.

    Raises:
      UsageError: A rate outside [0, 1]; at a call that drops, no randomness.

    References:
      Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.

    >>> layer = Dropout(0.5, rngs=nnx.Rngs(0))
    >>> jnp.unique(layer(jnp.ones(100))), layer(jnp.ones(3), train=False)
    (Array([0., 2.], dtype=float32), Array([1., 1., 1.], dtype=float32))
    """

    def __init__(
        self,
        rate: Number,
        *,
        broadcast_dims: int | Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> None:
        super().__init__(
            cast(float, held(check_rate("Dropout", rate))),
            broadcast_dims=(broadcast_dims,) if isinstance(broadcast_dims, int) else tuple(broadcast_dims),
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
        )

    def __call__(
        self,
        inputs: Shaped[AnyArray, "..."],
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Shaped[AnyArray, "..."] | None = None,
        train: bool | None = None,
    ) -> Shaped[Array, "..."]:
        """Drops entries, unless told not to.

        Args:
          inputs: Any shape.
          deterministic: Goes before the attribute of that name.
          rngs: A JAX key, an ``nnx.Rngs`` or a stream of one; goes before the one of the layer.
          train: Goes before ``deterministic`` and the attribute.
        """
        if self.rate == 0 or not trains(self, "deterministic", deterministic, train):
            return jnp.asarray(inputs)
        if self.rate == 1:
            return jnp.zeros_like(inputs)
        key = dropout_key(self.rngs if rngs is None else rngs, self.rng_collection)
        if key is None:
            raise UsageError(
                "Dropout: training needs randomness; pass rngs=<a JAX key or nnx.Rngs> to the call or the layer; "
                "to evaluate, call model.eval() or pass train=False"
            )
        return ops.dropout(inputs, released(self.rate), key=key, broadcast_dims=self.broadcast_dims)


def dropout_key(
    rngs: nnx.Rngs | nnx.RngStream | AnyArray | None, collection: str = "dropout"
) -> Shaped[AnyArray, "..."] | None:
    """The JAX key in what a caller passed as ``rngs``."""
    if isinstance(rngs, nnx.Rngs):
        return rngs[collection]()
    return rngs() if isinstance(rngs, nnx.RngStream) else rngs


def trains(layer: nnx.Module, attribute: str, given: bool | None, train: bool | None) -> bool:
    """Whether a layer does what it does in training: ``train`` says so, else ``given``, else the layer's attribute.

    Args:
      layer: Has the attribute.
      attribute: Flax's name of what is the case in evaluation: ``'deterministic'`` or ``'use_running_average'``.
      given: What was passed under that name at the call.
      train: What was passed as ``train``.

    Raises:
      UsageError: None of the three says.
    """
    if train is not None:
        return train
    evaluates = getattr(layer, attribute) if given is None else given
    if evaluates is None:
        raise UsageError(
            f"{type(layer).__name__}: nothing says whether to train; call model.train() or model.eval(), or pass "
            f"train= or {attribute}="
        )
    return not evaluates
