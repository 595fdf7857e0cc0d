"""A trace of some steps of a run, to see where the time goes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.train.state import TrainState


def profile_steps(steps: Any, state: TrainState, examples: Any, count: int, longest: int, directory: Path) -> str:
    """Traces ``count`` steps that are no part of the run: they are made on a copy of the state, and thrown away.

    They are made twice, the first time to compile them.

    Args:
      steps: Compiled, ``steps(state, examples, count) -> (state, metrics)``; it may donate the state.
      state: To start from.
      examples: To learn from, as the steps take them.
      count: How many steps; without any left nothing is traced.
      longest: The most in one call.
      directory: Where the trace is put.

    Returns:
      A line that says where it is and what opens it.
    """
    if count < 1:
        return "nothing is left to trace: all steps are made; trace another run, or one with more epochs"
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
