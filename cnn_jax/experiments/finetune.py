"""Transfer learning: features that were learned on one data set, compared with training from scratch on another.

For each number of examples and each seed there are two runs on the target: ``kept`` starts with the features learned
on the source and trains only the output layer, ``scratch`` trains all parameters. One figure shows their scores.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import models
from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.experiments import series
from cnn_jax.experiments.series import evaluate, explain, explore, predict  # noqa: F401  part of an experiment
from cnn_jax.report.figures import spreads
from cnn_jax.report.formatting import format_shares
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.runtime.command import command
from cnn_jax.runtime.files import write_json
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import Schema, with_keys
from cnn_jax.tasks import default_config as task_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks import schema as task_schema

Scores = dict[str, dict[int, list[float]]]
"""Way -> number of examples -> test accuracy for each seed."""

_SERIES_KEYS = ("source", "examples", "seeds")
_TITLES = {"kept": "features kept", "scratch": "from scratch"}


def default_config() -> ConfigDict:
    """Every key: those of classification, which describe the target, and what is different on the source."""
    source = {
        "name": "mnist",
        "train": "train",
        "validation": "",
        "test": "test",
        "classes": (),
        "batch_size": 128,
        "duration": "5 epochs",
        "evaluate_every": "1 epoch",
    }
    keys = {
        "experiment": "finetune",
        "source": source,
        "examples": (10, 100, 1000),  # of the target's training set
        "seeds": 3,
    }
    return with_keys(task_config("classification"), keys)


def schema(config: ConfigDict) -> Schema:
    """What a config may contain."""
    examples = task_schema("classification").examples
    return Schema(default_config(), {**examples, "source.classes": examples["data.classes"]})


def train(config: ConfigDict, directory: Path, *, profile: int = 0) -> None:
    """Trains the runs that are not finished, and writes ``result.json`` and ``report.html``."""
    if config.seeds < 1:
        raise UsageError(f"seeds={config.seeds} must be at least 1")
    started = time.perf_counter()
    with training.open_workdir(directory, config):
        source = series.finished(source_run(config), directory / "source")["scores"]["test/accuracy"]
        scores: Scores = {way: {count: [] for count in config.examples} for way in _TITLES}
        for count in config.examples:
            for number in range(config.seeds):
                for way, by_count in scores.items():
                    run = target_run(config, way, count=count, number=number, source=directory / "source")
                    result = series.finished(run, directory / f"{way}-{count}-{number}")
                    by_count[count].append(result["scores"]["test/accuracy"])
        write_json(directory / "result.json", {"source": source, "scores": scores})
        _write_report(config, directory, source, scores)
    say(f"\n{1 + 2 * len(config.examples) * config.seeds} runs in {time.perf_counter() - started:.1f} s")
    for count in config.examples:
        ways = ", ".join(f"{_TITLES[way]} {format_shares(found[count])}" for way, found in scores.items())
        say(f"{count:>8,} examples: {ways}")
    say(f"the runs are in {directory}; open {directory / 'report.html'}")


def summary(config: ConfigDict, **options: Any) -> None:
    """Prints the table of the network that is trained on the source."""
    runs.summary(source_run(config), **options)


def source_run(config: ConfigDict) -> ConfigDict:
    """The config of the run on the source, which learns the features."""
    source = config.source
    data = {f"data.{key}": source[key] for key in ("name", "train", "validation", "test", "classes")}
    rest = {key: source[key] for key in ("batch_size", "duration", "evaluate_every")}
    return series.variation(config, {**data, **rest}, without=_SERIES_KEYS)


def target_run(config: ConfigDict, way: str, *, count: int, number: int, source: Path) -> ConfigDict:
    """The config of a run on ``count`` examples of the target, which depend on ``number`` but not on ``way``."""
    changes: dict[str, Any] = {
        "seed": config.seed + number,
        "data.train_part": (number * count, (number + 1) * count),
        "batch_size": min(config.batch_size, count),
    }
    if way == "kept":
        changes |= {"model.weights": str(source), "freeze": _feature_layers(config)}
    return series.variation(config, changes, without=_SERIES_KEYS)


def _feature_layers(config: ConfigDict) -> tuple[str, ...]:
    """The names of all layers with parameters except the output layer."""
    model = nnx.eval_shape(
        lambda: models.create(
            config.model.name, input_shape=config.input_shape, rngs=nnx.Rngs(0), **config.model.options
        )
    )
    head = models.output_layer(model)
    paths = (path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)))
    return tuple(dict.fromkeys("/".join(map(str, path[:-1])) for path in paths if path[: len(head)] != head))


def _write_report(config: ConfigDict, directory: Path, source: float, scores: Scores) -> None:
    lines = {
        _TITLES[way]: {
            count: (statistics.fmean(row), statistics.stdev(row) if len(row) > 1 else 0.0)
            for count, row in by_count.items()
        }
        for way, by_count in scores.items()
    }
    few, many = config.examples[0], config.examples[-1]
    page = Page(
        title=f"Features of {_described(config.source)}, used for {_described(config.data)}",
        subtitle=f"{config.model.name}; {config.seeds} runs for each number of examples, each with other examples",
        headlines=[
            Headline(
                f"test accuracy, features kept, {count:,} examples",
                f"{lines[_TITLES['kept']][count][0]:.2%}",
                reference=f"{lines[_TITLES['scratch']][count][0]:.2%}",
                reference_source="from scratch",
            )
            for count in dict.fromkeys((few, many))
        ],
        sections=[
            Section(
                "Kept features against training from scratch",
                text="Both ways see the same examples. One trains the output layer alone, on features that it has from "
                f"the source, where the network reached {source:.2%}. The other trains every parameter.",
                figure=spreads(lines, x_label="training examples", y_label="test accuracy"),
                alt="Test accuracy over the number of training examples, with kept features and from scratch",
                caption="The band is one standard deviation over the runs.",
                table=Table(
                    ["examples", *(_TITLES[way] for way in scores)],
                    [[count, *(format_shares(scores[way][count]) for way in scores)] for count in config.examples],
                ),
            ),
            Section("Config", code=configs.to_json(config)),
            Section("How to reproduce", code=command(f"--workdir={directory}")),
        ],
        footer=f"Written by cnn_jax. Each run is in a folder of its own within {directory.name}.",
    )
    page.write(directory)


def _described(data: ConfigDict) -> str:
    return data.name + (f", classes {', '.join(map(str, data.classes))}" if data.classes else "")
