"""The contract of a task: what a researcher writes to train networks for something new.

A task defines the number of outputs of the network, their loss, their metrics, and what they mean to a person.
Training, exact resume, evaluation, prediction, ensembles, sweeps, reports, several devices and pretrained weights are
in :mod:`cnn_jax.tasks.run` and need nothing else. A new task is one class in one file; a config names it by
``config.experiment = "path/to/file.py:Name"``, or by an entry in :data:`cnn_jax.tasks.table.TASKS`. The guide is
``docs/extending.md``; :mod:`cnn_jax.tasks.classification` is a complete example.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key, Shaped
from ml_collections import ConfigDict

from cnn_jax import data, nn
from cnn_jax import train as training
from cnn_jax.data.fields import Described
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric

DRAWN = "drawn"
"""The field of a batch with the inputs that a task draws, see :meth:`Task.draw`."""


@dataclasses.dataclass(frozen=True)
class Examples(Described):
    """What a task knows about its training examples, including their ``class_names`` and ``image_shape``.

    Attributes:
      name: The data set's name, for error messages.
      spec: Name of a field -> what it is.
      class_counts: The number of training examples of each class; empty if unknown, as for a set that stays on disk, or
        for a trained network without its data.
      targets: Name of a field of kind ``target``, or of ``boxes``, of which the first of each example counts -> its
        statistics in the training set; empty if unknown, as for an untrained network without its data.

    >>> Examples("mine", {"label": data.Field("label", class_names=("cat", "dog"))}).class_names
    ('cat', 'dog')
    """

    name: str
    spec: data.Spec
    class_counts: tuple[int, ...] = ()
    targets: Mapping[str, "TargetStatistics"] = dataclasses.field(default_factory=dict)


class TargetStatistics(NamedTuple):
    """The mean and the standard deviation of each number of a target over the training set, both in its units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Results:
    """What the report of a task is computed from: the results of a trained network on the test set.

    Attributes:
      config: The run's config.
      test_set: The test set; a sample of it if the set stays on disk.
      test_count: The number of examples in the whole test set.
      predictions: The output of :meth:`Task.predict` for each example of ``test_set``, ``(n, ...)``.
      scores: The scores of the last evaluation, ``'split/metric' -> value``.
      explained: The network, a :class:`cnn_jax.tasks.responses.Explained`, for tasks that show its activations.
      train_set: The training set; a sample of it if the set stays on disk.
      records: The lines of ``metrics.jsonl``.
      history: Step -> reads the network of that checkpoint, as ``explained``, of a run with ``config.keep_history``.
    """

    config: ConfigDict
    test_set: data.Dataset
    test_count: int
    predictions: Shaped[np.ndarray, "..."]
    scores: Mapping[str, float]
    explained: Any = None
    train_set: data.Dataset | None = None
    records: Sequence[Mapping[str, Any]] = ()
    history: Mapping[int, Callable[[], Any]] = dataclasses.field(default_factory=dict)


