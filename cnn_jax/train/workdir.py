"""The directory of one run: its config, its environment, and a lock so that only one process writes to it."""

import contextlib
import fcntl
import os
import platform
import subprocess
import sys
import zlib
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import jax
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import native
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import why_not_writable, write_atomically, write_json
from cnn_jax.runtime.terminal import say
from cnn_jax.train.parallel import agreed, is_primary

_PACKAGES = ("cnn_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


class InUseError(UsageError):
    """Another process uses the folder."""


class Workdir:
    """A run directory, open for one writer; a context manager.

    Opening it creates the folder, takes its lock, and writes ``config.json`` and ``environment.json``. If the folder
    already contains a run, its config must be the same except for the keys that may change. Changes are written to
    ``config.json``, ``environment.json`` records their step, and ``result.json`` is removed, since the run continues.

    Args:
      path: The folder.
      config: The run's config.
      may_change: Keys whose values may change when a run is continued.
      total_steps: The number of steps in the whole run, if it is known.

    Attributes:
      changes: The keys whose values have changed, with both values.

    Raises:
      UsageError: The folder cannot be written, contains a run with another config or with more steps, or is used by
        another process.
    """

    def __init__(
        self, path: Path, config: ConfigDict, *, may_change: Collection[str] = (), total_steps: int | None = None
    ) -> None:
        self.path = path
        check_workdir(path, config, may_change=may_change, total_steps=total_steps)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
        except OSError as error:
            raise UsageError(
                f"the run's folder {path} cannot be written ({error.strerror}); choose another folder"
            ) from error
        saved = path / "config.json"
        self.changes = configs.differences(configs.read_run_config(path), config) if saved.exists() else []
        if self.changes:
            (path / "result.json").unlink(missing_ok=True)
            noted = configs.read_json_object(path / "environment.json")
            change = {"step": max(_saved_steps(path), default=0), "config": self.changes}
            write_json(path / "environment.json", {**noted, "changed": [*noted.get("changed", []), change]})
        elif not saved.exists():
            write_json(path / "environment.json", environment())
        if saved.exists():
            _note_other_kernels(path)
        if self.changes or not saved.exists():
            write_atomically(saved, configs.to_json(config) + "\n")

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _note_other_kernels(path: Path) -> None:
    """Says and notes it if the run so far was computed with other kernels than those of this process."""
    noted, now = configs.read_json_object(path / "environment.json"), _native_kernels()
    before = noted.get("native_kernels", now)
    if before != now:
        say(f"native CPU kernels: {now}; until now: {before}; the results agree to rounding, not bit for bit")
        write_json(path / "environment.json", {**noted, "native_kernels": now, "native_kernels_before": before})


def check_workdir(
    path: Path, config: ConfigDict, *, may_change: Collection[str] = (), total_steps: int | None = None
) -> None:
    """Checks that a run can be started, continued or extended in a folder, without writing anything.

    Args:
      path: The folder; it may not exist yet.
      config: The run's config.
      may_change: As for :class:`Workdir`.
      total_steps: As for :class:`Workdir`.

    Raises:
      UsageError: As for :class:`Workdir`, except for the lock.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise UsageError(f"the run's folder {path} is a file; choose another folder")
    if reason := why_not_writable(path):
        raise UsageError(f"the run's folder {path} cannot be written ({reason}); choose another folder")
    if not (path / "config.json").exists():
        return
    differing = configs.differences(configs.read_run_config(path), config)
    refused = [phrase for phrase in differing if phrase.partition(":")[0] not in may_change]
    if refused:
        allowed = f"; only {', '.join(may_change)} may change" if may_change else ""
        raise UsageError(
            f"{path} holds a run with another config ({'; '.join(refused)}); choose another folder, or continue it "
            f"with its own config{allowed}"
        )
    done = max(_saved_steps(path), default=0)
    if total_steps is not None and done > total_steps:
        raise UsageError(
            f"the run in {path} has done {done} steps, more than the {total_steps} of this config "
            f"({'; '.join(differing)}); make it longer, or choose another folder"
        )


def _saved_steps(path: Path) -> list[int]:
    return [int(folder.name) for folder in (path / "checkpoints").glob("*") if folder.name.isdigit()]


@contextlib.contextmanager
def open_workdir(
    path: Path, config: ConfigDict, *, may_change: Collection[str] = (), total_steps: int | None = None
) -> Iterator[list[str]]:
    """Opens the :class:`Workdir` of a run in the first process while the others wait.

    Args:
      path: The folder.
      config: The run's config.
      may_change: As for :class:`Workdir`.
      total_steps: As for :class:`Workdir`.

    Returns:
      A context manager for the changes of the config.

    Raises:
      UsageError: As for :class:`Workdir`. It is raised in every process, so that none waits for the others.
    """
    failure: UsageError | None = None
    changes: list[str] = []
    with contextlib.ExitStack() as opened:
        if is_primary():
            try:
                workdir = Workdir(path, config, may_change=may_change, total_steps=total_steps)
                changes = opened.enter_context(workdir).changes
            except UsageError as error:
                failure = error
        if agreed(failure is not None):
            raise failure or UsageError(f"process 0 could not open the folder {path}; see its message")
        fingerprint = zlib.crc32(configs.to_json(config).encode()) >> 1
        if agreed(fingerprint) != -agreed(-fingerprint):
            raise UsageError("the processes were started with different configs; start all of them with the same")
        yield changes


def environment() -> dict[str, Any]:
    """What results depend on besides the config: versions, devices, settings of XLA and glibc, commit, command."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in _PACKAGES if _installed(name)},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "native_kernels": _native_kernels(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _native_kernels() -> str:
    return native.describe() if jax.default_backend() == "cpu" else "off; they are for CPUs"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commit() -> str | None:
    """The commit of the source tree, with '-dirty' when it has changes; None outside a clone."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _lock(path: Path) -> IO[str]:
    """Takes the folder's lock. The system releases it when the process ends, also after a crash."""
    file = open(path / ".lock", "a+")  # noqa: SIM115 - open until the run ends
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise InUseError(
            f"{path} is in use by another process (pid {owner}); wait for it or choose another folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
