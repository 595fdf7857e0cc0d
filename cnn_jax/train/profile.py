"""A profiler trace of some steps of a run, to see where the time goes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.train.state import TrainState


def profile_steps(steps: Any, state: TrainState, examples: Any, count: int, longest: int, directory: Path) -> str:
    """Profiles ``count`` steps on a copy of the state, which is then discarded.

    The steps run twice, first without the profiler to compile them.

    Args:
      steps: The compiled function ``steps(state, examples, count) -> (state, metrics)``; it may donate the state.
      state: The state to start from.
      examples: The training examples, as ``steps`` takes them.
      count: The number of steps; if 0, nothing is traced.
      longest: The most steps in one call.
      directory: The folder of the trace.

    Returns:
      A line that says where the trace is and how to open it.
    """
    if count < 1:
        return "nothing is left to trace: all steps are done; trace another run, or one with more epochs"
    calls = [min(longest, count - first) for first in range(0, count, longest)]

    def make(copy: TrainState) -> None:
        for of_call in calls:
            copy, _ = jax.block_until_ready(steps(copy, examples, of_call))

    make(jax.tree.map(jnp.copy, state))
    copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
    with jax.profiler.trace(str(directory), create_perfetto_trace=True):
        make(copy)
    newest = max(directory.rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)
    return (
        f"traced {count} steps: open {newest} in https://ui.perfetto.dev, "
        f"or run: tensorboard --logdir={directory}  (with tensorboard-plugin-profile)"
    )
