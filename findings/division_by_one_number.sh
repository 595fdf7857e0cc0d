#!/usr/bin/env bash
# XLA divides an array by a scalar by multiplying with the rounded reciprocal: floor(41 / 41) is 0.
#
# What: in float32, x / d for a constant d, or for a scalar d that is broadcast to x, inside or outside jax.jit, is
#   computed as x * (1 / d), which rounds twice. IEEE 754 and NumPy round once. Of the 256 values of a pixel, 126 differ
#   from NumPy's after / 255. For d = 41, 47, 55, 61, ... d / d is below 1 and its floor is 0. Only a divisor that is an
#   argument with the shape of x is really divided by.
# Versions: jax and jaxlib 0.10.2, on a CPU.
# Why it hurts: positions and bins from float divisions (jnp.floor(x / size)) are one too low. Images that are scaled in
#   JAX and in NumPy differ, so results are not bit-identical when preprocessing moves from one to the other. Average
#   pools differ by one unit in the last place.
# What we do: NumPy computes positions in integers, before anything is compiled; the test of averages by hand allows one
#   unit in the last place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

print(f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, {jax.devices()[0].platform}")
pixels = np.arange(256, dtype=np.float32)
right = pixels / np.float32(255)
scaled = {
    "jax.jit(lambda x: x / 255)": jax.jit(lambda x: x / 255)(pixels),
    "jnp.asarray(x) / 255": jnp.asarray(pixels) / 255,
    "d a scalar argument": jax.jit(lambda x, d: x / d)(pixels, np.float32(255)),
    "d an argument like x": jax.jit(lambda x, d: x / d)(pixels, np.full_like(pixels, 255)),
}
differ = {name: int((np.asarray(y) != right).sum()) for name, y in scaled.items()}
for name, count in differ.items():
    print(f"{name:28} differs from NumPy for {count} of 256 pixels")
product = pixels * (np.float32(1) / np.float32(255))
reciprocal = bool((np.asarray(scaled["jax.jit(lambda x: x / 255)"]) == product).all())
print(f"it is x * (1 / 255): {reciprocal}")
floor = float(jax.jit(lambda x: jnp.floor(x / 41))(np.float32(41)))
print(f"floor(41 / 41): jax.jit {floor}, NumPy {np.floor(np.float32(41) / np.float32(41))}")
if not reciprocal or floor != 0 or list(differ.values()) != [126, 126, 126, 0]:
    print("The behaviour is no longer as stated.")
    sys.exit(1)
PYTHON
