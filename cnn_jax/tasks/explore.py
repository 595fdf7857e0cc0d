"""``--mode=explore``: a trained network on a page that computes it in the browser."""

import dataclasses
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
from cnn_jax.runtime.files import check_output
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks.classification import Classification
from cnn_jax.tasks.multi_label import MultiLabel
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.responses import Explained, default_methods, methods_of
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import ExampleSet, examples_of, load_splits, read_description, take

EXAMPLES = 12  # test images on the page
SEARCHED = 500  # test images, to have one of each class
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
      UsageError: The file cannot be written, the run does not learn from images, or the page cannot compute a layer.
    """
    if output is not None:
        check_output(output, [".html"], what="--output")
    if (kind := examples_of(read_description(directory)).input_kind) != "image":
        raise UsageError(f"--mode=explore shows images, but {directory} was trained on {kind}s")
    exact = config.copy_and_resolve_references()
    exact.dtype = "float32"  # which the page computes in
    network, state = load_run(exact, directory, checkpoint=checkpoint)
    state = network.first(state)
    model = network.model(state.params, state.model_state)
    model.eval()
    description = read_description(directory)
    which = f"network 1 of {config.ensemble}, " if config.ensemble > 1 else ""
    words = f"{directory.name}, {checkpoint} checkpoint, {which}step {int(state.step):,}"
    images, titles = _examples(load_splits(config, [config.data.test])[0], network)
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
    )
    if output is None:
        explorer.serve(live(network, state, model, page), host=host, open_browser=open_browser)
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
    function = _probability(network)
    if function is not None:
        about = {"softmax": "softmax, e^x / sum of e^x", "sigmoid": "sigmoid of each output"}[function]
        options = {} if function == "softmax" else {"function": function}
        kind = "softmax" if function == "softmax" else "elementwise"
        graph = graph.then("probabilities", Record(kind, about, options))
    return explorer.Explored(
        title=title,
        subtitle=f"{subtitle}, {weights:,} weights, {note}",
        graph=graph,
        mean=network.preprocess.mean,
        std=network.preprocess.std,
        labels=network.task.outputs,
        probabilities=function is not None,
        images=images,
        titles=titles,
        activations=_activations(network, model, images, graph),
        ink_extent=ink_extent,
        framing=framing,
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
    explained = Explained.of(network, state)
    methods = methods_of(explained, default_methods(explained))
    forward, names = _forward(network, model), [node.name for node in page.graph.nodes]
    nodes = page.graph.nodes

    def values(image: np.ndarray) -> np.ndarray:
        found = forward(image[None])
        return np.concatenate([np.asarray(found[name][0], np.float32).ravel() for name in names])

    def picture(method: Any) -> explorer.Compute:
        @jax.jit
        def attributed(pixels: Any) -> Any:
            inputs = network.preprocess(pixels)
            return method(explained.model, inputs, network.task.predict(explained.model(inputs)).argmax(axis=-1))

        return lambda image: np.asarray(attributed(image[None])[0], np.float32)

    page = dataclasses.replace(page, footer="Computed by cnn_jax on this computer.")
    pictures = {name: picture(method) for name, method in methods.items()}
    values(np.zeros(nodes[0].shape, np.uint8))  # compiles, so that the first drawing is answered quickly
    return explorer.Live(
        page=lambda query: explorer.render(page, live={"methods": list(pictures), "query": query}),
        weights=page.graph.stored()[1],
        image_shape=nodes[0].shape,
        forward=values,
        methods=pictures,
    )


def _forward(network: TaskNetwork, model: nn.Sequence) -> Callable[[Any], dict[str, Any]]:
    """A function from images to the values of every node, by name, compiled once."""

    @jax.jit
    def forward(pixels: Any) -> dict[str, Any]:
        inputs = network.preprocess(pixels)
        output, activations = model(inputs, train=False, return_activations=True)
        return {
            "image": pixels / 255,
            "resized": _resized(network, pixels),
            "network input": inputs,
            **activations,
            "probabilities": network.task.predict(output),
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


def _probability(network: TaskNetwork) -> str | None:
    """The function that turns the network's outputs into probabilities, if the task has one."""
    task = network.task
    if isinstance(task, MultiLabel):
        return "sigmoid"
    if isinstance(task, Classification):
        return "sigmoid" if task.config.loss == "sigmoid" else "softmax"
    return None


def _examples(test_set: ExampleSet, network: TaskNetwork) -> tuple[np.ndarray, list[str]]:
    """Some test images: the first of each class, and then the first ones."""
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
    if images.dtype != np.uint8:
        images = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return images[chosen], [names[index] for index in chosen]
