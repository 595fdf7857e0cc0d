#!/usr/bin/env bash
# nnx.BatchNorm with a mask over several devices averages the devices' means without weighting by their entries.
#
# What: with axis_name, the mean of a masked batch is the mean of the devices' masked means. Devices with few entries
#   count as much as those with many, and a device whose entries are all masked makes the statistics of all devices NaN.
# Versions: jax and jaxlib 0.10.2, flax 0.12.8.
# Why it hurts: the last batch of a data set is padded with masked examples, which are all on the last devices. After it
#   the running statistics are NaN on every device.
# What we do: nn.BatchNorm and ops.batch_statistics add up the sums and the numbers of entries over the mapped axes.
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
from flax import nnx

print(f"jax {jax.__version__}, flax {flax.__version__}")
x = jnp.array([1.0, 1.0, 1.0, 4.0]).reshape(2, 2, 1)  # two devices, two examples each


def running_mean(mask):
    graph, state = nnx.split(nnx.BatchNorm(1, momentum=0.0, axis_name="devices", rngs=nnx.Rngs(0)))

    def run(x, mask):
        layer = nnx.merge(graph, state, copy=True)
        layer(x, mask=mask)
        return layer.mean[...]

    return float(jax.vmap(run, axis_name="devices")(x, jnp.array(mask)[..., None])[0, 0])


uneven = running_mean([[True, True], [False, True]])
padded = running_mean([[True, True], [False, False]])
print(f"mean of 1, 1 on a device and 4 on another: {uneven}   right: 2.0")
print(f"mean of 1, 1 on a device and nothing on another: {padded}   right: 1.0")
if uneven != 2.5 or padded == padded:
    print("The behaviour is no longer as stated.")
    sys.exit(1)
PYTHON
