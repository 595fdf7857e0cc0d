"""Generation: images from noise, or from words and noise, by a network that is trained against a discriminator."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, Shaped
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import models, ops
from cnn_jax import train as training
from cnn_jax.data.augment.arguments import from_zero_to_one
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.models.dcgan import DCGANDiscriminator
from cnn_jax.runtime.files import user_path
from cnn_jax.tasks.frechet import frechet_distance
from cnn_jax.tasks.phrases import Phrases
from cnn_jax.tasks.task import DRAWN, Examples, Results, Task, each_of, mean_over

CONDITIONS = ("none", "words")
_AT_ONCE = 500
_COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


class Generation(Task):
    """Images like those of a data set, from noise; with ``config.condition = 'words'`` such as the words ask for.

    The generator and a discriminator are trained in turns, the discriminator first, both with the same noise. The
    generator minimises the cross entropy of the discriminator's scores of its images with "real", the loss that does
    not saturate (Goodfellow et al. 2014). With words, both networks are also given the words: in training one of the
    phrases of the example's class, drawn anew in each step; in evaluation the whole name.

    The scores compare one generated image for each example of the split with the real ones, by the features of a
    trained classifier, the activations before its output layer: the Fréchet distance, and with words the share of
    images that it takes for what was asked for. The noise is the same in every evaluation. In evaluation and
    prediction, batch normalisation has its running averages, so that an image depends on its noise and words alone; in
    training it has the statistics of the batch.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their images, and with words their labels.

    Raises:
      UsageError: The data set has no images, or images of another shape than ``input_shape``, or no labels for words;
        or a value in the config is unknown or has no meaning for this task.
    """

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config = config
        self._image, self._shape = examples.input_name, tuple(config.input_shape)
        if examples.input_kind != "image":
            raise UsageError(f"data set {examples.name!r}: generation is for images, not {examples.input_kind}s")
        if examples.spec[self._image].shape not in (None, self._shape):
            raise UsageError(
                f"data set {examples.name!r} has images of shape {examples.image_shape}, which are generated as they "
                f"are; set input_shape to it instead of {self._shape}"
            )
        if config.condition not in CONDITIONS:
            raise UsageError(f"condition={config.condition!r} is unknown; {nearest(config.condition, CONDITIONS)}")
        if config.noise_size < 1:
            raise UsageError(f"noise_size={config.noise_size} must be at least 1")
        self._refuse_what_has_no_meaning()
        labels = [name for name, field in examples.spec.items() if field.kind == "label" and not field.count]
        self._label, self.class_names = next(iter(labels), ""), examples.class_names if labels else ()
        self.phrases = None
        if config.condition == "words":
            if not self.class_names:
                raise UsageError(
                    f"data set {examples.name!r} has no labels, whose names are the words; use condition='none'"
                )
            if examples.spec[labels[0]].ignored is not None:
                raise UsageError(
                    f"data set {examples.name!r} may have images without a label, which have no words; leave them out, "
                    "or use condition='none'"
                )
            self.phrases = Phrases.of_names(self.class_names)
        self.words = self.phrases.length if self.phrases else 0
        self.drawn_shape = (self.words + config.noise_size,)
        self._text_options = {
            "words": self.words,
            "vocabulary_size": (self.phrases and len(self.phrases.vocabulary)) or 0,
        }
        self.network_options = {"image_size": self._shape[:-1], **self._text_options}
        channels = self._shape[-1]
        self.outputs = _COLOURS.get(channels, tuple(f"channel_{number}" for number in range(1, channels + 1)))

    def _refuse_what_has_no_meaning(self) -> None:
        """Rejects keys of other tasks, which would have no effect or no meaning."""
        config = self.config
        for key, value, only in (
            ("ensemble", config.ensemble, 1),
            ("data.test_time", config.data.test_time, ""),
            ("rotated_pairs.weight", config.rotated_pairs.weight, 0.0),
            ("model.weights", config.model.weights, ""),
        ):
            if value != only:
                raise UsageError(f"{key}={value!r} has no meaning for generation; use {only!r}")

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of the task.

        >>> Generation.default_config().condition
        'none'
        """
        return ConfigDict(
            {
                "model": {"name": "dcgan_generator"},
                "input_shape": (8, 8, 1),  # of the images
                "condition": "none",  # or words: those of class names, which the network is given
                "noise_size": 100,
                "classifier": "lenet5_digits",  # of the scores: a config, which is trained first, or a run's folder
                "discriminator": {"width": 1.0},
            }
        )

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """The Fréchet distance, and with words the share of images that are what was asked for."""
        asked = (Metric("accuracy", "higher", "%"),) if config.condition == "words" else ()
        return (Metric("frechet", "lower"), *asked)

    @classmethod
    def helpers(cls, config: ConfigDict) -> Mapping[str, ConfigDict | Path]:
        """The classifier of the scores.

        Raises:
          UsageError: ``config.classifier`` is neither a config of a classification nor the folder of its run.
        """
        where, name = "config.classifier", config.classifier
        if not name:
            raise UsageError(f"{where}='': give a config such as lenet5_digits, or the folder of a trained run")
        folder = user_path(name)
        is_run = (folder / "config.json").is_file()
        try:
            own = configs.read_run_config(folder) if is_run else configs.load_config(name)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        if own.get("experiment", "") != "classification":
            raise UsageError(f"{where}={name!r} is no classification, but {own.get('experiment', '')!r}")
        return {"classifier": folder if is_run else own}

    def draw(self, batch: training.Batch, key: Key[Array, ""], *, train: bool) -> Float[Array, "batch numbers"]:
        """The words of each example's class as token numbers, if there are words, and noise from a normal distribution.

        The words are one of the class's phrases in training, and otherwise its whole name.
        """
        keys = jax.vmap(lambda index: jax.random.split(jax.random.fold_in(key, index)))(batch["index"])
        noise = jax.vmap(lambda own: jax.random.normal(own, (self.config.noise_size,)))(keys[:, 0])
        if self.phrases is None:
            return noise
        tokens, counts = map(jnp.asarray, self.phrases.table())
        labels = batch[self._label]
        chosen = jnp.zeros_like(labels)
        if train:
            chosen = jax.vmap(lambda own, count: jax.random.randint(own, (), 0, count))(keys[:, 1], counts[labels])
        return jnp.concatenate([tokens[labels, chosen].astype(noise.dtype), noise], axis=-1)

    def discriminator(self, rngs: nnx.Rngs) -> nnx.Module:
        """That of DCGAN."""
        return DCGANDiscriminator(self._shape, rngs=rngs, **self._text_options, **self.config.discriminator)

    def discriminator_loss(
        self, discriminate: Callable[..., Array], outputs: Float[Array, "..."], batch: training.Batch
    ) -> Float[Array, ""]:
        """The sum of the cross entropies of real images as real and of generated ones as generated."""
        words = self._words(batch)
        real = 2 * from_zero_to_one(batch[self._image]).astype(jnp.float32) - 1
        return _entropy(discriminate(real, words), 1.0) + _entropy(discriminate(outputs, words), 0.0)

    def adversarial_loss(
        self, discriminate: Callable[..., Array], outputs: Float[Array, "..."], batch: training.Batch
    ) -> Float[Array, ""]:
        """The cross entropy of generated images as real."""
        return _entropy(discriminate(outputs, self._words(batch)), 1.0)

    def _words(self, batch: training.Batch) -> Float[Array, "batch words"]:
        """The words that the generator was given, which the discriminator is given, too."""
        return batch[DRAWN][:, : self.words]

    def loss(self, outputs: Float[Array, "batch height width channels"], batch: training.Batch) -> Float[Array, ""]:
        """Nothing: what is minimised is :meth:`adversarial_loss`."""
        if outputs.shape[1:] != self._shape:
            raise UsageError(
                f"model.name={self.config.model.name!r} makes images of shape {outputs.shape[1:]}, not of input_shape="
                f"{self._shape}; use dcgan_generator"
            )
        return jnp.zeros(())

    def measure(self, outputs: Float[Array, "batch height width channels"], batch: training.Batch) -> training.Metrics:
        """In evaluation, what the classifier makes of generated and of real images."""
        if "mask" not in batch:
            return {}
        logits, features = self.classify(self.predict(outputs))
        metrics: training.Metrics = {
            "generated": each_of(features, batch),
            "real": each_of(self.classify(batch[self._image])[1], batch),
        }
        if self.phrases is not None:
            right = logits.argmax(axis=-1) == batch[self._label]
            metrics["accuracy"] = mean_over(right.astype(jnp.float32), batch)
        return metrics

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """Also the Fréchet distance."""
        scores = super().scores(means)
        if "generated" in means:
            scores["frechet"] = frechet_distance(means["generated"], means["real"])
        return scores

    def predict(
        self, outputs: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Images from 0 to 1."""
        return (outputs.astype(jnp.float32) + 1) / 2

    def classify(self, images: Shaped[Any, "batch height width channels"]) -> tuple[Array, Array]:
        """The classifier's logits and features, the activations before its output layer, ``(batch, features)``.

        Args:
          images: uint8, or from 0 to 1.

        Raises:
          UsageError: Its classes are not those of the data set.
        """
        network, state = self.helper("classifier")
        if self.phrases is not None and network.task.outputs != self.class_names:
            raise UsageError(
                f"config.classifier={self.config.classifier!r} knows the classes {', '.join(network.task.outputs)}, "
                f"but {self.config.data.name!r} has {', '.join(self.class_names)}"
            )
        first = network.first(state)
        (logits, activations), _ = network.apply(first.params, first.model_state, images, return_activations=True)
        names = list(activations)
        before = names[names.index("/".join(models.output_layer(network.abstract_model))) - 1]
        return logits, activations[before].reshape(len(images), -1).astype(jnp.float32)

    def classified(self, images: Shaped[np.ndarray, "n height width channels"]) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities of the classifier's classes and its features, ``(n, classes)`` and ``(n, features)``.

        Args:
          images: uint8, or from 0 to 1.
        """
        starts = range(0, len(images), _AT_ONCE)
        parts = [self._compiled_classify(images[first : first + _AT_ONCE]) for first in starts]
        logits, features = (np.concatenate([np.asarray(part) for part in own]) for own in zip(*parts, strict=True))
        return np.asarray(jax.nn.softmax(logits)), features

    @functools.cached_property
    def _compiled_classify(self) -> Any:
        return jax.jit(self.classify)

    @property
    def classifier_classes(self) -> tuple[str, ...]:
        """The names of the classifier's classes."""
        return self.helper("classifier")[0].task.outputs

    def inputs(self, words: Shaped[np.ndarray, "n words"], seed: int) -> Float[np.ndarray, "n numbers"]:
        """Inputs of the generator with noise of a seed.

        Args:
          words: Token numbers of each input; without words of shape ``(n, 0)``.
          seed: Of the noise, of which the first rows do not depend on ``n``.
        """
        key = jax.random.key(seed)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(jnp.arange(len(words)))
        noise = jax.vmap(lambda own: jax.random.normal(own, (self.config.noise_size,)))(keys)
        return np.concatenate([words, np.asarray(noise)], axis=-1).astype(np.float32)

    def rows(self, predictions: Float[np.ndarray, "n height width channels"]) -> list[dict[str, Any]]:
        """What the classifier takes each image for."""
        probabilities = self.classified(predictions)[0]
        names = self.classifier_classes
        return [{"taken for": names[row.argmax()], "probability": float(row.max())} for row in probabilities]

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """What was asked for."""
        if self.phrases is None:
            return super().targets(batch)
        return [{"asked for": self.class_names[label]} for label in batch[self._label]]

    def headlines(self, results: Results) -> list[Any]:
        """The scores, beside those of real images."""
        from cnn_jax.tasks.generation_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Samples, also during training and between two noises; the nearest training images; losses; the classes."""
        from cnn_jax.tasks.generation_report import sections

        return sections(self, results)


def _entropy(scores: Any, label: float) -> Float[Array, ""]:
    return ops.sigmoid_cross_entropy(scores, jnp.full_like(scores, label)).mean()
