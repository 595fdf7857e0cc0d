"""The values of ``config.experiment``: a task, which trains one run, or an experiment that consists of several runs."""

import importlib
from types import ModuleType

from ml_collections import ConfigDict

from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.objects import is_reference
from cnn_jax.tasks import TASKS, run, task_class

SERIES = {  # names of modules, because importing them also imports scikit-learn and matplotlib
    "baselines": "cnn_jax.experiments.baselines",
    "comparison": "cnn_jax.experiments.comparison",
    "finetune": "cnn_jax.experiments.finetune",
    "invariance": "cnn_jax.experiments.invariance",
    "nearest_neighbors": "cnn_jax.experiments.nearest_neighbors",
}
"""Name in ``config.experiment`` -> module of an experiment that consists of several runs."""


def find(config: ConfigDict) -> ModuleType:
    """The module with ``train``, ``evaluate``, ``predict`` and ``summary`` for a config.

    Raises:
      UsageError: ``config.experiment`` names neither a task nor an experiment of several runs.
    """
    name = config.get("experiment", "")
    if not isinstance(name, str):
        raise UsageError(f"config.experiment={name!r} is no name; {nearest(str(name), [*TASKS, *SERIES])}")
    if name in SERIES:
        return importlib.import_module(SERIES[name])
    if name not in TASKS and not is_reference(name):
        raise UsageError(f"config.experiment={name!r} is unknown; {nearest(name, [*TASKS, *SERIES])}")
    task_class(name)
    return run


def check(config: ConfigDict, *, complete: bool = False) -> None:
    """Checks a config against the defaults of its experiment.

    Args:
      config: The config.
      complete: Whether it must have every key, see :meth:`cnn_jax.schema.Schema.check`.

    Raises:
      UsageError: The experiment or a key is unknown, or a value has a wrong type.
    """
    find(config).schema(config).check(config, complete=complete)


def find_single(config: ConfigDict) -> ModuleType:
    """The same, for tasks only: a sweep trains one run for each of its points.

    Raises:
      UsageError: The experiment itself consists of several runs.
    """
    if config.get("experiment", "") in SERIES:
        raise UsageError(
            f"--mode=sweep is for experiments of single runs; {config.experiment} is a series of several runs"
        )
    return find(config)
