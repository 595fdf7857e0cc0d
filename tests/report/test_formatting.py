"""Names that are shortened."""

import random

import pytest

from cnn_jax.report.formatting import shortened


@pytest.mark.parametrize("seed", range(20))
def test_different_names_remain_different_and_fit(seed: int) -> None:
    """Names of two letters, so that many have equal beginnings, differ in several places, or are prefixes of others."""
    generator = random.Random(seed)
    names = ["".join(generator.choices("ab ", k=generator.randint(1, 40))).strip() or "x" for _ in range(40)]
    short = shortened(names, lambda text: len(text) <= 10)
    assert all(len(text) <= 10 for text in short)
    assert len(set(short)) == len(set(names))
    assert all(text == name for text, name in zip(short, names, strict=True) if len(name) <= 10)
    assert len({(name, text) for name, text in zip(names, short, strict=True)}) == len(set(names))
