#!/usr/bin/env bash
# XLA's CPU backend is about 50 times slower if a kernel is larger than its input before padding.
#
# What: a convolution of 8x8 images, padded by 7, with 8x8 kernels takes 2 ms. With 7x7 images, which is less work, it
#   takes 90 to 120 ms. Padding with jnp.pad first does not help, because XLA moves the padding into the convolution.
#   With jax.lax.optimization_barrier after the padding it is not moved, and 7x7 is as fast as 8x8 with a barrier.
# Versions: jax and jaxlib 0.10.2, on a CPU.
# Why it hurts: the input gradient of every convolution with fewer outputs than window entries is such a convolution:
#   the last layers of convolutionalized classifiers (7x7 kernels on 9x9 maps), kernels as large as the map, patch
#   embeddings.
# What we do: cnn_jax/ops/formulations.py (_on_cpu) pads such inputs before a barrier.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax

print(f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, {jax.devices()[0].platform}")


def convolve(images, kernel, padding):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def padded(images):
    return jnp.pad(images, ((0, 0), (7, 7), (7, 7), (0, 0)))


ways = {
    "padding of the convolution": lambda images, kernel: convolve(images, kernel, 7),
    "jnp.pad first": lambda images, kernel: convolve(padded(images), kernel, 0),
    "jnp.pad behind a barrier": lambda images, kernel: convolve(lax.optimization_barrier(padded(images)), kernel, 0),
}
kernel = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 64, 64)), jnp.float32)
seen, results = {}, {}
for size in (7, 8):
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, size, size, 64)), jnp.float32)
    for name, way in ways.items():
        compiled = jax.jit(way).lower(images, kernel).compile()
        times = []
        for _ in range(8):
            start = time.perf_counter()
            results[size, name] = compiled(images, kernel).block_until_ready()
            times.append(time.perf_counter() - start)
        seen[size, name] = min(times)
        print(f"images of {size}x{size}, kernel of 8x8: {name:28} {1e3 * min(times):7.2f} ms")
first, *others = (results[7, name] for name in ways)
same = all(np.allclose(first, other, atol=1e-2) for other in others)
slow = min(seen[7, "padding of the convolution"], seen[7, "jnp.pad first"])
larger = seen[8, "padding of the convolution"]
print(f"7x7 takes {slow / larger:.0f} times as long as 8x8; results are the same in all three ways: {same}")
if not same or slow < 10 * larger or seen[7, "jnp.pad behind a barrier"] > slow:
    print("The behaviour is no longer as stated.")
    sys.exit(1)
PYTHON
