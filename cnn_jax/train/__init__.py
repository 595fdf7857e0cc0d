"""Training that can be killed and continued: state, step, loop, optimisers, checkpoints, records."""

from cnn_jax.train.checkpoints import Checkpoint, Checkpoints
from cnn_jax.train.loop import Evaluations, Plan, Task, Trained, train
from cnn_jax.train.durations import duration_in_steps
from cnn_jax.train.optimizers import create_optimizer
from cnn_jax.train.records import Records, read_records
from cnn_jax.train.schedules import learning_rate_schedule
from cnn_jax.train.state import TrainState, create_state, digest, stream_key
from cnn_jax.train.step import Batch, Metrics, averages, make_evaluation, make_scanned_steps, make_step
from cnn_jax.train.workdir import Workdir, environment

__all__ = [
    "Batch",
    "Checkpoint",
    "Checkpoints",
    "Evaluations",
    "Metrics",
    "Plan",
    "Records",
    "Task",
    "TrainState",
    "Trained",
    "Workdir",
    "averages",
    "create_optimizer",
    "create_state",
    "digest",
    "duration_in_steps",
    "environment",
    "learning_rate_schedule",
    "make_evaluation",
    "make_scanned_steps",
    "make_step",
    "read_records",
    "stream_key",
    "train",
]
