"""Data: sources of labelled pictures, the order of examples, and what turns pictures into a network's input."""

from cnn_jax.data.batches import batch_indices, epoch_order, padded_batches, steps_per_epoch
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.ink import measure_ink_extent
from cnn_jax.data.pictures import Picture, find_pictures, read_picture
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.data.records import Records
from cnn_jax.data.sources import SOURCES, load, open_set

__all__ = [
    "SOURCES",
    "Dataset",
    "Picture",
    "Preprocess",
    "Records",
    "batch_indices",
    "epoch_order",
    "find_pictures",
    "load",
    "measure_ink_extent",
    "open_set",
    "padded_batches",
    "read_picture",
    "steps_per_epoch",
]
