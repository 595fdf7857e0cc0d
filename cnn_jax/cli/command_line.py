"""The parts that all modes of the command line share: the flags, the config and the run's folder."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from cnn_jax import config as configs
from cnn_jax.cli.config_flag import parse_flags
from cnn_jax.errors import UsageError
from cnn_jax.runtime.command import exit_code
from cnn_jax.runtime.compilation_cache import enable_compilation_cache
from cnn_jax.runtime.files import user_path
from cnn_jax.runtime.terminal import printable


def run(main: Callable[[list[str]], None], arguments: Sequence[str]) -> int:
    """Parses the flags and runs ``main``, see :func:`cnn_jax.runtime.command.exit_code` for errors.

    Args:
      main: A function of the arguments that are not flags. Only ``--mode=predict`` and ``explain`` have such: images.
      arguments: The command line.

    Returns:
      The exit code.
    """

    def parse_and_run() -> None:
        app.define_help_flags()
        flags.FLAGS.set_gnu_getopt()  # flags may come after the names of images
        enable_compilation_cache()  # before the config file is read: that imports jax
        try:
            others = parse_flags(arguments)[1:]
        except SystemExit:  # --help: absl exits with an error code
            return
        if others and flags.FLAGS["mode"].value not in ("predict", "explain"):
            raise UsageError(
                f"{others[0]!r} is not a flag; write --name=value, in quotes if it has spaces or brackets: "
                "\"--config.data.augment=('flip', 'cutout')\""
            )
        main(others)

    debug = "--debug" in arguments  # not FLAGS: parsing them may fail
    return exit_code(parse_and_run, debug=debug, program=Path(arguments[0]).name)


def image_paths(values: Sequence[str]) -> list[str]:
    """The paths in the values of ``--images``, separated by commas. A path may also contain commas.

    If a value can be split in several ways, each path is the longest one that exists.

    >>> image_paths(["a.png,b.png", "c.png, d/"])
    ['a.png', 'b.png', 'c.png', 'd/']
    """
    paths = []
    for value in values:
        parts = value.split(",")
        while parts:
            ends = range(len(parts), 0, -1)
            end = next((end for end in ends if os.path.exists(os.path.expanduser(",".join(parts[:end])))), 1)
            paths.append(",".join(parts[:end]) if end > 1 else parts[0].strip())
            del parts[:end]
    return [path for path in paths if path]


def join_processes(
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    scheduler: bool,
    workdir: str | None,
) -> None:
    """Joins the other processes of a run, if the flags say that it has several; only the first process prints.

    Args:
      coordinator_address: ``host:port`` of the first process.
      num_processes: The number of processes.
      process_id: The number of this process.
      scheduler: Let JAX find these three in the scheduler's environment (Slurm, Open MPI, Kubernetes, cloud TPUs).
      workdir: The run's folder, which all processes must be given and can access.

    Raises:
      UsageError: The flags do not fit together, or the other processes are not found.
    """
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3 and not scheduler:
        return
    if missing and not scheduler:
        raise UsageError(f"{' and '.join(missing)} must be given too, or --distributed alone to ask the scheduler")
    if workdir is None:
        raise UsageError("several processes need --workdir=<a folder that all of them see>")
    import jax

    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"the processes do not find each other: {' '.join(str(error).split())}") from error
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends


def config_and_workdir(config: ConfigDict | None, workdir: str | None, mode: str) -> tuple[ConfigDict, Path]:
    """The config, from ``--config`` or from the run in ``--workdir``, and the run's folder.

    Raises:
      UsageError: Neither flag is given, the mode needs ``--workdir``, or ``--sweep`` is given in another mode.
    """
    if flags.FLAGS["sweep"].present:
        raise UsageError(f"--sweep is for --mode=sweep, not for --mode={mode}; give --mode=sweep, or omit --sweep")
    path = config_flags.get_config_filename(flags.FLAGS["config"]) if flags.FLAGS["config"].present else None
    if config is None:
        if workdir is None:
            raise UsageError("which experiment? give --config=<name or file>, or --workdir=<folder of an earlier run>")
        config = configs.read_run_config(_folder(workdir))
    if workdir is None:
        if mode in ("eval", "predict", "explain", "explore"):
            raise UsageError(f"--mode={mode} needs --workdir=<folder of a trained run>")
        workdir = _new_workdir(path)
    return config, _folder(workdir)


def _folder(workdir: str) -> Path:
    if "://" in workdir:
        raise UsageError(
            f"--workdir={workdir} is an address, but runs need a folder that can be locked: give a folder on this "
            "machine or on a shared file system, and copy it when the run has ended"
        )
    if printable(workdir) != workdir:  # Orbax cannot write checkpoints there
        raise UsageError(f"--workdir={workdir}: give a folder whose name is UTF-8 and has no control characters")
    return user_path(workdir)


def sweep(config: ConfigDict | None, workdir: str | None, *, worker: bool) -> None:
    """Starts, continues or shows a sweep, or works for one, see :mod:`cnn_jax.sweep.command`."""
    from cnn_jax import experiments  # imports jax, which must not happen before the flags are parsed
    from cnn_jax.sweep import command  # imports Optuna

    if worker:
        command.sweep_worker(_folder(workdir) if workdir else None)
        return
    path = configs.find_config(config_flags.get_config_filename(flags.FLAGS["config"])) if config is not None else None
    if config is None and workdir is None:
        raise UsageError("which sweep? give --config=<name or file>, or --workdir=<folder of an earlier sweep>")
    command.sweep(config, path, _folder(workdir or _new_workdir(path, "sweep-")), experiments.find_single)


def _new_workdir(path: str | None, kind: str = "") -> str:
    name = Path(str(path).partition(":")[0]).stem
    return f"runs/{name}-{kind}{time.strftime('%Y%m%d-%H%M%S')}"
