"""Data: sources of labelled pictures, the order of examples, and what turns pictures into a network's input."""

from cnn_jax.data.batches import batch_indices, epoch_order, padded_batches, steps_per_epoch
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.preprocess import Preprocess
from cnn_jax.data.sources import load

__all__ = ["Dataset", "Preprocess", "batch_indices", "epoch_order", "load", "padded_batches", "steps_per_epoch"]
