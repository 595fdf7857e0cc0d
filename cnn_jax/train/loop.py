"""The one training loop, for every task: it knows steps, scores, checkpoints and signals, and not what is learned."""

import contextlib
import dataclasses
import signal as signals
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from cnn_jax.data.stream import Stream
from cnn_jax.errors import Interrupted
from cnn_jax.report.progress import Progress
from cnn_jax.train.checkpoints import Checkpoint, Checkpoints
from cnn_jax.train.course import open_course
from cnn_jax.train.evaluation import check_monitor
from cnn_jax.train.feed import Feed, make_streamed_steps
from cnn_jax.train.interruption import StopRequest
from cnn_jax.train.nonfinite import nans_located
from cnn_jax.train.parallel import ONE_DEVICE, Parallel, agreed
from cnn_jax.train.plan import Plan
from cnn_jax.train.profile import profile_steps
from cnn_jax.train.program import Numbers, Program, Task
from cnn_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Trained:
    """The end of a run: the last state, on one device, and its scores, ``'split/metric' -> value``."""

    state: TrainState
    scores: dict[str, float]


def train(
    task: Task,
    plan: Plan,
    *,
    seed: int,
    directory: Path,
    how_to_continue: str,
    parallel: Parallel = ONE_DEVICE,
    profile: int = 0,
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
    program: Program | None = None,
    numbers: Numbers | None = None,
) -> Trained:
    """Trains from the newest checkpoint in ``directory``, or from the start, to the end of the plan.

    Args:
      task: what to learn.
      plan: for how long.
      seed: of the run's root key.
      directory: where ``metrics.jsonl``, ``tensorboard/`` and ``checkpoints/`` are.
      how_to_continue: the command that continues the run, shown when it is interrupted.
      parallel: the devices; several processes must all call this, with the same arguments.
      profile: how many steps to trace into ``profile/`` before the first; 0 for none.
      on_evaluation: told the number of each evaluation, from 1, and its scores, once saved; what it raises ends
        the run, which can be continued.
      program: that of the task, where other runs share it, of the same plan and devices; by default the run's own.
      numbers: of the run, which the program takes as arguments.

    Raises:
      Interrupted: SIGTERM or Ctrl-C came, to any of the processes; the state is saved.
      UsageError: the loss stopped being finite (the last good checkpoint is kept), or no checkpoint is whole.
      OSError: the disk is full; earlier checkpoints are intact.
    """

    check_monitor(task.monitor, task.eval_examples)
    parallel.check_batch(plan.batch_size)
    program, numbers = program or Program(lambda _: task, plan, parallel), numbers or {}
    evaluate = program.evaluations(task.eval_examples, numbers)
    with Checkpoints(directory / "checkpoints") as checkpoints, StopRequest() as stop:
        restored = checkpoints.restore(program.template)
        checkpoint = restored or Checkpoint(program.first_state(seed, numbers), {})
        state, step = checkpoint.state, int(checkpoint.state.step)
        opened = open_course(directory, plan, task.monitor, checkpoints, step=step, notes=checkpoint.notes)
        with (
            _steps_and_examples(task, program, plan, parallel, seed) as (steps, examples),
            opened as course,
            Progress(plan.total_steps, steps_per_epoch=plan.steps_per_epoch, start_step=step) as progress,
        ):
            if profile:
                count = min(profile, plan.total_steps - step)  # a stream has no more
                progress.log(profile_steps(steps, state, (numbers, examples), count, directory / "profile"))
            if step and not course.ended:
                progress.log(f"continuing from step {step} of {plan.total_steps}")
            while not course.ended:
                started = time.perf_counter()
                count = plan.call_length(course.step)
                with nans_located(course.step):
                    state, metrics = steps(state, (numbers, examples), count)
                course.after_call(count, metrics)
                speed = count * plan.batch_size / (time.perf_counter() - started)
                course.records.write_speed(step=course.step, examples_per_second=speed)
                if plan.evaluates_at(course.step):
                    course.after_evaluation(evaluate(state))
                    course.save(state)
                    if on_evaluation is not None:
                        on_evaluation(course.evaluation, course.scores)
                scores = {**course.train_scores, **course.scores}
                progress.update(step=course.step, scores=scores, examples_per_second=speed)
                signal = agreed(stop.signal or 0)
                if signal and not course.ended:
                    if not plan.evaluates_at(course.step):
                        course.save(state)
                    checkpoints.wait()
                    name = signals.Signals(signal).name
                    line = f"stopped by {name} at step {course.step}, saved; to continue: {how_to_continue}"
                    raise Interrupted(signal, line)
            checkpoints.wait()
            step, best = course.step, course.best
            if plan.reached(best):
                reached = course.scores[task.monitor]
                progress.log(f"stopped at step {step}: {task.monitor} has reached the target, {reached:.4g}")
            elif step < plan.total_steps:
                progress.log(f"stopped at step {step}: {task.monitor} has not improved since step {best.step}")
    return Trained(parallel.on_one_device(state), course.scores)


@contextlib.contextmanager
def _steps_and_examples(
    task: Task, program: Program, plan: Plan, parallel: Parallel, seed: int
) -> Iterator[tuple[Any, Any]]:
    """The compiled ``steps(state, (numbers, examples), count)``, and the examples: on the devices, or from a stream."""
    if isinstance(task.train_examples, Stream):
        key, sizes = jax.random.key(seed), {"batch_size": plan.batch_size, "total_steps": plan.total_steps}
        with Feed(task.train_examples, key, **sizes, parallel=parallel) as feed:
            yield make_streamed_steps(program.compiled_streamed_step), feed
    else:
        yield program.compiled_steps, parallel.replicate(task.train_examples)
