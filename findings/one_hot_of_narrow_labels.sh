#!/usr/bin/env bash
# jax.nn.one_hot of uint8 or int8 labels returns rows with several ones if there are more classes than the dtype has
# values.
#
# Versions: jax 0.10.2, numpy 2.4; CPU.
# What happens: the classes 0, 1, ... are counted in the dtype of the labels and wrap around after its last value, so
#   that class 256 equals class 0. With 600 classes, label 3 in uint8 matches classes 3, 259 and 515, without a
#   warning.
# Why it hurts users of convolutional networks: label maps of segmentations and small data sets are stored as uint8. A
#   head of 600 classes then trains on targets that sum to 3 if a part of the data uses only the first classes: the loss
#   is wrong by a factor, and classes learn from each other's examples.
# What we do about it: cnn_jax.ops compares labels in at least 32 bits (cnn_jax/ops/labels.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, "numpy", np.__version__)
wrong = {}
for dtype in ("uint8", "int8", "int32"):
    row = np.asarray(jax.nn.one_hot(jnp.array([3], dtype), 600)[0])
    print(f"{dtype}: label 3 of 600 classes has ones at {np.flatnonzero(row).tolist()}, sum {row.sum():g}, right: [3], sum 1")
    wrong[dtype] = row.sum() != 1
sys.exit(0 if wrong == {"uint8": True, "int8": True, "int32": False} else 1)
PYTHON
