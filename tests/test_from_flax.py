"""Each row of docs/from_flax.md, run on both sides."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnn_jax import nn, ops

PAGE = (Path(__file__).parents[1] / "docs" / "from_flax.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", PAGE, re.M)
GENERATOR = np.random.default_rng(0)
ARRAYS = {
    "x": jnp.asarray(GENERATOR.standard_normal((2, 9, 8, 4)), jnp.float32),
    "w": jnp.asarray(GENERATOR.standard_normal((3, 3, 4, 6)), jnp.float32),
    "z": jnp.asarray(GENERATOR.standard_normal((5, 3)), jnp.float32),
    "labels": jnp.array([0, 2, 1, 2, 0]),
}


@pytest.mark.parametrize(("theirs", "mine"), ROWS, ids=[theirs for theirs, _ in ROWS])
def test_both_sides_are_equal(theirs, mine):
    names = {"jax": jax, "jnp": jnp, "nnx": nnx, "optax": optax, "nn": nn, "ops": ops}
    expected, found = (eval(code, names | ARRAYS | {"rngs": nnx.Rngs(0)}) for code in (theirs, mine))
    if isinstance(expected, nnx.Module):
        jax.tree.map(
            np.testing.assert_array_equal,
            nnx.to_pure_dict(nnx.state(found, nnx.Param)),
            nnx.to_pure_dict(nnx.state(expected, nnx.Param)),
        )
        expected, found = (layer(ARRAYS["x"]) for layer in (expected, found))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_page_has_rows():
    assert len(ROWS) > 15
