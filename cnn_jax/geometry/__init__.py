"""Shapes, receptive fields, parameter counts and costs of a network, computed without running it.

:func:`trace` returns the table of a model. :func:`output_size`, :func:`receptive_field`, :func:`output_shape` and
:func:`parameter_count` also accept a plain list of layers.
"""

from cnn_jax.geometry.counts import parameter_count
from cnn_jax.geometry.fields import ReceptiveField
from cnn_jax.geometry.receptive_field import output_size, receptive_field
from cnn_jax.geometry.shapes import output_shape
from cnn_jax.geometry.table import (
    FOLDED_HEADINGS,
    HEADINGS,
    LEGEND,
    cells,
    folded_cells,
    format_table,
    print_table,
    to_csv,
    to_json,
    to_markdown,
)
from cnn_jax.geometry.trace import Row, blocks, total, trace
from cnn_jax.geometry.windows import Window

__all__ = [
    "FOLDED_HEADINGS",
    "HEADINGS",
    "LEGEND",
    "ReceptiveField",
    "Row",
    "Window",
    "blocks",
    "cells",
    "folded_cells",
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
