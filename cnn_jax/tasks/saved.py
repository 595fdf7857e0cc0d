"""A trained network from the folder of its run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.runtime.command import command
from cnn_jax.tasks.network import TaskNetwork, make_network
from cnn_jax.tasks.sets import examples_of, preprocess_of, read_description
from cnn_jax.tasks.table import task_class


def load_run(
    config: ConfigDict, directory: Path, *, checkpoint: str | int = "latest"
) -> tuple[TaskNetwork, training.TrainState]:
    """A trained network from the folder of its run, as it is evaluated.

    Args:
      config: Of the network that the checkpoint must hold.
      directory: The run's folder.
      checkpoint: ``'latest'``, ``'best'``, or the step of one, see :func:`saved_steps`.

    Raises:
      UsageError: The folder holds no checkpoint, or a damaged one, or one of another network.
    """
    description = read_description(directory)
    found = examples_of(description)
    task = task_class(config.experiment)(config, found)
    task.helper = reader_of_helpers(config, directory)
    network = make_network(config, task, preprocess_of(description), input_name=found.input_name)
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        step = checkpoint if isinstance(checkpoint, int) else None
        step = checkpoints.best_step() if checkpoint == "best" else step
        state = checkpoints.restore_evaluated(*network.abstract_weights, step=step)
    if state is None:
        raise UsageError(f"{directory} holds no complete checkpoint; train first: {command(f'--workdir={directory}')}")
    return network, state


def reader_of_helpers(config: ConfigDict, directory: Path) -> Callable[[str], Any]:
    """Reads the trained networks of :meth:`cnn_jax.tasks.Task.helpers` by their names.

    Args:
      config: Of the run.
      directory: The run's folder.
    """

    @functools.cache
    def read(name: str) -> Any:
        folder = directory / name
        if not folder.is_dir():
            found = task_class(config.experiment).helpers(config)[name]
            folder = found if isinstance(found, Path) else folder
        with jax.ensure_compile_time_eval():  # it may be used first while a program is traced
            return load_run(configs.read_run_config(folder), folder)

    return read


def saved_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints in a run's folder, ascending."""
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.steps()
