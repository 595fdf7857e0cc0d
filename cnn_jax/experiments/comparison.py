"""Comparison: several networks for one task on one split of a data set, each with several seeds, in one table.

The task is any of :data:`cnn_jax.tasks.TASKS`. The columns of the table are its metrics on the test set. For a
segmentation the report also shows test images as each network sees them.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data, geometry
from cnn_jax import train as training
from cnn_jax.errors import UsageError, nearest
from cnn_jax.experiments import series
from cnn_jax.experiments.series import evaluate, explain, explore, predict  # noqa: F401  part of an experiment
from cnn_jax.metrics import Metric
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.runtime.command import command_name
from cnn_jax.runtime.files import write_json
from cnn_jax.runtime.objects import is_reference
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import Schema, with_keys
from cnn_jax.tasks import TASKS, Segmentation, task_class
from cnn_jax.tasks import default_config as task_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks import schema as task_schema
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import load_splits

Scores = dict[str, list[float]]
"""Name of a metric -> its value on the test set for each seed."""


def default_config(task: str = "classification") -> ConfigDict:
    """Every key: those of the task, shared by all networks, and what is different for each.

    Args:
      task: One of :data:`cnn_jax.tasks.TASKS`.
    """
    keys = {
        "experiment": "comparison",
        "task": task,
        "networks": {},  # title -> changes to the config, keys with dots written as nested groups
        "seeds": 3,  # runs of each network, with the config's seed and the next ones
        "shown": 3,  # test images of a segmentation in the report, spread evenly over the test set
    }
    return with_keys(task_config(task), keys)


def schema(config: ConfigDict) -> Schema:
    """What a config may contain."""
    task = config.get("task", "classification")
    if not isinstance(task, str) or (task not in TASKS and not is_reference(task)):
        raise UsageError(f"config.task={task!r} is unknown; {nearest(str(task), TASKS)}")
    return Schema(default_config(task), task_schema(task).examples)


def train(config: ConfigDict, directory: Path, *, profile: int = 0) -> None:
    """Trains the runs that are not finished, and writes ``result.json`` and ``report.html``."""
    if not config.networks or config.seeds < 1:
        raise UsageError(f"networks must not be empty and seeds={config.seeds} must be at least 1")
    started = time.perf_counter()
    with training.open_workdir(directory, config):
        results: dict[str, dict[str, Any]] = {}
        for title in config.networks:
            own = network_runs(config, title)
            folders = [_folder(directory, title, run) for run in own]
            found = [series.finished(*pair)["scores"] for pair in zip(own, folders, strict=True)]
            scores = {metric.name: [each[f"test/{metric.name}"] for each in found] for metric in _metrics(config)}
            parameters = geometry.parameter_count(runs.untrained(own[0]).abstract_model)
            results[title] = {"parameters": parameters, "scores": scores}
        first = _metrics(config)[0]
        results = dict(sorted(results.items(), key=lambda item: first.utility(_mean(item[1], first))))
        write_json(directory / "result.json", {"results": results})
        _write_report(config, directory, results)
    for row in _rows(config, results):
        say("  ".join(row))
    say(f"in {time.perf_counter() - started:.1f} s; the runs are in {directory}; open {directory / 'report.html'}")


def summary(config: ConfigDict, *, output: str | None = None) -> None:
    """Prints the tables of the networks, and writes each to its own file: ``x-SegNet.csv`` for ``x.csv``."""
    for title in config.networks:
        own = output and str(Path(output).with_stem(f"{Path(output).stem}-{series.file_name(title)}"))
        runs.summary(network_runs(config, title)[0], output=own)


def network_runs(config: ConfigDict, title: str) -> list[ConfigDict]:
    """The runs of one network, one for each seed."""
    changes = {"experiment": config.task, **series.flattened(config.networks[title])}
    seeds = range(config.seed, config.seed + config.seeds)
    return [series.variation(config, {**changes, "seed": seed}) for seed in seeds]


def _folder(directory: Path, title: str, run: ConfigDict) -> Path:
    return directory / f"{series.file_name(title)}-{run.seed}"


def _metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """The metrics of the task, without the loss, which may be another one for each network."""
    return tuple(metric for metric in task_class(config.task).metrics(config) if metric.name != "loss")


def _rows(config: ConfigDict, results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Title, parameters and scores of each network, the best one last."""
    metrics = _metrics(config)
    return [
        [title, f"{result['parameters']:,}", *(_spread(metric, result["scores"][metric.name]) for metric in metrics)]
        for title, result in results.items()
    ]


