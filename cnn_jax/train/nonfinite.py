"""Losses that are not finite: the run ends with one line that says where, and how to fix it."""

import contextlib
import math
import traceback
from collections.abc import Iterator, Mapping

import numpy as np

from cnn_jax.errors import UsageError
from cnn_jax.train.checkpoints import Checkpoints
from cnn_jax.train.step import Metrics

_FIX = "lower config.optimizer.learning_rate"


def count_skipped(metrics: Metrics) -> int:
    """The number of skipped steps in a compiled call."""
    return int(np.asarray(metrics["skipped"][0]).sum()) if "skipped" in metrics else 0


def require_finite(metrics: Metrics, *, first_step: int, skipped: int, most: int, checkpoints: Checkpoints) -> None:
    """Ends the run if a loss is not finite, or too many steps were skipped.

    Args:
      metrics: The metrics of the steps of one call.
      first_step: The number of steps before the call.
      skipped: The number of steps of the run skipped so far.
      most: The largest allowed number of skipped steps.
      checkpoints: The checkpoints of the run, which are kept.

    Raises:
      UsageError: A loss is not finite, or too many steps were skipped.
    """
    losses = np.asarray(metrics["loss"][0])
    if np.isfinite(losses).all() and skipped <= most:
        return
    where = _what_is_kept(checkpoints)
    if skipped > most:
        raise UsageError(
            f"{skipped} of the first {first_step + len(losses)} steps were skipped, because their loss or gradient was "
            f"not finite, and max_skipped={most}; {where}; {_FIX}"
        )
    step = first_step + int(np.argmin(np.isfinite(losses))) + 1
    raise UsageError(f"the loss is {losses[step - first_step - 1]} at step {step}; {where}; {_FIX}")


def require_finite_scores(scores: Mapping[str, float], *, step: int, checkpoints: Checkpoints) -> None:
    """Ends the run, before its state is saved, if a loss of an evaluation is not finite.

    This happens when the last step before the evaluation made the weights infinite or NaN: the loss of a step is
    computed with the weights before it.

    Raises:
      UsageError: A loss is not finite.
    """
    for name, value in scores.items():
        if name.endswith("/loss") and not math.isfinite(value):
            raise UsageError(f"the {name} is {value} after step {step}; {_what_is_kept(checkpoints)}; {_FIX}")


def _what_is_kept(checkpoints: Checkpoints) -> str:
    checkpoints.wait()
    kept = checkpoints.steps()
    return f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint had been saved yet"


@contextlib.contextmanager
def nans_located(step: int) -> Iterator[None]:
    """With ``jax_debug_nans``: raises a UsageError that names the line of code of the first NaN after ``step``."""
    try:
        yield
    except FloatingPointError as error:
        walked = traceback.walk_tb(error.__traceback__)
        frames = [(frame, line) for frame, line in walked if "__tracebackhide__" not in frame.f_locals]
        summaries = traceback.StackSummary.extract(iter(frames))
        own = [summary for summary in summaries if "site-packages" not in summary.filename]
        code = f"{own[-1].filename}:{own[-1].lineno}, in {own[-1].name}: {own[-1].line}"
        raise UsageError(f"in step {step + 1}: {error}, at {code}") from error
