"""Captioning: words about an image, one after the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from ml_collections import ConfigDict

from cnn_jax import ops
from cnn_jax import train as training
from cnn_jax.data.fields import INPUT_KINDS
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.models.beam_search import END
from cnn_jax.ops.arguments import is_traced
from cnn_jax.tasks.task import Examples, Results, Task, mean_over

END_NAME = "<end>"


class Captioning(Task):
    """The words of a field of kind text, for an image; several captions of an image are several examples.

    The network is one such as ``captioner``. In training it is told the true words before each place, and its loss is
    the cross-entropy of the next word, up to the end of the caption. For predictions it writes the words itself.

    Scores: ``exact_match``, the share of the captions that are written as they truly are; ``word_accuracy``, the share
    of the places, up to the end of the longer one of both captions, that have the right word; ``next_word_accuracy``,
    the share of the words, with the end, that are right if the words before are told; and the loss, the mean over these
    words. If the examples also have a field of kind ``labels``, exact match and word accuracy are also given for the
    examples of each of its classes, such as ``exact_match_held_out``.

    Args:
      config: With the keys of :meth:`default_config`.
      examples: Their images and captions.

    Raises:
      UsageError: There is not one text beside an image, its words are not known, or a value in the config is out of
        range or has no meaning for this task.
    """

    writes_files = True

    traced = ("label_smoothing",)

    def __init__(self, config: ConfigDict, examples: Examples) -> None:
        self.config, spec = config, examples.spec
        texts = [name for name, field in spec.items() if field.kind == "text"]
        if examples.input_kind not in INPUT_KINDS or len(texts) != 1:
            held = ", ".join(f"{name} ({field.kind})" for name, field in spec.items())
            raise UsageError(
                f"data set {examples.name!r}: captioning needs an image and one text that is its caption; it has {held}"
            )
        (self._caption,) = texts
        field = spec[self._caption]
        if not field.class_names:
            raise UsageError(
                f"data set {examples.name!r}: the words of {self._caption} are not known; give class_names"
            )
        self._counted_by = field.count
        self.outputs = (END_NAME, *field.class_names[1:])
        if not is_traced(config.label_smoothing) and not 0 <= config.label_smoothing < 1:
            raise UsageError(f"label_smoothing={config.label_smoothing} must be at least 0 and less than 1")
        if config.data.test_time:
            raise UsageError(
                f"data.test_time={config.data.test_time!r} has no meaning for captioning, since captions of several "
                "views have no average; leave it empty"
            )
        self._labels = next(
            (name for name, other in spec.items() if other.kind == "labels" and other.class_names), None
        )
        self.classes = spec[self._labels].class_names if self._labels else ()  # of examples

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys of the task.

        >>> Captioning.default_config().label_smoothing
        0.0
        """
        return ConfigDict({"label_smoothing": 0.0})

    @classmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """Exact match, word accuracy, next-word accuracy and the loss."""
        return (
            Metric("exact_match", "higher", "%"),
            Metric("word_accuracy", "higher", "%"),
            Metric("next_word_accuracy", "higher", "%"),
            Metric("loss", "lower"),
        )

    def told(self, batch: training.Batch) -> dict[str, Any]:
        """The true caption; the network is given the words before each place."""
        return {"caption": batch[self._caption]}

    def loss(self, outputs: Float[Array, "batch places vocabulary"], batch: training.Batch) -> Float[Array, ""]:
        """The mean over the words and ends of the captions of a batch."""
        counted = self._counted(batch)
        losses = self._losses(outputs, batch, label_smoothing=self.config.label_smoothing)
        return jnp.where(counted, losses, 0).sum() / counted.sum().astype(losses.dtype)

    def measure(self, outputs: Float[Array, "batch places vocabulary"], batch: training.Batch) -> training.Metrics:
        """Loss and next-word accuracy of a network that is told the truth; in evaluation also of what it writes."""
        captions, counted = batch[self._caption], self._counted(batch)
        mask = batch.get("mask", jnp.ones(len(captions)))
        counted = (counted * (mask[:, None] > 0)).astype(jnp.float32)
        words = counted.sum()
        right = outputs.argmax(axis=-1) == captions
        metrics: training.Metrics = {
            "loss": (jnp.where(counted > 0, self._losses(outputs, batch), 0).sum(), words),
            "next_word_accuracy": ((right * counted).sum(), words),
        }
        if "prediction" not in batch:
            return metrics
        matches, places = _compared(captions, batch["prediction"][..., 0].astype(jnp.int32))
        exact = (matches == places).astype(jnp.float32)
        weights = mask.astype(jnp.float32)
        metrics["exact_match"] = mean_over(exact, batch)
        metrics["word_accuracy"] = ((matches * weights).sum(), (places * weights).sum())
        if self._labels:
            of_class = batch[self._labels].astype(jnp.float32)
            each = {"examples": jnp.ones(len(exact)), "exact": exact, "matches": matches, "places": places}
            metrics |= {f"class_{name}": mean_over(of_class * value[:, None], batch) for name, value in each.items()}
        return metrics

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """Also exact match and word accuracy of the examples of each class, where there are classes."""
        scores = super().scores(means)
        if "class_examples" in means:
            for number, name in enumerate(self.classes):
                examples, exact, matches, places = (
                    float(means[f"class_{part}"][number]) for part in ("examples", "exact", "matches", "places")
                )
                if examples:
                    scores |= {f"exact_match_{name}": exact / examples, f"word_accuracy_{name}": matches / places}
        return scores

    def predict(self, outputs: Float[Array, "batch places vocabulary"]) -> Float[Array, "batch places 2"]:
        """At each place the number of the word that was written, and the logarithm of its probability."""
        outputs = outputs.astype(jnp.float32)
        return jnp.stack([outputs.argmax(axis=-1).astype(jnp.float32), outputs.max(axis=-1)], axis=-1)

    def words(self, tokens: Int[np.ndarray, " places"]) -> list[str]:
        """The words up to the end of a caption.

        Args:
          tokens: Their numbers.
        """
        return [self.outputs[token] for token in tokens[: int(_lengths(tokens[None], np)[0])]]

    def written(self, predictions: Float[np.ndarray, "n places 2"]) -> Int[np.ndarray, "n places"]:
        """The token numbers of what was written.

        Args:
          predictions: Of :meth:`predict`.
        """
        return predictions[..., 0].astype(np.int32)

    def truth(self, fields: Mapping[str, Shaped[Any, "..."]]) -> Shaped[Any, "n places"]:
        """The token numbers of the true captions among the fields of a set or a batch."""
        return fields[self._caption]

    def rows(self, predictions: Float[np.ndarray, "n places 2"]) -> list[dict[str, Any]]:
        """The caption and its probability, the product of those of its words."""
        captions = [" ".join(self.words(tokens)) for tokens in self.written(predictions)]
        probabilities = np.exp(predictions[..., 1].sum(axis=-1, dtype=np.float64))
        return [
            {"caption": caption, "probability": float(probability)}
            for caption, probability in zip(captions, probabilities, strict=True)
        ]

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true caption."""
        return [{"true caption": " ".join(self.words(tokens))} for tokens in batch[self._caption]]

    def compared(
        self, predictions: Float[np.ndarray, "n places 2"], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """Whether the caption is right, and the share of its words that are; and the classes of the example."""
        matches, places = _compared(batch[self._caption], self.written(predictions), np)
        rows: list[dict[str, Any]] = [
            {"exact_match": int(right == count), "word_accuracy": f"{right / count:.6f}"}
            for right, count in zip(matches, places, strict=True)
        ]
        for row, labels in zip(rows, batch[self._labels] if self._labels else (), strict=False):
            row[str(self._labels)] = " ".join(name for name, one in zip(self.classes, labels, strict=True) if one)
        return rows

    def right(self, results: Results) -> Bool[np.ndarray, " n"]:
        """Which captions of the test set are written as they truly are."""
        matches, places = _compared(self.truth(results.test_set.fields), self.written(results.predictions), np)
        return matches == places

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """The image with its caption and the probability of each word, as PNG."""
        from cnn_jax.tasks.captioning_report import write_prediction  # brings in matplotlib

        write_prediction(self, folder, name, image=image, prediction=prediction)

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """The metrics, and those of the examples of each class."""
        share = self.metrics(self.config)[0]
        names = [f"{metric}_{name}" for metric in ("exact_match", "word_accuracy") for name in self.classes]
        return super().describe(scores) | {name: share.format(scores[name]) for name in names if name in scores}

    def headlines(self, results: Results) -> list[Any]:
        """Exact match of all test images and of those of each class, and word accuracy."""
        from cnn_jax.tasks.captioning_report import headlines

        return headlines(self, results)

    def sections(self, results: Results) -> list[Any]:
        """Images with their captions and where the network looks for each word; scores of classes and of words."""
        from cnn_jax.tasks.captioning_report import sections

        return sections(self, results)

    def labels(self, fields: Mapping[str, Shaped[Any, "..."]]) -> Shaped[Any, "n classes"] | None:
        """Which classes each example of a set or a batch has; None without."""
        return fields[self._labels] if self._labels else None

    def _counted(self, batch: training.Batch) -> Bool[Array, "batch places"]:
        """Which places have a loss: the words of a caption, and its end where there is room for it."""
        return jnp.arange(batch[self._caption].shape[1]) <= batch[self._counted_by][:, None]

    def _losses(self, outputs: Array, batch: training.Batch, **options: Any) -> Float[Array, "batch places"]:
        return ops.softmax_cross_entropy(outputs, batch[self._caption], **options)


def _lengths(tokens: Any, numpy: Any) -> Any:
    """The number of words before the end of each caption."""
    ended = tokens == END
    return numpy.where(ended.any(axis=-1), ended.argmax(axis=-1), tokens.shape[-1])


def _compared(true: Any, written: Any, numpy: Any = jnp) -> tuple[Any, Any]:
    """How many places of both captions have the same word, and how many places there are, at least 1."""
    longest = max(true.shape[1], written.shape[1])
    true, written = (numpy.pad(tokens, ((0, 0), (0, longest - tokens.shape[1]))) for tokens in (true, written))
    places = numpy.maximum(numpy.maximum(_lengths(true, numpy), _lengths(written, numpy)), 1)
    counted = numpy.arange(longest) < places[:, None]
    return ((true == written) & counted).sum(axis=-1), places
