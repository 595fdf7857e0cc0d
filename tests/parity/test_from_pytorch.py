"""Each row of docs/from_pytorch.md, run on both sides."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional

from cnn_jax import nn, ops

PAGE = (Path(__file__).parents[2] / "docs" / "from_pytorch.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", PAGE, re.M)
ROWS = [(theirs, ours) for theirs, ours in ROWS if not theirs.startswith("(")]  # those of the layout

GENERATOR = np.random.default_rng(0)


def normal(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


# In PyTorch's layout.
ARRAYS = {
    "x": normal(2, 4, 9, 8),
    "w": normal(6, 4, 3, 3),
    "g": normal(6, 2, 3, 3),
    "d": normal(8, 1, 3, 3),
    "t": normal(4, 6, 3, 3),
    "b": normal(6),
    "m": normal(4),
    "v": np.abs(normal(4)) + 0.5,
    "s": normal(4),
    "b4": normal(4),
    "z": normal(5, 3),
    "y": np.abs(normal(5, 3)) % 1,
    "c": np.array([0.5, 1.0, 2.0], np.float32),
    "labels": np.array([0, 2, 1, 2, 0]),
    "unknown": np.array([0, -1, 1, 2, -1]),
}


def ours(name, array):
    """An array in our layout, as the page's first table says."""
    if name == "x":
        return array.transpose(0, 2, 3, 1)
    if name == "d":
        return array.transpose(2, 3, 1, 0).reshape(3, 3, 4, -1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def with_equal_parameters(module, layer):
    """Gives the layer the module's parameters, in order."""
    parameters = [parameter.detach().numpy() for parameter in module.parameters()]
    layers = [part for _, part in nnx.iter_modules(layer) if hasattr(part, "bias")]
    for part in layers:
        for name in ("kernel", "scale", "bias"):
            if getattr(part, name, None) is not None:
                array = parameters.pop(0)
                getattr(part, name)[...] = jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)
    assert not parameters
    return layer


def test_the_page_has_rows():
    assert len(ROWS) > 40


@pytest.mark.parametrize(("theirs", "mine"), ROWS, ids=[theirs for theirs, _ in ROWS])
def test_both_sides_are_equal(theirs, mine):
    tensors = {name: torch.tensor(array) for name, array in ARRAYS.items()}
    arrays = {name: jnp.asarray(ours(name, array)) for name, array in ARRAYS.items()}
    expected = eval(theirs, {"torch": torch, "F": functional}, tensors)
    found = eval(mine, {"jax": jax, "nn": nn, "ops": ops, "rngs": nnx.Rngs(0)}, arrays)
    if isinstance(expected, torch.nn.Module):
        found = with_equal_parameters(expected, found)(arrays["x"])
        expected = expected(tensors["x"])
    expected = expected.detach().numpy()
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
