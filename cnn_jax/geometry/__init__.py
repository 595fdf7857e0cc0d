"""What a network does to shapes, without running it: sizes, receptive fields, parameters, costs.

:func:`trace` makes the table of a model; :func:`output_size`, :func:`receptive_field`, :func:`output_shape` and
:func:`parameter_count` answer for a bare list of layers, too.
"""

from cnn_jax.geometry.counts import parameter_count
from cnn_jax.geometry.fields import ReceptiveField
from cnn_jax.geometry.receptive_field import output_size, receptive_field
from cnn_jax.geometry.shapes import output_shape
from cnn_jax.geometry.table import HEADINGS, LEGEND, cells, format_table, print_table, to_csv, to_json, to_markdown
from cnn_jax.geometry.trace import Row, blocks, total, trace
from cnn_jax.geometry.windows import Window

__all__ = [
    "HEADINGS",
    "LEGEND",
    "ReceptiveField",
    "Row",
    "Window",
    "blocks",
    "cells",
    "format_table",
    "output_shape",
    "output_size",
    "parameter_count",
    "print_table",
    "receptive_field",
    "to_csv",
    "to_json",
    "to_markdown",
    "total",
    "trace",
]
