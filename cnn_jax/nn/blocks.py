"""Layers made of sequences of layers: residual blocks, parallel branches, and auxiliary heads."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.nn.normalization import trains
from cnn_jax.nn.sequence import (
    Activations,
    Intercept,
    Join,
    Sequence,
    Visit,
    apply_layer,
    call_options,
    check_sum,
    intercepted,
)
from cnn_jax.ops.arguments import AnyArray


class Residual(nnx.Module):
    """The sum of a branch and a shortcut: ``branch(x) + shortcut(x)``.

    Its activations have the names ``'branch/...'`` and ``'shortcut/...'``; the sum is ``'add'``.

    Args:
      branch: A mapping from names to layers.
      shortcut: A mapping from names to layers; the identity by default.

    References:
      He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016.

    >>> from cnn_jax import nn
    >>> block = Residual({"conv": nn.Conv(16, 16, (3, 3), rngs=nnx.Rngs(0))})
    >>> output, activations = block(jnp.ones((8, 14, 14, 16)), return_activations=True)
    >>> list(activations)
    ['branch/conv', 'add']
    """

    def __init__(self, branch: Mapping[str, Any], shortcut: Mapping[str, Any] | None = None) -> None:
        self.branch = Sequence(branch)
        self.shortcut = nnx.data(Sequence(shortcut) if shortcut else None)

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Applies both paths and adds their outputs; for the arguments see :meth:`Sequence.__call__`."""
        paths = ("branch", "add") if self.shortcut is None else ("branch", "shortcut", "add")
        options = call_options(paths, train, rngs, return_activations, intercept)
        y, activations = apply_layer("branch", self.branch, x, **options)
        if self.shortcut is not None:
            x, inner = apply_layer("shortcut", self.shortcut, x, **options)
            activations |= inner
        check_sum(y, x)
        activations["add"] = total = intercepted("add", x + y, intercept)
        return (total, activations) if return_activations else total

    def rectified(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
    ) -> Any:
        """``relu(self(x))``, as one operation with the normalisation that the branch ends in; see :meth:`__call__`."""
        paths = ("branch", "add") if self.shortcut is None else ("branch", "shortcut", "add")
        options = call_options(paths, train, rngs, return_activations, None)
        around: Any = x
        inner = Activations()
        if self.shortcut is not None:
            around, inner = apply_layer("shortcut", self.shortcut, x, **options)
        y, activations = apply_layer("branch", partial(self.branch.rectified, addend=around), x, **options)
        if return_activations:
            last = activations[f"branch/{self.branch.names[-1]}"]
            activations |= inner
            activations["add"] = around + last
        return (y, activations) if return_activations else y

    def last_normalization(self) -> Any:
        """The last layer of the branch, which may be a normalisation."""
        return getattr(self.branch, self.branch.names[-1])

    def flow(self, x: Any, *, visit: Visit, join: Join) -> Any:
        """Passes any value through the layers; see :meth:`Sequence.flow`."""
        branch = visit("branch", self.branch, x)
        return join("add", [branch, x if self.shortcut is None else visit("shortcut", self.shortcut, x)])

    def layer(self, name: str) -> Callable[..., Any]:
        """Returns the layer that produced the activation with the given name."""
        if name == "add":
            return jnp.add
        path, _, rest = name.partition("/")
        if path not in ("branch", "shortcut") or getattr(self, path) is None:
            raise UsageError(f"no layer is called {name!r} in a Residual; known: 'branch/...', 'shortcut/...', 'add'")
        return getattr(self, path).layer(rest) if rest else getattr(self, path)


class Parallel(Sequence):
    """Branches with the same input, whose outputs are concatenated along the channels, in order.

    Its activations are those of the branches, under the names of the branches, and ``'concatenate'``.

    Args:
      layers: A mapping from names to branches. A branch is a layer, often a :class:`Sequence`.

    References:
      Szegedy et al., Going deeper with convolutions, 2015.

    >>> from cnn_jax import nn
    >>> rngs = nnx.Rngs(0)
    >>> block = Parallel({"1x1": nn.Conv(16, 8, (1, 1), rngs=rngs), "5x5": nn.Conv(16, 4, (5, 5), rngs=rngs)})
    >>> block(jnp.ones((8, 14, 14, 16))).shape
    (8, 14, 14, 12)
    """

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Applies every branch to ``x``; for the arguments see :meth:`Sequence.__call__`."""
        options = call_options((*self.names, "concatenate"), train, rngs, return_activations, intercept)
        outputs: list[Array] = []
        activations = Activations()
        for name in self.names:
            y, inner = apply_layer(name, getattr(self, name), x, **options)
            outputs.append(y)
            activations |= inner
        shapes = {name: y.shape for name, y in zip(self.names, outputs, strict=True)}
        if len({shape[:-1] for shape in shapes.values()}) > 1:
            raise UsageError(
                f"Parallel: the outputs of the branches differ in more than channels: {shapes}; "
                "use the same padding and strides"
            )
        activations["concatenate"] = joint = intercepted("concatenate", jnp.concatenate(outputs, axis=-1), intercept)
        return (joint, activations) if return_activations else joint

    def flow(self, x: Any, *, visit: Visit, join: Join) -> Any:
        """Passes any value through the layers; see :meth:`Sequence.flow`."""
        return join("concatenate", [visit(name, getattr(self, name), x) for name in self.names])

    def layer(self, name: str) -> Callable[..., Any]:
        """Returns the layer that produced the activation with the given name."""
        return jnp.concatenate if name == "concatenate" else super().layer(name)


class Auxiliary(Sequence):
    """Auxiliary layers for training. The output is the unchanged input, to which the layers are also applied.

    The outputs of the auxiliary layers are among the activations, under the names of the layers, if the network is
    called in training with ``return_activations=True``. Otherwise the layers do not run.

    Args:
      layers: A mapping from names to layers, in order.

    Attributes:
      deterministic: Whether the layers do not run if ``train`` is not passed. ``model.eval()`` and ``model.train()``
        set this attribute.

    References:
      Szegedy et al., Going deeper with convolutions, 2015: the auxiliary classifiers.

    >>> from cnn_jax import nn, ops
    >>> head = Auxiliary({"pool": ops.global_avg_pool, "logits": nn.Linear(16, 10, rngs=nnx.Rngs(0))})
    >>> model = Sequence({"aux": head, "relu": ops.relu})
    >>> x = jnp.ones((8, 14, 14, 16))
    >>> list(model(x, train=False, return_activations=True)[1])
    ['relu']
    >>> list(model(x, train=True, return_activations=True)[1])
    ['aux/pool', 'aux/logits', 'relu']
    """

    deterministic: bool | None = False

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Returns ``x``; for the arguments see :meth:`Sequence.__call__`."""
        if not (return_activations or intercept):
            return x
        if not trains(self, "deterministic", None, train):
            if intercept:
                raise UsageError(f"activation {next(iter(intercept))!r} is computed in training only; pass train=True")
            return x, Activations()
        _, activations = super().__call__(x, train=train, rngs=rngs, return_activations=True, intercept=intercept)
        return (x, activations) if return_activations else x

    def flow(self, x: Any, *, visit: Visit, join: Join) -> Any:
        """Passes any value through the layers; see :meth:`Sequence.flow`."""
        super().flow(x, visit=visit, join=join)
        return x
