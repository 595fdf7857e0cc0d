"""``--mode=explain``: what a trained network responds to in images, as a page, pictures and arrays."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped
from ml_collections import ConfigDict

from cnn_jax import data
from cnn_jax.errors import UsageError, nearest
from cnn_jax.report.page import Page
from cnn_jax.runtime.files import check_output_folder, write_atomically
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks.captioning import Captioning
from cnn_jax.tasks.inputs import read_images, read_whole
from cnn_jax.tasks.labelled import Labelled
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.predictions import file_names, write_image
from cnn_jax.tasks.responses import (
    Explained,
    attribute,
    attribution_sections,
    default_methods,
    development,
    falsification,
    fantasies,
    hierarchy,
    methods_of,
)
from cnn_jax.tasks.saved import load_run, saved_steps
from cnn_jax.tasks.sets import ExampleSet, examples_of, load_splits, read_description, take
from cnn_jax.tasks.styles import styled

TEST_EXAMPLES = 8  # that are explained if the user names no images
SEARCHED = 2_000  # test examples, for the strongest crops


def write(
    config: ConfigDict,
    directory: Path,
    *,
    images: Sequence[str] = (),
    methods: Sequence[str] = (),
    style: str | None = None,
    target: str | None = None,
    output: str | None = None,
    checkpoint: str = "latest",
) -> None:
    """Writes ``explain.html``, ``figures/`` and ``explain.npz``: which parts of images a class or unit depends on.

    Args:
      config: Of the run.
      directory: The run's folder.
      images: The user's files, and folders of files; the first test examples by default.
      methods: Names in :data:`cnn_jax.attribution.METHODS`; by default saliency, guided backpropagation and Grad-CAM.
        Or ``'style'`` alone: the images in the style of another one.
      style: For the method ``'style'``: the file of the image whose style is taken.
      target: The name or number of a class; a unit as ``'activation/channel'``, at the position of each image where it
        responds most; by default the class that is predicted for each image.
      output: The folder to write to; by default ``explain`` in the run's folder.
      checkpoint: ``'latest'`` or ``'best'``.

    Raises:
      UsageError: An unknown method, class, activation or channel; images that cannot be read; a network without
        classes and no target.
    """
    folder = Path(output) if output is not None else directory / "explain"
    check_output_folder(folder, what="--output")
    network, state = load_run(config, directory, checkpoint=checkpoint)
    if (kind := examples_of(read_description(directory)).input_kind) != "image":
        raise UsageError(f"--mode=explain draws images, but {directory} was trained on {kind}s")
    if network.task.drawn_shape:
        raise UsageError(f"--mode=explain draws what a network is given, but that of {directory} is not given images")
    explained = Explained.of(network, state)
    which = ", ".join(
        filter(None, [str(directory), f"{checkpoint} checkpoint", f"step {int(state.step):,}", explained.which])
    )
    if "style" in methods or style is not None:
        _write_styles(explained, directory, folder, which, images, methods, style)
        return
    methods_of(explained, methods)  # refuses unknown ones before images are read
    test_set = None if images else load_splits(config, [config.data.test])[0]
    raw, names = _own_images(network, directory, images) if test_set is None else _examples(test_set)
    inputs = explained.inputs(network.framed(raw))
    chosen = _target(network, explained, inputs, target)
    chosen_methods = methods_of(explained, methods or default_methods(explained, chosen.activation))
    attributed = attribute(explained, inputs, chosen.value, chosen_methods)
    titles = [f"{name}: {what}" for name, what in zip(names, chosen.names, strict=True)]
    sections = [
        *attribution_sections(explained, inputs, attributed, titles=titles, title="Attributions", about=chosen.about),
        falsification(explained, inputs[:1], chosen.of_first_image, chosen_methods),
    ]
    if test_set is not None:
        searched = network.framed(_raw(test_set, min(SEARCHED, len(test_set))))
        sections += hierarchy(explained, searched)
        steps = saved_steps(directory) if config.get("keep_history", 0) else []
        if len(steps) > 1 and isinstance(network.task, Labelled):
            stages = {step: Explained.of(*load_run(config, directory, checkpoint=step)) for step in steps}
            sections += development(stages, searched)
    if isinstance(network.task, Labelled):
        sections += fantasies(explained)
    page = Page(
        title=f"What {config.model.name} responds to",
        subtitle=which,
        sections=sections,
        footer="Written by cnn_jax. The arrays behind the attributions are in explain.npz.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    page.write(folder, "explain.html")
    arrays = {"inputs": np.asarray(inputs), "titles": np.array(titles), **attributed.pictures}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # which takes the arrays for its own options
    write_atomically(folder / "explain.npz", buffer.getvalue())
    say(f"wrote {folder / 'explain.html'}, with its figures and explain.npz beside it")


def _write_styles(
    explained: Explained,
    directory: Path,
    folder: Path,
    which: str,
    images: Sequence[str],
    methods: Sequence[str],
    style: str | None,
) -> None:
    """Writes ``style.html`` and its figures: the user's images in the style of another one."""
    if style is None or not images or list(methods) != ["style"]:
        raise UsageError(
            "--methods=style, which no other method goes with, needs --images with the images to draw and --style with "
            "the image whose style they get, as in --methods=style --images=photo.png --style=painting.png"
        )
    description = read_description(directory)
    painting, reasons = read_whole([style], description)
    if reasons:
        raise UsageError(f"--style={style}: {reasons[style]}")
    contents, reasons = read_whole(list(map(str, data.find_images(images))), description)
    for path, reason in reasons.items():
        say(f"{path} is left out: {reason}")
    if not contents:
        raise UsageError("--images: none of them can be read")
    found = list(
        styled(
            explained,
            {path: image.pixels for path, image in contents.items()},
            (Path(style).name, painting[style].pixels),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in zip(file_names(contents).values(), found, strict=True):
        write_image(folder / f"{name}.png", one.pixels)
    page = Page(
        title="Images in the style of another",
        subtitle=which,
        sections=[one.section for one in found],
        footer="Written by cnn_jax. The images are beside this page.",
    )
    page.write(folder, "style.html")
    say(f"wrote {len(found)} image{'s' if len(found) > 1 else ''} to {folder}; open {folder / 'style.html'}")


@dataclasses.dataclass(frozen=True)
class _Target:
    """What is explained.

    Attributes:
      value: For the methods: arrays with one entry for each image, or a unit of such.
      about: What it is, one sentence.
      names: What it is for each image.
      activation: That of a unit; None for classes.
    """

    value: Any
    about: str
    names: Sequence[str]
    activation: str | None = None

    @property
    def of_first_image(self) -> Any:
        """The value for the first image alone."""
        if self.activation is None:
            return self.value[:1]
        name, position, channel = self.value
        return name, tuple(index[:1] for index in position), channel[:1]


def _target(network: TaskNetwork, explained: Explained, inputs: Array, text: str | None) -> _Target:
    """The target that a user names, or by default the predicted class of each image."""
    outputs, count = explained.outputs, len(inputs)
    if isinstance(network.task, Captioning) and (text is None or text in outputs or text.isdigit()):
        raise UsageError(
            "--mode=explain: a word has a score at each place of a caption and not one of an image; report.html shows "
            "where the network looks for each word; give --target a unit such as conv1/5"
        )
    if text is None:
        if not isinstance(network.task, Labelled):
            raise UsageError(
                f"--mode=explain: {network.config.experiment} has no classes, of which the predicted one could be "
                f"explained; give --target, one of {', '.join(outputs)}, or a unit such as c3/5"
            )
        classes = np.asarray(network.task.predict(explained.model(inputs))).argmax(axis=-1)
        about = "Explained is the score of the class that the network predicts for each image."
        return _Target(jnp.asarray(classes), about, [f"predicted {outputs[number]}" for number in classes])
    if text in outputs or (text.isdigit() and int(text) < len(outputs)):
        number = outputs.index(text) if text in outputs else int(text)
        return _Target(
            jnp.full(count, number), f"Explained is the output {outputs[number]}.", [outputs[number]] * count
        )
    name, _, channel = text.rpartition("/")
    _, activations = explained.model(inputs, return_activations=True)
    if not name or not channel.isdigit():
        known = [*outputs, *(f"{activation}/0" for activation in activations)]
        raise UsageError(f"--target={text} is neither a class nor a unit, activation/channel; {nearest(text, known)}")
    if name not in activations:
        raise UsageError(f"--target={text}: no activation is called {name!r}; {nearest(name, activations)}")
    maps = activations[name]
    if int(channel) >= maps.shape[-1]:
        raise UsageError(f"--target={text}: {name} has channels 0 to {maps.shape[-1] - 1}")
    space = maps.shape[1:-1]
    strongest = maps[..., int(channel)].reshape(count, -1).argmax(axis=1)
    positions = jnp.unravel_index(strongest, space) if space else ()
    places = (
        [f"{text} at {', '.join(map(str, place))}" for place in np.transpose(positions)] if space else [text] * count
    )
    about = f"Explained is the unit of {name}, channel {channel}, at the position where it responds most in each image."
    return _Target((name, tuple(positions), jnp.full(count, int(channel))), about, places, name)


def _examples(test_set: ExampleSet) -> tuple[Shaped[np.ndarray, "..."], list[str]]:
    """The first test images, and their names."""
    count = min(TEST_EXAMPLES, len(test_set))
    return _raw(test_set, count), [f"test image {number}" for number in range(count)]


def _own_images(network: TaskNetwork, directory: Path, paths: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The user's raw images, in what the network is given of them at once, and their names."""
    read_all = read_whole if network.task.spatial else read_images
    read, reasons = read_all(list(map(str, data.find_images(paths))), read_description(directory))
    for path, reason in reasons.items():
        say(f"{path} is left out: {reason}")
    if not read:
        raise UsageError("--images: none of them can be read")
    framed = [network.framed(image.pixels[None])[0] for image in read.values()]
    return np.stack(framed), [Path(path).name for path in read]


def _raw(found: ExampleSet, count: int) -> Shaped[np.ndarray, "..."]:
    """The first images of a set."""
    return take(found, range(count))[found.input_name]
