"""Where a network starts: pretrained weights, or an initialisation that depends on the data; otherwise at random."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data, models, nn, weights
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path
from cnn_jax.runtime.terminal import say
from cnn_jax.tasks.network import Values, create_model
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import ExampleSet, make_preprocess
from cnn_jax.tasks.task import Task
from cnn_jax.weights import files
from cnn_jax.weights.layouts import paths

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

    With ``config.model.weights`` everything but the output layer has the pretrained values, and so has the output layer
    if its classes are the same; inputs are normalised as those weights expect. Weights of the classifier that the
    network has its first layers from (``Variant.trunk``) are a start for these layers. What was done is printed.

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
    elif _is_run(user_path(source)):
        start = _from_run(config, task, user_path(source))
    else:
        start = _from_file(config, task, train_set)
    data_init = models.variant(config.model.name).data_init
    if data_init is not None and not source:
        some = data.sample(train_set, most=_DATA_INIT_IMAGES).inputs[:_DATA_INIT_IMAGES]
        start = dataclasses.replace(start, values=data_init(start.preprocess(some)))
    return start


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()


def _from_run(config: ConfigDict, task: Task, folder: Path) -> Start:
    """The trained network of another run, with its preprocessing."""
    own = configs.read_run_config(folder)
    network, state = load_run(own, folder)
    state = network.first(state)
    values = paths(state.params) | paths(state.model_state)
    model = nnx.eval_shape(lambda: create_model(config, task, jax.random.key(0)))
    preprocess = dataclasses.replace(network.preprocess, input_shape=tuple(config.input_shape))
    if own.model.name == models.variant(config.model.name).trunk:
        return Start(preprocess, _checked_trunk(config, model, network.abstract_model, values))
    if network.task.outputs != task.outputs:
        values = _without_heads(values, model)
    return Start(preprocess, _checked(config, model, values))


def _from_file(config: ConfigDict, task: Task, train_set: ExampleSet) -> Start:
    """A file of weights, or weights by their name on the Hugging Face hub."""
    source, preprocess = config.model.weights, make_preprocess(config, train_set)
    model = nnx.eval_shape(lambda: create_model(config, task, jax.random.key(0)))
    trunk = _trunk_in_file(config, task, model)
    whole = create_model(config, task, jax.random.key(0)) if trunk is None else trunk
    loaded = weights.load(whole, source, adapt=True)
    values = paths(nnx.state(loaded.model, nnx.Not(nnx.RngState)))
    values = {name: value for name, value in values.items() if name not in loaded.kept}
    mean, std, names = loaded.about.mean, loaded.about.std, loaded.about.class_names
    if mean is not None and std is not None:
        if config.data.pixel_range:
            raise UsageError(
                f"data.pixel_range={config.data.pixel_range}: model.weights={source} come with the normalisation of "
                "their inputs; use data.pixel_range=()"
            )
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
    if trunk is not None:
        return Start(preprocess, _checked_trunk(config, model, trunk, values))
    if names is not None and names != task.outputs:
        values = _without_heads(values, model)
    return Start(preprocess, _checked(config, model, values))


def _trunk_in_file(config: ConfigDict, task: Task, model: nn.Sequence) -> nn.Sequence | None:
    """The classifier whose weights a file holds instead of those of the network; None if it holds the network's own."""
    name, rank = models.variant(config.model.name).trunk, len(config.input_shape) - 1
    if not name or len(models.variant(name).input_shape) - 1 != rank:
        return None
    tensors = files.open_tensors(config.model.weights).shapes
    if any(tensor.endswith(f"{head}kernel") for head in _heads(model) for tensor in tensors):
        return None
    input_shape = (*models.variant(name).input_shape[:-1], config.input_shape[-1])
    options: dict[str, Any] = {"input_shape": input_shape, "width": config.model.width}
    trunk = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **options))
    return models.replace_head(trunk, len(task.outputs))  # nothing else is drawn


def _without_heads(values: Mapping[str, Any], model: nn.Sequence) -> dict[str, Any]:
    """The values of all but the output layers, which are for other classes."""
    heads = _heads(model)
    return {name: value for name, value in values.items() if not name.startswith(heads)}


def _heads(model: nn.Sequence) -> tuple[str, ...]:
    """What the paths of the output layers' parameters begin with."""
    return tuple(f"{'/'.join(path)}/" for path in models.output_layers(model))


def _checked_trunk(
    config: ConfigDict, model: nn.Sequence, trunk: nn.Sequence, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a classifier for the layers of the same names; kernels of linear layers become those of windows."""
    shapes = {name: leaf.shape for name, leaf in paths(nnx.state(model, nnx.Param)).items()}
    fitting = {
        name: value.reshape(shapes[name]) if value.size == math.prod(shapes.get(name, ())) else value
        for name, value in _without_heads(values, trunk).items()
    }
    return _checked(config, model, fitting, new=tuple(f"{name}/" for name in model.names if name not in trunk.names))


def _checked(
    config: ConfigDict, model: nn.Sequence, values: Mapping[str, Any], *, new: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Rejects values of another network, and says which arrays have none: the output layers', or those in ``new``."""
    source, may_lack, kept = config.model.weights, new or _heads(model), {}
    for name, leaf in paths(nnx.state(model, nnx.Not(nnx.RngState))).items():
        if name in values and values[name].shape == leaf.shape:
            kept[name] = jnp.asarray(values[name], leaf.dtype)
        elif name in values or not name.startswith(may_lack):
            trunk = models.variant(config.model.name).trunk
            raise UsageError(
                f"model.weights={source}: it has no parameter {name} of shape {leaf.shape}; choose weights of "
                f"{config.model.name}{trunk and f', or of {trunk} for images of 224x224,'} of the same width"
            )
    drawn = {name.rpartition("/")[0] for name in paths(nnx.state(model, nnx.Param)) if name not in kept}
    say(f"starting from {source}" + (f", with a new {', '.join(sorted(drawn))}" if drawn else ""))
    return kept
