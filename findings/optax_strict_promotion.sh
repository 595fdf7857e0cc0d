#!/usr/bin/env bash
# Optax does not work with JAX's strict type promotion: with jax_numpy_dtype_promotion='strict' the update of optax.adam
# raises TypePromotionError, and so does optax.cosine_decay_schedule of an integer step.
#
# Versions: jax 0.10.2, optax 0.2.8; CPU.
# Why it hurts users of convolutional networks: the flag finds mixed dtypes in a model before they reduce accuracy in
#   half precision. With the flag set, a network without mixed dtypes cannot be trained with the usual optimiser.
# What we do about it: cnn_jax.train calls optimisers and schedules of optax with standard promotion, and everything
#   else with the promotion that is set.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2" "optax==0.2.8"
JAX_PLATFORMS=cpu JAX_NUMPY_DTYPE_PROMOTION=strict "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import optax

print("jax", jax.__version__, "optax", optax.__version__)
params = {"kernel": jnp.ones((3, 3, 1, 4))}


def refused(name, call):
    try:
        call()
    except jax.dtypes.TypePromotionError as error:
        print(f"{name}: {str(error)[:110]} ...")
        return True
    print(f"{name}: works")
    return False


def update(optimizer):
    return optimizer.update(params, optimizer.init(params), params)


print("the same, by hand:", (params["kernel"] - 0.1 * params["kernel"]).dtype)
sgd = refused("optax.sgd(0.1).update", lambda: update(optax.sgd(0.1)))
adam = refused("optax.adam(0.1).update", lambda: update(optax.adam(0.1)))
cosine = refused("optax.cosine_decay_schedule(0.1, 10)(int32 step)", lambda: optax.cosine_decay_schedule(0.1, 10)(jnp.int32(1)))
sys.exit(0 if adam and cosine and not sgd else 1)
PYTHON
