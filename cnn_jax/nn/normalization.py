"""Normalisation and dropout as layers.

:class:`BatchNorm` and :class:`Dropout` behave differently in training and evaluation. The mode is given by ``train`` in
the call, or else by Flax's argument for it, or else by the attribute of that name, which ``model.train()`` and
``model.eval()`` set.
"""

import functools
from collections.abc import Callable, Sequence
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
from cnn_jax.nn.options import original_number, static_number
from cnn_jax.ops.arguments import AnyArray, Number, as_dtype, is_traced, may_differ_from_zero, wider
from cnn_jax.ops.dropout import check_rate
from cnn_jax.ops.normalization import neighbourhood
from cnn_jax.ops.wide import in_float32


class BatchNorm(nnx.BatchNorm):
    """``nnx.BatchNorm`` that is accurate for large means and in half precision, with an additional argument ``train``.

    In training it normalises by the statistics of the batch and updates the running statistics (``nnx.BatchStat``).
    Otherwise it normalises by the running statistics. Statistics, normalisation, scale and bias are computed in at
    least float32 and rounded once, at the end.

    Args:
      num_features: The number of channels.
      use_running_average: Whether to normalise by the running statistics. ``model.eval()`` and ``model.train()`` set
        this attribute; an argument of the call overrides it.
      axis: The axis of the channels; the last axis by default.
      momentum: The weight of the old statistics: ``running = momentum * running + (1 - momentum) * new``. PyTorch calls
        ``1 - momentum`` momentum. The running variance is biased, unlike PyTorch's.
      epsilon: Added to the variance.
      dtype: The dtype of the output; by default the dtype that the input, the parameters and the statistics promote to.
      param_dtype: The dtype of the parameters.
      use_bias: Whether to add a trained bias.
      use_scale: Whether to multiply by a trained scale.
      bias_init: Initialises the bias.
      scale_init: Initialises the scale.
      axis_name: Mapped axes to average the statistics over as well.
      axis_index_groups: Groups of indices along the mapped axis; averages are taken within each group.
      use_fast_variance: Has no effect. The variance is computed from distances from an estimate of the mean, which is
        both fast and accurate.
      promote_dtype: The function of Flax that selects the dtype of the computation.
      rngs: The random number generators for the parameters.
      bias_metadata: The metadata of the bias's ``nnx.Param``.
      scale_metadata: The metadata of the scale's ``nnx.Param``.

    Raises:
      UsageError: The momentum is outside [0, 1]; in a call, the number of channels is wrong.

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
          x: The input, with the channels on the axis ``axis``.
          use_running_average: Overrides the attribute of the same name.
          mask: Booleans that broadcast to ``x`` and select the entries for the statistics of the batch. Over mapped
            axes each entry has the same weight. ``nnx.BatchNorm`` instead averages the means of the devices, regardless
            of their numbers of entries.
          train: Overrides both.
        """
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        arrays = x, self.mean[...], self.var[...], scale, bias
        with jax.numpy_dtype_promotion("standard"):
            dtype = canonicalize_dtype(*arrays, dtype=self.dtype)
        if self.promote_dtype is not promote_dtype:  # a function of the user; Flax's default would round more than once
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
            if 0 not in x.shape:  # an empty batch has no statistics
                self._move("mean", mean)
                self._move("var", variance)
        else:
            y = ops.batch_norm(x, mean=mean, variance=variance, **options)
        return jnp.moveaxis(as_dtype(y, dtype), -1, self.axis)

    def rectified(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        addend: Shaped[AnyArray, "..."] | None = None,
        train: bool | None = None,
    ) -> tuple[Shaped[Array, "..."], Callable[[], Shaped[Array, "..."]]]:
        """``relu(self(x) + addend)``, as one operation where that is possible.

        Args:
          x: The input.
          addend: An array with the shape of the output.
          train: The same as in a call.

        Returns:
          The result, and a function that returns ``self(x)``.
        """
        if not self._is_one_operation(x, addend, train):
            y = self(x, train=train)
            return jax.nn.relu(y if addend is None else y + addend), lambda: y
        x = jnp.asarray(x)
        options: dict[str, Any] = {
            "scale": None if self.scale is None else self.scale[...],
            "bias": None if self.bias is None else self.bias[...],
            "epsilon": self.epsilon,
        }
        y, mean, variance = ops.normalize_by_batch(x, addend=addend, relu=True, **options)
        self._move("mean", mean)
        self._move("var", variance)
        return y, lambda: ops.batch_norm(x, mean=mean, variance=variance, **options)

    def _is_one_operation(self, x: AnyArray, addend: AnyArray | None, train: bool | None) -> bool:
        """Whether normalisation, addend and ReLU give the same as one operation as after each other: all is float32."""
        arrays = [x, addend, *(None if v is None else v[...] for v in (self.mean, self.var, self.scale, self.bias))]
        return (
            trains(self, "use_running_average", None, train)
            and all(array is None or array.dtype == jnp.float32 for array in arrays)
            and self.promote_dtype is promote_dtype
            and self.dtype in (None, jnp.float32)
            and self.axis_name is None
            and self.axis in (-1, x.ndim - 1)
            and x.shape[-1] == self.num_features
            and 0 not in x.shape
        )

    def _move(self, name: str, new: Array) -> None:
        running = getattr(self, name)
        new = jax.lax.stop_gradient(new).astype(running[...].dtype)
        moved = self.momentum * running[...] + (1 - self.momentum) * new
        try:
            running[...] = moved
        except TraceContextError:  # the variable is part of the state that was merged outside of a gradient
            setattr(self, name, running.replace(moved))


