"""Invariances: how predictions change when images are shifted, turned, scaled, lit differently or partly covered.

The networks are trained, or taken from finished runs: any run of a classification may be named by its folder. Each
test image has a direction, a sign and a place of its own, which are the same at all strengths and for all networks. Two
numbers are measured for each change and strength: the accuracy, and the agreement, which is the share of images with
the same predicted class as the unchanged image, right or wrong.

References:
  Lecture 000, "Invariances".
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data
from cnn_jax import train as training
from cnn_jax.data.augment.movement import PLANE, Warped
from cnn_jax.errors import UsageError
from cnn_jax.experiments import series
from cnn_jax.experiments.series import evaluate, explain, predict  # noqa: F401  part of an experiment
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.runtime.command import command
from cnn_jax.runtime.files import user_path, write_json
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import Schema, with_keys
from cnn_jax.tasks import default_config as task_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks import schema as task_schema
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import load_splits

_AT_ONCE = 500
_STEPS_SHOWN = 8  # strengths in a row of images

Images = Float[Array, "batch height width channels"]


class Draws(NamedTuple):
    """What is each image's own, the same at all strengths: numbers from 0 to 1, (batch,)."""

    direction: Float[Array, " batch"]
    row: Float[Array, " batch"]
    column: Float[Array, " batch"]


class Measured(NamedTuple):
    """Of a network under a change of one strength, as shares of the test images."""

    accuracy: float
    agreement: float


Curves = dict[str, dict[float, Measured]]
"""Change -> strength -> what was measured."""


def shifted(images: Images, strength: Float[Array, ""], draws: Draws) -> Images:
    """Images moved in their directions by a share of their sides."""
    height, width = images.shape[1:3]
    turn = 2 * jnp.pi * draws.direction
    down, right = (strength * f(turn)[:, None, None] * size for f, size in ((jnp.sin, height), (jnp.cos, width)))
    rows, columns = jnp.mgrid[:height, :width].astype(jnp.float32)
    return _warped(images, rows - down, columns - right)


def rotated(images: Images, strength: Float[Array, ""], draws: Draws) -> Images:
    """Images turned about their centres by an angle in degrees, one half of them in each sense."""
    turn = jnp.deg2rad(strength) * jnp.where(draws.direction < 0.5, 1, -1)[:, None, None]
    rows, columns, (top, left) = _from_centre(images)
    cosine, sine = jnp.cos(turn), jnp.sin(turn)
    return _warped(images, cosine * rows - sine * columns + top, sine * rows + cosine * columns + left)


def scaled(images: Images, strength: Float[Array, ""], draws: Draws) -> Images:
    """Images enlarged about their centres by a factor."""
    rows, columns, (top, left) = _from_centre(images)
    return _warped(images, rows / strength + top, columns / strength + left)


def lit(images: Images, strength: Float[Array, ""], draws: Draws) -> Images:
    """Images multiplied by a factor; what becomes brighter than white is white."""
    return jnp.clip(images * strength, 0, 1)


def covered(images: Images, strength: Float[Array, ""], draws: Draws) -> Images:
    """Images with a grey rectangle somewhere, whose sides are a share of theirs."""
    inside = jnp.ones(images.shape[:3], bool)
    for axis, place in ((1, draws.row), (2, draws.column)):
        size = images.shape[axis]
        begin = place * (1 - strength) * size
        positions = jnp.arange(size) + 0.5
        within = (positions >= begin[:, None]) & (positions < (begin + strength * size)[:, None])
        inside = inside & jnp.expand_dims(within, 3 - axis)
    return jnp.where(inside[..., None], 0.5, images)


class Change(NamedTuple):
    """A change of images, and what its strength is."""

    apply: Callable[[Images, Float[Array, ""], Draws], Images]
    unit: str
    none: float
    """The strength at which nothing changes."""


CHANGES = {
    "shift": Change(shifted, "share of the side", 0.0),
    "rotation": Change(rotated, "degrees", 0.0),
    "scale": Change(scaled, "factor", 1.0),
    "brightness": Change(lit, "factor", 1.0),
    "occlusion": Change(covered, "share of the side", 0.0),
}
"""Name in ``config.changes`` -> change."""


def default_config() -> ConfigDict:
    """Every key: those of classification, shared by all networks, and those of the measurement."""
    keys = {
        "experiment": "invariance",
        "run": "",  # the folder of a finished run that is measured; empty: networks are trained here
        "networks": {},  # title -> changes to the config, as nested groups; empty: one network, that of this config
        "changes": {  # name -> strengths; () leaves it out
            "shift": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25),
            "rotation": (0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0),
            "scale": (0.5, 0.7, 0.85, 1.0, 1.2, 1.5),
            "brightness": (0.2, 0.4, 0.7, 1.0, 1.4, 2.0),
            "occlusion": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        },
        "measured": 2000,  # test images
        "shown": 1,  # of them as rows of images for each change
    }
    return with_keys(task_config("classification"), keys)


