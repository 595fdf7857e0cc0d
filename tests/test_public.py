"""What is public is documented, one like the other: every function of ``ops`` and every layer of ``nn``."""

import doctest
import inspect
import re

import pytest

from cnn_jax import nn, ops

PUBLIC = [getattr(module, name) for module in (ops, nn) for name in module.__all__]
FUNCTIONS = [member for member in PUBLIC if inspect.isfunction(member)]
LAYERS = [member for member in PUBLIC if inspect.isclass(member) and member.__module__.startswith("cnn_jax.nn")]
# What an op is about; everything else is an option, to be given by name.
POSITIONAL = {
    *("x", "y", "kernel", "depthwise_kernel", "pointwise_kernel", "columns", "indices", "logits", "outputs", "labels"),
    *(
        "centers",
        "window",
        "sizes",
        "widths",
        "output_size",
        "output_shape",
        "scale",
        "rate",
        "x_shape",
        "kernel_shape",
    ),
}
NOT_SAID = {"self", "args"}


def arguments(member):
    """The names of a signature, without the stars of ``**options``."""
    return inspect.signature(member).parameters


def described(docstring):
    """The names under ``Args:``."""
    _, _, rest = docstring.partition("Args:\n")
    block = re.split(r"\n\s*\n", rest)[0]
    indent = len(block) - len(block.lstrip())
    return re.findall(rf"^ {{{indent}}}\**(\w+):", block, re.M)


def test_there_is_something_to_look_at():
    assert len(FUNCTIONS) > 25
    assert len(LAYERS) > 20


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_are_documented(function):
    text = inspect.getdoc(function)
    assert doctest.DocTestParser().get_examples(text), "no example that runs"
    names = [name for name in arguments(function) if name not in NOT_SAID]
    # "strides: This and all further options are those of conv" stands for the rest.
    said = described(text)
    shared = "all further options are those of" in text or "like the further options" in text
    missing = [name for name in names if name not in said]
    assert not missing or shared or len(names) == 1, f"undocumented: {missing}"
    assert set(said) <= set(names), f"documented, but not there: {set(said) - set(names)}"
    assert "Returns:" in text


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_options_are_given_by_name(function):
    for name, parameter in arguments(function).items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert name in POSITIONAL, f"{name} can be given by position"
            assert parameter.default is parameter.empty, f"{name} has a default, so it is an option"


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_layers_are_documented(layer):
    text = inspect.getdoc(layer)
    assert doctest.DocTestParser().get_examples(text), "no example that runs"
    own = "__init__" in vars(layer)
    names = [name for name in inspect.signature(layer.__init__).parameters if name not in NOT_SAID] if own else []
    assert described(text) == names or not own
    assert inspect.getdoc(layer.__call__)
