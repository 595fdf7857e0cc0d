#!/usr/bin/env bash
# optax.softmax_cross_entropy_with_integer_labels treats label -1 as the last class; for K classes label K gives NaN.
#
# Versions: jax 0.10.2, optax 0.2.8; CPU. PyTorch 2.13 raises an error for both, and ignores -100.
# What happens: the label is an index as in NumPy: -1 is class K - 1, -2 is the one before, and so on to -K. Other
#   indices out of range read NaN. There is neither an error nor a warning, inside or outside jit.
# Why it hurts users of convolutional networks: -1 marks unlabelled examples and pixels in many data sets (and in
#   scikit-learn). All of them are learned as the last class. A label map that counts from 1 makes the loss NaN, without
#   any hint at the labels.
# What we do about it: cnn_jax.ops.softmax_cross_entropy ignores -1 (or ignore_label). For any other label out of range
#   it raises an error if the values are known, and inside jit returns an infinite loss and no gradient.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2" "optax==0.2.8"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import optax

print("jax", jax.__version__, "optax", optax.__version__)
logits = jnp.array([0.0, 1.0, 2.0, 5.0])
losses = {n: float(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array(n))) for n in (0, 3, -1, -4, 4, -100)}
for label, loss in losses.items():
    print(f"label {label} of 4 classes: {loss:.4f}")
gradient = jax.grad(optax.softmax_cross_entropy_with_integer_labels)(logits, jnp.array(-1))
print("gradient of label -1:", gradient.tolist(), "(of the last class it is negative: it is learned)")
as_stated = losses[-1] == losses[3] and losses[-4] == losses[0] and losses[4] != losses[4] and gradient[3] < 0
sys.exit(0 if as_stated else 1)
PYTHON
