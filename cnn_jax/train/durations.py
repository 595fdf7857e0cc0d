"""Durations of training, written as text: ``"500 steps"``, ``"5 epochs"``, ``"10_000 examples"``."""

import re

from cnn_jax.errors import UsageError

_FORM = re.compile(r"\s*([\d_]*\.?[\d_]+)\s*(steps?|epochs?|examples?)\s*")


def duration_in_steps(text: str, name: str, *, steps_per_epoch: int, batch_size: int) -> int:
    """The number of steps in a duration, rounded to the nearest whole number.

    Args:
      text: A number and a unit: ``steps``, ``epochs`` or ``examples``. The number may have a decimal point and
        underscores.
      name: The name of the option, for the error message.
      steps_per_epoch: The number of whole batches in one epoch.
      batch_size: The number of examples in a step.

    Raises:
      UsageError: The text is not a duration.

    >>> [duration_in_steps(text, "warmup", steps_per_epoch=40, batch_size=32)
    ...  for text in ("500 steps", "2.5 epochs", "6_400 examples", "1 epoch")]
    [500, 100, 200, 40]
    >>> duration_in_steps("5", "warmup", steps_per_epoch=40, batch_size=32)
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: warmup='5' is not a duration; write '500 steps', '5 epochs' or '10_000 examples'
    """
    match = _FORM.fullmatch(text)
    if not match or not match[1].strip("._"):
        raise UsageError(f"{name}={text!r} is not a duration; write '500 steps', '5 epochs' or '10_000 examples'")
    number = float(match[1].replace("_", ""))
    unit = match[2].rstrip("s")
    return round(number * {"step": 1.0, "epoch": float(steps_per_epoch), "example": 1 / batch_size}[unit])
