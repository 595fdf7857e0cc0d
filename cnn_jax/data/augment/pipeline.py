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
from cnn_jax.data.augment.arguments import example_keys, from_zero_to_one
from cnn_jax.data.augment.by_kind import MOVED_KINDS, Fields
from cnn_jax.data.fields import INPUT_KINDS, Field, Spec
from cnn_jax.errors import UsageError, nearest
from cnn_jax.typed import typed

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
"""Name -> function. A new augmentation is one more entry: ``function(key, images, *, options) -> images``. Where
examples have more than an image and its label it must also take :class:`Fields`; ``@photometric`` lets a function do so
that moves no pixels."""

MIXING = tuple(mixing.MIXED_KINDS)
SUPPLIED = ("indices", "epoch", "covariance")  # options that come from the run and not from the config
CLASSIFICATION = {"image": Field("image"), "label": Field("label")}


@typed
class Augmentation:
    """A list of augmentations as one pure function of a batch, checked before anything runs.

    Called with ``(key, batch, step=..., epoch=...)`` it returns the batch augmented, each field by its kind, see
    :meth:`~cnn_jax.data.augment.Fields.moved`. Images, volumes and video become float32, on the scale 0 to 1. Where
    examples are mixed, labels become distributions over the classes, shape ``(batch, classes)``. Example ``i`` of a
    step gets its random numbers from ``(key, step, i, place in the list)`` alone.

    Args:
      calls: Names with options in Python's notation. They are applied in this order.
      num_classes: Of the labels; not needed where the spec has their names.
      covariance: Of the training set's colours, for ``color_pca``; from :func:`color_covariance`.
      spec: Of the examples, as a data set has it; by default an image and its label, called ``image`` and ``label``.

    Attributes:
      names: Of the augmentations, in order.

    Raises:
      UsageError: For an unknown name or option, a text that is not a call with plain values, or a field that an
        augmentation cannot change.

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
        num_classes: int | None = None,
        covariance: tuple[tuple[float, ...], ...] | None = None,
        spec: Spec | None = None,
    ) -> None:
        parsed = [_parse(call) for call in calls]
        self.names = tuple(name for name, _ in parsed)
        self._spec = dict(CLASSIFICATION if spec is None else spec)
        self._num_classes = num_classes
        self._options = [
            {**({"covariance": covariance} if name == "color_pca" else {}), **options} for name, options in parsed
        ]
        for name in self.names:
            self._check_fields(name)

    def _check_fields(self, name: str) -> None:
        """Rejects an augmentation that cannot change all the fields that it should."""
        if name in MIXING:
            mixing.check_mixed(name, self._spec, where="config.data.augment: ")
            labels = [field for field in self._spec.values() if field.kind == "label"]
            if self._num_classes is None and not all(label.class_names for label in labels):
                raise UsageError(f"config.data.augment: {name} needs to know num_classes")
        elif not hasattr(AUGMENTATIONS[name], "by_kind"):
            moved = [field for field, about in self._spec.items() if about.kind in MOVED_KINDS]
            if [self._spec[field].kind for field in moved] != ["image"]:
                raise UsageError(
                    f"config.data.augment: {name} changes images alone, but the examples have {', '.join(moved)}; "
                    "decorate it with @augment.photometric if it moves no pixels"
                )

    @property
    def mixes(self) -> bool:
        """Whether labels become distributions."""
        return any(name in MIXING for name in self.names)

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
          key: Of the run; the same in all steps.
          batch: The fields of the spec (uint8 images have values from 0 to 255, others from 0 to 1), and ``'index'``,
            each example's number in its data set, where an augmentation wants it. Other arrays stay as they are.
          step: Of the run.
          epoch: Of the run.
          first: The number of the first example, where this is a part of a step's batch.
        """
        fields = self._prepared(batch)
        keys = example_keys(jax.random.fold_in(key, step), len(fields), first=first)
        for place, (name, options) in enumerate(zip(self.names, self._options, strict=True)):
            function = AUGMENTATIONS[name]
            own_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
            if "indices" in _parameters(name):
                fields = function(key, fields, indices=jnp.asarray(batch["index"]), epoch=epoch, **options)
            elif hasattr(function, "by_kind"):
                fields = function(own_keys, fields, **options)
            else:
                (image,) = fields.of_kinds("image")
                fields = fields.replaced({image: function(own_keys, fields.arrays[image], **options)})
        return {**batch, **fields.arrays}

    def _prepared(self, batch: Mapping[str, Array | np.ndarray]) -> Fields:
        """The batch's fields, with pixels on the scale 0 to 1, and labels as distributions if they will be mixed."""
        if missing := [name for name in self._spec if name not in batch]:
            raise UsageError(
                f"config.data.augment: the batch has {', '.join(batch)}, but no {', '.join(missing)}; give spec= of "
                "the examples"
            )
        arrays = {name: jnp.asarray(batch[name]) for name in self._spec}
        spec = dict(self._spec)
        for name, field in self._spec.items():
            array = arrays[name]
            if field.kind in INPUT_KINDS:
                arrays[name] = from_zero_to_one(array)
            elif self.mixes and field.kind == "labels":
                arrays[name] = array.astype(jnp.float32)
            elif self.mixes and field.kind == "label":
                array = array if field.ignored is None else jnp.where(array == field.ignored, -1, array)
                arrays[name] = jax.nn.one_hot(array, len(field.class_names) or self._num_classes or 0)
                spec[name] = Field("labels")
        return Fields(arrays, spec)


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
            if len(options) < len(node.keywords):
                raise ValueError
        else:
            raise ValueError
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"{where}: {call!r} is not an augmentation with options; write it as 'flip' or 'pad_and_crop(padding=4)'"
        ) from error
    if name not in AUGMENTATIONS:
        raise UsageError(f"{where}: unknown augmentation {name!r}; {nearest(name, AUGMENTATIONS)}")
    parameters = inspect.signature(AUGMENTATIONS[name]).parameters
    known = [option for option in parameters if option not in ("key", "images", "labels", *SUPPLIED)]
    for option in known:
        if option not in options and parameters[option].default is inspect.Parameter.empty:
            raise UsageError(f"{where}: {name} needs the option {option!r}; write '{name}({option}=...)'")
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it has no options"
            raise UsageError(f"{where}: {name} has no option {option!r}; {hint}")
        default = parameters[option].default
        if isinstance(default, str) and not isinstance(options[option], str):
            raise UsageError(
                f"{where}: {name}: {option}={options[option]!r} must be a text, like the default {default!r}"
            )
    return name, options
