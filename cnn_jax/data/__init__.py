"""Data: sources of labelled pictures, the order of examples, and what turns pictures into a network's input."""

from cnn_jax.data.batches import batch_indices, epoch_order, padded_batches, steps_per_epoch
from cnn_jax.data.dataset import Dataset, chosen_classes
from cnn_jax.data.ink import measure_ink_extent
from cnn_jax.data.pictures import Picture, find_pictures, read_picture
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.data.records import Records, as_records, sample
from cnn_jax.data.sources import SOURCES, class_names, load, open_set
from cnn_jax.data.stream import Stream, choose_loading

__all__ = [
    "SOURCES",
    "Dataset",
    "Picture",
    "Preprocess",
    "Records",
    "Stream",
    "as_records",
    "batch_indices",
    "choose_loading",
    "chosen_classes",
    "class_names",
    "epoch_order",
    "find_pictures",
    "load",
    "measure_ink_extent",
    "open_set",
    "padded_batches",
    "read_picture",
    "sample",
    "steps_per_epoch",
]
