"""What surrounds every mode of the command line: from flags to a config and a folder, from errors to one line.

Exit codes: 0 done; 2 a mistake, with a line that says how to fix it; 130 or 143 interrupted by Ctrl-C or SIGTERM, saved
and ready to be continued; 1 done except for some inputs, which are listed, or a fault of the program itself, with its
traceback.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from cnn_jax import config as configs
from cnn_jax.cli.config_flag import parse_flags
from cnn_jax.errors import DISK_ERRORS, EXIT_CODE, Interrupted, PartlyFailedError, UsageError
from cnn_jax.runtime.compilation_cache import enable_compilation_cache
from cnn_jax.runtime.files import user_path
from cnn_jax.runtime.terminal import accept_any_text, printable, say_error


def run(main: Callable[[list[str]], None], arguments: Sequence[str]) -> int:
    """Parses the flags and runs ``main``; each mistake of the user becomes one line on stderr.

    Args:
      main: Takes the arguments that are not flags, which only ``--mode=predict`` and ``explain`` have: more images.
      arguments: The command line.

    Returns:
      The exit code.
    """
    accept_any_text()
    app.define_help_flags()
    flags.FLAGS.set_gnu_getopt()  # flags may follow the names of images
    enable_compilation_cache()  # before the config file is read, which imports jax
    try:
        try:
            others = parse_flags(arguments)[1:]
        except SystemExit:  # after --help, which absl takes for a failure
            return 0
        if others and flags.FLAGS["mode"].value not in ("predict", "explain"):
            raise UsageError(
                f"{others[0]!r} is not a flag; write --name=value, in quotes if it has blanks or brackets: "
                "\"--config.data.augment=('flip', 'cutout')\""
            )
        main(others)
    except UsageError as error:
        return _say(str(error), EXIT_CODE)
    except PartlyFailedError as error:
        return _say(str(error), 1)
    except Interrupted as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        fix = "make room or use another --workdir, and run the same command again; saved checkpoints are intact"
        return _say(f"{error.strerror}{where}: {fix}", EXIT_CODE)
    return 0


def image_paths(values: Sequence[str]) -> list[str]:
    """The paths in the values of ``--images``, which are separated by commas, where a path may also contain commas.

    Of several readings, the one with the longest path that exists is meant.

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
    """Makes this process one of several that train together, if the flags say so; only the first one prints.

    Args:
      coordinator_address: ``host:port`` of the first process.
      num_processes: How many there are.
      process_id: Which one this is.
      scheduler: Let JAX find these three in the scheduler's environment (Slurm, Open MPI, Kubernetes, cloud TPUs).
      workdir: The run's folder, which all processes must be given, and see.

    Raises:
      UsageError: Flags that do not go together, or the other processes are not found.
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
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives


def config_and_workdir(config: ConfigDict | None, workdir: str | None, mode: str) -> tuple[ConfigDict, Path]:
    """The config from ``--config``, or that of the run in ``--workdir``; and the run's folder.

    Raises:
      UsageError: Neither says which experiment, a mode that needs a trained run is given none, or a space to no sweep.
    """
    if flags.FLAGS["sweep"].present:
        raise UsageError(f"--sweep is for --mode=sweep, and not for --mode={mode}; give that, or leave --sweep out")
    path = config_flags.get_config_filename(flags.FLAGS["config"]) if flags.FLAGS["config"].present else None
    if config is None:
        if workdir is None:
            raise UsageError("which experiment? give --config=<name or file>, or --workdir=<folder of an earlier run>")
        config = configs.read_run_config(_folder(workdir))
    if workdir is None:
        if mode in ("eval", "predict", "explain"):
            raise UsageError(f"--mode={mode} needs --workdir=<folder of a trained run>")
        workdir = _new_workdir(path)
    return config, _folder(workdir)


def _folder(workdir: str) -> Path:
    if "://" in workdir:
        raise UsageError(
            f"--workdir={workdir} is an address, but runs need a folder, with its locks: give one of this machine, or "
            "of a file system that all machines see, and copy it when it is done"
        )
    if printable(workdir) != workdir:  # the library that writes the checkpoints cannot
        raise UsageError(f"--workdir={workdir}: give a folder whose name is UTF-8 and has no control characters")
    return user_path(workdir)


def sweep(config: ConfigDict | None, workdir: str | None, *, worker: bool) -> None:
    """Begins, continues or shows a sweep, or takes part in one as a worker, see :mod:`cnn_jax.sweep.command`."""
    from cnn_jax import experiments  # brings in jax, which flags must not
    from cnn_jax.sweep import command  # brings in Optuna

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


def _say(line: str, exit_code: int) -> int:
    if "--debug" in sys.argv:  # and not FLAGS, which may be what could not be parsed
        traceback.print_exc()
    say_error(Path(sys.argv[0]).name, line)
    return exit_code