def schema(config: ConfigDict) -> Schema:
    """What a config may contain."""
    return Schema(default_config(), task_schema("classification").examples)


def train(config: ConfigDict, directory: Path, *, profile: int = 0) -> None:
    """Trains the networks that are not finished, measures them, and writes ``result.json`` and ``report.html``."""
    for key in ("measured", "shown"):
        if config[key] < 1:
            raise UsageError(f"{key}={config[key]} must be at least 1")
    chosen = {name: strengths for name, strengths in config.changes.items() if strengths}
    if not chosen:
        raise UsageError("changes has no strengths; give some, such as --config.changes.rotation=0,15,30")
    started = time.perf_counter()
    with training.open_workdir(directory, config):
        measured: dict[str, Curves] = {}
        rows: dict[str, list[np.ndarray]] = {}
        for title, (own, folder) in _runs(config, directory).items():
            network, state = load_run(own, folder)
            test_set = _test_set(own, config.measured)
            measured[title] = measure(network, state, test_set, chosen)
            if not rows:
                rows = _example_rows(network, state, test_set, chosen, config.shown)
        as_json = {
            title: {
                name: {str(strength): pair._asdict() for strength, pair in curve.items()} for name, curve in own.items()
            }
            for title, own in measured.items()
        }
        write_json(directory / "result.json", as_json)
        _write_report(config, directory, measured, rows)
    for title, curves in measured.items():
        means = ", ".join(f"{name} {_mean(curve).accuracy:.1%}" for name, curve in curves.items())
        say(f"{title}: mean accuracy over the strengths: {means}")
    say(f"in {time.perf_counter() - started:.1f} s; open {directory / 'report.html'}")


def summary(config: ConfigDict, **options: Any) -> None:
    """Prints the table of the network of the config."""
    runs.summary(series.variation(config, {}), **options)


def measure(
    network: TaskNetwork,
    state: training.TrainState,
    test_set: data.Dataset,
    changes: Mapping[str, tuple[float, ...]],
) -> Curves:
    """Accuracy and agreement under each change at each strength.

    Args:
      network: A trained network of a classification.
      state: Its parameters.
      test_set: The images and their labels.
      changes: Name in :data:`CHANGES` -> strengths.
    """
    classes = _classes(network, state, test_set.images)
    before = classes("shift", 0.0)
    return {
        name: {
            strength: Measured(float(np.mean(found == test_set.labels)), float(np.mean(found == before)))
            for strength in strengths
            for found in [classes(name, strength)]
        }
        for name, strengths in changes.items()
    }


