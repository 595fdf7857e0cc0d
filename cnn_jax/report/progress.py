"""The progress of a run in the terminal: a live progress bar, or plain lines for log files."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from cnn_jax.metrics import Metric
from cnn_jax.report.compilation import Compilation
from cnn_jax.report.formatting import format_duration
from cnn_jax.runtime.terminal import Console, printable, say


class Progress:
    """A context manager that shows the progress of a run: epoch, scores, speed and remaining time.

    On a terminal this is a bar that is redrawn in place, and other output appears above it. Elsewhere it is one line
    for each epoch, flushed immediately and without control characters.

    Attributes:
      compilation: Shows what is being compiled.

    Args:
      total_steps: The number of steps in the whole run.
      steps_per_epoch: The number of steps in one pass through the training set.
      metrics: The metrics whose scores are shown, in this order. Other scores are only in the run's records.
      start_step: The number of steps already done, if a run is continued.

    Example:
      >>> metrics = [Metric("loss", "lower"), Metric("accuracy", "higher", "%")]
      >>> with Progress(20, steps_per_epoch=10, metrics=metrics) as progress:
      ...     progress.update(step=10, scores={"loss": 0.25, "test/accuracy": 0.875}, examples_per_second=1234.5)
      ...     progress.log("saved")
      epoch 1/2  loss 0.25  test/accuracy 87.50%  1,234 images/s
      saved
    """

    def __init__(
        self, total_steps: int, *, steps_per_epoch: int, metrics: Sequence[Metric] = (), start_step: int = 0
    ) -> None:
        self._file, self._metrics = sys.stdout, metrics
        self._total_steps, self._steps_per_epoch, self._step = total_steps, steps_per_epoch, start_step
        self._first: tuple[int, float] | None = None  # step and time of the first update, after compilation
        self._live: Live | None = None
        if self._file.isatty() and os.environ.get("TERM") != "dumb":
            columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[speed]}")
            self._bar = Bar(*columns, expand=True)
            self._task = self._bar.add_task(self._epoch(), total=total_steps, completed=start_step, speed="")
            self._scores = Text(no_wrap=True, overflow="ellipsis")
            self._live = Live(Group(self._bar, self._scores), console=Console(file=self._file), refresh_per_second=8)
        self.compilation = Compilation(self.show if self._live is not None else None, self.log)

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, *, step: int, scores: Mapping[str, float], examples_per_second: float) -> None:
        """Updates the display.

        Args:
          step: The number of steps done so far in the whole run.
          scores: The latest scores, by names such as ``'test/accuracy'``.
          examples_per_second: The speed of training.
        """
        epochs_before, self._step = self._step // self._steps_per_epoch, step
        self._first = self._first or (step, time.monotonic())
        splits = dict.fromkeys(name.rpartition("/")[0] for name in scores)
        declared = [metric.of(split) if split else metric for split in splits for metric in self._metrics]
        shown = "  ".join(f"{one.name} {one.format(scores[one.name])}" for one in declared if one.name in scores)
        speed = f"{examples_per_second:,.0f} images/s"
        left = self._time_left()
        if left is not None:
            speed += f"  {left} left"
        if self._live is not None:
            self._bar.update(self._task, completed=step, description=self._epoch(), speed=speed)
            self._scores.plain = printable(shown)
        elif step // self._steps_per_epoch > epochs_before or step == self._total_steps:
            self.log(f"{self._epoch()}  {shown}  {speed}")

    def show(self, doing: object) -> None:
        """On a terminal, shows what is being done in place of the speed; an object whose string may change."""
        if self._live is not None:
            self._bar.update(self._task, speed=doing)

    def log(self, line: str) -> None:
        """Writes one line, above the bar if there is one."""
        if self._live is not None:
            self._live.console.print(line, soft_wrap=True)
        else:
            say(line, stream=self._file)

    def _epoch(self) -> str:
        done, total = self._step / self._steps_per_epoch, self._total_steps / self._steps_per_epoch
        if total < 1:
            return f"step {self._step}/{self._total_steps}"
        return f"epoch {round(done, 1):g}/{round(total, 1):g}"

    def _time_left(self) -> str | None:
        """The remaining time, from the speed since the first update. None if unknown, or if the run has ended."""
        first_step, first_time = self._first or (self._step, 0.0)
        if not first_step < self._step < self._total_steps:
            return None
        seconds = (time.monotonic() - first_time) / (self._step - first_step) * (self._total_steps - self._step)
        return format_duration(seconds)
