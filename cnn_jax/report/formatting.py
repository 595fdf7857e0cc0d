"""How scores and times are written, in figures, on the page and in the terminal alike."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any


def is_share(metric: str) -> bool:
    """Whether a metric, by its name, is a share of one: an accuracy or an error."""
    return metric.endswith(("accuracy", "error"))


def format_score(metric: str, value: float) -> str:
    """A score as text: shares of one as percentages, anything else with three digits.

    >>> format_score("test/accuracy", 0.98765), format_score("loss", 0.0123456)
    ('98.77%', '0.0123')
    """
    return f"{value:.2%}" if is_share(metric) else f"{value:.3g}"


def format_deviation(metric: str, deviation: float) -> str:
    """A standard deviation of scores, to stand behind their mean."""
    return f"± {100 * deviation:.2f}" if is_share(metric) else f"± {deviation:.2g}"


def format_spread(metric: str, mean: float, deviation: float) -> str:
    """The mean of a score over several runs, with its standard deviation.

    >>> format_spread("test/accuracy", 0.989, 0.0022), format_spread("loss", 0.0123456, 0.002)
    ('98.90% ± 0.22', '0.0123 ± 0.002')
    """
    return f"{format_score(metric, mean)} {format_deviation(metric, deviation)}"


def format_shares(shares: Sequence[float]) -> str:
    """The mean of shares of one, such as accuracies of several runs, with the standard deviation if there is one.

    >>> format_shares([0.944, 0.946]), format_shares([0.944])
    ('94.50% ± 0.14', '94.40%')
    """
    mean = statistics.fmean(shares)
    return format_spread("accuracy", mean, statistics.stdev(shares)) if len(shares) > 1 else f"{mean:.2%}"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """What dotted keys of a config are called where there is little room: by their last part, if that says which.

    >>> short_names(["optimizer.name", "optimizer.momentum", "data.train", "phase.train", "seed"]).values()
    dict_values(['optimizer', 'momentum', 'data.train', 'phase.train', 'seed'])
    """
    short = {key: key.removesuffix(".name").rpartition(".")[2] for key in keys}
    used = Counter(short.values())
    return {key: name if used[name] == 1 else key for key, name in short.items()}


def format_value(value: Any) -> str:
    """A value of a config as it is read.

    >>> format_value(0.00123456), format_value("adam"), format_value((3, 3))
    ('0.001235', 'adam', '(3, 3)')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_duration(seconds: float | int) -> str:
    """Seconds as a clock shows them.

    >>> format_duration(7.4), format_duration(754), format_duration(7260)
    ('0:07', '12:34', '2:01:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
