"""Data: sources of labelled pictures, the order of examples, and what turns pictures into a network's input."""

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.sources import load

__all__ = ["Dataset", "load"]
