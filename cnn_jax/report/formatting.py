"""Formats config values and durations for figures, pages and the terminal.

Scores are formatted by their :class:`~cnn_jax.metrics.Metric`.
"""

import bisect
import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cnn_jax.metrics import Metric
from cnn_jax.typed import typed

_FRACTION = Metric("fraction", "higher", "%")


@typed
def format_shares(shares: Sequence[float]) -> str:
    """Formats fractions, such as the accuracies of several runs, as a mean with the standard deviation in percent.

    A single fraction has no standard deviation.

    >>> format_shares([0.944, 0.946]), format_shares([0.944])
    ('94.50% ± 0.14', '94.40%')
    """
    mean = statistics.fmean(shares)
    return _FRACTION.format_spread(mean, statistics.stdev(shares)) if len(shares) > 1 else _FRACTION.format(mean)


@typed
def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Maps dotted config keys to short names: their last part, if it is unique among the keys.

    >>> short_names(["optimizer.name", "optimizer.momentum", "data.train", "phase.train", "seed"]).values()
    dict_values(['optimizer', 'momentum', 'data.train', 'phase.train', 'seed'])
    """
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    used = Counter(short.values())
    return {key: name if used[name] == 1 else key for key, name in short.items()}


@typed
def shortened(names: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """Shortens the names that do not fit, so that different names remain different.

    A name is cut at its end. Names that would be equal then are cut before the place where they differ, and if there
    are several such places, they are numbered by their position.

    Args:
      names: The names.
      fits: Whether a text is short enough; if a text fits, so does every shorter one.

    >>> shortened(["owl", "American Staffordshire terrier"], lambda text: len(text) <= 12)
    ['owl', 'American St…']
    >>> shortened([f"class with a long name {number}" for number in (8, 9, 10)], lambda text: len(text) <= 12)
    ['class with…8', 'class with…9', 'class wit…10']
    """
    short = {name: _cut(name, fits) for name in dict.fromkeys(names)}
    for _ in range(_MOST_ROUNDS):
        for group in _alike(short):
            places = zip(*group, strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda letters: len(set(letters)) == 1, places))
            short |= {name: _cut_within(name, shared, fits) for name in group}
    for group in _alike(short):
        short |= {name: _cut(f"{names.index(name)} {name}", fits) for name in group}
    return [short[name] for name in names]


_MOST_ROUNDS = 4  # shortening one group may make its names equal to those of another


def _alike(short: dict[str, str]) -> list[list[str]]:
    """The groups of names that are shortened to the same text."""
    groups: dict[str, list[str]] = {}
    for name, text in short.items():
        groups.setdefault(text, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _cut(name: str, fits: Callable[[str], bool], *, before: str = "") -> str:
    """The longest start of a name that fits after the text ``before``."""

    def cut(length: int) -> str:
        return before + (name if length == len(name) else name[:length].rstrip() + "…")

    if fits(cut(len(name))):
        return cut(len(name))
    return cut(max(bisect.bisect_left(range(len(name)), True, key=lambda length: not fits(cut(length))) - 1, 0))


def _cut_within(name: str, shared: int, fits: Callable[[str], bool]) -> str:
    """A name shortened at the end of its first ``shared`` letters, or without these letters."""
    tail = name[shared:]

    def cut(length: int) -> str:
        return name[:length].rstrip() + "…" + tail

    if not fits(cut(0)):
        return _cut(tail, fits, before="…")
    return cut(bisect.bisect_left(range(shared), True, key=lambda length: not fits(cut(length))) - 1)


def format_value(value: Any) -> str:
    """Formats a config value.

    >>> format_value(0.00123456), format_value("adam"), format_value((3, 3))
    ('0.001235', 'adam', '(3, 3)')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, and not a bool.

    >>> is_number(3), is_number(0.5), is_number(True), is_number("3")
    (True, True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


@typed
def format_duration(seconds: float | int) -> str:
    """Formats a duration in seconds as minutes:seconds or hours:minutes:seconds.

    >>> format_duration(7.4), format_duration(754), format_duration(7260)
    ('0:07', '12:34', '2:01:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