class Task(abc.ABC):
    """What is learned. A subclass writes the abstract methods and, where the defaults do not fit, the others.

    Methods that take ``outputs`` or ``batch`` are pure functions of JAX arrays and are compiled. A ``batch`` is a dict
    of arrays with a leading axis of examples. It has the fields of the data set by name, such as ``'label'`` and
    ``'image'`` (before preprocessing: uint8 from 0 to 255 as stored, or float32 from 0 to 1 after an augmentation), and
    ``'index'``, the number of the example in its set. In evaluation it also has ``'mask'``: 1 for an example, 0 for the
    padding of the last batch. ``'drawn'`` is what :meth:`draw` has drawn, in tasks that draw their inputs.

    The network is the one that the config names, with :attr:`network_options`, or what :meth:`assemble` makes of
    several of these. Its input is one field of a batch; tasks with another input have :meth:`network_input` for one
    that is computed from several fields, or :attr:`drawn_shape` and :meth:`draw` for one that is drawn at random.
    :meth:`told` is for the truth that a network is given beside its input.

    Args:
      config: The run's config. While a program is compiled, the values of traced keys are JAX arrays.
      examples: What is known about the training set.
    """

    traced: ClassVar[tuple[str, ...]] = ()
    """Dotted keys of real numbers in the config that compiled programs take as arguments: runs that differ in them
    share one program, and ``--runner=vectorized`` trains them together. 0 means "off" and is another program."""

    tuple_examples: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values of keys whose default is an empty tuple; they determine the types of the elements."""

    spatial: ClassVar[bool] = False
    """Whether outputs have the spatial axes of the input, ``(batch, *space, outputs)``, as class maps have. Images are
    then never resized for the network. In evaluation and prediction they may have any size, and the network is applied
    to overlapping tiles of them, see :class:`cnn_jax.models.Tiling`; a network whose output is smaller than its input
    is trained on the middle of its input."""

    coarse: ClassVar[bool] = False
    """Of a spatial task: whether outputs are maps of cells, each for a square of pixels, as those of detectors are. The
    network is then applied to the whole image, see :class:`cnn_jax.models.Cells`."""

    writes_files: ClassVar[bool] = False
    """Whether ``--mode=predict --output=folder`` writes files about each prediction, see :meth:`write_prediction`."""

    config: ConfigDict
    """The run's config."""

    outputs: tuple[str, ...]
    """The names of the network's outputs, such as class names; their number is the network's."""

    drawn_shape: tuple[int, ...] = ()
    """The shape of one input of a network that is given what :meth:`draw` draws, such as noise. By default it is given
    the input field of the examples, whose shape is ``config.input_shape``."""

    network_options: Mapping[str, Any] = {}
    """Options of the network that follow from the examples. Those in ``config.model.options`` override them."""

    test_as_training: bool = False
    """Whether dropout and batch statistics are in evaluation and prediction as they are in training."""

    helper: Callable[[str], Any]
    """Reads the trained network of a name in :meth:`helpers`, ``(network, state)`` as of ``saved.load_run``. It is set
    after the task has been created, and not where a network is only described."""

    @abc.abstractmethod
    def __init__(self, config: ConfigDict, examples: Examples) -> None: ...

    @classmethod
    def default_config(cls) -> ConfigDict:
        """The keys that the task adds to the config of every run, with their defaults."""
        return ConfigDict()

    @classmethod
    @abc.abstractmethod
    def metrics(cls, config: ConfigDict) -> tuple[Metric, ...]:
        """The metrics among the scores. The first one chooses the best checkpoint and the best trial of a sweep."""

    @classmethod
    def helpers(cls, config: ConfigDict) -> Mapping[str, ConfigDict | Path]:
        """Trained networks that the task uses besides its own, read by :attr:`helper`; by default none.

        Args:
          config: The run's config.

        Returns:
          Name -> the folder of a run; or the config of a run that is trained first, in a folder of this name within the
          run's.
        """
        return {}

    @classmethod
    def extended(cls, config: ConfigDict, found: data.Dataset | data.Records) -> data.Dataset | data.Records:
        """The training set with further fields that the loss needs, computed once; by default the set itself.

        Args:
          config: The run's config.
          found: The training set, see :func:`cnn_jax.data.with_field`.
        """
        return found

    def assemble(self, create: Callable[[Key[Array, ""]], nn.Sequence], key: Key[Array, ""]) -> nn.Sequence:
        """The network; by default the one that the config names.

        Args:
          create: Creates the one that the config names, with parameters drawn by a key.
          key: Of the random numbers.
        """
        return create(key)

    def network_input(self, batch: Mapping[str, Any], name: str) -> Any:
        """The network's input in training and evaluation, before preprocessing; by default one field of the batch.

        Args:
          batch: The examples, JAX arrays or NumPy arrays.
          name: The field that is the input, see :attr:`cnn_jax.data.Dataset.input_name`; of a task that draws its
            inputs, :data:`DRAWN`.

        Returns:
          (batch, ...). In prediction the input is what the user gives, so the network has to take that, too.
        """
        return batch[name]

    def draw(self, batch: training.Batch, key: Key[Array, ""], *, train: bool) -> Array:
        """The inputs of a network that is not given a field of the examples, see :attr:`drawn_shape`.

        Args:
          batch: The examples.
          key: In training that of the step; in evaluation always the same, so that results are reproducible. Fold in
            ``batch['index']``, so that they do not depend on how examples are divided into batches.
          train: Whether it is for training.

        Returns:
          (batch, *drawn_shape), which becomes the field :data:`DRAWN` of the batch.
        """
        raise NotImplementedError

    def told(self, batch: training.Batch) -> dict[str, Any]:
        """What the network is told beside its input where the truth is known, as keywords; by default nothing.

        A network that writes words is told the true words before each place (teacher forcing). In prediction nothing is
        told. In evaluation the network is applied both ways: the outputs in :meth:`measure` are those of a network that
        is told the truth, and what it predicts without is ``batch['prediction']``. Such networks have no ensembles.

        Args:
          batch: The examples, as in :meth:`loss`.

        Returns:
          Keyword of the network's ``__call__`` -> what it is told.
        """
        return {}

    @abc.abstractmethod
    def loss(self, outputs: Array, batch: training.Batch) -> Array:
        """What training minimises: a scalar, the mean over the batch.

        Args:
          outputs: The outputs of the network, (batch, ..., outputs).
          batch: The examples.
        """

    def discriminator(self, rngs: nnx.Rngs) -> nnx.Module | None:
        """A second network, which is trained against the first one; by default there is none.

        In each step the discriminator takes an optimiser step to lower :meth:`discriminator_loss`, then the network one
        to lower the sum of :meth:`loss` and :meth:`adversarial_loss`. Its parameters are those of the network whose
        names begin with ``discriminator/``; each of both has an optimiser's state of its own.

        Args:
          rngs: Draws its parameters.
        """
        return None

    def discriminator_loss(self, discriminate: Callable[..., Array], outputs: Array, batch: training.Batch) -> Array:
        """What the discriminator minimises: a scalar, the mean over the batch.

        Args:
          discriminate: The discriminator, in training, as a function of its inputs.
          outputs: Of the network, as in :meth:`loss`; they have no gradient.
          batch: The examples.
        """
        raise NotImplementedError

    def adversarial_loss(self, discriminate: Callable[..., Array], outputs: Array, batch: training.Batch) -> Array:
        """What the network minimises beside its :meth:`loss`; arguments as for :meth:`discriminator_loss`."""
        raise NotImplementedError

    @abc.abstractmethod
    def measure(self, outputs: Array, batch: training.Batch) -> training.Metrics:
        """The metrics of a batch, in training and in evaluation: name -> (sum over examples, number of examples).

        Use :func:`mean_over` for means over examples. Training stops if the ``'loss'`` is not finite; where there is
        none in training, it is what the network minimises. The sum may be an array, from which :meth:`scores` computes
        numbers. :func:`each_of` keeps something of every example, for a score of the whole split; in training, nothing
        is kept.

        Args:
          outputs: The outputs of the network, (batch, ..., outputs).
          batch: The examples, with ``'mask'`` in evaluation.
        """

    def scores(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The scores of one split, also those that are not averages, such as a root mean square or F1.

        It runs on the host. A subclass adds its own scores to those of the base class, which are the averages that are
        single numbers.

        Args:
          means: Name -> average of :meth:`measure` over the split, a number or an array, or what was kept of each
            example, (n, ...). A name is missing if nothing was counted.
        """
        return {name: value for name, value in means.items() if not np.ndim(value)}

    def predict(self, outputs: Array) -> Array:
        """What is shown to a user for each example, such as class probabilities; by default the outputs, float32."""
        return outputs.astype(jnp.float32)

    def within(self, predictions: Shaped[np.ndarray, "..."], sizes: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
        """Predictions about inputs whose sizes are known, such as boxes that end where the image does.

        Args:
          predictions: Of :meth:`predict`, (n, ...).
          sizes: The spatial sizes of the inputs.
        """
        return predictions

    def of_file(self, prediction: Any, size: tuple[int, ...], framing: str) -> Any:
        """A prediction about an image that was brought to the network's size, as one about the image of its file.

        Args:
          prediction: Of :meth:`predict`, of one image.
          size: (height, width) of the image of the file.
          framing: How the image was brought to the network's size, ``"crop"``, ``"fit"`` or ``"stretch"``.
        """
        return prediction

    def average(self, outputs: Array) -> Array:
        """One output from those of several views of an image or several networks; by default their mean.

        Args:
          outputs: (several, batch, ..., outputs).
        """
        return outputs.mean(axis=0)

    def rows(self, predictions: Shaped[np.ndarray, "..."]) -> list[dict[str, Any]]:
        """The cells of one line of a ``.csv`` file for each example; by default one column for each output.

        Args:
          predictions: The output of :meth:`predict`, (n, ...).
        """
        return [dict(zip(self.outputs, row.tolist(), strict=True)) for row in predictions]

    def brief_rows(self, predictions: Shaped[np.ndarray, "..."]) -> list[dict[str, str]]:
        """The cells of :meth:`rows` as text for the terminal; by default numbers have four digits."""
        return [brief_cells(row) for row in self.rows(predictions)]

    def inspect(
        self,
        inputs: Shaped[np.ndarray, "..."],
        predictions: Shaped[np.ndarray, "..."],
        activations: Callable[[], Mapping[str, Shaped[np.ndarray, "..."]]],
    ) -> list[dict[str, Any]]:
        """Further cells of each line, from the input or from within the network; by default nothing.

        The terminal shows the first of them.

        Args:
          inputs: What the network was given, before preprocessing, (n, ...).
          predictions: Of :meth:`predict`, (n, ...).
          activations: Computes the outputs of the layers: name -> (n, ...).
        """
        return [{} for _ in predictions]

    def hints(self, predictions: Shaped[np.ndarray, "..."]) -> list[str]:
        """Why a prediction may be wrong, for each example, as ``--mode=predict`` shows it; by default nothing.

        Args:
          predictions: The output of :meth:`predict`, (n, ...).
        """
        return [""] * len(predictions)

    def targets(self, batch: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[dict[str, Any]]:
        """The true values, for the lines of ``--mode=eval --output=predictions.csv``; by default nothing.

        Args:
          batch: NumPy arrays of the examples, as in :meth:`loss`.
        """
        return [{} for _ in batch["index"]]

    def compared(
        self, predictions: Shaped[np.ndarray, "..."], batch: Mapping[str, Shaped[np.ndarray, "..."]]
    ) -> list[dict[str, Any]]:
        """How good each prediction is, for further cells of these lines; by default nothing.

        Args:
          predictions: The output of :meth:`predict`, (n, ...).
          batch: NumPy arrays of the examples, as in :meth:`loss`.
        """
        return [{} for _ in batch["index"]]

    def write_prediction(
        self, folder: Path, name: str, *, source: Path, image: Shaped[np.ndarray, "..."], prediction: Any
    ) -> None:
        """Writes files about one prediction, for ``--mode=predict --output=folder``, see :attr:`writes_files`.

        Args:
          folder: An existing folder.
          name: The beginning of the names of the files.
          source: The user's file.
          image: The image that was read from it, before preprocessing.
          prediction: The output of :meth:`predict`.

        Raises:
          UsageError: The task has no such files.
        """
        raise UsageError(f"{type(self).__name__} writes no files about predictions; leave --output out")

    def write_predictions(  # noqa: B027, by default there are none
        self, folder: Path, predictions: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Writes files about all predictions together, beside those of :meth:`write_prediction`; by default none.

        Args:
          folder: An existing folder.
          predictions: Of :meth:`predict`, by the paths of the user's files.
          sizes: The spatial sizes of the user's images, by the same paths.
        """

    def describe(self, scores: Mapping[str, float]) -> dict[str, str]:
        """The scores of one split as they are printed, label -> text; by default all metrics with their units.

        Args:
          scores: Metric -> value.
        """
        declared = self.metrics(self.config)
        return {metric.name: metric.format(scores[metric.name]) for metric in declared if metric.name in scores}

    def headlines(self, results: Results) -> list[Any]:
        """The report's :class:`~cnn_jax.report.page.Headline` numbers; by default the first metric on the test set."""
        from cnn_jax.report.page import Headline

        metric = self.metrics(self.config)[0].of("test")
        return [Headline(metric.name.replace("/", " "), metric.format(results.scores[metric.name]))]

    def sections(self, results: Results) -> list[Any]:
        """The task's own :class:`~cnn_jax.report.page.Section` of the report, figures and tables; by default none."""
        return []

    def typical(self, results: Results) -> tuple[int, str]:
        """The number and a description of the test example whose activations the report shows."""
        return 0, "test image 0"


def brief_cells(cells: Mapping[str, Any]) -> dict[str, str]:
    """Cells as text for the terminal, numbers with four digits.

    >>> brief_cells({"class": "cat", "score": 0.123456})
    {'class': 'cat', 'score': '0.1235'}
    """
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in cells.items()}


def mean_over(values: Shaped[Array, "batch *values"], batch: training.Batch) -> tuple[Array, Array]:
    """The sum over examples of one value or one array per example, and the number of examples, without padding.

    >>> mean_over(jnp.array([1.0, 2.0, 9.0]), {"mask": jnp.array([1.0, 1.0, 0.0])})
    (Array(3., dtype=float32), Array(2., dtype=float32))
    """
    mask = batch.get("mask", jnp.ones(len(values), values.dtype))
    return (values * mask.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))).sum(axis=0), mask.sum()


def each_of(values: Shaped[Array, "batch ..."], batch: training.Batch) -> training.Each:
    """Keeps values of every example of a split, without those that are padding, for :meth:`Task.scores`.

    >>> each_of(jnp.array([[1.0, 2.0]]), {"mask": jnp.array([1.0])}).values.shape
    (1, 2)
    """
    return training.Each(values, batch.get("mask", jnp.ones(len(values))))
