"""What the report of captioning shows besides what every report does, and the files about predictions."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Section, Table
from cnn_jax.runtime.files import write_atomically
from cnn_jax.tasks.examples import spread
from cnn_jax.tasks.task import Results

if TYPE_CHECKING:
    from cnn_jax.tasks.captioning import Captioning

_SHOWN = 4  # images of a figure
_WORDS = 40  # of the table


def headlines(task: "Captioning", results: Results) -> list[Headline]:
    """Exact match, also of the examples of each class, and word accuracy."""
    share, scores = task.metrics(results.config)[0], results.scores
    found = [Headline("captions right", share.format(scores["test/exact_match"]), note="of the test images, exactly")]
    for name in task.classes:
        if f"test/exact_match_{name}" in scores:
            found.append(Headline(f"right, {name.replace('_', ' ')}", share.format(scores[f"test/exact_match_{name}"])))
    return [*found, Headline("words right", share.format(scores["test/word_accuracy"]), note="place by place")]


def sections(task: "Captioning", results: Results) -> list[Section]:
    """Captions with where the network looks for each word, wrong captions, and scores of classes and of words."""
    right = task.right(results)
    # From the most to the least probable caption.
    order = np.argsort(-results.predictions[..., 1].sum(axis=-1), kind="stable").tolist()
    found = []
    for title, chosen, what in (
        ("Captions", spread([n for n in order if right[n]], _SHOWN), "Captions that are right"),
        ("Wrong captions", spread([n for n in order if not right[n]], _SHOWN), "Captions that are wrong"),
    ):
        if chosen:
            found.append(_looks(task, results, chosen, title=title, what=what))
    return [*found, *_classes(task, results), _words(task, results)]


def _looks(task: "Captioning", results: Results, chosen: Sequence[int], *, title: str, what: str) -> Section:
    tokens = task.written(results.predictions)[chosen]
    truth = task.truth(results.test_set.fields)[chosen]
    images = results.test_set.inputs[chosen]
    words, titles = [task.words(one) or [task.outputs[0]] for one in tokens], []
    for number, true, said in zip(chosen, truth, words, strict=True):
        correct = " ".join(task.words(true))
        titles.append(f"test image {number}" + ("" if correct == " ".join(said) else f", truly: {correct}"))
    attention = _attention(results.explained, images, tokens)
    shown = None
    if attention is not None and images.ndim == 4:
        maps = [one[: len(said)] for one, said in zip(attention, words, strict=True)]
        shown = figures.words_with_attention(list(images), words, maps, titles=titles)
    listed = [[name, " ".join(said)] for name, said in zip(titles, words, strict=True)]
    return Section(
        title,
        figure=shown,
        alt="Images with their captions and the attention of the network for each word",
        caption=f"{what}, from the most to the least probable, evenly spread over their order. The more colour a "
        "cell has, the larger is its share of the attention when the network writes the word.",
        table=None if shown else Table(["example", "caption"], listed),
    )


def _attention(
    explained: Any, images: Shaped[np.ndarray, "n ..."], tokens: Shaped[np.ndarray, "n places"]
) -> Float[np.ndarray, "n places rows columns"] | None:
    """Where the network looks for each word; None for a network that does not say."""
    if not hasattr(getattr(explained, "model", None), "attention"):
        return None
    return np.asarray(jax.jit(explained.model.attention)(explained.inputs(images), jnp.asarray(tokens)))


def _classes(task: "Captioning", results: Results) -> list[Section]:
    """The scores of the examples of each class; nothing without."""
    labels = task.labels(results.test_set.fields)
    if labels is None:
        return []
    exact, word, *_ = task.metrics(results.config)
    rows: list[list[Any]] = []
    for number, name in enumerate(task.classes):
        if f"test/exact_match_{name}" in results.scores:
            values = (results.scores[f"test/{metric.name}_{name}"] for metric in (exact, word))
            rows.append(
                [name.replace("_", " "), *(exact.format(value) for value in values), int(labels[:, number].sum())]
            )
    return [Section("Classes", table=Table(["", "captions right", "words right", "test images"], rows))]


def _words(task: "Captioning", results: Results) -> Section:
    """How often each word is at its place, and what is written instead."""
    truth, written = task.truth(results.test_set.fields), task.written(results.predictions)
    longest = max(truth.shape[1], written.shape[1])
    truth, written = (np.pad(tokens, ((0, 0), (0, longest - tokens.shape[1]))) for tokens in (truth, written))
    counts = Counter(truth[truth > 0].tolist())
    rows: list[list[Any]] = []
    for token, count in counts.most_common(_WORDS):
        instead = Counter(written[truth == token].tolist())
        hits = instead.pop(token, 0)
        others = ", ".join(f"{task.outputs[other]} {times}" for other, times in instead.most_common(3))
        rows.append([task.outputs[token], count, f"{hits / count:.2%}", others])
    text = "How often a word of the true captions is written at its place, and the words that are written instead most."
    return Section("Words", text=text, table=Table(["word", "times", "right", "instead"], rows))


def write_prediction(
    task: "Captioning", folder: Path, name: str, *, image: Shaped[np.ndarray, "..."], prediction: Any
) -> None:
    """Writes the image with its caption as PNG; nothing for a volume, a video or a signal.

    Args:
      task: Of the run.
      folder: An existing folder.
      name: What the name of the file begins with.
      image: What was read from the user's file.
      prediction: Of the task.
    """
    if image.ndim != 3:
        return
    words = task.words(task.written(prediction[None])[0])
    chances = np.exp(prediction[: len(words), 1])
    details = "  ".join(f"{word} {chance:.0%}" for word, chance in zip(words, chances, strict=True))
    out = io.BytesIO()
    figures.captioned_image(image, " ".join(words), details).savefig(out, format="png", dpi=200)
    write_atomically(folder / f"{name}.png", out.getvalue())
