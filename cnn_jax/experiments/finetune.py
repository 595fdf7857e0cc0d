"""Transfer learning: features that were learned on a source, compared with training from scratch on a target.

The source may be another data set, or the same one for another task, such as an autoencoder that needs no labels. For
each number of examples and each seed there is one run on the target for each way: ``kept`` starts with the features
of the source and trains only the output layer, ``tuned`` starts with them and trains all parameters, and ``scratch``
starts with random ones. One figure shows the scores.
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
from cnn_jax.errors import UsageError, nearest
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
from cnn_jax.tasks import task_class

Scores = dict[str, dict[int, list[float]]]
"""Way -> number of examples -> test accuracy for each seed."""

_TITLES = {"kept": "features kept", "tuned": "features tuned", "scratch": "from scratch"}


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
        "changes": {},  # of other keys of the config, as nested groups, such as {"experiment": "autoencoder"}
    }
    keys = {
        "experiment": "finetune",
        "source": source,
        "examples": (10, 100, 1000),  # of the target's training set
        "seeds": 3,
        "ways": ("kept", "scratch"),  # also tuned: all parameters are trained, from the features of the source
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
    for way in config.ways:
        if way not in _TITLES:
            raise UsageError(f"ways: {way!r} is unknown; {nearest(way, _TITLES)}")
    started = time.perf_counter()
    with training.open_workdir(directory, config):
        own = source_run(config)
        metric = task_class(own.experiment).metrics(own)[0].of("test")
        source = series.finished(own, directory / "source")["scores"][metric.name]
        scores: Scores = {way: {count: [] for count in config.examples} for way in config.ways}
        for count in config.examples:
            for number in range(config.seeds):
                for way, by_count in scores.items():
                    run = target_run(config, way, count=count, number=number, source=directory / "source")
                    result = series.finished(run, directory / f"{way}-{count}-{number}")
                    by_count[count].append(result["scores"]["test/accuracy"])
        write_json(directory / "result.json", {"source": source, "scores": scores})
        _write_report(config, directory, f"{metric.name.replace('/', ' ')} {metric.format(source)}", scores)
    say(f"\n{1 + len(config.ways) * len(config.examples) * config.seeds} runs in {time.perf_counter() - started:.1f} s")
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
    return series.variation(config, {**data, **rest, **series.flattened(source.changes)})


def target_run(config: ConfigDict, way: str, *, count: int, number: int, source: Path) -> ConfigDict:
    """The config of a run on ``count`` examples of the target, which depend on ``number`` but not on ``way``."""
    changes: dict[str, Any] = {
        "seed": config.seed + number,
        "data.train_part": (number * count, (number + 1) * count),
        "batch_size": min(config.batch_size, count),
    }
    if way != "scratch":
        changes["model.weights"] = str(source)
    if way == "kept":
        changes["freeze"] = _feature_layers(config)
    return series.variation(config, changes)


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


def _write_report(config: ConfigDict, directory: Path, source: str, scores: Scores) -> None:
    lines = {
        _TITLES[way]: {
            count: (statistics.fmean(row), statistics.stdev(row) if len(row) > 1 else 0.0)
            for count, row in by_count.items()
        }
        for way, by_count in scores.items()
    }
    few, many = config.examples[0], config.examples[-1]
    first, last = _TITLES[config.ways[0]], _TITLES[config.ways[-1]]
    explained = {
        "kept": "trains the output layer alone, on the features of the source",
        "tuned": "trains every parameter, from the features of the source on",
        "scratch": "trains every parameter, from random ones on",
    }
    page = Page(
        title=f"Features of {_described(config.source)}, used for {_described(config.data)}",
        subtitle=f"{config.model.name}; {config.seeds} runs for each number of examples, each with other examples",
        headlines=[
            Headline(
                f"test accuracy, {first}, {count:,} examples",
                f"{lines[first][count][0]:.2%}",
                reference=f"{lines[last][count][0]:.2%}",
                reference_source=last,
            )
            for count in dict.fromkeys((few, many))
        ],
        sections=[
            Section(
                "Features of the source against training from scratch",
                text=f"All ways see the same examples. On the source the network reached {source}. "
                + " ".join(f"The way called {_TITLES[way]!r} {explained[way]}." for way in config.ways),
                figure=spreads(lines, x_label="training examples", y_label="test accuracy"),
                alt="Test accuracy over the number of training examples, for each way",
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
    experiment = data.get("changes", {}).get("experiment")
    classes = f", classes {', '.join(map(str, data.classes))}" if data.classes else ""
    return (f"{experiment} on " if experiment else "") + data.name + classes