class InstanceNorm(nnx.Module):
    """Normalises each channel of each example by its own mean and variance over space, without parameters.

    It is the same in training and in evaluation, and an example does not depend on the others of its batch.

    Args:
      epsilon: Added to the variance.

    References:
      Ulyanov, Vedaldi and Lempitsky, Instance normalization: the missing ingredient for fast stylization, 2016.

    >>> y = InstanceNorm()(jnp.arange(8.0).reshape(1, 4, 2, 1))
    >>> round(abs(y.mean().item()), 4), round(y.std().item(), 4)
    (0.0, 1.0)
    """

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = epsilon

    @property
    def window(self) -> Window:
        """A window of one entry: receptive fields are those of the values, not of the statistics, as in BatchNorm."""
        return Window(1)

    def __call__(self, inputs: Shaped[AnyArray, "batch *space channels"]) -> Shaped[Array, "batch *space channels"]:
        """Normalises ``(batch, *space, C)``; statistics are float32 or wider."""

        def normalized(x: Array) -> Array:
            space = tuple(range(1, x.ndim - 1))
            mean, variance = x.mean(space, keepdims=True), x.var(space, keepdims=True)
            return (x - mean) * jax.lax.rsqrt(variance + self.epsilon)

        return in_float32(normalized, jnp.asarray(inputs))


class LocalResponseNorm(nnx.Module):
    """:func:`cnn_jax.ops.local_response_norm` as a layer.

    Args:
      size: One int is the number of neighbouring channels; one int per spatial axis is a window of neighbouring
        positions.
      alpha: The factor of the sum of squares, at least 0; the convention determines its divisor.
      beta: The exponent.
      k: The constant in the denominator, greater than 0.
      convention: ``'paper'`` (AlexNet), ``'torch'`` or ``'onnx'``.
      derivatives: Has no effect; still accepted for one release.

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
        """Normalises ``(*batch, *space, C)`` by neighbouring entries."""
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
    """``nnx.Dropout`` with an additional argument ``train``.

    Args:
      rate: The probability that an entry is dropped, in [0, 1].
      broadcast_dims: The axes along which entries are dropped together; ``(1, 2)`` drops whole feature maps of images.
      deterministic: Whether to drop nothing. ``model.eval()`` and ``model.train()`` set this attribute; an argument of
        the call overrides it.
      rng_collection: The name of the random stream in an ``nnx.Rngs``.
      rngs: The random number generators for calls without ``rngs``: an ``nnx.Rngs``, or a stream of one.

    Raises:
      UsageError: The rate is outside [0, 1]; a call that drops entries has no random number generators.

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
            cast(float, static_number(check_rate("Dropout", rate))),
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
        """Drops entries in training.

        Args:
          inputs: An array of any shape.
          deterministic: Overrides the attribute of the same name.
          rngs: A JAX key, an ``nnx.Rngs`` or a stream of one; overrides the generators of the layer.
          train: Overrides ``deterministic`` and the attribute.
        """
        if self.rate == 0 or not trains(self, "deterministic", deterministic, train):
            return jnp.asarray(inputs)
        if self.rate == 1:
            return jnp.zeros_like(inputs)
        key = dropout_key(self.rngs if rngs is None else rngs, self.rng_collection)
        if key is None:
            raise UsageError(
                "Dropout: training needs random numbers; pass rngs=<a JAX key or nnx.Rngs> to the call or the layer; "
                "to evaluate, call model.eval() or pass train=False"
            )
        return ops.dropout(inputs, original_number(self.rate), key=key, broadcast_dims=self.broadcast_dims)


