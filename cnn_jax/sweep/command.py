"""The modes ``launch.py --mode=sweep`` and ``--mode=sweep-worker``: builds a sweep from flags and runs it."""

import dataclasses
import fcntl
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import metric_of
from cnn_jax.runtime.files import why_not_writable
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import flatten
from cnn_jax.sweep import flags, notation, samplers, space
from cnn_jax.sweep.alone import one_line
from cnn_jax.sweep.cluster import RayWorkers, SlurmWorkers, require_runner, slurm_options
from cnn_jax.sweep.commands import continue_sweep
from cnn_jax.sweep.database import sweeps_in
from cnn_jax.sweep.driver import FINISHED, drive, show, write_results
from cnn_jax.sweep.local import LocalWorkers, Workers, default_workers
from cnn_jax.sweep.settings import FILE, Sweep, SweepPlace, read_sweep_file, without_password, write_sweep_file
from cnn_jax.sweep.store import Store
from cnn_jax.sweep.worker import work

_TRIALS = 50  # the default number of trials in an infinite space


def sweep(
    config: ConfigDict | None, file: str | None, directory: Path, experiment: Callable[[ConfigDict], ModuleType]
) -> None:
    """Starts the sweep of a config, continues the one in a folder, or shows it if it is finished.

    Args:
      config: The config that all trials share; None to continue a sweep.
      file: The config file. Its ``get_hyper`` gives the search space unless ``--sweep`` does.
      directory: The sweep's folder.
      experiment: Returns the module of a config's experiment.

    Raises:
      UsageError: Flags, space and config do not fit together; nothing has been started.
      Interrupted: The process received a signal; everything is saved.
    """
    require_runner(flags.RUNNER.value)
    storage = flags.STORAGE.value or ""
    if config is None or (directory / FILE).exists():
        place, known = read_sweep_file(directory, storage=storage)
        _check_same(known, _as_flagged(known) if config is None else _described(config, file, experiment), directory)
        store = Store(place, known)
        wanted = _points(known.config, known.space, known.sampler) if flags.TRIALS.value else 0
        if wanted > store.sweep.points:
            store.extend(wanted)
            write_sweep_file(place, store.sweep)
    else:
        store = _begin(SweepPlace(directory, storage), _described(config, file, experiment))
    rows = store.rows()
    if sum(row.state in FINISHED for row in rows) < store.sweep.trials:
        say(f"{store.sweep.trials} trials, sampler {store.sweep.sampler}; to continue: {continue_sweep(directory)}")
        rows = drive(store, _workers(store))
    else:
        write_results(store.sweep, directory, rows)
    show(store.sweep, directory, rows)


def sweep_worker(directory: Path | None) -> None:
    """Runs trials of a sweep that was started elsewhere, until the sweep is finished.

    Args:
      directory: The sweep's folder; not needed if ``--storage`` names a database with a single sweep.

    Raises:
      UsageError: There is no such sweep, or this machine cannot access its folder.
    """
    storage = flags.STORAGE.value
    if storage:
        known = sweeps_in(storage)
        places = [place for place in known if directory is None or place.directory == directory.absolute()]
        if len(places) != 1:
            listed = ", ".join(shlex.quote(f"--workdir={place.directory}") for place in known) or "none"
            raise UsageError(f"{without_password(storage)} holds {len(known)} sweeps, choose one: {listed}")
        place = places[0]
    elif directory is not None:
        place, _ = read_sweep_file(directory)
    else:
        raise UsageError("--mode=sweep-worker needs --storage=<URL of the sweep's database>, or --workdir=<its folder>")
    if not place.directory.is_dir():
        raise UsageError(
            f"the sweep's folder {place.directory} does not exist on this machine; workers need the same file system"
        )
    store = Store(place)
    say(f"working on {place.directory}")
    if flags.RUNNER.value == "vectorized":
        finished = work(store, kind="vectorized", batch=flags.BATCH.value)
    else:
        finished = work(store)
    say(f"finished {finished} trials")


def _begin(place: SweepPlace, described: Sweep) -> Store:
    """Creates a sweep. If two processes create one in the same folder, the second joins the sweep of the first."""
    if place.storage:
        sweeps_in(place.storage)  # raises an error before anything is written
    if reason := why_not_writable(place.directory):
        raise UsageError(f"--workdir={place.directory} cannot be written ({reason}); choose another --workdir")
    try:
        place.directory.mkdir(parents=True, exist_ok=True)
        lock = open(place.directory / ".lock", "a")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"--workdir={place.directory} cannot be written ({error.strerror})") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (place.directory / "config.json").exists():
            raise UsageError(f"--workdir={place.directory} holds a run that is no sweep; choose another --workdir")
        store = Store(place, described)
        _check_same(store.sweep, described, place.directory)
        if not (place.directory / FILE).exists():
            write_sweep_file(place, store.sweep)
    return store


