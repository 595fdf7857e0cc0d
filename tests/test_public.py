"""Everything public is documented in one style: Google sections, two-space indent, full sentences, an example.

The functions of ``ops``, ``geometry``, ``filters`` and ``attribution`` and the layers of ``nn`` follow all rules. For
``models`` and ``weights`` only the layout of the sections is checked.
"""

import doctest
import inspect
import re

import pytest

from cnn_jax import attribution, filters, geometry, models, nn, ops, weights


def members(*modules):
    return [getattr(module, name) for module in modules for name in module.__all__]


OPS = [member for member in members(ops, nn) if inspect.isfunction(member)]
FUNCTIONS = OPS + [member for member in members(geometry, filters, attribution) if inspect.isfunction(member)]
LAYERS = [member for member in members(nn) if inspect.isclass(member) and member.__module__.startswith("cnn_jax.nn")]
PUBLIC = FUNCTIONS + [
    member
    for member in members(nn, geometry, attribution, models, weights)
    if (inspect.isclass(member) or inspect.isfunction(member))
    and member.__module__.startswith("cnn_jax")
    and member not in FUNCTIONS
]
# Ops may take these arguments by position; all others are options, which are keyword-only.
POSITIONAL = {
    *("x", "y", "kernel", "depthwise_kernel", "pointwise_kernel", "columns", "indices", "logits", "outputs", "labels"),
    *("targets", "centers", "bins", "confusion", "counts", "predicted", "probabilities", "window", "sizes", "widths"),
    *("output_size", "output_shape", "scale", "rate", "x_shape", "kernel_shape", "boxes", "others", "scores"),
}
UNDOCUMENTED = {"self", "args"}
# "strides: This and all remaining options have the same meaning as in conv" documents the rest.
SHARED = "all remaining options have the same meaning as in"
SECTIONS = ("Args", "Attributes", "Raises", "Returns", "References")
WITH_NAMES = ("Args", "Attributes", "Raises")


def name_of(member):
    return f"{member.__module__.split('.')[1]}.{member.__qualname__}"


def arguments(member):
    """The names in a signature, without the stars of ``**options``."""
    return inspect.signature(member).parameters


def sections(docstring):
    """The lines of each section, by its name."""
    found = {}
    for block in re.split(r"\n\s*\n", docstring.strip()):
        heading, _, body = block.partition("\n")
        if heading.removesuffix(":") in SECTIONS and heading.endswith(":"):
            found[heading.removesuffix(":")] = body.split("\n")
    return found


def entries(lines):
    """The entries of a section as pairs of a name and a text, from lines that are indented by two."""
    found = []
    for line in lines:
        if not line.startswith("    ") or not found:
            found.append(line[2:])
        else:
            found[-1] += " " + line.strip()
    return [entry.partition(": ")[::2] for entry in found]


def described(docstring):
    """The names under ``Args:``."""
    return [name.lstrip("*") for name, _ in entries(sections(docstring).get("Args", []))]


def faults(docstring):
    """What is wrong with the layout of a docstring."""
    first = docstring.split("\n\n")[0]
    if not first.rstrip().endswith((".", ":")):
        yield f"the summary is no sentence: {first!r}"
    for line in docstring.split("\n"):
        if re.fullmatch(r"\s*(Arguments|Parameters|Return|Yields|Raise|Example|Examples|Note|Reference):", line):
            yield f"unknown section {line.strip()!r}"
    for section, lines in sections(docstring).items():
        for line in lines:
            if not re.match(r"  \S|    \S|      \S", line) or (line.startswith("      ") and section not in WITH_NAMES):
                yield f"{section}: not indented by two: {line!r}"
        if section in WITH_NAMES:
            texts = entries(lines)
            for name, _ in texts:
                if not re.fullmatch(r"\*{0,2}\w+", name):
                    yield f"{section}: {name!r} is no name"
        else:
            texts = [("", " ".join(line.strip() for line in lines))]
        for name, text in texts:
            if not text.endswith("."):
                yield f"{section}: {name} {text!r} does not end with a full stop"
            if re.match(r"[a-z]", text):
                yield f"{section}: {name} {text!r} does not start with a capital letter"


def test_the_rules_find_faults():
    good = "Adds.\n\nArgs:\n  x: A number,\n    not negative.\n\nReturns:\n  ``x``.\n"
    assert not list(faults(good))
    assert described(good) == ["x"]
    for old, new, found in (
        ("  x:", "    x:", "is no name"),
        ("x: A", "x: a", "capital"),
        ("``x``.", "``x``", "full stop"),
        ("Adds.", "Adds", "summary"),
        ("Returns:", "Return:", "unknown section"),
    ):
        seen = list(faults(good.replace(old, new)))
        assert any(re.search(found, fault) for fault in seen), (old, new, seen)


def test_there_is_something_to_check():
    assert len(FUNCTIONS) > 50
    assert len(LAYERS) > 20
    assert len(PUBLIC) > 90


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_functions_are_documented(function):
    text = inspect.getdoc(function)
    assert doctest.DocTestParser().get_examples(text), "no example that runs"
    names = [name for name in arguments(function) if name not in UNDOCUMENTED]
    said = described(text)
    missing = [name for name in names if name not in said]
    assert not missing or SHARED in text, f"undocumented: {missing}"
    assert set(said) <= set(names), f"documented, but not there: {set(said) - set(names)}"
    returns = inspect.signature(function).return_annotation
    assert "Returns" in sections(text) or returns in (None, "None")


@pytest.mark.parametrize("member", PUBLIC, ids=name_of)
def test_docstrings_have_one_layout(member):
    texts = {"": inspect.getdoc(member)}
    if inspect.isclass(member) and member.__module__.startswith(
        ("cnn_jax.nn", "cnn_jax.geometry", "cnn_jax.attribution")
    ):
        own = {} if hasattr(member, "_fields") else vars(member)  # the methods of named tuples are Python's
        methods = {name: method for name, method in own.items() if inspect.isfunction(method)}
        texts |= {name: method.__doc__ and inspect.getdoc(method) for name, method in methods.items()}
    found = {name: list(faults(text)) for name, text in texts.items() if text}
    assert not any(found.values()), found


@pytest.mark.parametrize("function", OPS, ids=name_of)
def test_options_are_given_by_name(function):
    for name, parameter in arguments(function).items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert name in POSITIONAL, f"{name} can be given by position"
            assert parameter.default is parameter.empty, f"{name} has a default, so it is an option"


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_layers_are_documented(layer):
    text = inspect.getdoc(layer)
    assert doctest.DocTestParser().get_examples(text), "no example that runs"
    own = "__init__" in vars(layer)
    names = [name for name in inspect.signature(layer.__init__).parameters if name not in UNDOCUMENTED] if own else []
    assert described(text) == names or not own
    assert inspect.getdoc(layer.__call__)