class GaussianNoise(nnx.Module):
    """Adds Gaussian noise to its input in training: the layer of denoising autoencoders.

    Args:
      std: The standard deviation of the noise, at least 0.
      deterministic: Whether to add nothing. ``model.eval()`` and ``model.train()`` set this attribute; ``train`` in the
        call overrides it.

    Raises:
      UsageError: The standard deviation is below 0; a call that adds noise has no random numbers.

    References:
      Vincent et al., Extracting and composing robust features with denoising autoencoders, 2008.

    >>> layer = GaussianNoise(0.5)
    >>> bool(jnp.std(layer(jnp.zeros(1000), train=True, rngs=jax.random.key(0))) > 0.4), layer(jnp.ones(2), train=False)
    (True, Array([1., 1.], dtype=float32))
    """

    def __init__(self, std: Number, *, deterministic: bool | None = False) -> None:
        if not is_traced(std) and not std >= 0:
            raise UsageError(f"GaussianNoise: std={std} must be at least 0")
        self.std, self.deterministic = static_number(std), deterministic

    def __call__(
        self,
        inputs: Shaped[AnyArray, "..."],
        *,
        rngs: nnx.Rngs | nnx.RngStream | Shaped[AnyArray, "..."] | None = None,
        train: bool | None = None,
    ) -> Shaped[Array, "..."]:
        """Adds noise in training.

        Args:
          inputs: An array of any shape.
          rngs: A JAX key, an ``nnx.Rngs`` or a stream of one.
          train: Overrides the attribute ``deterministic``.
        """
        inputs = jnp.asarray(inputs)
        std = original_number(self.std)
        if not may_differ_from_zero(std) or not trains(self, "deterministic", None, train):
            return inputs
        key = dropout_key(rngs)
        if key is None:
            raise UsageError(
                "GaussianNoise: training needs random numbers; pass rngs=<a JAX key or nnx.Rngs> to the call; to "
                "evaluate, call model.eval() or pass train=False"
            )
        return inputs + jnp.asarray(std, inputs.dtype) * jax.random.normal(key, inputs.shape, inputs.dtype)


def dropout_key(
    rngs: nnx.Rngs | nnx.RngStream | AnyArray | None, collection: str = "dropout"
) -> Shaped[AnyArray, "..."] | None:
    """Returns a JAX key from the argument ``rngs`` of a call."""
    if isinstance(rngs, nnx.Rngs):
        return rngs[collection]()
    return rngs() if isinstance(rngs, nnx.RngStream) else rngs


def trains(layer: nnx.Module, attribute: str, given: bool | None, train: bool | None) -> bool:
    """Whether a layer is in training mode: from ``train``, else from ``given``, else from the layer's attribute.

    Args:
      layer: The layer.
      attribute: The attribute that is True in evaluation: ``'deterministic'`` or ``'use_running_average'``.
      given: The argument of that name in the call.
      train: The argument ``train`` of the call.

    Raises:
      UsageError: None of the three is set.
    """
    if train is not None:
        return train
    evaluates = getattr(layer, attribute) if given is None else given
    if evaluates is None:
        raise UsageError(
            f"{type(layer).__name__}: training mode is not set; call model.train() or model.eval(), or pass "
            f"train= or {attribute}="
        )
    return not evaluates
