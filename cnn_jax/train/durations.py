"""Stretches of training, written as people say them: ``"500 steps"``, ``"5 epochs"``, ``"10_000 examples"``."""

import re

from cnn_jax.errors import UsageError

_FORM = re.compile(r"\s*([\d_]*\.?[\d_]+)\s*(steps?|epochs?|examples?)\s*")


def duration_in_steps(text: str, name: str, *, steps_per_epoch: int, batch_size: int) -> int:
    """The number of steps in a duration, rounded to the nearest whole one.

    Args:
      text: A number, which may be broken (``0.5``) and have underscores, and ``steps``, ``epochs`` or ``examples``.
      name: The option, for the error message.
      steps_per_epoch: Whole batches in one pass through the training set.
      batch_size: Examples a step.

    Raises:
      UsageError: A text of another form.

    >>> [duration_in_steps(text, "warmup", steps_per_epoch=40, batch_size=32)
    ...  for text in ("500 steps", "2.5 epochs", "6_400 examples", "1 epoch")]
    [500, 100, 200, 40]
    >>> duration_in_steps("5", "optimizer.warmup", steps_per_epoch=40, batch_size=32)
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: optimizer.warmup='5' is no duration; write '500 steps', '5 epochs' or '10_000 examples'
    """
    match = _FORM.fullmatch(text)
    if not match or not match[1].strip("._"):
        raise UsageError(f"{name}={text!r} is no duration; write '500 steps', '5 epochs' or '10_000 examples'")
    number = float(match[1].replace("_", ""))
    unit = match[2].rstrip("s")
    return round(number * {"step": 1.0, "epoch": float(steps_per_epoch), "example": 1 / batch_size}[unit])