def _described(config: ConfigDict, file: str | None, experiment: Callable[[ConfigDict], ModuleType]) -> Sweep:
    """The sweep that the flags describe."""
    module = experiment(config)
    schema = module.schema(config)
    schema.check(config, complete=True)
    part = _space(file, config)
    space.check(part, config, schema)
    sampler = flags.SAMPLER.value or ("grid" if space.is_finite(part) else "sobol")
    samplers.check(sampler, flags.PRUNER.value)
    slurm_options(flags.SLURM.value)
    score = flags.METRIC.value or module.monitor(config)
    metric = metric_of(score, module.metrics(config), what=f"--metric={score}")
    swept = {name for leaf, _ in space.leaves(part) if not isinstance(leaf, space.When) for name in space.names(leaf)}
    if not swept and flags.SEEDS.value == 1:
        raise UsageError("--mode=sweep: nothing is swept over; name a key in get_hyper(hyper), or give --seeds=5")
    if flags.SEEDS.value > 1 and "seed" in swept:
        raise UsageError(f"--seeds={flags.SEEDS.value} and a sweep over seed exclude each other; leave one out")
    workers = flags.BATCH.value if flags.RUNNER.value == "vectorized" else flags.WORKERS.value or default_workers()
    return Sweep(
        config=config,
        space=part,
        train=f"{module.__name__}:train",
        metric=metric,
        points=_points(config, part, sampler),
        sampler=sampler,
        pruner=flags.PRUNER.value,
        seeds=flags.SEEDS.value,
        ahead=flags.AHEAD.value
        or (workers if flags.RUNNER.value == "vectorized" else 1 if workers == 1 else 2 * workers),
        reports=flags.REPORTS.value,
    )


def _points(config: ConfigDict, part: space.Part, sampler: str) -> int:
    """The number of points; for a grid at most the size of the grid."""
    if sampler != "grid":
        return flags.TRIALS.value or _TRIALS
    points = len(space.grid(part, flatten(config)))
    return min(points, flags.TRIALS.value or points)


def _as_flagged(known: Sweep) -> Sweep:
    """A sweep that is continued, with the settings in this command's flags."""
    named = {"sampler": flags.SAMPLER, "pruner": flags.PRUNER, "seeds": flags.SEEDS, "metric": flags.METRIC}
    given: dict[str, Any] = {name: flag.value for name, flag in named.items() if flag.present}
    if "metric" in given:
        given["metric"] = dataclasses.replace(known.metric, name=given["metric"])
    if flags.SWEEP.value is not None:
        given["space"] = notation.parse(flags.SWEEP.value, flatten(known.config))
    return dataclasses.replace(known, **given)


def _space(file: str | None, config: ConfigDict) -> space.Part:
    if flags.SWEEP.value is not None:
        return notation.parse(flags.SWEEP.value, flatten(config))
    path = (file or "").partition(":")[0]
    try:
        get_hyper = runpy.run_path(path).get("get_hyper") if Path(path).is_file() else None
        part = get_hyper(space) if get_hyper else None
    except UsageError:
        raise
    except Exception as error:
        if isinstance(error, AttributeError) and error.obj is space:
            raise UsageError(
                f"--config={file}: there is no hyper.{error.name}; {nearest(str(error.name), space.FUNCTIONS)}"
            ) from error
        raise UsageError(f"--config={file}: get_hyper(hyper) raised {one_line(error)}") from error
    if part is None:
        raise UsageError(
            f"--mode=sweep: no search space; give --sweep='key=values; ...' ({notation.HELP}), "
            f"or {path} a function get_hyper(hyper)"
        )
    if isinstance(part, list | tuple):
        part = space.sweep(part) if all(isinstance(row, dict) for row in part) else space.product(part)
    if not isinstance(part, space.Part):
        raise UsageError(f"--config={file}: get_hyper(hyper) returned {part!r}, and no hyper.product(...) or the like")
    return part


def _check_same(known: Sweep, described: Sweep, directory: Path) -> None:
    """Rejects flags that would change the sweep in the folder. The numbers of trials and workers may change."""
    same = dataclasses.replace(described, points=known.points, ahead=known.ahead, reports=known.reports).to_json()
    before = known.to_json()
    differing = configs.differences(known.config, described.config)
    differing += [
        f"{key}: {before[key]!r} -> {same[key]!r}"
        for key in before
        if key not in ("config", "space", "metric") and before[key] != same[key]
    ]
    if known.metric != described.metric:
        differing.append(f"metric: {known.metric} -> {described.metric}")
    if space.from_json(before["space"]) != described.space:
        differing.append("another search space")
    if differing:
        raise UsageError(
            f"--workdir={directory} holds another sweep ({'; '.join(differing)}); choose another --workdir, or "
            f"continue it: {continue_sweep(directory)}"
        )


def _workers(store: Store) -> Workers:
    count = flags.WORKERS.value or default_workers()
    match flags.RUNNER.value:
        case "vectorized":
            from cnn_jax.sweep.vectorized import reason_against  # imports jax

            reason = reason_against(store.sweep)
            if not reason:
                if store.sweep.pruner == "hyperband":
                    say(
                        "--pruner=hyperband prunes nothing before a trial is complete, and these end together; "
                        "use --pruner=halving"
                    )
                return LocalWorkers(store.place, 1, kind="vectorized", batch=flags.BATCH.value)
            say(f"--runner=vectorized has no advantage here ({reason}); using --runner=local")
        case "ray":
            address = flags.RAY_ADDRESS.value
            return RayWorkers(store.place, count, address=address, cpus=flags.CPUS.value, gpus=flags.GPUS.value)
        case "slurm":
            cpus, gpus = round(flags.CPUS.value), round(flags.GPUS.value)
            return SlurmWorkers(store.place, count, cpus=cpus, gpus=gpus, options=slurm_options(flags.SLURM.value))
    return LocalWorkers(store.place, count)