def _classes(
    network: TaskNetwork, state: training.TrainState, images: Shaped[np.ndarray, "n height width channels"]
) -> Callable[[str, float], Int[np.ndarray, " n"]]:
    """A function of the name of a change and its strength: the predicted class of each image."""
    draws = draw(len(images))

    @functools.partial(jax.jit, static_argnames="name")
    def predicted(name: str, strength: Array, images: Images, draws: Draws) -> Array:
        changed = CHANGES[name].apply(images, strength, draws)
        return network.task.predict(network.outputs(state, changed)).argmax(axis=-1)

    def classes(name: str, strength: float) -> Int[np.ndarray, " n"]:
        found = []
        for first in range(0, len(images), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            own = jax.tree.map(lambda numbers, part=part: numbers[part], draws)
            found.append(np.asarray(predicted(name, jnp.float32(strength), _as_floats(images[part]), own)))
        return np.concatenate(found)

    return classes


def draw(count: int) -> Draws:
    """The same numbers for the same count."""
    generator = np.random.default_rng(0)
    return Draws(*(jnp.asarray(generator.uniform(size=count), jnp.float32) for _ in Draws._fields))


def _runs(config: ConfigDict, directory: Path) -> dict[str, tuple[ConfigDict, Path]]:
    """Title -> config and folder of a finished run; what is not finished is trained first."""
    if config.run:
        folder = user_path(config.run)
        own = configs.read_run_config(folder)
        if own.experiment != "classification":
            raise UsageError(f"run={config.run} is a run of {own.experiment}; name one of a classification")
        return {own.model.name: (own, folder)}
    found = {}
    for title in config.networks or {config.model.name: {}}:
        changes = series.flattened(config.networks.get(title, ConfigDict()))
        own = series.variation(config, changes)
        folder = directory / series.file_name(title)
        series.finished(own, folder)
        found[title] = own, folder
    return found


def _test_set(config: ConfigDict, count: int) -> data.Dataset:
    (test_set,) = load_splits(config, [config.data.test])
    found = data.sample(test_set)
    if found.input_kind != "image":
        raise UsageError(f"invariances are measured of images, but data set {found.name!r} has {found.input_kind}s")
    return found.part(0, min(count, len(found)))


def _as_floats(images: Shaped[np.ndarray, "..."]) -> Array:
    """Stored images as augmentations take them, from 0 to 1."""
    return jnp.asarray(images / np.float32(255) if images.dtype == np.uint8 else images, jnp.float32)


def _from_centre(images: Images) -> tuple[Array, Array, tuple[float, float]]:
    """Rows and columns counted from the centre, (1, height, width), and the centre."""
    height, width = images.shape[1:3]
    top, left = (height - 1) / 2, (width - 1) / 2
    rows, columns = jnp.mgrid[:height, :width].astype(jnp.float32)
    return rows[None] - top, columns[None] - left, (top, left)


def _warped(images: Images, rows: Array, columns: Array) -> Images:
    """Images whose pixels come from other rows and columns; outside they are black."""
    places = jnp.stack(jnp.broadcast_arrays(rows, columns), axis=1)
    return Warped(jnp.broadcast_to(places, (len(images), *places.shape[1:])), {}, "zero").pixels(images, PLANE)


def _example_rows(
    network: TaskNetwork,
    state: training.TrainState,
    test_set: data.Dataset,
    changes: Mapping[str, tuple[float, ...]],
    count: int,
) -> dict[str, list[np.ndarray]]:
    """Title -> one test image under each strength of a change, those first that are right without it."""
    classes = _classes(network, state, test_set.images)
    right = np.flatnonzero(classes("shift", 0.0) == test_set.labels)[:count]
    chosen = right if len(right) else np.arange(min(count, len(test_set)))
    draws = jax.tree.map(lambda numbers: numbers[chosen], draw(len(test_set)))
    rows = {}
    for name, strengths in changes.items():
        strengths = strengths[:_STEPS_SHOWN]
        images = [
            CHANGES[name].apply(_as_floats(test_set.images[chosen]), jnp.float32(strength), draws)
            for strength in strengths
        ]
        predicted = [classes(name, strength)[chosen] for strength in strengths]
        for place, number in enumerate(chosen):
            names = [network.task.outputs[found[place]] for found in predicted]
            steps = ", ".join(f"{strength:g}: {seen}" for strength, seen in zip(strengths, names, strict=True))
            rows[f"{name} of test image {number}; {steps}"] = [np.asarray(image[place]) for image in images]
    return rows


def _mean(curve: Mapping[float, Measured]) -> Measured:
    return Measured(*np.mean([*curve.values()], axis=0).tolist())


def _write_report(
    config: ConfigDict, directory: Path, measured: Mapping[str, Curves], rows: Mapping[str, list[np.ndarray]]
) -> None:
    first = next(iter(measured.values()))
    panels = {
        f"{name}, {CHANGES[name].unit}": {
            title: {strength: tuple(pair) for strength, pair in curves[name].items()}
            for title, curves in measured.items()
        }
        for name in first
    }
    table = [
        [title, *(f"{_mean(curve).accuracy:.1%}, {_mean(curve).agreement:.1%}" for curve in curves.values())]
        for title, curves in measured.items()
    ]
    each = [
        [
            name,
            f"{strength:g}",
            *(
                f"{curves[name][strength].accuracy:.2%}, {curves[name][strength].agreement:.2%}"
                for curves in measured.values()
            ),
        ]
        for name, curve in first.items()
        for strength in curve
    ]
    page = Page(
        title=f"Invariances on {config.run or config.data.name}",
        subtitle=f"{', '.join(measured)}; up to {config.measured:,} test images",
        headlines=[
            Headline(f"mean accuracy under {name}", f"{_mean(curve).accuracy:.1%}", note=next(iter(measured)))
            for name, curve in first.items()
        ],
        sections=[
            Section(
                "Curves",
                text="The accuracy counts the right classes. The agreement counts the images with the class that is "
                "predicted without the change, right or wrong. The table has the means of both over the strengths.",
                figure=figures.panels_of_lines(panels, y_labels=("accuracy", "agreement")),
                alt="Accuracy and agreement over the strength of each change",
                caption="Solid: accuracy. Dashed: agreement. Each image has its own direction, sense and place, the "
                "same at all strengths.",
                table=Table(["network", *first], table),
            ),
            Section(
                "Examples",
                text=f"What {next(iter(measured))} predicts at each strength.",
                figure=figures.rows_of_images(rows),
                alt="Test images under increasing strengths of each change",
                caption="From left to right in the order of the strengths above each row.",
            ),
            Section(
                "Each strength",
                text="Accuracy and agreement.",
                table=Table(["change", "strength", *measured], each),
            ),
            Section("Config", code=configs.to_json(config)),
            Section("How to reproduce", code=command(f"--workdir={directory}")),
        ],
        footer=f"Written by cnn_jax. Networks that were trained here are in folders within {directory.name}.",
    )
    page.write(directory)
