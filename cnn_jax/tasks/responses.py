"""What a trained network responds to, as sections of a page: attributions, strongest crops and fantasy images.

The report of a run and ``--mode=explain`` share these. Everything is computed for the network's inputs, after
preprocessing, and shown in the colours of the data.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import attribution, data, geometry, nn, ops
from cnn_jax import train as training
from cnn_jax.attribution.backpropagation import rewritten
from cnn_jax.errors import UsageError, nearest
from cnn_jax.report import figures
from cnn_jax.report.figures.pictures import worst_mistakes
from cnn_jax.report.figures.style import largest_magnitude
from cnn_jax.report.page import Section, Table
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.task import Results

_WITH_RECEIPT = ("deconvnet", "guided_backpropagation")
_WINDOW_PART, _OCCLUDED_AT_ONCE = 7, 8  # occlusion's window is a seventh of the image's sides
_LAYERS, _CHANNELS, _CROPS = 3, 3, 6  # of the hierarchy
_CLASSES, _STEPS, _JITTER = 10, 256, 1  # of the fantasy images
_CONTRAST = 0.25  # the root mean square of a fantasy image, as a part of the range, if the score were linear
_ROWS = 8  # images in one figure
_MISTAKES = 4
_FILTERS = 8  # of the development
_STAGES = 4  # of the shuffled networks, that are shown


Methods = Mapping[str, Callable[..., Any]]
"""Name -> method(model, x, target)."""


@dataclasses.dataclass(frozen=True)
class Explained:
    """A network as it is explained: in evaluation mode, of an ensemble the first one.

    Attributes:
      model: The network, a function of its inputs.
      preprocess: Raw images to inputs.
      outputs: The names of the network's outputs.
      networks: The number of networks of the ensemble; 1 for a single network.
    """

    model: nn.Sequence
    preprocess: data.Preprocess
    outputs: tuple[str, ...]
    networks: int = 1

    @classmethod
    def of(cls, network: TaskNetwork, state: training.TrainState) -> "Explained":
        """The network of a run with the parameters that it is evaluated with.

        The output of a spatial task is averaged over the positions, so that there is one score of each class.
        """
        first = network.first(state)
        model = network.model(first.params, first.model_state)
        if network.task.spatial:
            model.append("mean", ops.global_avg_pool)
        model.eval()
        return cls(model, network.preprocess, network.task.outputs, network.config.ensemble)

    @property
    def which(self) -> str:
        """Which network of an ensemble is explained, as text for users; empty for a single network."""
        return f"network 1 of {self.networks}" if self.networks > 1 else ""

    def inputs(self, images: Shaped[np.ndarray, "n ..."]) -> Array:
        """The network's inputs for raw images."""
        return jnp.asarray(self.preprocess(images), jnp.float32)

    def shown(self, inputs: Shaped[Array | np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Inputs as images from 0 to 1."""
        colours = np.asarray(inputs) * np.array(self.preprocess.std) + np.array(self.preprocess.mean)
        return colours.clip(0, 1).astype(np.float32)

    @functools.cached_property
    def value_range(self) -> tuple[float, float]:
        """The values of black and of white in the network's input, of the channel with the widest range."""
        mean, std = np.array(self.preprocess.mean), np.array(self.preprocess.std)
        widest = int(np.argmin(std))
        return float(-mean[widest] / std[widest]), float((1 - mean[widest]) / std[widest])

    def has_rectifiers(self, activation: str | None = None) -> bool:
        """Whether there are ReLUs before an activation, or before the output: what guided backpropagation changes."""

        def value(x: Array) -> Array:
            if activation is None:
                return self.model(x).sum()
            return self.model(x, return_activations=True)[1][activation].sum()

        _, receipt = rewritten("explain", "guided", value, jnp.zeros((1, *self.preprocess.input_shape)))
        return bool(receipt.replaced)

    @functools.cached_property
    def convolutions(self) -> list[str]:
        """Those of :attr:`maps` that are outputs of layers with weights: before activations, which may be saturated."""
        rows = geometry.trace(self.model, self.preprocess.input_shape)
        return [row.name for row in rows if row.name in self.maps and row.multiply_adds]

    @functools.cached_property
    def maps(self) -> dict[str, tuple[int, ...]]:
        """The activations with more than one position along each spatial axis: name -> (*space, channels)."""
        rank = len(self.preprocess.input_shape)
        rows = geometry.trace(self.model, self.preprocess.input_shape)
        return {
            row.name: row.output_shape
            for row in rows
            if len(row.output_shape) == rank and min(row.output_shape[:-1]) > 1
        }


@dataclasses.dataclass(frozen=True)
class Attributed:
    """The pictures of some methods.

    Attributes:
      pictures: Name of a method -> its picture of each input, (N, *space, channels).
      receipts: Name of a method -> what it did to the network, for those that change its backward pass.
    """

    pictures: Mapping[str, Shaped[np.ndarray, "..."]]
    receipts: Mapping[str, str]


def default_methods(explained: Explained, activation: str | None = None) -> tuple[str, ...]:
    """Saliency; guided backpropagation where there are rectifiers; Grad-CAM of outputs where there are maps."""
    rectified = ("guided_backpropagation",) if explained.has_rectifiers(activation) else ()
    return ("saliency", *rectified, *(("grad_cam",) if explained.maps and activation is None else ()))


def methods_of(explained: Explained, names: Sequence[str]) -> Methods:
    """The methods with these names, as functions ``method(model, x, target)``.

    Grad-CAM takes the last activation that has several positions. Occlusion covers windows of a seventh of the sides.

    Raises:
      UsageError: There is no such method, or Grad-CAM has no activation with positions.
    """
    side = max(1, min(explained.preprocess.input_shape[:-1]) // _WINDOW_PART)
    options: dict[str, dict[str, Any]] = {
        "grad_cam": {"activation": next(reversed(explained.maps), None)},
        "occlusion": {"window": side, "strides": max(1, side // 2), "batch_size": _OCCLUDED_AT_ONCE},
    }
    for name in names:
        if name not in attribution.METHODS:
            raise UsageError(f"--methods={name} is not a method of attribution; {nearest(name, attribution.METHODS)}")
        if name == "grad_cam" and not explained.maps:
            raise UsageError("--methods=grad_cam needs an activation with several positions, which the network lacks")
    return {name: functools.partial(attribution.METHODS[name], **options.get(name, {})) for name in names}


def attribute(
    explained: Explained, inputs: Array, target: Any, methods: Mapping[str, Callable[..., Any]]
) -> Attributed:
    """The pictures of some methods, each compiled once."""
    graph, state = nnx.split(explained.model)
    pictures, receipts = {}, {}
    for name, method in methods.items():

        @jax.jit
        def run(state: Any, x: Array, name: str = name, method: Callable[..., Any] = method) -> Array:
            model = nnx.merge(graph, state)
            if name not in _WITH_RECEIPT:
                return method(model, x, target)
            picture, receipt = method(model, x, target, return_receipt=True)
            receipts[name] = str(receipt)
            return picture

        pictures[name] = np.asarray(run(state, inputs))
    return Attributed(pictures, receipts)


def attribution_sections(
    explained: Explained, inputs: Array, attributed: Attributed, *, titles: Sequence[str], title: str, about: str
) -> Iterator[Section]:
    """Figures of the pictures, a few images each.

    Args:
      explained: The network.
      inputs: What was explained.
      attributed: The pictures.
      titles: The line above each image.
      title: The heading.
      about: What the pictures explain, one sentence.
    """
    shown = explained.shown(inputs)
    scale = "All pictures of a method in one figure have one scale, set by the largest magnitude among them."
    for first in range(0, len(shown), _ROWS):
        rows = slice(first, first + _ROWS)
        part = f", images {first + 1} to {min(first + _ROWS, len(shown))}" if len(shown) > _ROWS else ""
        yield Section(
            title + part,
            figure=figures.attributions(
                list(shown[rows]),
                {name: list(array[rows]) for name, array in attributed.pictures.items()},
                titles=list(titles[rows]),
            ),
            alt=f"Images and the pictures of {', '.join(attributed.pictures)}",
            caption=f"{about} {scale}",
            code="\n".join(attributed.receipts.values()) or None if first + _ROWS >= len(shown) else None,
        )


def falsification(
    explained: Explained, inputs: Array, target: Any, methods: Mapping[str, Callable[..., Any]]
) -> Section:
    """The pictures of one image again, from networks whose layers were shuffled one by one from the top."""
    stages = {
        name: list(attribution.randomization_test(method, explained.model, inputs, target))
        for name, method in methods.items()
    }
    layers = [stage.layer for stage in next(iter(stages.values()))]
    chosen = sorted({round(part * (len(layers) - 1) / (_STAGES - 1)) for part in range(_STAGES)})
    titles = [f"{layers[number]} and all above it shuffled" if number else "as trained" for number in chosen]
    pictures = {name: [np.asarray(of[number].result[0]) for number in chosen] for name, of in stages.items()}
    rows = [
        [titles[row], *(f"{stages[name][number].absolute_correlation[0]:.2f}" for name in stages)]
        for row, number in enumerate(chosen)
    ]
    return Section(
        "Do the pictures depend on what was learned?",
        figure=figures.attributions([explained.shown(inputs[0])] * len(chosen), pictures, titles=titles),
        alt="The pictures of the first image, from the trained network and from networks with shuffled weights",
        caption="The first image again. From row to row the weights of more layers are shuffled, from the last to "
        "the first. A picture that stays the same shows the image, not the network (Adebayo et al. 2018). The table "
        "has the rank correlation of the magnitudes with those of the trained network.",
        table=Table(["weights", *(name.replace("_", " ") for name in stages)], rows),
    )


def hierarchy(explained: Explained, images: Shaped[np.ndarray, "n ..."], *, batch_size: int = 256) -> list[Section]:
    """The crops that channels of three layers respond to most, with their guided backpropagation or gradient.

    Args:
      explained: The network.
      images: Raw images.
      batch_size: How many are computed at once.
    """
    names = explained.convolutions
    if not names:
        return []
    chosen = dict.fromkeys(names[round(part * (len(names) - 1) / (_LAYERS - 1))] for part in range(_LAYERS))
    rows: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for name in chosen:
        batches = (
            np.asarray(explained.inputs(images[first : first + batch_size]))
            for first in range(0, len(images), batch_size)
        )
        found = attribution.strongest_crops(explained.model, batches, name, k=_CROPS)
        strongest = found.of_channels(np.argsort(-found.responses[:, 0], kind="stable")[:_CHANNELS])
        crops = strongest.crops()
        rectified = explained.has_rectifiers(name)
        pictures = strongest.pictures(attribution.guided_backpropagation if rectified else attribution.gradient)
        for channel, own, drawn in zip(strongest.channels, crops, pictures, strict=True):
            rows[f"{name}, channel {channel}"] = [explained.shown(crop) for crop in own], drawn
    return [
        Section(
            "What channels respond to",
            figure=figures.strongest_crops(rows),
            alt="The parts of images that some channels respond to most, and the guided backpropagation of the units",
            caption=f"Of {len(chosen)} convolutions, from the first to the last, the {_CHANNELS} channels with the "
            f"strongest responses among {len(images):,} images. Each crop is the exact receptive field of the unit, "
            "inside the image. Below it is the guided backpropagation of the unit, or its gradient if there is no "
            "rectifier before it, on the scale that is written beside the name."
            + (f" All of this section and the next ones is about {explained.which}." if explained.which else ""),
        )
    ]


def fantasies(explained: Explained) -> list[Section]:
    """Fantasy images of the first classes."""
    names = explained.outputs[:_CLASSES]
    found, decay = _fantasy_images(explained, len(names))
    remaining = np.median(found.residuals / np.maximum(found.gradient_norms, 1e-30))
    limit = largest_magnitude(np.asarray(found.images))
    return [
        Section(
            "Fantasy images",
            figure=figures.gallery(list(_centred(found.images)), list(names)),
            alt=f"Images that maximise the score of {', '.join(names)}",
            caption=f"Images that maximise the score of a class minus {decay:.3g} times their squared norm, in units "
            f"of the range of pixels, in {_STEPS} steps with shifts of up to {_JITTER} pixel. They start from grey "
            f"noise; the weights are fixed. The gradient that remains is {remaining:.1%} of that of the score. Grey is "
            f"0, the mean image; black is -{limit:.2g} and white +{limit:.2g} in units of the network's input, for all "
            "images.",
        )
    ]


def _fantasy_images(explained: Explained, classes: int) -> tuple[attribution.FantasyImages, float]:
    """Fantasy images of the first classes, and the decay with which they have a certain contrast."""
    graph, state = nnx.split(explained.model)
    shape, value_range = explained.preprocess.input_shape, explained.value_range
    start = 0.01 * jax.random.normal(jax.random.key(0), (classes, *shape))
    # Of a linear score the fantasy image is gradient / (2 decay).
    norms = _gradient_norms(graph, state, start, value_range)
    decay = float(np.median(norms) / (2 * _CONTRAST * np.sqrt(np.prod(shape))))
    return jax.device_get(_optimized(graph, state, start, jnp.float32(decay), value_range)), decay


# Compiled once for all checkpoints of a network.
@functools.partial(jax.jit, static_argnames=("graph", "value_range"))
def _gradient_norms(graph: nnx.GraphDef, state: Any, start: Array, value_range: tuple[float, float]) -> Array:
    """The norm of the gradient of each class's score, in units of the range of pixels."""
    found = attribution.gradient(nnx.merge(graph, state), start, jnp.arange(len(start)))
    return jnp.linalg.norm(found.reshape(len(start), -1), axis=1) * (value_range[1] - value_range[0])


@functools.partial(jax.jit, static_argnames=("graph", "value_range"))
def _optimized(
    graph: nnx.GraphDef, state: Any, start: Array, decay: Array, value_range: tuple[float, float]
) -> attribution.FantasyImages:
    """The fantasy image of each class."""
    return attribution.fantasy_image(
        nnx.merge(graph, state),
        start,
        jnp.arange(len(start)),
        decay=decay,
        value_range=value_range,
        steps=_STEPS,
        jitter=_JITTER,
        key=jax.random.key(1),
    )


def development(stages: Mapping[int, Explained], images: Shaped[np.ndarray, "n ..."]) -> list[Section]:
    """How filters, the strongest crops of one channel and fantasy images change while a network is trained.

    Args:
      stages: Step of a checkpoint -> the network of that step, ascending; at least two.
      images: Raw images, in which the crops are searched.
    """
    last = list(stages.values())[-1]
    kernels = {f"step {step:,}": _first_kernels(explained) for step, explained in stages.items()}
    sections = []
    if all(kernels.values()):
        sections.append(_rows("First-layer filters over training", kernels, "the first filters of the first layer"))
    if last.convolutions:
        name = last.convolutions[len(last.convolutions) // 2]
        inputs = np.asarray(last.inputs(images))
        at_end = attribution.strongest_crops(last.model, inputs, name, k=_CROPS)
        channel = int(at_end.responses[:, 0].argmax())
        crops = {}
        for step, explained in stages.items():
            (row,) = attribution.strongest_crops(explained.model, inputs, name, channel, k=_CROPS).crops()
            crops[f"step {step:,}"] = [explained.shown(crop) for crop in row]
        sections.append(
            _rows("Strongest crops over training", crops, f"the crops that {name}, channel {channel}, responds to most")
        )
    classes = min(len(last.outputs), _CROPS)
    fantasies = {
        f"step {step:,}": list(_centred(_fantasy_images(explained, classes)[0].images))
        for step, explained in stages.items()
    }
    shown = f"fantasy images of {', '.join(last.outputs[:classes])}; grey is 0, and each row has its own scale"
    return [*sections, _rows("Fantasy images over training", fantasies, shown)]


def _centred(inputs: Shaped[Array | np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Inputs as images from 0 to 1 with 0 in the middle, on one scale."""
    return np.asarray(0.5 + 0.5 * inputs / largest_magnitude(np.asarray(inputs)))


def _rows(title: str, rows: Mapping[str, list[np.ndarray]], what: str) -> Section:
    return Section(
        title,
        figure=figures.rows_of_images(rows),
        alt=f"For each kept checkpoint, {what}",
        caption=f"For each kept checkpoint, {what}.",
    )


def _first_kernels(explained: Explained) -> list[np.ndarray]:
    """The first filters of the first convolution, from 0 to 1 with 0 in the middle; none without a convolution."""
    found = first_kernel(explained.model, explained.preprocess.input_shape)
    return [] if found is None else list(_centred(found[1]).transpose(3, 0, 1, 2)[:_FILTERS])


def first_kernel(model: nn.Sequence, input_shape: Sequence[int]) -> tuple[str, np.ndarray] | None:
    """The first layer with a kernel over an image or a signal, and the kernel; None without one."""
    for row in geometry.trace(model, input_shape):
        kernel = getattr(model.layer(row.name), "kernel", None)
        if kernel is not None and kernel.ndim in (4, len(input_shape) + 1):
            return row.name, np.asarray(kernel[...])
    return None


def explained_mistakes(explained: Explained, results: Results) -> Iterator[Section]:
    """The saliency of the predicted class for the images whose true class was held least likely; for none, nothing."""
    labels, probabilities = results.test_set.labels, results.predictions
    predicted = probabilities.argmax(axis=-1)
    labelled = np.flatnonzero((labels >= 0) & (labels < len(explained.outputs)))  # a label may mean "not labelled"
    of_labelled = labels[labelled], predicted[labelled], probabilities[labelled]
    worst = labelled[worst_mistakes(*of_labelled)[:_MISTAKES]]
    if not len(worst):
        return
    inputs = explained.inputs(results.test_set.inputs[worst])
    attributed = attribute(
        explained, inputs, jnp.asarray(predicted[worst]), methods_of(explained, default_methods(explained))
    )
    names = explained.outputs
    yield from attribution_sections(
        explained,
        inputs,
        attributed,
        titles=[f"#{n}: a {names[labels[n]]}, predicted {names[predicted[n]]}" for n in worst],
        title="Why the worst mistakes were made",
        about="Explained is the score of the wrong class that was predicted.",
    )
