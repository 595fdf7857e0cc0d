"""Formats config values and durations for figures, pages and the terminal.

Scores are formatted by their :class:`~cnn_jax.metrics.Metric`.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cnn_jax.metrics import Metric

_FRACTION = Metric("fraction", "higher", "%")


def format_shares(shares: Sequence[float]) -> str:
    """Formats fractions, such as the accuracies of several runs, as a mean with the standard deviation in percent.

    A single fraction has no standard deviation.

    >>> format_shares([0.944, 0.946]), format_shares([0.944])
    ('94.50% ± 0.14', '94.40%')
    """
    mean = statistics.fmean(shares)
    return _FRACTION.format_spread(mean, statistics.stdev(shares)) if len(shares) > 1 else _FRACTION.format(mean)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Maps dotted config keys to short names: their last part, if it is unique among the keys.

    >>> short_names(["optimizer.name", "optimizer.momentum", "data.train", "phase.train", "seed"]).values()
    dict_values(['optimizer', 'momentum', 'data.train', 'phase.train', 'seed'])
    """
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    used = Counter(short.values())
    return {key: name if used[name] == 1 else key for key, name in short.items()}


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


def format_duration(seconds: float | int) -> str:
    """Formats a duration in seconds as minutes:seconds or hours:minutes:seconds.

    >>> format_duration(7.4), format_duration(754), format_duration(7260)
    ('0:07', '12:34', '2:01:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
