"""The settings of a sweep, as stored in ``sweep.json`` and in its database. Any worker can join with them."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.runtime.files import write_json
from cnn_jax.sweep import space
from cnn_jax.sweep.trial import Train

FILE = "sweep.json"
ONE_MACHINE = (
    "without --storage a sweep is in SQLite, which is for the processes of one machine; "
    "begin it in another --workdir with --storage=postgresql://user@host/database"
)
_FORMER_NAMES = {"experiments.classification:train": "cnn_jax.tasks.run:train"}  # of functions, in older sweeps
STORAGE_VARIABLE = "CNN_JAX_SWEEP_STORAGE"  # the URL for a worker; on its command line everybody could read it


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The settings of a sweep.

    Attributes:
      config: What all trials have in common.
      space: What they differ in.
      train: The function that trains one, as ``module:name``; see :class:`cnn_jax.sweep.trial.Train`.
      metric: What trials are compared by, named ``'split/metric'``.
      points: How many points are tried.
      sampler: One of :data:`cnn_jax.sweep.samplers.SAMPLERS`.
      pruner: One of :data:`cnn_jax.sweep.samplers.PRUNERS`.
      seeds: The runs of each point; their seeds are ``config.seed``, and those after it.
      ahead: How many points may be begun before the result of the first of them is known to a sampler that learns.
      reports: Whether each trial has a ``report.html``.
    """

    config: ConfigDict
    space: space.Part
    train: str
    metric: Metric
    points: int
    sampler: str = "sobol"
    pruner: str = "none"
    seeds: int = 1
    ahead: int = 1
    reports: bool = True

    @property
    def seed(self) -> int:
        """Of the sampler."""
        return self.config.get("seed", 0)

    @property
    def trials(self) -> int:
        """How many runs there are."""
        return self.points * self.seeds

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config, part = json.loads(configs.to_json(self.config)), space.to_json(self.space)
        return {**fields, "config": config, "space": part, "metric": dataclasses.asdict(self.metric)}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Sweep":
        """The sweep that :meth:`to_json` wrote, also that of an earlier version."""
        fields = {"sampler" if key == "engine" else key: value for key, value in fields.items()}
        config, metric = configs.upgraded(configs.from_json(json.dumps(fields["config"]))), fields["metric"]
        own = {
            "config": config,
            "space": space.from_json(fields["space"]),
            "metric": _metric_by_name(metric) if isinstance(metric, str) else Metric(**metric),
            "train": _FORMER_NAMES.get(fields["train"], fields["train"]),
        }
        return Sweep(**{**fields, **own})

    def load_train(self) -> Train:
        """The function that trains one trial."""
        module, _, name = self.train.partition(":")
        return getattr(importlib.import_module(module), name)


def _metric_by_name(name: str) -> Metric:
    """The metric of a sweep of an earlier version, which stored only its name."""
    better = "lower" if name.endswith(("loss", "error")) else "higher"
    return Metric(name, better, "%" if name.endswith(("accuracy", "error")) else "")


@dataclasses.dataclass(frozen=True)
class SweepPlace:
    """Where a sweep is: its folder, and the database of its trials.

    Attributes:
      directory: The folder.
      storage: The URL of a database; empty for SQLite in the folder.
    """

    directory: Path
    storage: str = ""

    @property
    def url(self) -> str:
        """Of the database, with the driver that this project installs.

        >>> SweepPlace(Path("runs/sweep"), "postgresql://me@host/sweeps").url
        'postgresql+psycopg://me@host/sweeps'
        """
        if not self.storage:
            return f"sqlite:///{(self.directory / 'sweep.db').absolute()}"
        scheme, separator, rest = self.storage.partition("://")
        return f"{'postgresql+psycopg' if scheme == 'postgresql' else scheme}{separator}{rest}"

    @property
    def is_local(self) -> bool:
        """Whether the database is SQLite, a file that the processes of one machine can share."""
        return self.url.startswith("sqlite")

    @property
    def study(self) -> str:
        """The sweep's name in the database."""
        return str(self.directory.absolute()) if self.storage else "sweep"


def write_sweep_file(place: SweepPlace, sweep: Sweep) -> None:
    """Writes ``sweep.json``; a password in the URL is left out."""
    write_json(place.directory / FILE, {"storage": without_password(place.storage), **sweep.to_json()})


def read_sweep_file(directory: Path, *, storage: str = "") -> tuple[SweepPlace, Sweep]:
    """The sweep of a folder.

    Args:
      directory: The folder.
      storage: The URL of its database, where it has one with a password.

    Raises:
      UsageError: The folder holds no sweep, a damaged one, or its database must be named.
    """
    path = directory / FILE
    if not path.is_file():
        raise UsageError(f"--workdir={directory} holds no sweep (no {FILE}); begin one with --config and --mode=sweep")
    try:
        fields = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path} is damaged ({error}); remove it, and give the command that began the sweep"
        ) from error
    known = fields.pop("storage")
    if "***" in known and not storage:
        raise UsageError(f"--workdir={directory}: give its database again, with the password: --storage={known}")
    return SweepPlace(directory, storage or known), Sweep.from_json(fields)


def without_password(url: str) -> str:
    """A URL to be shown and kept.

    >>> without_password("postgresql+psycopg://me:secret@host/sweeps")
    'postgresql+psycopg://me:***@host/sweeps'
    """
    scheme, separator, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{colon}{'***' if colon else ''}{at}{host}"
