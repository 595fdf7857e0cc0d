"""Augmentations by name, as a config lists them: ``("flip", "pad_and_crop(padding=4)")``."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, Key

from cnn_jax.data.augment import color, geometric, mixing
from cnn_jax.data.augment.arguments import example_keys
from cnn_jax.errors import UsageError, nearest

AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        geometric.flip,
        geometric.alternating_flip,
        geometric.pad_and_crop,
        geometric.random_crop,
        geometric.random_resized_crop,
        geometric.affine,
        geometric.elastic,
        color.brightness,
        color.contrast,
        color.saturation,
        color.color_pca,
        mixing.cutout,
        mixing.mixup,
        mixing.cutmix,
    )
}
"""Name -> function. A new augmentation is one more entry: ``function(key, images, *, options) -> images``, or with
``labels`` behind ``images`` and in what it returns."""

SUPPLIED = ("indices", "epoch", "covariance")  # options that come from the run and not from the config


class Augmentation:
    """A list of augmentations as one pure function of a batch, checked before anything runs.

    Called with ``(key, batch, step=..., epoch=...)`` it returns the batch with ``'image'`` augmented: float32, on the
    scale 0 to 1. Where pictures are mixed, ``'label'`` has become distributions over the classes, (batch, classes).
    Example ``i`` of a step gets its random numbers from ``(key, step, i, place in the list)`` alone.

    Args:
        calls: names with options in Python's notation. They are applied in this order.
        num_classes: of the labels.
        covariance: of the training set's colours, for ``color_pca``; from :func:`color_covariance`.

    Attributes:
        names: of the augmentations, in order.

    Raises:
        UsageError: for an unknown name or option, or a text that is no call with plain values.

    Example:
        >>> augment = Augmentation(["flip", "pad_and_crop(padding=2)"], num_classes=10)
        >>> batch = {"image": jnp.zeros((4, 8, 8, 1), jnp.uint8), "label": jnp.zeros(4, jnp.int32)}
        >>> jax.eval_shape(lambda key: augment(key, batch, step=0, epoch=0), jax.random.key(0))["image"].dtype
        dtype('float32')
        >>> Augmentation(["flop"], num_classes=10)
        Traceback (most recent call last):
        cnn_jax.errors.UsageError: config.data.augment: unknown augmentation 'flop'; did you mean 'flip'?
    """

    def __init__(
        self,
        calls: Sequence[str],
        *,
        num_classes: int,
        covariance: tuple[tuple[float, ...], ...] | None = None,
    ) -> None:
        parsed = [_parse(call) for call in calls]
        self.names = tuple(name for name, _ in parsed)
        self._num_classes = num_classes
        self._options = [
            {**({"covariance": covariance} if name == "color_pca" else {}), **options} for name, options in parsed
        ]

    @property
    def mixes(self) -> bool:
        """Whether labels become distributions."""
        return any("labels" in _parameters(name) for name in self.names)

    def __call__(
        self,
        key: Key[Array, ""],
        batch: Mapping[str, Array | np.ndarray],
        *,
        step: int | Integer[Array, ""],
        epoch: int | Integer[Array, ""],
        first: int | Integer[Array, ""] = 0,
    ) -> dict[str, Any]:
        """The batch, augmented.

        Args:
            key: of the run; the same in all steps.
            batch: ``'image'`` (uint8, or floating point from 0 to 1), ``'label'``, and ``'index'``, each example's
                number in its data set, where an augmentation wants it.
            step: of the run.
            epoch: of the run.
            first: the number of the first example, where this is a part of a step's batch.
        """
        images, labels = jnp.asarray(batch["image"]), jnp.asarray(batch["label"])
        images = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
        if self.mixes:
            labels = jax.nn.one_hot(labels, self._num_classes)
        keys = example_keys(jax.random.fold_in(key, step), len(images), first=first)
        for place, (name, options) in enumerate(zip(self.names, self._options, strict=True)):
            function, parameters = AUGMENTATIONS[name], _parameters(name)
            own_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
            if "indices" in parameters:
                images = function(key, images, indices=jnp.asarray(batch["index"]), epoch=epoch, **options)
            elif "labels" in parameters:
                images, labels = function(own_keys, images, labels, **options)
            else:
                images = function(own_keys, images, **options)
        return {**batch, "image": images, "label": labels}


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(AUGMENTATIONS[name]).parameters)


def _parse(call: str) -> tuple[str, dict[str, Any]]:
    """Name and options of ``"pad_and_crop(padding=4)"``."""
    where = "config.data.augment"
    try:
        node = ast.parse(call.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            name, options = node.id, {}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            name = node.func.id
            options = {str(option.arg): ast.literal_eval(option.value) for option in node.keywords}
        else:
            raise ValueError
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"{where}: {call!r} is no augmentation with options; write it as 'flip' or 'pad_and_crop(padding=4)'"
        ) from error
    if name not in AUGMENTATIONS:
        raise UsageError(f"{where}: unknown augmentation {name!r}; {nearest(name, AUGMENTATIONS)}")
    known = [option for option in _parameters(name) if option not in ("key", "images", "labels", *SUPPLIED)]
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it has no options"
            raise UsageError(f"{where}: {name} has no option {option!r}; {hint}")
    return name, options
