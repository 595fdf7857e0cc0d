#!/usr/bin/env bash
# JAX compiles more slowly the more programs it has compiled. It keeps the MLIR module of each compiled program as long
# as its function is alive, also of each operation outside jit, and MLIR visits all live modules when it creates a new
# one. After 1,000 programs a single operation with a new shape takes about twice the CPU time. jax.clear_caches()
# restores the initial speed.
#
# Versions: jax 0.10.2, jaxlib 0.10.2 (CPU).
# Why it hurts: notebooks and test suites run convolutional networks outside jit on images of many sizes. They become
# slower without any message, and the code under test seems to be the cause.
# What we do: the test suite calls jax.clear_caches() after each module (tests/conftest.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import jax
import jax.numpy as jnp

print(f"jax {jax.__version__}")
heights = iter(range(1, 10_000))


def per_operation(count: int) -> float:
    """Milliseconds of CPU for a sum over an image of a new size, after an addition."""
    start = time.process_time()
    for _ in range(count):
        (jnp.zeros((next(heights), 3)) + 1).sum()
    return (time.process_time() - start) / count * 1000


per_operation(20)
first = per_operation(60)
per_operation(400)
late = per_operation(60)
jax.clear_caches()
per_operation(20)
cleared = per_operation(60)
print(f"a new size at the start: {first:.0f} ms of CPU; after 1,200 programs: {late:.0f} ms; after jax.clear_caches(): {cleared:.0f} ms")
as_stated = late > 1.3 * first and cleared < 0.85 * late
print("as stated" if as_stated else "no longer as stated")
sys.exit(not as_stated)
PYTHON
