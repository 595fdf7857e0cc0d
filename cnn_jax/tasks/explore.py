"""``--mode=explore``: a trained network on a page that computes it in the browser."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from cnn_jax import explorer, nn
from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.explorer.layers import Record
from cnn_jax.models.autoencoder import LATENT
from cnn_jax.runtime.files import check_output
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks.autoencoder import Autoencoder
from cnn_jax.tasks.autoencoder_report import codes as encoded
from cnn_jax.tasks.classification import Classification
from cnn_jax.tasks.multi_label import MultiLabel
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.responses import Explained, default_methods, methods_of
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.segmentation import Segmentation
from cnn_jax.tasks.sets import ExampleSet, examples_of, load_splits, read_description, take

EXAMPLES = 12  # test images on the page
SEARCHED = 500  # test images, to have one of each class
MOST_VALUES = 50_000_000  # of all activations of all test images on the page; of a large network there are fewer images
FULL_PRECISION = 150_000  # weights; kernels of larger networks are rounded to float16


def show(
    config: ConfigDict,
    directory: Path,
    *,
    output: str | None,
    checkpoint: str = "latest",
    host: str = explorer.LOOPBACK,
    open_browser: bool = False,
) -> None:
    """Writes one self-contained page with the network of a run, or serves it live; see :mod:`cnn_jax.explorer`.

    Args:
      config: Of the run.
      directory: The run's folder.
      output: The ``.html`` file to write. Without one, a server computes with the network until it is interrupted.
      checkpoint: ``'latest'`` or ``'best'``.
      host: The address that the server listens on.
      open_browser: Whether to open the live page.

    Raises:
      UsageError: The file cannot be written, the packages of the server are missing, the run does not learn from
        images, or the page cannot compute a layer.
    """
    if output is not None:
        check_output(output, [".html"], what="--output")
    else:
        explorer.require_server()
    if (kind := examples_of(read_description(directory)).input_kind) != "image":
        raise UsageError(f"--mode=explore shows images, but {directory} was trained on {kind}s")
    exact = config.copy_and_resolve_references()
    exact.dtype = "float32"  # which the page computes in
    network, state = load_run(exact, directory, checkpoint=checkpoint)
    if network.task.drawn_shape:
        raise UsageError(f"--mode=explore draws what a network is given, but that of {directory} is not given images")
    state = network.first(state)
    model = network.model(state.params, state.model_state)
    model.eval()
    description = read_description(directory)
    which = f"network 1 of {config.ensemble}, " if config.ensemble > 1 else ""
    words = f"{directory.name}, {checkpoint} checkpoint, {which}step {int(state.step):,}"
    test_set = load_splits(config, [config.data.test])[0]
    images, titles = _examples(test_set, network)
    page = explored(
        network,
        model,
        images,
        titles,
        title=f"{config.model.name}, layer by layer",
        subtitle=words,
        ink_extent=description["ink_extent"],
        framing=description["framing"],
        rounded=output is not None,
        codes=_codes(test_set, network, Explained.of(network, state)),
    )
    if output is None:
        from cnn_jax.explorer.server import serve  # whose packages are optional

        serve(live(network, state, model, page), host=host, open_browser=open_browser)
        return
    explorer.write(Path(output), page)
    size = Path(output).stat().st_size
    say(f"wrote {output}, {size / 1000:,.0f} kB; it opens in any browser, without a network")


def explored(
    network: TaskNetwork,
    model: nn.Sequence,
    images: Shaped[np.ndarray, "n height width channels"],
    titles: list[str],
    *,
    title: str,
    subtitle: str,
    ink_extent: float | None = None,
    framing: str = "fit",
    rounded: bool = True,
    codes: explorer.Codes | None = None,
) -> explorer.Explored:
    """What a page shows of a network and some images.

    Args:
      network: With the task and the preprocessing.
      model: The network, in evaluation mode.
      images: uint8 test images.
      titles: Of the images.
      title: Of the page.
      subtitle: One line below it.
      ink_extent: See :class:`cnn_jax.explorer.Explored`.
      framing: The same.
      rounded: Whether to round the kernels of a large network to float16.
      codes: See :class:`cnn_jax.explorer.Explored`.

    Raises:
      UsageError: The page cannot compute a layer.
    """
    shape = tuple(network.preprocess.input_shape)
    graph = explorer.export(model, shape)
    note = "float32 weights"
    if rounded and graph.weights() > FULL_PRECISION:
        model = explorer.rounded_to_half(model)
        graph, note = explorer.export(model, shape), "kernels rounded to float16"
    weights = graph.weights()
    graph = explorer.preprocessed(graph, network.preprocess, images.shape[1:])
    last = _Last.of(network)
    if last is not None:
        graph = graph.then(last.name, last.record)
    shown = slice(max(1, MOST_VALUES // sum(math.prod(node.shape) for node in graph.nodes)))
    images, titles = images[shown], titles[shown]
    return explorer.Explored(
        title=title,
        subtitle=f"{subtitle}, {weights:,} weights, {note}",
        graph=graph,
        mean=network.preprocess.mean,
        std=network.preprocess.std,
        labels=network.task.outputs,
        view=last.view if last is not None else "bars" if len(graph.output.shape) == 1 else "maps",
        probabilities=last is not None and last.name == "probabilities",
        images=images,
        titles=titles,
        activations=_activations(network, model, images, graph),
        ink_extent=ink_extent,
        framing=framing,
        codes=codes,
        footer="Written by cnn_jax. Everything on this page is computed in your browser; nothing is sent anywhere.",
    )


def live(
    network: TaskNetwork, state: training.TrainState, model: nn.Sequence, page: explorer.Explored
) -> explorer.Live:
    """What the server of a live page answers.

    Args:
      network: With the task and the preprocessing.
      state: Of the network.
      model: The network, in evaluation mode.
      page: What the page shows.
    """
    nodes = page.graph.nodes
    image = nodes[0].shape
    forward = _forward(network, model)

    def values(pixels: np.ndarray, code: np.ndarray | None = None) -> np.ndarray:
        found = forward(pixels[None], None if code is None else code[None])
        return np.concatenate([np.asarray(found[node.name][0], np.float32).ravel() for node in nodes])

    answers = {"run": explorer.Answer(image, "uint8", values)}
    if page.codes is not None:
        black = np.zeros(image, np.uint8)
        answers["decode"] = explorer.Answer((2,), "<f4", lambda code: values(black, code))
    methods = _pictures(network, state)
    answers |= {f"gradients/{name}": explorer.Answer(image, "uint8", picture) for name, picture in methods.items()}
    page = dataclasses.replace(page, footer="Computed by cnn_jax on this computer.")
    values(np.zeros(image, np.uint8))  # compiles, so that the first drawing is answered quickly
    return explorer.Live(
        page=lambda query: explorer.render(page, live={"methods": list(methods), "query": query}),
        weights=page.graph.stored()[1],
        answers=answers,
    )


@dataclasses.dataclass(frozen=True)
class _Last:
    """The node behind a network's output, which turns it into what the task predicts.

    Attributes:
      name: Of the node.
      record: What the page computes.
      function: The same in JAX.
      view: See :class:`cnn_jax.explorer.Explored`.
    """

    name: str
    record: Record
    function: Callable[[Any], Any]
    view: str

    @classmethod
    def of(cls, network: TaskNetwork) -> "_Last | None":
        """None for a task that predicts the output itself."""
        task = network.task
        sigmoid = Record("elementwise", "sigmoid of each output", {"function": "sigmoid"})
        if isinstance(task, Autoencoder):
            clip = Record("elementwise", "cut off below 0 and above 1", {"function": "clip"})
            return cls("reconstruction", clip if task.config.loss == "mse" else sigmoid, task.predict, "image")
        if isinstance(task, Segmentation):
            record = Record("softmax", "softmax over the classes of each pixel")
            return cls("probabilities", record, jax.nn.softmax, "classes")
        if isinstance(task, MultiLabel) or (isinstance(task, Classification) and task.config.loss == "sigmoid"):
            return cls("probabilities", sigmoid, task.predict, "bars")
        if isinstance(task, Classification):
            return cls("probabilities", Record("softmax", "softmax, e^x / sum of e^x"), task.predict, "bars")
        return None


def _pictures(network: TaskNetwork, state: training.TrainState) -> dict[str, Callable[[Any], np.ndarray]]:
    """Attribution methods: name -> picture of an image for its predicted class; none for an autoencoder."""
    if isinstance(network.task, Autoencoder):
        return {}
    explained = Explained.of(network, state)

    def picture(method: Any) -> Callable[[Any], np.ndarray]:
        @jax.jit
        def attributed(pixels: Any) -> Any:
            inputs = network.preprocess(pixels)
            return method(explained.model, inputs, explained.model(inputs).argmax(axis=-1))

        return lambda image: np.asarray(attributed(image[None])[0], np.float32)

    methods = methods_of(explained, default_methods(explained))
    return {name: picture(method) for name, method in methods.items()}


def _forward(network: TaskNetwork, model: nn.Sequence) -> Callable[..., dict[str, Any]]:
    """A function from images, or the codes that are decoded instead, to the values of every node by name."""
    last = _Last.of(network)

    @jax.jit
    def forward(pixels: Any, codes: Any = None) -> dict[str, Any]:
        inputs = network.preprocess(pixels)
        intercept = None if codes is None else {LATENT: lambda code: codes.astype(code.dtype)}
        output, activations = model(inputs, train=False, return_activations=True, intercept=intercept)
        return {
            "image": pixels / 255,
            "resized": _resized(network, pixels),
            "network input": inputs,
            **activations,
            **({} if last is None else {last.name: last.function(output)}),
        }

    return forward


def _activations(
    network: TaskNetwork, model: nn.Sequence, images: np.ndarray, graph: explorer.Graph
) -> dict[str, np.ndarray]:
    """The values of every node for some images, from Python."""
    found = _forward(network, model)(images)
    return {node.name: np.asarray(found[node.name], np.float32) for node in graph.nodes}


def _resized(network: TaskNetwork, pixels: Any) -> Any:
    mean, std = (jnp.asarray(values, jnp.float32) for values in (network.preprocess.mean, network.preprocess.std))
    return network.preprocess(pixels) * std.reshape(1, 1, 1, -1) + mean.reshape(1, 1, 1, -1)


def _examples(test_set: ExampleSet, network: TaskNetwork) -> tuple[np.ndarray, list[str]]:
    """Some test images: the first of each class, and then the first ones; of a network for tiles their middle."""
    batch = take(test_set, range(min(SEARCHED, len(test_set))))
    images, outputs = batch[network.input_name], network.task.outputs
    chosen = list(range(min(EXAMPLES, len(images))))
    names = [f"image {index}" for index in range(len(images))]
    if isinstance(network.task, Classification):
        labels = batch[network.task._label]
        names = [
            f"{outputs[label]} (image {index})" if 0 <= label < len(outputs) else names[index]
            for index, label in enumerate(labels)
        ]
        firsts = [
            int(np.flatnonzero(labels == label)[0])
            for label in range(min(len(outputs), EXAMPLES))
            if (labels == label).any()
        ]
        chosen = (firsts + [index for index in chosen if index not in firsts])[: min(EXAMPLES, len(images))]
    images = images[chosen]
    if network.tiling is not None:
        images = _middle(images, network.tiling.tile)
    if images.dtype != np.uint8:
        images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return images, [names[index] for index in chosen]


def _middle(images: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """The middle of images, which are mirrored at their borders where they are smaller."""
    for axis, size in enumerate(sizes, start=1):
        start = (images.shape[axis] - size) // 2
        around = [(0, 0)] * images.ndim
        around[axis] = (max(0, -start), max(0, size - images.shape[axis] + start))
        images = np.pad(images, around, mode="reflect")
        images = images.take(range(max(0, start), max(0, start) + size), axis=axis)
    return images


def _codes(test_set: ExampleSet, network: TaskNetwork, explained: Explained) -> explorer.Codes | None:
    """The codes of some test images, if an autoencoder makes two numbers of an image and everything else of these."""
    if not isinstance(network.task, Autoencoder) or LATENT not in explained.model.names:
        return None
    batch = take(test_set, range(min(SEARCHED, len(test_set))))
    found = encoded(explained, batch[network.input_name])
    if found.shape[1] != 2 or isinstance(explained.model, nn.SkipSequence):  # whose skips pass by the code
        return None
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    for name, field in test_set.spec.items():
        if field.kind == "label" and not field.count and field.class_names:
            labels, names = np.asarray(batch[name]), field.class_names
    if labels is not None and not 0 <= labels.min() <= labels.max() < len(names):  # some are not labelled
        labels = None
    return explorer.Codes(LATENT, found, labels, names)
