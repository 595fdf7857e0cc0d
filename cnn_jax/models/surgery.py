"""Changes to existing networks: a new output layer, frozen parameters, linear layers converted to convolutions."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax.nn.initializers import Initializer, lecun_normal, zeros

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError, nearest
from cnn_jax.models.lenet import class_codes
from cnn_jax.models.variant import checked_classes
from cnn_jax.nn.parameters import matching
from cnn_jax.ops.arguments import per_axis


def replace_head(
    model: nn.Sequence, num_classes: int, *, rngs: nnx.Rngs | None = None, kernel_init: Initializer | None = None
) -> nn.Sequence:
    """A copy of a network with a new output layer, for other classes. All other layers keep their parameters.

    Auxiliary classifiers, such as GoogLeNet's, get new output layers, too.

    Args:
      model: The network. Its last linear or convolutional layer is replaced, or the fixed class codes of LeNet-5.
      num_classes: The number of outputs.
      rngs: Draws the parameters of the new layer. The default is ``nnx.Rngs(0)``.
      kernel_init: The initialiser of the kernel. The default is ``lecun_normal``. Biases are zero.

    Returns:
      The new network; the other one is not changed.

    Raises:
      UsageError: There is fewer than one class, or the network has no such layer.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", rngs=nnx.Rngs(0))
    >>> replace_head(model, 26, rngs=nnx.Rngs(1)).output.kernel.shape
    (84, 26)
    """
    num_classes = checked_classes(num_classes)
    rngs = nnx.Rngs(0) if rngs is None else rngs
    paths = output_layers(model)
    model = nnx.clone(model)
    for *parents, name in paths:
        parent = functools.reduce(getattr, parents, model)
        setattr(parent, name, _for_classes(getattr(parent, name), num_classes, kernel_init or lecun_normal(), rngs))
    return model


def _for_classes(old: Any, num_classes: int, kernel_init: Initializer, rngs: nnx.Rngs) -> nnx.Module:
    """A new output layer of the same kind, for ``num_classes`` classes."""
    if isinstance(old, nn.RBFOutput):
        return nn.RBFOutput(class_codes(num_classes, rngs))
    options: dict[str, Any] = {
        "use_bias": old.bias is not None,
        "dtype": old.dtype,
        "kernel_init": kernel_init,
        "rngs": rngs,
    }
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, num_classes, **options)
    return nn.Conv(old.in_features, num_classes, old.kernel_size, strides=old.strides, padding=old.padding, **options)


def output_layer(model: nn.Sequence) -> tuple[str, ...]:
    """The path of the output layer: the last ``nn.Linear``, ``nn.Conv`` or ``nn.RBFOutput``.

    Args:
      model: The network.

    Returns:
      The names of the layers from the network down to the output layer.

    Raises:
      UsageError: There is no such layer.

    >>> from cnn_jax import models
    >>> output_layer(models.create("lenet_5_modern", rngs=nnx.Rngs(0)))
    ('output',)
    """
    _check_sequence("output_layer", model)
    for name in reversed(model.names):
        layer = getattr(model, name)
        if isinstance(layer, nn.Linear | nn.Conv | nn.RBFOutput):
            return (name,)
        if isinstance(layer, nn.Sequence):
            return (name, *output_layer(layer))
    raise UsageError(
        f"output_layer: none of the layers {', '.join(model.names)} is an nn.Linear, nn.Conv or nn.RBFOutput"
    )


def output_layers(model: nn.Sequence) -> list[tuple[str, ...]]:
    """The paths of the output layer and of the output layers of auxiliary classifiers, such as GoogLeNet's.

    Args:
      model: The network.

    Returns:
      The path that :func:`output_layer` returns, then those in the auxiliary classifiers.

    Raises:
      UsageError: There is no output layer.

    >>> from cnn_jax import models
    >>> output_layers(nnx.eval_shape(lambda: models.create("googlenet")))
    [('fc',), ('aux1', 'fc2'), ('aux2', 'fc2')]
    """
    _check_sequence("output_layer", model)
    heads = [(name, getattr(model, name)) for name in model.names if isinstance(getattr(model, name), nn.Auxiliary)]
    return [output_layer(model), *((name, *output_layer(head)) for name, head in heads)]


def trainable(
    model: nnx.Module, patterns: str | Sequence[str] = "*", *, freeze: str | Sequence[str] = ()
) -> Callable[..., bool]:
    """The parameters to train, as a filter for ``nnx.split`` and ``nnx.state``; all others are frozen.

    Frozen parameters belong to the rest of the state. They are not differentiated and have no optimiser state. (With
    ``optax.masked`` their gradients would still be computed and would remain in the updates.)

    Args:
      model: The network.
      patterns: Patterns for the paths of the parameters to train, such as ``'fc8/kernel'``. ``*`` matches anything, and
        a name matches everything below it: ``'fc8'``, ``'conv5_*'``, ``'*/bias'``. By default all parameters.
      freeze: Patterns for the paths of parameters that are frozen even if ``patterns`` matches them. By default none.

    Returns:
      A filter that is true for the parameters to train.

    Raises:
      UsageError: A pattern matches no parameter, or no parameter would be trained.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", rngs=nnx.Rngs(0))
    >>> graph, trained, frozen = nnx.split(model, trainable(model, ["f6", "output/*"]), ...)
    >>> list(trained)
    ['f6', 'output']
    >>> list(nnx.state(model, trainable(model, freeze=["c*", "f6/kernel"])))
    ['f6', 'output']
    """
    patterns, freeze = ((given,) if isinstance(given, str) else tuple(given) for given in (patterns, freeze))
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    for what, given in (("patterns", patterns), ("freeze", freeze)):
        for pattern in given:
            if not any(matching(path, [pattern]) for path in paths):
                near = nearest(pattern, {*paths, *(path.rpartition("/")[0] for path in paths)})
                raise UsageError(f"{what}={pattern!r} matches no parameter; {near}")

    def is_trained(path: str) -> bool:
        return matching(path, patterns) and not matching(path, freeze)

    if paths and not any(map(is_trained, paths)):
        raise UsageError(
            f"freeze={freeze} leaves no parameter to train of those that match {patterns}; freeze fewer parameters"
        )
    return nnx.All(nnx.Param, lambda path, value: is_trained("/".join(map(str, path))))


def convolutionalize(model: nn.Sequence, input_shape: Sequence[int] | None = None) -> nn.Sequence:
    """Converts linear layers to convolutions, so that the network can be applied to larger images in one pass.

    For images of the original size the outputs are the same, with shape (batch, 1, 1, classes). For larger images they
    have the shape (batch, rows, columns, classes), as if the network were applied to windows that move by the product
    of all strides. If the network pads, inner windows see the neighbouring pixels where the original sees zeros.

    Args:
      model: The network. The layers before the first linear layer must not depend on the position.
      input_shape: The input shape that the model was created for, (height, width, channels). It determines the windows
        of global and adaptive pools. The default is ``model.input_shape``.

    Returns:
      A model that shares the parameters. Its layers have the same names; ``flatten`` and auxiliary classifiers are
      left out.

    Raises:
      UsageError: A layer depends on the position, or ``input_shape`` is needed and missing.

    References:
      Sermanet et al., OverFeat: integrated recognition, localization and detection using convolutional networks, 2014.

    >>> import jax.numpy as jnp
    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", rngs=nnx.Rngs(0))
    >>> convolutionalize(model)(jnp.zeros((1, 64, 48, 1))).shape
    (1, 9, 5, 10)
    """
    _check_sequence("convolutionalize", model)
    layers: dict[str, Any] = {}
    input_shape = model.input_shape if input_shape is None else input_shape
    window: tuple[int, ...] = (1, 1)
    for name in model.names:
        layer = getattr(model, name)
        if isinstance(layer, nn.Flatten):
            window = layer.input_shape[:-1]
        elif isinstance(layer, nn.Linear):
            layers[name] = _as_convolution(layer, window)
            window = (1, 1)
        elif isinstance(layer, nn.Auxiliary):
            continue  # auxiliary classifiers are only for training, on images of the original size
        elif layer is ops.global_avg_pool or isinstance(layer, nn.AdaptiveAvgPool):
            if input_shape is None:
                raise UsageError(
                    f"convolutionalize: layer {name!r} pools over the whole map; give the input shape that the network "
                    f"was created for: input_shape=(height, width, channels)"
                )
            layers |= _as_sliding_pool(name, layer, geometry.output_shape(layers, input_shape)[:-1])
        elif isinstance(layer, nn.TableConv) and layer.bias.ndim > 1:
            raise UsageError(
                f"convolutionalize: layer {name!r} has a bias for every position, so it fits only one input size"
            )
        else:
            layers[name] = layer
    return nn.Sequence(layers)


def _check_sequence(function: str, model: Any) -> None:
    if not isinstance(model, nn.Sequence):
        raise UsageError(f"{function}: a {type(model).__name__} has no named layers; give a network from models.create")


def _as_convolution(layer: nn.Linear, window: tuple[int, ...]) -> nn.Conv:
    """The convolution with the same parameters, whose window is the map that the linear layer takes flattened."""
    return nn.Conv(
        layer.in_features // (window[0] * window[1]),
        layer.out_features,
        window,
        padding="VALID",
        use_bias=layer.bias is not None,
        dtype=layer.dtype,
        kernel_init=_initializer_from(layer.kernel),
        bias_init=_initializer_from(layer.bias) if layer.bias is not None else zeros,
        rngs=nnx.Rngs(0),  # nothing is drawn
    )


def _initializer_from(param: nnx.Variable) -> Initializer:
    """An initialiser that returns a parameter's value, reshaped."""

    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        return param[...].reshape(shape)

    return init


def _as_sliding_pool(name: str, layer: Any, sizes: tuple[int, ...]) -> dict[str, nnx.Module]:
    if layer is ops.global_avg_pool:
        return {name: nn.AvgPool(sizes, strides=1)}
    if per_axis("convolutionalize", "output_size", layer.output_size, len(sizes)) != sizes:
        raise UsageError(
            f"convolutionalize: layer {name!r} pools maps of size {sizes} to {layer.output_size}; give an input_shape "
            f"for which its input already has that size"
        )
    return {}
