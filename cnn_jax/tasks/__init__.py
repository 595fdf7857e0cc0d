"""Tasks: what is learned, and the run that is the same for all of them. ``docs/extending.md`` shows how to add one."""

from cnn_jax.metrics import Metric
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
from cnn_jax.tasks.table import TASKS, default_config, schema, task_class
from cnn_jax.tasks.task import Examples, Results, Task, each_of, mean_over

__all__ = [
    "TASKS",
    "Autoencoder",
    "Captioning",
    "Classification",
    "CycleGAN",
    "Detection",
    "Examples",
    "Generation",
    "ImageToImage",
    "InstanceSegmentation",
    "Localization",
    "Metric",
    "MultiLabel",
    "Pix2Pix",
    "Regression",
    "Results",
    "Segmentation",
    "Task",
    "default_config",
    "each_of",
    "mean_over",
    "schema",
    "task_class",
]
