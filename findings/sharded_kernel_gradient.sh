#!/usr/bin/env bash
# XLA's partitioner computes a too large kernel gradient of a convolution if images are sharded along a spatial axis.
#
# What: on a mesh of two axes, shard the images along a spatial axis over one mesh axis and leave the other unused. The
#   gradient of the kernel is multiplied by the size of the unused axis: by 4 on a (4, 2) mesh, by 2 on a (2, 4) mesh.
#   The output and the gradient of the images are right, and so is everything if the batch is sharded over the other
#   axis.
# Versions: jax and jaxlib 0.10.2, automatic meshes, eight simulated CPU devices.
# Why it hurts: large images or volumes are sharded over devices if one image does not fit on a device. Training then
#   silently uses 2 to 8 times the learning rate for kernels.
# What we do: cnn_jax/ops/sharding.py does not shard images along spatial axes where a kernel gradient is computed over
#   several devices; the batch and the channels stay sharded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8 "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import jaxlib
from jax.sharding import AxisType, NamedSharding, PartitionSpec

print(f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, {jax.device_count()} {jax.devices()[0].platform} devices")


def gradients(x, kernel):
    def loss(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return (jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout) ** 2).sum()

    return jax.grad(loss, (0, 1))(x, kernel)


x = jax.random.normal(jax.random.key(0), (8, 16, 16, 8))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 8, 8))
right = jax.jit(gradients)(x, kernel)
as_stated = True
for shape, spec, factor in [
    ((4, 2), PartitionSpec(None, "space"), 4),
    ((2, 4), PartitionSpec(None, None, "space"), 2),
    ((4, 2), PartitionSpec("batch", "space"), 1),
]:
    mesh = jax.make_mesh(shape, ("batch", "space"), axis_types=(AxisType.Auto,) * 2)
    found = jax.jit(gradients)(jax.device_put(x, NamedSharding(mesh, spec)), kernel)
    ratios = [float(jnp.vdot(a, b) / jnp.vdot(b, b)) for a, b in zip(found, right)]
    print(f"mesh {shape}, images {spec}: input gradient times {ratios[0]:.3f}, kernel gradient times {ratios[1]:.3f}")
    as_stated &= abs(ratios[0] - 1) < 1e-3 and abs(ratios[1] - factor) < 1e-3
if not as_stated:
    print("The behaviour is no longer as stated.")
    sys.exit(1)
PYTHON
