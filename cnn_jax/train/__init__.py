"""Training that can be interrupted and continued: state, step, loop, optimisers, checkpoints, records."""

from cnn_jax.metrics import Metric
from cnn_jax.runtime.interruption import StopRequest
from cnn_jax.train.checkpoints import Checkpoint, Checkpoints, NoWholeCheckpointError
from cnn_jax.train.durations import duration_in_steps
from cnn_jax.train.ensemble import ensemble_init, ensemble_step, member, over_members
from cnn_jax.train.evaluation import Evaluations, make_evaluations
from cnn_jax.train.feed import augmented
from cnn_jax.train.groups import VectorizedProgram, lanes
from cnn_jax.train.loop import Ended, Run, Trained, train, train_together
from cnn_jax.train.optimizers import create_optimizer
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel, agreed, is_primary
from cnn_jax.train.plan import Best, Plan
from cnn_jax.train.program import Hyperparameters, Problem, Program
from cnn_jax.train.records import MetricsLog, read_last_record, read_records
from cnn_jax.train.schedules import learning_rate_schedule
from cnn_jax.train.settings import (
    MAY_CHANGE,
    TRACED_HYPERPARAMETERS,
    TUPLE_EXAMPLES,
    default_settings,
    make_optimizer,
    make_parallel,
    make_plan,
    make_schedule,
    make_step_of,
    shape_of,
    traced_hyperparameters,
    with_hyperparameters,
)
from cnn_jax.train.state import TrainState, create_state, digest, evaluated, stream_key
from cnn_jax.train.step import (
    Batch,
    Each,
    ExampleArrays,
    Metrics,
    Step,
    Summarize,
    Totals,
    added,
    averages,
    in_turns,
    make_scanned_steps,
    make_step,
    optimizer_in_turns,
    scanned_evaluation,
    scanned_steps,
)
from cnn_jax.train.workdir import InUseError, Workdir, check_workdir, environment, open_workdir

__all__ = [
    "MAY_CHANGE",
    "ONE_DEVICE",
    "TRACED_HYPERPARAMETERS",
    "TUPLE_EXAMPLES",
    "Batch",
    "Best",
    "Checkpoint",
    "Checkpoints",
    "DataParallel",
    "Each",
    "Ended",
    "Evaluations",
    "ExampleArrays",
    "Hyperparameters",
    "InUseError",
    "Metric",
    "Metrics",
    "MetricsLog",
    "NoWholeCheckpointError",
    "Plan",
    "Problem",
    "Program",
    "Run",
    "Step",
    "StopRequest",
    "Summarize",
    "Totals",
    "TrainState",
    "Trained",
    "VectorizedProgram",
    "Workdir",
    "added",
    "agreed",
    "augmented",
    "averages",
    "check_workdir",
    "create_optimizer",
    "create_state",
    "default_settings",
    "digest",
    "duration_in_steps",
    "ensemble_init",
    "ensemble_step",
    "environment",
    "evaluated",
    "in_turns",
    "is_primary",
    "lanes",
    "learning_rate_schedule",
    "make_evaluations",
    "make_optimizer",
    "make_parallel",
    "make_plan",
    "make_scanned_steps",
    "make_schedule",
    "make_step",
    "make_step_of",
    "member",
    "open_workdir",
    "optimizer_in_turns",
    "over_members",
    "read_last_record",
    "read_records",
    "scanned_evaluation",
    "scanned_steps",
    "shape_of",
    "stream_key",
    "traced_hyperparameters",
    "train",
    "train_together",
    "with_hyperparameters",
]
