"""Training that can be killed and continued: state, step, loop, optimisers, checkpoints, records."""

from cnn_jax.train.checkpoints import Checkpoint, Checkpoints, NoWholeCheckpointError
from cnn_jax.train.course import Course, open_course
from cnn_jax.train.durations import duration_in_steps
from cnn_jax.train.ensemble import ensemble_init, ensemble_step, member, over_members
from cnn_jax.train.evaluation import Evaluations, make_evaluations
from cnn_jax.train.feed import augmented
from cnn_jax.train.interruption import StopRequest
from cnn_jax.train.loop import Trained, train
from cnn_jax.train.optimizers import create_optimizer
from cnn_jax.train.parallel import ONE_DEVICE, Parallel, agreed, is_primary
from cnn_jax.train.plan import Best, Plan
from cnn_jax.train.program import Numbers, Program, Task
from cnn_jax.train.records import Records, read_last_record, read_records
from cnn_jax.train.schedules import learning_rate_schedule
from cnn_jax.train.settings import (
    NUMBERS,
    default_settings,
    make_optimizer,
    make_parallel,
    make_plan,
    make_step_of,
    numbers_of,
    shape_of,
    with_numbers,
)
from cnn_jax.train.state import TrainState, create_state, digest, evaluated, stream_key
from cnn_jax.train.step import (
    Batch,
    Examples,
    Metrics,
    Step,
    averages,
    make_evaluation,
    make_scanned_steps,
    make_step,
    scanned_steps,
    whole_evaluation,
)
from cnn_jax.train.workdir import InUseError, Workdir, environment, open_workdir

__all__ = [
    "NUMBERS",
    "ONE_DEVICE",
    "Batch",
    "Best",
    "Checkpoint",
    "Checkpoints",
    "Course",
    "Evaluations",
    "Examples",
    "InUseError",
    "Metrics",
    "NoWholeCheckpointError",
    "Numbers",
    "Parallel",
    "Plan",
    "Program",
    "Records",
    "Step",
    "StopRequest",
    "Task",
    "TrainState",
    "Trained",
    "Workdir",
    "agreed",
    "augmented",
    "averages",
    "create_optimizer",
    "create_state",
    "default_settings",
    "digest",
    "duration_in_steps",
    "ensemble_init",
    "ensemble_step",
    "environment",
    "evaluated",
    "is_primary",
    "learning_rate_schedule",
    "make_evaluation",
    "make_evaluations",
    "make_optimizer",
    "make_parallel",
    "make_plan",
    "make_scanned_steps",
    "make_step",
    "make_step_of",
    "member",
    "numbers_of",
    "open_course",
    "open_workdir",
    "over_members",
    "read_last_record",
    "read_records",
    "scanned_steps",
    "shape_of",
    "stream_key",
    "train",
    "whole_evaluation",
    "with_numbers",
]
