"""What a network does to shapes, without running it."""

from cnn_jax.geometry.shapes import output_shape
from cnn_jax.geometry.trace import HEADINGS, Row, cells, format_table, parameter_count, total, trace

__all__ = ["HEADINGS", "Row", "cells", "format_table", "output_shape", "parameter_count", "total", "trace"]
