"""Detection of objects: how good detections are, see :mod:`cnn_jax.tasks.detection_scores`."""

from cnn_jax.tasks.detection_scores import average_precision

__all__ = ["average_precision"]
