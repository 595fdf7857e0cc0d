"""Changing networks that there are: another output layer, frozen layers, full connections turned into convolutions."""

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
    """A copy of a network with a new output layer, for other classes; all else keeps its parameters.

    Heads on the side, such as GoogLeNet's, get new output layers, too.

    Args:
      model: its last layer with a kernel is replaced, or the fixed codes of LeNet-5.
      num_classes: the number of outputs.
      rngs: draws the parameters of the new layer; by default ``nnx.Rngs(0)``.
      kernel_init: draws the kernel; by default ``lecun_normal``. Biases are zero.

    Raises:
      UsageError: fewer than one class, or a network without such a layer.

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
    """An output layer like another, for other classes."""
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
    """The path to the last layer that makes scores of features, from the network down.

    Raises:
      UsageError: there is none.

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
    """The path of :func:`output_layer`, and those of the heads on the side, such as GoogLeNet's.

    Raises:
      UsageError: there is none.

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

    What the filter leaves out goes to the rest of the state: it is not differentiated, and optimisers know nothing of
    it. (``optax.masked`` would leave gradients of the others in the updates.)

    Args:
      model: Has the parameters.
      patterns: Of paths such as ``'fc8/kernel'``, which are trained; ``*`` stands for anything, and a name for all
        below it: ``'fc8'``, ``'conv5_*'``, ``'*/bias'``. By default all.
      freeze: Patterns of the paths of those among them which are frozen all the same; by default none.

    Raises:
      UsageError: A pattern that matches no parameter, or nothing would be trained.

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
        raise UsageError(f"freeze={freeze} leaves no parameter to train, of those that match {patterns}")
    return nnx.All(nnx.Param, lambda path, value: is_trained("/".join(map(str, path))))


def convolutionalize(model: nn.Sequence, input_shape: Sequence[int] | None = None) -> nn.Sequence:
    """A network with its full connections as convolutions, so that it slides over larger images in one pass.

    On images of the size that it was made for, it gives the same outputs, (batch, 1, 1, classes). On larger images it
    gives (batch, rows, columns, classes), as if the network had been applied to a window that moves by the product of
    all strides. Where a network pads, the padding of inner windows is what the image has there and not zeros.

    Args:
      model: its layers before the first full connection can be anything that slides.
      input_shape: of the images that the model was made for, which global and adaptive pools get their windows from;
        by default the model's own.

    Returns:
      A model that shares the parameters, with layers of the same names but ``flatten`` and heads on the side.

    Raises:
      UsageError: a layer that depends on the position, or a missing ``input_shape``.

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
            continue  # for training on images of the size that it was made for
        elif layer is ops.global_avg_pool or isinstance(layer, nn.AdaptiveAvgPool):
            if input_shape is None:
                raise UsageError(
                    f"convolutionalize: layer {name!r} pools whatever it is given; "
                    f"say for which images the network was made by input_shape=(height, width, channels)"
                )
            layers |= _as_sliding_pool(name, layer, geometry.output_shape(layers, input_shape)[:-1])
        elif isinstance(layer, nn.TableConv) and layer.bias.ndim > 1:
            raise UsageError(f"convolutionalize: layer {name!r} has a bias for every position, so it cannot slide")
        else:
            layers[name] = layer
    return nn.Sequence(layers)


def _check_sequence(function: str, model: Any) -> None:
    if not isinstance(model, nn.Sequence):
        raise UsageError(f"{function}: a {type(model).__name__} has no named layers; give a network of models.create")


def _as_convolution(layer: nn.Linear, window: tuple[int, ...]) -> nn.Conv:
    """The convolution that does to a map of the window's size what the layer does to the flattened map."""
    return nn.Conv(
        layer.in_features // (window[0] * window[1]),
        layer.out_features,
        window,
        padding="VALID",
        use_bias=layer.bias is not None,
        dtype=layer.dtype,
        kernel_init=_given(layer.kernel),
        bias_init=_given(layer.bias) if layer.bias is not None else zeros,
        rngs=nnx.Rngs(0),  # nothing is drawn
    )


def _given(param: nnx.Variable) -> Initializer:
    """An initialiser that draws nothing, but reshapes what there is."""

    def init(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        return param[...].reshape(shape)

    return init


def _as_sliding_pool(name: str, layer: Any, sizes: tuple[int, ...]) -> dict[str, nnx.Module]:
    if layer is ops.global_avg_pool:
        return {name: nn.AvgPool(sizes, strides=1)}
    if per_axis("convolutionalize", "output_size", layer.output_size, len(sizes)) != sizes:
        raise UsageError(
            f"convolutionalize: layer {name!r} brings maps of {sizes} to {layer.output_size}; only a network whose "
            f"maps have that size already can slide"
        )
    return {}
