#!/usr/bin/env bash
# XLA's CPU backend accumulates the gradients of broadcasts and gathers in bfloat16 and float16.
#
# What: the gradient of a bias is the sum of the output's gradient over all examples and positions. For bfloat16 on a
#   CPU it is accumulated in bfloat16, where 256 + 1 is 256: the sum of 16,384 ones is 1,024 instead of 16,384, and over
#   a single axis of 16,384 it is 8,192. The bias of nnx.Conv has this error: 1,024 in bfloat16 and 8,192 in float16.
#   The gradient of a gather (jnp.take) stops at 256 and 2,048. jnp.sum of the same array is right.
# Versions: jax and jaxlib 0.10.2, flax 0.12.8, on a CPU.
# Why it hurts: networks in half precision silently train with bias gradients that are too small, by a factor that grows
#   with the batch and the image. A test on a small image does not show it.
# What we do: cnn_jax/ops/wide.py adds biases, scales and repeated entries in float32 and rounds once, so that their
#   gradients are sums in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 flax==0.12.8
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import flax
import jax
import jax.numpy as jnp
import jaxlib
from flax import nnx

print(f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, flax {flax.__version__}, {jax.devices()[0].platform}")


def of_bias(dtype, shape):
    images = jnp.zeros((*shape, 2), dtype)
    return jax.jit(jax.grad(lambda bias: (images + bias).astype(jnp.float32).sum()))(jnp.zeros(2, dtype))[0]


def of_gather(dtype):
    places = jnp.zeros(16384, jnp.int32)
    return jax.jit(jax.grad(lambda x: jnp.take(x, places).astype(jnp.float32).sum()))(jnp.zeros(3, dtype))[0]


def of_layer(dtype):
    layer = nnx.Conv(1, 2, (3, 3), dtype=dtype, rngs=nnx.Rngs(0))
    loss = lambda layer: layer(jnp.ones((4, 64, 64, 1), dtype)).astype(jnp.float32).sum()
    return nnx.grad(loss)(layer).bias[0]


def of_sum(dtype):
    return jax.jit(lambda x: x.sum())(jnp.ones((4, 64, 64), dtype))


seen = {}
for dtype in (jnp.bfloat16, jnp.float16):
    found = {
        "bias, sum over (4, 64, 64)": of_bias(dtype, (4, 64, 64)),
        "bias, sum over (16384,)": of_bias(dtype, (16384,)),
        "gather of one entry 16384 times": of_gather(dtype),
        "bias of nnx.Conv": of_layer(dtype),
        "jnp.sum of (4, 64, 64)": of_sum(dtype),
    }
    for name, value in found.items():
        print(f"{dtype.__name__:9} {name:32} {float(value):8.0f}   right: 16384")
        seen[dtype.__name__, name] = float(value)

stated = {
    ("bfloat16", "bias, sum over (4, 64, 64)"): 1024,
    ("bfloat16", "bias, sum over (16384,)"): 8192,
    ("bfloat16", "gather of one entry 16384 times"): 256,
    ("bfloat16", "bias of nnx.Conv"): 1024,
    ("bfloat16", "jnp.sum of (4, 64, 64)"): 16384,
    ("float16", "gather of one entry 16384 times"): 2048,
    ("float16", "bias of nnx.Conv"): 8192,
    ("float16", "jnp.sum of (4, 64, 64)"): 16384,
}
if any(seen[key] != value for key, value in stated.items()):
    print("The behaviour is no longer as stated.")
    sys.exit(1)
PYTHON
