"""Data: sources of labelled pictures, the order of examples, and what turns pictures into a network's input."""

from cnn_jax.data.batches import batch_indices, epoch_order, padded_batches, steps_per_epoch
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.ink import measure_ink_extent
from cnn_jax.data.pictures import Picture, find_pictures, read_picture
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.data.sources import load

__all__ = [
    "Dataset",
    "Picture",
    "Preprocess",
    "batch_indices",
    "epoch_order",
    "find_pictures",
    "load",
    "measure_ink_extent",
    "padded_batches",
    "read_picture",
    "steps_per_epoch",
]
