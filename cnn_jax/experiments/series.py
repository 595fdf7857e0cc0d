"""Experiments that consist of several runs, each in its own folder and without a report.

``python launch.py --workdir=<that folder>`` writes the report of a run.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks import default_config, run, schema


def variation(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The config of one run of a series: a classification, unless the changes name another experiment.

    Args:
      config: The config of the series. Keys that the run does not have are left out.
      changes: Dotted key -> value, such as ``{"optimizer.learning_rate": 0.1}``.

    Raises:
      UsageError: A key is unknown, or a value has a wrong type.

    >>> from cnn_jax.tasks import default_config
    >>> config = default_config()
    >>> variation(config, {"model.name": "mlp"}).model.name, config.model.name
    ('mlp', 'lenet_5_modern')
    """
    experiment = changes.get("experiment", "classification")
    known = default_config(experiment).to_dict()
    fields = {key: config.to_dict().get(key, default) for key, default in known.items()}
    varied = ConfigDict({**fields, "experiment": experiment})
    varied.update_from_flattened_dict(dict(changes))
    schema(experiment).check(varied)
    return varied


def flattened(group: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Changes to a config that are written as nested groups, as :func:`variation` takes them.

    >>> flattened(ConfigDict({"model": {"name": "mlp"}, "epochs": 2}))
    {'epochs': 2, 'model.name': 'mlp'}
    """
    flat: dict[str, Any] = {}
    for key, value in group.items():
        if isinstance(value, ConfigDict) and not prefix.startswith("model.options"):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def file_name(title: str) -> str:
    """A title as the name of a file or folder.

    >>> file_name("LeNet-5, modern")
    'LeNet-5-modern'
    """
    return re.sub(r"\W+", "-", title).strip("-")


def finished(config: ConfigDict, directory: Path) -> dict[str, Any]:
    """The result of a run. A run that is not finished is trained or continued first."""
    path = directory / "result.json"
    if not path.is_file():
        say(f"\n{directory.name}: {config.model.name} on {config.data.name}, {config.data.train}")
        run.train(config, directory, report=False)
    return json.loads(path.read_text())


def evaluate(config: ConfigDict, directory: Path, **options: Any) -> None:
    """Raises a UsageError: checkpoints belong to the single runs."""
    raise _for_one_run("eval", directory)


def predict(config: ConfigDict, directory: Path, **options: Any) -> None:
    """Raises a UsageError: networks belong to the single runs."""
    raise _for_one_run("predict", directory)


def explain(config: ConfigDict, directory: Path, **options: Any) -> None:
    """Raises a UsageError: a series of runs is not one network."""
    raise _for_one_run("explain", directory)


def explore(config: ConfigDict, directory: Path, **options: Any) -> None:
    """Raises a UsageError: a series of runs is not one network."""
    raise _for_one_run("explore", directory)


def _for_one_run(mode: str, directory: Path) -> UsageError:
    return UsageError(f"--mode={mode} is for one run: give one of the folders in {directory} as --workdir")
