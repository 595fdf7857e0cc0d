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
from cnn_jax.typed import typed

FILE = "sweep.json"
ONE_MACHINE = (
    "without --storage a sweep is in SQLite, which is for the processes of one machine; "
    "begin it in another --workdir with --storage=postgresql://user@host/database"
)
_FORMER_NAMES = {"experiments.classification:train": "cnn_jax.tasks.run:train"}  # in the settings of older sweeps
STORAGE_VARIABLE = "CNN_JAX_SWEEP_STORAGE"  # the URL for a worker; a command line would show its password


@typed
@dataclasses.dataclass(frozen=True)
class Sweep:
    """The settings of a sweep.

    Attributes:
      config: The config that all trials share.
      space: The search space.
      train: The function that trains a trial, as ``module:name``; see :class:`cnn_jax.sweep.trial.Train`.
      metric: The metric by which trials are compared, named ``'split/metric'``.
      points: The number of points.
      sampler: One of :data:`cnn_jax.sweep.samplers.SAMPLERS`.
      pruner: One of :data:`cnn_jax.sweep.samplers.PRUNERS`.
      seeds: The number of runs of each point. Their seeds are ``config.seed`` and the next ones.
      ahead: For samplers that learn: how many points may be started before the result of the first of them is known.
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
        """The seed of the sampler."""
        return self.config.get("seed", 0)

    @property
    def trials(self) -> int:
        """The number of runs."""
        return self.points * self.seeds

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config, part = json.loads(configs.to_json(self.config)), space.to_json(self.space)
        return {**fields, "config": config, "space": part, "metric": dataclasses.asdict(self.metric)}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Sweep":
        """The inverse of :meth:`to_json`, also for settings of earlier versions."""
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


@typed
@dataclasses.dataclass(frozen=True)
class SweepPlace:
    """The folder of a sweep, and the database of its trials.

    Attributes:
      directory: The folder.
      storage: The URL of a database; empty for SQLite in the folder.
    """

    directory: Path
    storage: str = ""

    @property
    def url(self) -> str:
        """The URL of the database, with the driver that this project installs.

        >>> SweepPlace(Path("runs/sweep"), "postgresql://me@host/sweeps").url
        'postgresql+psycopg://me@host/sweeps'
        >>> SweepPlace(Path("/runs/rates?")).url
        'sqlite:////runs/rates%3F/sweep.db'
        """
        if not self.storage:
            import sqlalchemy  # an extra

            return str(sqlalchemy.URL.create("sqlite", database=str((self.directory / "sweep.db").absolute())))
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


@typed
def read_sweep_file(directory: Path, *, storage: str = "") -> tuple[SweepPlace, Sweep]:
    """Reads the sweep in a folder.

    Args:
      directory: The folder.
      storage: The URL of its database, if that has a password.

    Raises:
      UsageError: The folder contains no sweep or a damaged one, or the URL of its database must be given.
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
    """A URL without its password, for display and files.

    >>> without_password("postgresql+psycopg://me:secret@host/sweeps")
    'postgresql+psycopg://me:***@host/sweeps'
    """
    scheme, separator, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{colon}{'***' if colon else ''}{at}{host}"
