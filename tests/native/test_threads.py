"""The native kernels give the same bits for any number of threads."""

import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.ops.formulations import WINOGRAD
from tests.native import test_convolution, test_winograd
from tests.native.test_convolution import arguments
from tests.ops.reference import Axis

pytestmark = pytest.mark.usefixtures("kernels")


def digests():
    found = []
    for axes, *rest in test_convolution.PATHS.values():
        x, kernel, dy, plan = arguments(axes, *rest)
        found += test_convolution.products(plan, x, kernel, dy)
    for axes, channels, features, batch in test_winograd.CASES.values():
        x, kernel, dy, plan = arguments(axes, channels, features, 1, batch)
        found += test_winograd.products(plan, WINOGRAD, x, kernel, dy)
    x, *_ = arguments([Axis(60, 1), Axis(60, 1)], 40, 1, batch=3)
    found += jax.jit(jax.value_and_grad(lambda x: jnp.sum(ops.normalize_by_batch(x, relu=True)[0] ** 2)))(x)
    return [hashlib.sha256(np.asarray(array).tobytes()).hexdigest() for array in found]


def test_one_thread_gives_the_same_bits():
    program = (
        "import os, json; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from tests.native.conftest import enable; enable()\n"
        "from tests.native.test_threads import digests; print(json.dumps(digests()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == digests()
    assert len(os.sched_getaffinity(0)) > 1, "there is one core only; nothing was tested"
