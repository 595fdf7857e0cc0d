"""Search spaces: their points, their errors, and their notation."""

import itertools
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from cnn_jax import schema
from cnn_jax.errors import UsageError
from cnn_jax.sweep import notation, space

CONFIG = ConfigDict(
    {
        "seed": 0,
        "epochs": 3,
        "freeze": (),
        "model": {"options": {}},
        "nesterov": False,
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    }
)
RATE = space.sweep("optimizer.learning_rate", [0.1, 0.2, 0.3])


def test_product_is_every_combination() -> None:
    part = space.product(RATE, space.integers("seed", 0, 4), space.choice("optimizer.name", ["sgd", "adam"]))
    found = [tuple(point.values()) for point in space.grid(part)]
    assert found == list(itertools.product([0.1, 0.2, 0.3], range(5), ["sgd", "adam"]))


def test_products_may_be_given_as_lists_and_nested() -> None:
    seeds = space.sweep("seed", [0, 1])
    assert space.grid(space.product([RATE, space.product([seeds])])) == space.grid(space.product(RATE, seeds))


def test_condition_on_a_key_that_is_not_swept_looks_at_the_config() -> None:
    part = space.when("optimizer.name", ["sgd", "nesterov"], RATE)
    assert len(space.grid(part, {"optimizer.name": "sgd"})) == 3
    assert space.grid(part, {"optimizer.name": "adam"}) == [{}]


def test_one_key_in_two_branches() -> None:
    name = space.sweep("optimizer.name", ["sgd", "adam"])
    rates = {"sgd": [0.1, 0.2], "adam": [0.001]}
    branches = [space.when("optimizer.name", k, space.sweep("optimizer.learning_rate", v)) for k, v in rates.items()]
    part = space.product(name, *branches)
    space.check(part, CONFIG)
    found = [tuple(point.values()) for point in space.grid(part)]
    assert found == [("sgd", 0.1), ("sgd", 0.2), ("adam", 0.001)]


def test_values_may_be_numpy_scalars() -> None:
    for values in (np.array([0.1, 0.2]), [np.float64(0.1), np.float64(0.2)]):
        part = space.product(space.sweep("optimizer.learning_rate", values), space.sweep("epochs", np.arange(1, 3)))
        space.check(part, CONFIG)
        assert space.grid(part)[0] == {"optimizer.learning_rate": 0.1, "epochs": 1}
        assert space.from_json(json.loads(json.dumps(space.to_json(part)))) == part


def test_prefix_of_the_command_line_is_understood() -> None:
    assert space.grid(space.sweep("config.seed", [1])) == [{"seed": 1}]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (space.sweep("optimizer.learning_rat", [0.1]), ["learning_rat:", "'optimizer.learning_rate'"]),
        (space.sweep("optimizer", ["sgd"]), ["is a group", "optimizer.momentum"]),
        (space.uniform("model.options.dropout_rate", 0.0, 0.5), ["model.options is empty", "set 'dropout_rate'"]),
        (space.sweep("optimizer.learning_rate", [0.1, "fast"]), ["'fast'", "a number", "0.1"]),
        (space.sweep("epochs", [1.5]), ["epochs=1.5", "a whole number", "3"]),
        (space.uniform("epochs", 1.0, 2.0), ["epochs=1,2", "a whole number", "int(1,2)"]),
        (space.sweep("optimizer.lr", [0.1]), ["optimizer.lr:", "'optimizer.learning_rate'"]),
        (space.sweep("nesterov", [1]), ["nesterov=1", "true or false"]),
        (space.sweep([{"epochs": 3, "optimizer.nam": "sgd"}]), ["'optimizer.name'"]),
        (space.when("optimizer.nam", "sgd", RATE), ["'optimizer.name'"]),
        (space.product(RATE, RATE), ["optimizer.learning_rate is swept over twice"]),
        (
            space.product(space.sweep("optimizer.name", ["sgd", "adam"]), space.when("optimizer.name", "adm", RATE)),
            ["optimizer.name is never 'adm'", "'sgd' or 'adam'"],
        ),
        (
            space.product(space.when("optimizer.name", "sgd", RATE), space.sweep("optimizer.name", ["sgd", "adam"])),
            ["put optimizer.name first"],
        ),
    ],
)
def test_mistake_is_found_before_anything_starts(part: space.Part, expected: list[str]) -> None:
    with pytest.raises(UsageError) as found:
        space.check(part, CONFIG)
    assert "\n" not in str(found.value)
    for piece in expected:
        assert piece in str(found.value)


def test_integers_and_lists_are_accepted_for_floats_and_tuples() -> None:
    part = space.product(space.sweep("optimizer.momentum", [0, 1]), space.sweep("freeze", [["c1/*"], []]))
    space.check(part, CONFIG)
    last = schema.override(CONFIG, space.grid(part, schema.flatten(CONFIG))[-1])
    assert (last.optimizer.momentum, last.freeze) == (1.0, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=0..4", space.integers("seed", 0, 4)),
        ("seed = -1 .. 1", space.integers("seed", -1, 1)),
        ("a=1e-3,0.1", space.sweep("a", [1e-3, 0.1])),
        ("a=[1, 2]", space.sweep("a", [1, 2])),
        ("a=(3,3),(5,5)", space.sweep("a", [(3, 3), (5, 5)])),
        ("a=sgd, adam", space.sweep("a", ["sgd", "adam"])),
        ("a=2 epochs,1 epoch", space.sweep("a", ["2 epochs", "1 epoch"])),
        ("a=True", space.sweep("a", [True])),
        ("a=uniform(0,1)", space.uniform("a", 0.0, 1.0)),
        ("a=log(1e-3, 1)", space.log_uniform("a", 1e-3, 1.0)),
        ("a=int(1,9)", space.integers("a", 1, 9)),
        ("a=logint(8,512)", space.integers("a", 8, 512, log=True)),
    ],
)
def test_text(text: str, expected: space.Part) -> None:
    assert notation.parse(text) == space.product(expected)
    assert notation.parse(f"b=1; {text};") == space.product(space.sweep("b", [1]), expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seed",
        "=1",
        "seed=",
        "a=lgo(1,2)",
        "a=log(1)",
        "a=log(0,1)",
        "a=int(2,1)",
        "a=0...4",
        "a=1e-3..1",
        "a=log(1,2",
    ],
)
def test_invalid_notation(text: str) -> None:
    with pytest.raises(UsageError) as found:
        notation.parse(text)
    assert "\n" not in str(found.value)


def test_json_and_back() -> None:
    rows = space.zipit(space.sweep("freeze", [("c1/*",), ()]), space.sweep("epochs", [1, 2]))
    part = space.product(RATE, rows, space.when("seed", 0, space.log_uniform("optimizer.momentum", 0.1, 0.9)))
    assert space.from_json(json.loads(json.dumps(space.to_json(part)))) == part


def test_grid_of_a_range_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"'optimizer\.momentum'"):
        space.grid(space.product(RATE, space.uniform("optimizer.momentum", 0.0, 1.0)))


def test_zip_of_unequal_lengths() -> None:
    with pytest.raises(UsageError, match="3 and 2"):
        space.zipit(RATE, space.sweep("seed", [0, 1]))
