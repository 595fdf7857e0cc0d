"""A task's network as pure functions of its parameters: one network, or several that are trained side by side."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree, Shaped
from ml_collections import ConfigDict

from cnn_jax import data, models, nn
from cnn_jax import train as training
from cnn_jax.data import augment
from cnn_jax.data.augment.arguments import from_zero_to_one
from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.ops.arguments import is_traced, may_differ_from_zero
from cnn_jax.report.compilation import Announce, silent
from cnn_jax.tasks.task import DRAWN, Task

_DTYPES = ("float32", "bfloat16", "float16")
_PREDICTED_AT_ONCE = 500
_DISCRIMINATOR = nnx.PathContains("discriminator")
_TURNS: dict[str, nnx.filterlib.Filter] = {"discriminator": _DISCRIMINATOR, "network": nnx.Not(_DISCRIMINATOR)}

Values = Mapping[str, Array]
"""Path of a parameter or of another array of a network, its parts joined by slashes -> the value to start from."""


def create_model(config: ConfigDict, task: Task, key: Key[Array, ""]) -> nn.Sequence:
    """The network of a config, with freshly drawn parameters.

    Args:
      config: Of a run.
      task: Its task, which determines the number of outputs, and may determine the input and options.
      key: Of the random numbers.
    """

    def create(key: Key[Array, ""]) -> nn.Sequence:
        return models.create(
            config.model.name,
            num_classes=len(task.outputs),
            input_shape=task.drawn_shape or tuple(config.input_shape),
            width=config.model.width,
            dtype=_dtype(config.dtype),
            rngs=nnx.Rngs(key),
            **{**task.network_options, **config.model.options},
        )

    return task.assemble(create, key)


class TaskNetwork:
    """A network, the preprocessing that belongs to it, and the task that says what its outputs mean.

    Args:
      config: The run's config.
      task: What is learned.
      preprocess: Raw images, or other inputs, to network inputs.
      input_name: The field of a batch that the network is given, unless its input is drawn.
    """

    def __init__(
        self, config: ConfigDict, task: Task, preprocess: data.Preprocess, *, input_name: str = "image"
    ) -> None:
        self.config, self.task, self.input_name = config, task, DRAWN if task.drawn_shape else input_name
        self.input_shape = task.drawn_shape or tuple(config.input_shape)
        self.preprocess = data.Preprocess.scaled(task.drawn_shape) if task.drawn_shape else preprocess
        augment.check_test_time(config.data.test_time)
        self._check_rotated_pairs()
        self.abstract_model = nnx.eval_shape(lambda: self.create(jax.random.key(0)))
        self._trained = models.trainable(self.abstract_model, freeze=config.freeze)
        self._graph = nnx.split(self.abstract_model, self._trained, ...)[0]
        self.abstract_params = nnx.state(self.abstract_model, self._trained)
        whole = models.Cells if task.coarse else models.Tiling
        self.tiling = whole.of(self.abstract_model, config.input_shape) if task.spatial else None

    def create(self, key: Key[Array, ""]) -> nn.Sequence:
        """The network with freshly drawn parameters."""
        model: Any = create_model(self.config, self.task, key)
        discriminator = self.task.discriminator(nnx.Rngs(training.stream_key(key, "discriminator")))
        if discriminator is not None:
            model.discriminator = discriminator
        return model

    @property
    def adversarial(self) -> bool:
        """Whether a discriminator is trained against the network."""
        return hasattr(self.abstract_model, "discriminator")

    def model(self, params: PyTree, model_state: PyTree) -> nn.Sequence:
        """The network with these parameters."""
        return nnx.merge(self._graph, params, model_state)

    def drawn(self, batch: Mapping[str, Any], key: Key[Array, ""] | None = None) -> dict[str, Any]:
        """A batch with what the task draws for the network, if it does, as the field :data:`DRAWN`.

        Args:
          batch: The examples.
          key: In training that of the step's random numbers; in evaluation None.
        """
        if not self.task.drawn_shape:
            return dict(batch)
        own = training.stream_key(jax.random.key(0) if key is None else key, DRAWN)
        arrays = {name: jnp.asarray(array) for name, array in batch.items()}
        return {**arrays, DRAWN: self.task.draw(arrays, own, train=key is not None)}

    def network_input(self, batch: Mapping[str, Any]) -> Any:
        """The network's input, before preprocessing; of a task that draws it, the batch is one of :meth:`drawn`."""
        return self.task.network_input(batch, self.input_name)

    def _preprocessed(self, images: Array) -> Array:
        """The network's inputs; those of a spatial task keep their size, and may be several images side by side."""
        if self.tiling is None:
            return self.preprocess(images)
        several = max(1, images.shape[-1] // self.config.input_shape[-1])
        numbers = {"mean": self.preprocess.mean * several, "std": self.preprocess.std * several}
        return dataclasses.replace(self.preprocess, input_shape=images.shape[1:], **numbers)(images)

    def apply(
        self, params: PyTree, model_state: PyTree, images: Array, *, train: bool = False, **options: Any
    ) -> tuple[Any, PyTree]:
        """Runs the network on raw images; returns its output and its new state."""
        return self._run(params, model_state, self._preprocessed(images), train=train, **options)

    def _run(
        self, params: PyTree, model_state: PyTree, inputs: Array, *, train: bool = False, **options: Any
    ) -> tuple[Any, PyTree]:
        """Runs the network on its inputs, which are preprocessed."""
        model = self.model(params, model_state)
        output = model(inputs, train=train, **options)
        return output, nnx.state(model, nnx.Not(self._trained))

    def init(
        self, key: Key[Array, ""], optimizer: optax.GradientTransformation, values: Values | None = None
    ) -> training.TrainState:
        """The state before the first step.

        Args:
          key: The run's root key.
          optimizer: Of the run.
          values: What to start from instead of what is drawn.
        """
        model = self.create(training.stream_key(key, "params"))
        parts = nnx.state(model, self._trained), nnx.state(model, nnx.Not(self._trained))
        params, model_state = (_with_values(part, values or {}) for part in parts)
        averaged = may_differ_from_zero(self.config.ema_decay)
        optimizer = training.optimizer_in_turns(optimizer, _TURNS) if self.adversarial else optimizer
        return training.create_state(key, params, model_state, optimizer, ema=averaged)

    @functools.cached_property
    def abstract_weights(self) -> tuple[PyTree, PyTree]:
        """The shapes of a state's parameters, and of what else the network keeps."""
        state = jax.eval_shape(lambda: self.init(jax.random.key(0), optax.identity()))
        return state.params, state.model_state

    def parameters(self, state: training.TrainState) -> PyTree:
        """All parameters of a state, those that are frozen included."""
        return nnx.filter_state(nnx.merge_state(state.params, state.model_state), nnx.Param)

    def step(
        self,
        optimizer: optax.GradientTransformation,
        learning_rate: optax.Schedule,
        parallel: training.DataParallel,
    ) -> training.Step:
        """One optimiser step; of networks that are trained against each other one of each."""
        if not self.adversarial:
            return training.make_step_of(self.config, self.loss, optimizer, learning_rate, parallel)
        losses = {"discriminator": self.discriminator_loss, "network": self.loss}
        turns = {
            name: (
                chosen,
                training.make_step_of(self.config, _of(chosen, losses[name]), optimizer, learning_rate, parallel),
            )
            for name, chosen in _TURNS.items()
        }
        return training.in_turns(turns)

    def loss(
        self, params: PyTree, model_state: PyTree, batch: training.Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[training.Metrics, PyTree]]:
        """What training minimises: the task's loss, with the config's weights that of each auxiliary head and of pairs.

        The loss of pairs is the mean squared Euclidean distance between the outputs for an image and for the same image
        rotated by a random angle (lecture 000, after Cheng, Zhou & Han, "Learning rotation-invariant convolutional
        neural networks for object detection in VHR optical remote sensing images", 2016).
        """
        batch = self.drawn(batch, key)
        images, weight = self.network_input(batch), self._pair_weight
        if self.tiling is not None:
            self._check_tile(images)
        if may_differ_from_zero(weight):
            key, pair_key = jax.random.split(key)
        told = self.task.told(batch)
        options: dict[str, Any] = {"train": True, "rngs": nnx.Rngs(key), "return_activations": True, **told}
        (outputs, activations), model_state = self.apply(params, model_state, images, **options)
        auxiliary = sum(self.task.loss(activations[head], batch) for head in self.auxiliary_heads)
        total = self.task.loss(outputs, batch) + self.config.auxiliary_weight * auxiliary
        if may_differ_from_zero(weight):
            if outputs.ndim != 2:
                raise UsageError("rotated_pairs makes outputs alike, but those of this task rotate too; use weight=0")
            rotated = self._rotated(images, pair_key)
            # The same key as above, so that both are computed with the same dropout.
            others, model_state = self.apply(params, model_state, rotated, train=True, rngs=nnx.Rngs(key))
            total = total + weight * jnp.square((outputs - others).astype(jnp.float32)).sum(axis=-1).mean()
        measured = self.task.measure(outputs, batch)
        metrics = {name: metric for name, metric in measured.items() if not isinstance(metric, training.Each)}
        if self.adversarial:
            model: Any = self.model(params, model_state)
            against = self.task.adversarial_loss(functools.partial(model.discriminator, train=True), outputs, batch)
            total, metrics = total + against, metrics | {"adversarial_loss": (against, jnp.ones(()))}
        return total, ({"loss": (total, jnp.ones(()))} | metrics, model_state)

    def discriminator_loss(
        self, params: PyTree, model_state: PyTree, batch: training.Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[training.Metrics, PyTree]]:
        """What the discriminator minimises; the network's outputs are those that :meth:`loss` has with this key."""
        batch = self.drawn(batch, key)
        model: Any = self.model(params, model_state)
        outputs = model(self._preprocessed(self.network_input(batch)), train=True, rngs=nnx.Rngs(key))
        discriminate = functools.partial(model.discriminator, train=True)
        total = self.task.discriminator_loss(discriminate, jax.lax.stop_gradient(outputs), batch)
        return total, ({"loss": (total, jnp.ones(()))}, nnx.state(model, nnx.Not(self._trained)))

    @property
    def _pair_weight(self) -> Any:
        return self.config.get("rotated_pairs", {"weight": 0.0})["weight"]  # runs of earlier versions lack it

    def _rotated(self, images: Array, key: Key[Array, ""]) -> Array:
        """Raw images, each rotated by an angle of its own; floating-point ones are from 0 to 1."""
        return augment.affine(key, from_zero_to_one(images), rotation=self.config.rotated_pairs.rotation)

    def _check_rotated_pairs(self) -> None:
        """Rejects pairs of inputs that cannot be rotated, or of outputs that rotate with them."""
        weight = self._pair_weight
        if not may_differ_from_zero(weight):
            return
        if not is_traced(weight) and not 0 <= weight < float("inf"):
            raise UsageError(f"rotated_pairs.weight={weight} must be finite and at least 0")
        if len(self.config.input_shape) != 3:
            raise UsageError(
                f"rotated_pairs rotates images, not inputs of shape {self.config.input_shape}; use weight=0"
            )

    def _check_tile(self, images: Array) -> None:
        """Rejects training images that are not of the size of the network's input, which is not resized."""
        space, tile = images.shape[1:-1], tuple(self.config.input_shape[:-1])
        if space == tile:
            return
        sizes, wanted = ("x".join(map(str, numbers)) for numbers in (space, tile))
        crops = len(space) == len(tile) and all(size >= side for size, side in zip(space, tile, strict=True))
        fix = f"add 'random_crop(size={tile})' to data.augment" if crops else "read larger ones, see data.size"
        raise UsageError(f"training images of {sizes} are not those of input_shape, {wanted}; {fix}")

    @property
    def auxiliary_heads(self) -> list[str]:
        """The activations that are the outputs of auxiliary heads."""
        layers = ((name, getattr(self.abstract_model, name)) for name in self.abstract_model.names)
        return [f"{name}/{layer.names[-1]}" for name, layer in layers if isinstance(layer, nn.Auxiliary)]

    def outputs(self, state: training.TrainState, images: Array) -> Array:
        """The network's outputs for raw images: the average over the views that ``config.data.test_time`` names.

        Those of a spatial task may have any size, and the outputs have the same, or a cell for each square of pixels.
        """
        options: dict[str, Any] = {}
        if self.task.test_as_training:
            options = {"train": True, "rngs": nnx.Rngs(training.stream_key(state.key, "test"))}
        if self.tiling is not None:
            inputs = self._preprocessed(images)
            return self.tiling(lambda x: self._run(state.params, state.model_state, x, **options)[0], inputs)
        test_time = self.config.data.test_time
        if not test_time:
            return self.apply(state.params, state.model_state, images, **options)[0]
        views = augment.test_time_views(test_time, images, size=tuple(self.config.input_shape[:2]))
        each = jax.lax.map(lambda view: self.apply(state.params, state.model_state, view, **options)[0], views)
        return self.task.average(each)

    def evaluate(self, state: training.TrainState, batch: training.Batch) -> training.Metrics:
        """The task's metrics of a batch."""
        batch = self.drawn(batch)
        inputs, told = self.network_input(batch), self.task.told(batch)
        outputs = self.outputs(state, inputs)
        if told:
            batch = {**batch, "prediction": self.task.predict(outputs)}
            outputs = self.apply(state.params, state.model_state, inputs, **told)[0]
        return self.task.measure(outputs, batch)

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The scores of a split from the averages of :meth:`evaluate`, or of the steps of training."""
        return self.task.scores(means)

    def predict(
        self, state: training.TrainState, images: Shaped[np.ndarray, "..."], announce: Announce = silent
    ) -> Shaped[np.ndarray, "..."]:
        """What the task says about raw images (n, height, width, channels) or other inputs, in batches: (n, ...)."""

        @jax.jit
        def forward(state: training.TrainState, images: Array) -> Array:  # parameters as constants compile longer
            return self.task.predict(self.outputs(state, images))

        at_once = self.config.batch_size if self.task.spatial else _PREDICTED_AT_ONCE
        indices, mask = data.padded_batches(len(images), min(len(images), at_once))
        with announce("predictions"):
            forward.lower(state, images[indices[0]]).compile()
        rows = np.concatenate([forward(state, images[batch]) for batch in np.asarray(indices)])
        return self.task.within(rows[np.asarray(mask).reshape(-1) > 0], images.shape[1:-1])

    def framed(self, images: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n ..."]:
        """What the network is given at once of raw images: of those of a spatial task the middle, otherwise all."""
        if self.tiling is None:
            return images
        return np.stack([data.framed(image, self.tiling.tile, mode="reflect") for image in images])

    def activations(
        self, state: training.TrainState, images: Shaped[np.ndarray, "..."]
    ) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """Every named intermediate of the network on raw images, in order, in float32 whatever it computes in."""

        @jax.jit
        def forward(images: Array) -> Mapping[str, Array]:  # an OrderedDict: JAX sorts the keys of a plain dict
            (_, activations), _ = self.apply(state.params, state.model_state, images, return_activations=True)
            return jax.tree.map(lambda array: array.astype(jnp.float32), activations)

        return jax.device_get(forward(images))

    def first(self, state: training.TrainState) -> training.TrainState:
        """The state of one network, for figures of its parameters."""
        return state


class Ensemble(TaskNetwork):
    """``config.ensemble`` networks that see the same batches and differ in initial parameters and random numbers.

    Their outputs are averaged as the task averages them, and each one's score is beside that of the average.

    Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012, average
    the predictions of seven networks.
    """

    def init(
        self, key: Key[Array, ""], optimizer: optax.GradientTransformation, values: Values | None = None
    ) -> training.TrainState:
        """The states of the networks before the first step, stacked."""
        member = super().init
        return training.ensemble_init(lambda key: member(key, optimizer, values), self.config.ensemble)(key)

    def step(
        self,
        optimizer: optax.GradientTransformation,
        learning_rate: optax.Schedule,
        parallel: training.DataParallel,
    ) -> training.Step:
        """One step of every network."""
        return training.ensemble_step(super().step(optimizer, learning_rate, parallel))

    def member_outputs(self, state: training.TrainState, images: Array) -> Array:
        """The outputs of each network: (networks, batch, ..., outputs)."""
        member = super().outputs
        return training.over_members(lambda state: member(state, images), state)

    def outputs(self, state: training.TrainState, images: Array) -> Array:
        """The average of the networks' outputs."""
        return self.task.average(self.member_outputs(state, images))

    def evaluate(self, state: training.TrainState, batch: training.Batch) -> training.Metrics:
        """The metrics of the average, and those of each network, whose names begin with its number and a colon."""
        batch = self.drawn(batch)
        each = self.member_outputs(state, self.network_input(batch))
        metrics = self.task.measure(self.task.average(each), batch)
        of_each = jax.vmap(lambda outputs: self.task.measure(outputs, batch))(each)
        for number in range(self.config.ensemble):
            own = jax.tree.map(lambda values, number=number: values[number], of_each)
            metrics |= {f"{number + 1}:{name}": values for name, values in own.items()}
        return metrics

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """Those of the average, and the task's first metric of each network: ``accuracy_1`` and so on."""
        own = {name: value for name, value in means.items() if ":" not in name}
        scores, first = self.task.scores(own), self.task.metrics(self.config)[0].name
        for number in range(1, self.config.ensemble + 1):
            prefix = f"{number}:"
            found = {name.removeprefix(prefix): value for name, value in means.items() if name.startswith(prefix)}
            if found:  # in evaluations, not in training
                scores[f"{first}_{number}"] = self.task.scores(found)[first]
        return scores

    def activations(
        self, state: training.TrainState, images: Shaped[np.ndarray, "..."]
    ) -> Mapping[str, Shaped[np.ndarray, "..."]]:
        """The intermediates of the first network."""
        return super().activations(self.first(state), images)

    def first(self, state: training.TrainState) -> training.TrainState:
        """The first network's state."""
        return training.member(state, 0)


def make_network(
    config: ConfigDict, task: Task, preprocess: data.Preprocess, *, input_name: str = "image"
) -> TaskNetwork:
    """The network of a config, or its ensemble of networks; arguments as for :class:`TaskNetwork`."""
    if config.ensemble < 1:
        raise UsageError(f"ensemble={config.ensemble} must be at least 1")
    if config.ensemble > 1 and type(task).told is not Task.told:
        raise UsageError(
            f"ensemble={config.ensemble}: what {type(task).__name__} networks write has no average; use ensemble=1"
        )
    return (TaskNetwork if config.ensemble == 1 else Ensemble)(config, task, preprocess, input_name=input_name)


def declared_metrics(config: ConfigDict, task: type[Task]) -> tuple[Metric, ...]:
    """The metrics of a task and, of an ensemble, the first of them for each network."""
    metrics, members = task.metrics(config), range(1, config.ensemble + 1) if config.ensemble > 1 else ()
    first = metrics[0]
    return (*metrics, *(Metric(f"{first.name}_{number}", first.better, first.unit) for number in members))


def _of(chosen: nnx.filterlib.Filter, loss: Any) -> Any:
    """The loss of a turn, see :func:`cnn_jax.train.in_turns`: it changes only what belongs to its own network."""

    def of_own(own: PyTree, given: PyTree, batch: training.Batch, key: Key[Array, ""]) -> Any:
        others, model_state = given
        total, (metrics, new) = loss(nnx.merge_state(own, others), model_state, batch, key)
        kept = nnx.filter_state(model_state, nnx.Not(chosen))
        return total, (metrics, (others, nnx.merge_state(nnx.filter_state(new, chosen), kept)))

    return of_own


def _with_values(state: Any, values: Values) -> Any:
    """A part of a network's state with the values that are its own."""
    flat = dict(nnx.to_flat_state(state))
    own = {path: name for path in flat if (name := "/".join(map(str, path))) in values}
    if not own:
        return state
    for path, name in own.items():
        flat[path] = flat[path].replace(values[name])
    return nnx.from_flat_state(flat)


def _dtype(name: str) -> jnp.dtype:
    if name not in _DTYPES:
        raise UsageError(f"dtype={name!r} is unknown; {nearest(name, _DTYPES)}")
    return jnp.dtype(name)
