"""A trained network from the folder of its run."""

from pathlib import Path

from ml_collections import ConfigDict

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
    network = make_network(config, task, preprocess_of(description), input_name=found.input_name)
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        step = checkpoint if isinstance(checkpoint, int) else None
        step = checkpoints.best_step() if checkpoint == "best" else step
        state = checkpoints.restore_evaluated(*network.abstract_weights, step=step)
    if state is None:
        raise UsageError(f"{directory} holds no complete checkpoint; train first: {command(f'--workdir={directory}')}")
    return network, state


def saved_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints in a run's folder, ascending."""
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.steps()