def _mean(result: dict[str, Any], metric: Metric) -> float:
    return statistics.fmean(result["scores"][metric.name])


def _spread(metric: Metric, values: list[float]) -> str:
    """The mean of a metric over the seeds, with the standard deviation if there are several."""
    mean = statistics.fmean(values)
    return metric.format_spread(mean, statistics.stdev(values)) if len(values) > 1 else metric.format(mean)


def _write_report(config: ConfigDict, directory: Path, results: dict[str, dict[str, Any]]) -> None:
    metrics = _metrics(config)
    best = list(results)[-1]
    names = [metric.name.replace("_", " ") for metric in metrics]
    seeds = f"{config.seeds} seeds" if config.seeds > 1 else "one seed"
    page = Page(
        title=f"{len(results)} networks on {config.data.name.rpartition('.py:')[2]}",  # of a function its name
        subtitle=f"{config.task}; {seeds} for each network; mean ± standard deviation where there are several",
        headlines=[Headline(f"test {names[0]} of {best}", metrics[0].format(_mean(results[best], metrics[0])))],
        sections=[
            Section(
                "Test scores",
                table=Table(["network", "parameters", *(f"test {name}" for name in names)], _rows(config, results)),
            ),
            *_pictures(config, directory, list(results)),
            Section("Config", code=configs.to_json(config)),
            Section("How to reproduce", code=f"{command_name()} --workdir={directory}"),
        ],
        footer=f"Written by cnn_jax. Each run is in a folder of its own within {directory.name}.",
    )
    page.write(directory)


def _pictures(config: ConfigDict, directory: Path, titles: list[str]) -> list[Section]:
    """Test images of a segmentation beside the truth and what the first run of each network predicts."""
    if not issubclass(task_class(config.task), Segmentation) or config.shown < 1:
        return []
    (test_set,) = load_splits(config, [config.data.test])
    some = data.sample(data.as_records(test_set), most=config.shown)
    if some.inputs.ndim != 4:  # volumes and signals are shown by the reports of their runs
        return []
    loaded = {
        title: load_run(run, _folder(directory, title, run))
        for title, run in ((title, network_runs(config, title)[0]) for title in titles)
    }
    predictions = {title: network.predict(state, some.inputs) for title, (network, state) in loaded.items()}
    task = next(iter(loaded.values()))[0].task
    assert isinstance(task, Segmentation)
    truth, sections = task.truth(some), []
    for number, (image, true) in enumerate(zip(some.inputs, truth, strict=True)):
        rows = {title: predicted[number] for title, predicted in predictions.items()}
        scores = [task.image_scores(true[None], row[None])[0]["iou"] for row in rows.values()]
        sections.append(
            Section(
                f"Test images, {number + 1} of {len(some)}",
                figure=figures.segmentations(
                    [image] * len(rows),
                    [true] * len(rows),
                    list(rows.values()),
                    task.outputs,
                    titles=[f"{title}: IoU {score:.1%}" for title, score in zip(rows, scores, strict=True)],
                    ignored=task.ignored,
                ),
                alt="A test image beside its true classes, the classes that each network predicts, and the errors",
                caption=f"One row for each network, with seed {config.seed}.",
            )
        )
    return sections
