"""docs/models.md is the output of docs/models.py."""

import pytest

from cnn_jax import models
from docs.models import FAMILIES, INTRODUCTION, PAGE, page, section

QUICK = ("Baselines", "LeNet", "AlexNet", "airbench")


def test_every_network_is_on_the_page_once() -> None:
    names = [name for _, _, names in FAMILIES for name in names]
    assert sorted(names) == sorted(models.available())


@pytest.mark.parametrize("family", [family for family in FAMILIES if family[0] in QUICK], ids=lambda family: family[0])
def test_sections_are_current(family: tuple) -> None:
    text = PAGE.read_text()
    assert text.startswith(INTRODUCTION)
    assert section(*family) in text, "write the page again: python -m docs.models"


@pytest.mark.slow
def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "write the page again: python -m docs.models"
