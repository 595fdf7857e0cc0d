"""Where a network starts: pretrained weights, or an initialisation that depends on the data; otherwise at random."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data, models, weights
from cnn_jax.errors import UsageError
from cnn_jax.tasks.network import Values, create_model
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import ExampleSet, make_preprocess
from cnn_jax.tasks.task import Task
from cnn_jax.weights import files, transfer
from cnn_jax.weights.layouts import entries, layout_of

_DATA_INIT_IMAGES = 5000  # of the training set, for a network whose initialisation depends on them


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a network starts.

    Attributes:
      preprocess: Raw images to network inputs.
      values: Of the parameters and other arrays that are not drawn at random.
    """

    preprocess: data.Preprocess
    values: Values


def find_start(config: ConfigDict, task: Task, train_set: ExampleSet) -> Start:
    """Where the network of a config starts.

    With ``config.model.weights`` everything but the output layer has the pretrained values, and the output layer too if
    its classes are the same; inputs are normalised as those weights expect. What was done is printed.

    Args:
      config: Of the run.
      task: What is learned.
      train_set: By which inputs are normalised, and which the initialisation of some networks depends on.

    Raises:
      UsageError: The weights cannot be read, or are of another network.
    """
    source = config.model.weights
    if not source:
        start = Start(make_preprocess(config, train_set), {})
    elif (Path(source) / "config.json").is_file() and (Path(source) / "checkpoints").is_dir():
        start = _from_run(config, task, Path(source))
    else:
        start = _from_file(config, task, train_set)
    data_init = models.variant(config.model.name).data_init
    if data_init is not None and not source:
        some = data.sample(train_set, most=_DATA_INIT_IMAGES).images[:_DATA_INIT_IMAGES]
        start = dataclasses.replace(start, values=data_init(start.preprocess(some)))
    return start


def _from_run(config: ConfigDict, task: Task, folder: Path) -> Start:
    """The trained network of another run."""
    own = configs.read_run_config(folder)
    network, state = load_run(own, folder)
    if own.ensemble > 1:
        state = network.first(state)
    preprocess = dataclasses.replace(network.preprocess, input_shape=tuple(config.input_shape))
    values = _values(state.params) | _values(state.model_state)
    return _checked(config, task, preprocess, values, same_classes=network.task.outputs == task.outputs)


def _from_file(config: ConfigDict, task: Task, train_set: ExampleSet) -> Start:
    """A file of weights, or weights by their name on the Hugging Face hub."""
    source, count = config.model.weights, len(task.outputs)
    classes = _num_classes(_abstract(config, count), source) or count
    loaded = weights.load(_abstract(config, classes), source)
    about, names = loaded.about, loaded.about.class_names
    preprocess = make_preprocess(config, train_set)
    if about.mean is not None and about.std is not None:
        if config.data.pixel_range:
            raise UsageError(
                f"data.pixel_range={config.data.pixel_range}: model.weights={source} have their own normalisation; "
                "leave it ()"
            )
        preprocess = dataclasses.replace(preprocess, mean=about.mean, std=about.std)
    values = _values(nnx.state(loaded.model, nnx.Not(nnx.RngState)))
    same = classes == count and (names is None or tuple(names) == task.outputs)
    return _checked(config, task, preprocess, values, same_classes=same)


def _checked(
    config: ConfigDict, task: Task, preprocess: data.Preprocess, values: dict[str, Any], *, same_classes: bool
) -> Start:
    """Rejects values of another network, and leaves the output layers out unless they are of the same classes."""
    model = _abstract(config, len(task.outputs))
    heads = () if same_classes else tuple(f"{'/'.join(path)}/" for path in models.output_layers(model))
    kept = {}
    for name, leaf in _values(nnx.state(model, nnx.Not(nnx.RngState))).items():
        if name.startswith(heads):
            continue
        if name not in values or values[name].shape != leaf.shape:
            raise UsageError(
                f"model.weights={config.model.weights}: it has no parameter {name} of shape {leaf.shape}; "
                f"choose weights of {config.model.name} of the same width"
            )
        kept[name] = jnp.asarray(values[name], leaf.dtype)
    print(
        f"starting from {config.model.weights}"
        + ("" if same_classes else f", but for a new {' and '.join(head.rstrip('/') for head in heads)}"),
        flush=True,
    )
    return Start(preprocess, kept)


def _abstract(config: ConfigDict, num_classes: int) -> Any:
    """The shapes of the config's network, for a number of classes."""
    return nnx.eval_shape(lambda: create_model(config, num_classes, jax.random.key(0)))


def _num_classes(model: Any, source: str) -> int | None:
    """The number of classes of weights, if it is all that makes them differ from a network."""
    tensors = files.open_tensors(source)
    wanted = [entry for entry in entries(model, layout_of(tensors.shapes)) if entry.name in tensors.shapes]
    return transfer._classes(model, wanted, tensors.shapes)


def _values(state: Any) -> dict[str, Any]:
    return {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(state)}
