"""The metadata of weights: the network's name and options, the normalisation of its inputs, its class names."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cnn_jax import models
from cnn_jax.config import with_tuples
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

_KEY = "cnn_jax"  # the key in the metadata of a safetensors file, which maps strings to strings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@typed
@dataclasses.dataclass(frozen=True)
class About:
    """The metadata of weights.

    Attributes:
      architecture: The network's name, one of ``models.available()``; None if unknown.
      options: The keywords of ``models.create`` that differ from their defaults: ``num_classes``, ``input_shape``,
        ``width`` and the network's own options. The values can be written as JSON.
      mean: The mean that is subtracted from each channel of inputs between 0 and 1; None if unknown.
      std: The standard deviation that each channel is divided by after that; None if unknown.
      class_names: The names of the outputs, in order; None if unknown.

    Raises:
      UsageError: ``mean`` and ``std`` have different lengths, ``std`` is not positive, or ``options`` cannot be written
        as JSON.

    >>> about = About("resnet_50", {"stride": "v1.5"}, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    >>> from cnn_jax import data
    >>> data.Preprocess((224, 224, 3), mean=about.mean, std=about.std, resize="bilinear").std
    (0.229, 0.224, 0.225)
    """

    architecture: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        channels = [None if values is None else len(values) for values in (self.mean, self.std)]
        if channels[0] != channels[1]:
            raise UsageError(f"About: mean={self.mean} and std={self.std} must have one value per channel each")
        if self.std is not None and min(self.std, default=0) <= 0:
            raise UsageError(f"About: std={self.std} must be positive")
        try:
            json.dumps(dict(self.options))
        except TypeError as error:
            raise UsageError(f"About: options={dict(self.options)} cannot be written as JSON: {error}") from error

    def to_metadata(self) -> dict[str, str]:
        """Converts to the metadata of a safetensors file.

        >>> About("vgg_d").to_metadata()
        {'cnn_jax': '{"architecture": "vgg_d"}'}
        """
        known = {name: value for name, value in dataclasses.asdict(self).items() if value}
        return {_KEY: json.dumps(known)}

    @classmethod
    @typed
    def from_metadata(cls, metadata: Mapping[str, str]) -> "About":
        """The inverse of :meth:`to_metadata`. Other metadata gives an ``About()`` without values.

        >>> About.from_metadata(About("vgg_d", {"input_shape": (64, 64, 3)}).to_metadata()).options
        {'input_shape': (64, 64, 3)}
        """
        try:
            return cls(**with_tuples(json.loads(metadata.get(_KEY, "{}"))))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"About: the metadata {metadata[_KEY]!r} cannot be read ({error}); it may be from another version"
            ) from error

    @classmethod
    @typed
    def from_timm(cls, config: Mapping[str, Any]) -> "About":
        """Reads the ``config.json`` that timm stores next to its weights.

        Args:
          config: The content of the file.

        Raises:
          UsageError: The weights are for a network that this package does not have.

        >>> config = {"architecture": "resnet50", "pretrained_cfg": {"mean": [0.5], "std": [0.5]}, "num_classes": 2}
        >>> about = About.from_timm(config)
        >>> about.architecture, about.options, about.mean
        ('resnet_50', {'stride': 'v1.5', 'num_classes': 2}, (0.5,))
        """
        # Some of timm's networks have tensors of the same names and shapes, but compute something else: resnetblur50
        # and resnetaa50 smooth their feature maps before subsampling. So the name has to be a known one.
        theirs, known = config.get("architecture"), models.NAMES_ELSEWHERE
        if theirs is not None and theirs not in known:
            raise UsageError(f"timm's {theirs!r} is not one of the supported networks ({', '.join(known)})")
        pretrained = config.get("pretrained_cfg", config)
        names = config.get("label_names") or pretrained.get("label_names")
        if isinstance(names, Mapping):  # from the index of an output to its name; some outputs may be missing
            names = [names.get(str(index), "") for index in range(1 + max(map(int, names)))]
        given = {"mean": pretrained.get("mean"), "std": pretrained.get("std"), "class_names": names}
        if theirs is not None:
            options = {"stride": "v1.5"} if theirs.startswith("resnet") else {}
            classes = config.get("num_classes", pretrained.get("num_classes"))
            given |= {"architecture": known[theirs], "options": options | ({"num_classes": classes} if classes else {})}
        return cls(**{name: with_tuples(value) for name, value in given.items() if value})
