"""The names of the tasks: the one place where they are looked up."""

from ml_collections import ConfigDict

from cnn_jax import train as training
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.objects import is_reference, load_object
from cnn_jax.schema import Schema, locked
from cnn_jax.tasks.autoencoder import Autoencoder
from cnn_jax.tasks.captioning import Captioning
from cnn_jax.tasks.classification import Classification
from cnn_jax.tasks.cyclegan import CycleGAN
from cnn_jax.tasks.detection import Detection
from cnn_jax.tasks.generation import Generation
from cnn_jax.tasks.image_to_image import ImageToImage
from cnn_jax.tasks.instance_segmentation import InstanceSegmentation
from cnn_jax.tasks.localization import Localization
from cnn_jax.tasks.multi_label import MultiLabel
from cnn_jax.tasks.pix2pix import Pix2Pix
from cnn_jax.tasks.regression import Regression
from cnn_jax.tasks.segmentation import Segmentation
from cnn_jax.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "autoencoder": Autoencoder,
    "captioning": Captioning,
    "classification": Classification,
    "cyclegan": CycleGAN,
    "detection": Detection,
    "generation": Generation,
    "image_to_image": ImageToImage,
    "instance_segmentation": InstanceSegmentation,
    "localization": Localization,
    "multi_label": MultiLabel,
    "pix2pix": Pix2Pix,
    "regression": Regression,
    "segmentation": Segmentation,
}
"""Name in ``config.experiment`` -> task."""

_TUPLE_EXAMPLES = {  # of keys whose default is an empty tuple
    "data.features": ("image", "segmentation_mask"),
    "data.classes": (3, 5),
    "data.train_part": (0, 1000),
    "data.size": (256, 256),
    "data.pixel_range": (-1.0, 1.0),
    "data.augment": ("flip", "pad_and_crop(padding=4)"),
}


def task_class(name: str) -> type[Task]:
    """The task of a name in :data:`TASKS`, or of a reference such as ``'path/to/file.py:Name'``.

    Raises:
      UsageError: There is no such task.

    >>> task_class("classification").__name__
    'Classification'
    """
    if name in TASKS:
        return TASKS[name]
    what = f"config.experiment={name!r}"
    if not is_reference(name):
        raise UsageError(f"{what} is unknown; {nearest(name, TASKS)}")
    found = load_object(name, what=what)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UsageError(f"{what} is not a subclass of cnn_jax.tasks.Task; see docs/extending.md")
    if found.__abstractmethods__:
        raise UsageError(f"{what} lacks {', '.join(sorted(found.__abstractmethods__))}; see cnn_jax.tasks.Task")
    return found


def default_config(name: str = "classification") -> ConfigDict:
    """Every key of the runs of a task, with the defaults that config files override; other keys cannot be added.

    Args:
      name: As in :func:`task_class`.

    >>> default_config().model.name
    'lenet_5_modern'
    """
    config = ConfigDict(
        {
            "experiment": name,
            "seed": 0,
            "input_shape": (32, 32, 1),
            "model": {
                "name": "lenet_5_modern",
                "width": 1.0,
                "options": {},  # of the network, see models.variant(name).options()
                "weights": "",  # where to start: a .safetensors or .pth file, a name on the hub, a run's folder
            },
            "data": {
                "name": "digits",
                "train": "train",
                "validation": "validation",  # chooses the best checkpoint; empty for none
                "test": "test",
                "features": (),  # of a TFDS set, the input first; empty for the (input, target) that TFDS declares
                "classes": (),  # the numbers of those to tell apart; empty for all
                "train_part": (),  # (start, stop) of the training examples of these classes; empty for all
                "data_dir": "",  # where TFDS looks; empty for its own default
                "size": (),  # (height, width) to which images of different sizes are read; empty for input_shape's
                "normalize": "none",  # each: mean 0 and deviation 1 in every volume, whose scales may differ; none
                "framing": "crop",  # how: crop, fit, stretch
                "loading": "auto",  # memory; stream, from disk by worker processes; or auto, by the memory there is
                "workers": -1,  # that read a stream; -1 for one for each core, 0 for threads instead
                "resize": "bilinear",  # how images reach input_shape: also pad, crop, none
                "pixel_range": (),  # what black and white become, such as (-1.0, 1.0); empty: mean 0, deviation 1
                "augment": (),  # of the training images, in this order: ("flip", "pad_and_crop(padding=4)")
                "test_time": "",  # views whose predictions are averaged: mirror, ten_crop; empty for the image alone
            },
            "ignore_label": -1,  # a label that means "not labelled": no loss, no metric; -1 for the data set's own
            "report": {"explain": False},  # whether report.html shows what channels and classes respond to
            "ensemble": 1,  # how many networks to train and average
            "rotated_pairs": {  # a loss: the squared distance between the outputs for an image and its rotation
                "weight": 0.0,  # 0 for none
                "rotation": 45.0,  # the largest angle in degrees, either way
            },
            "auxiliary_weight": 0.3,  # of the loss of each auxiliary head, in networks that have such
        }
    )
    config.update(task_class(name).default_config())
    config.update(training.default_settings())
    return locked(config)


def schema(name: str = "classification") -> Schema:
    """What the config of a run may contain.

    Args:
      name: As in :func:`task_class`.

    >>> schema().check(default_config())
    """
    examples = {**_TUPLE_EXAMPLES, **training.TUPLE_EXAMPLES, **task_class(name).tuple_examples}
    return Schema(default_config(name), examples)
