"""How examples are shown in a report: images, signals as lines, slices and frames, texts as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_jax import data
from cnn_jax.report import figures
from cnn_jax.report.page import Table


def shown(found: data.Dataset, chosen: Sequence[int], titles: Sequence[str]) -> dict[str, Any]:
    """Some examples as the figure or the table of a :class:`~cnn_jax.report.page.Section`.

    Args:
      found: The set.
      chosen: The numbers of the examples.
      titles: What is said of each; no two are equal.
    """
    kind, field = found.input_kind, found.spec[found.input_name]
    inputs = found.take(list(chosen))[found.input_name]
    if kind == "text":
        rows = [
            [title.replace(", predicted", "\npredicted"), words_of(tokens, field)]
            for title, tokens in zip(titles, inputs, strict=True)
        ]
        return {"table": Table(["example", "words"], rows)}
    if kind == "signal":
        return {"figure": figures.signals(dict(zip(titles, inputs, strict=True)), rate=field.rate)}
    images = {title: figures.views(one) for title, one in zip(titles, inputs, strict=True)}
    return {"figure": figures.rows_of_images(images)}


def spread(order: Sequence[int], count: int) -> list[int]:
    """Some entries of an order, evenly spread, with the first and the last; all if there are no more.

    >>> spread([7, 3, 5, 1, 9], 3)
    [7, 5, 9]
    """
    places = np.linspace(0, 1, min(count, len(order))) * (len(order) - 1)
    return list(dict.fromkeys(int(order[round(place)]) for place in places))


def words_of(tokens: np.ndarray, field: data.Field) -> str:
    """The words of a text, without its padding; token numbers where words are not known."""
    names = field.class_names
    return " ".join(names[token] if names else str(token) for token in tokens if token)


def titles_of(found: data.Dataset, chosen: Sequence[int]) -> list[str]:
    """The number of each example, with its class if it has one."""
    labels = next((name for name, field in found.spec.items() if field.kind == "label" and not field.count), None)
    if labels is None:
        return [f"#{number}" for number in chosen]
    names, ignored = found.spec[labels].class_names, found.spec[labels].ignored
    classes = found.fields[labels][list(chosen)]
    said = ["not labelled" if label == ignored else names[label] for label in classes]
    return [f"#{number}: {text}" for number, text in zip(chosen, said, strict=True)]
