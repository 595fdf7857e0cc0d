"""How scores and times are written, in figures, on the page and in the terminal alike."""

import statistics
from collections.abc import Sequence


def is_share(metric: str) -> bool:
    """Whether a metric, by its name, is a share of one: an accuracy or an error."""
    return metric.endswith(("accuracy", "error"))


def format_score(metric: str, value: float) -> str:
    """A score as text: shares of one as percentages, anything else with three digits.

    >>> format_score("test/accuracy", 0.98765), format_score("loss", 0.0123456)
    ('98.77%', '0.0123')
    """
    return f"{value:.2%}" if is_share(metric) else f"{value:.3g}"


def format_shares(shares: Sequence[float]) -> str:
    """The mean of shares of one, such as accuracies of several runs, with the standard deviation if there is one.

    >>> format_shares([0.944, 0.946]), format_shares([0.944])
    ('94.50% ± 0.14', '94.40%')
    """
    mean = f"{statistics.fmean(shares):.2%}"
    return f"{mean} ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else mean


def format_duration(seconds: float | int) -> str:
    """Seconds as a clock shows them.

    >>> format_duration(7.4), format_duration(754), format_duration(7260)
    ('0:07', '12:34', '2:01:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
