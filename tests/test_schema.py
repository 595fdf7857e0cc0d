"""Configs are checked against the defaults of their experiment: every key and type, from files, flags and sweeps."""

import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from cnn_jax import experiments, tasks
from cnn_jax.config import load_config
from cnn_jax.errors import UsageError
from cnn_jax.experiments import baselines, comparison, finetune, nearest_neighbors
from cnn_jax.schema import Schema, flatten, locked
from cnn_jax.sweep import notation, space

DEFAULTS = {
    "classification": tasks.default_config,
    "baselines": baselines.default_config,
    "comparison": comparison.default_config,
    "finetune": finetune.default_config,
    "nearest_neighbors": nearest_neighbors.default_config,
}
WRONG = {
    bool: (None, "true", 1, 0.0, (True,)),
    int: (None, "3", 1.5, True, (3,)),
    float: (None, "0.1", (0.1,)),  # a locked config refuses False before
    str: (None, 3, ("a",), True),
    tuple: (None, "a", 3, (None,), (object(),), ([],)),
}
TUPLES = {  # key -> values of the right type, values of a wrong one
    "input_shape": ([(28, 28, 1), (28, 1)], [("28", 28, 1), (28.0, 28, 1)]),
    "data.features": ([(), ("image", "mask")], [(3,), (1.5,), (True,)]),
    "data.classes": ([(), (3, 5)], [("3", "5"), (3.0,), (True,)]),
    "data.train_part": ([(), (0, 10)], [(0.0, 0.5), ("0", "10")]),
    "data.size": ([(), (8, 8)], [(8.5, 8), ("8", "8")]),
    "data.pixel_range": ([(), (-1, 1), (-0.1, 1.175)], [("0", "1"), (None, 1.0)]),
    "data.augment": ([(), ("flip",), ("flip", "cutout(size=2)")], [(3,), (("flip",),), (b"flip",)]),
    "optimizer.drops": ([(), ("1 epoch",)], [(0.5,), (30, 60)]),
    "optimizer.max_norms": ([(), (("output/kernel", 3.0),)], [("output/kernel", 3.0), (("output",),)]),
    "optimizer.rate_factors": ([(), (("*/bias", 2.0), ("c1/*", 1))], [("*/bias", 2.0), ((2.0, "*/bias"),), (("*",),)]),
    "freeze": ([(), ("c1/*",)], [(1,), (None,)]),
    "class_weights": ([(), (1, 0.5)], [("1",), (None, 1.0)]),
}


def refuses(schema: Schema, config: ConfigDict, key: str, value: object) -> str:
    """The error message for another value of a key; empty if there is none."""
    *groups, name = key.split(".")
    changed = group = config.copy_and_resolve_references()
    for part in groups:
        group = group[part]
    with group.ignore_type():
        group[name] = value
    try:
        schema.check(changed)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("experiment", DEFAULTS)
def test_every_key_refuses_values_of_other_types(experiment: str) -> None:
    config = DEFAULTS[experiment]()
    experiments.check(config, complete=True)
    schema = experiments.find(config).schema(config)
    for key, default in flatten(config).items():
        for value in WRONG[type(default)]:
            assert refuses(schema, config, key, value).startswith(f"config.{key}={value!r}: expected ")


@pytest.mark.parametrize("name", [None, 3, ("classification",), "clasification"])
def test_experiment_that_is_no_name(name: object) -> None:
    with pytest.raises(UsageError, match=r"^config.experiment=.*'classification'"):
        experiments.check(ConfigDict({"experiment": name}))


@pytest.mark.parametrize("key", TUPLES)
def test_elements_of_tuples_have_one_type(key: str) -> None:
    right, wrong = TUPLES[key]
    schema, config = tasks.schema(), tasks.default_config()
    for value in right:
        assert refuses(schema, config, key, value) == ""
    for value in wrong:
        assert re.search(r"expected a tuple of .*, (such as|like the default) \(", refuses(schema, config, key, value))


def test_every_tuple_of_a_config_says_what_its_elements_are() -> None:
    assert TUPLES.keys() == {key for key, value in flatten(tasks.default_config()).items() if isinstance(value, tuple)}


FILE = """
from ml_collections import ConfigDict, config_dict
from cnn_jax.tasks import default_config
def get_config(variant=""):
    config = default_config()
    {}
    return config
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("config.epoch = 8", "epoch: the config has no such key; did you mean 'epochs'? (mine.py, line 6)"),
        ("config.optimizer.weigth_decay = 0.1", "optimizer.weigth_decay: the config has no such key; did you mean"),
        ("config.optimizer.weigth_decay = 0.1", "'optimizer.weight_decay'"),
        ("config.data.augmment = ('flip',)", "did you mean 'data.augment'"),
        (
            "config.learning_rate = 0.1",
            "learning_rate: the config has no such key; did you mean 'optimizer.learning_rate'",
        ),
        ("config.lr = 0.1", "did you mean 'optimizer.learning_rate'?"),
        ("config['epoch'] = 8", "did you mean 'epochs'?"),
        ("config.update({'optimizer': {'nmae': 'sgd'}})", "optimizer.nmae: the config has no such key"),
        ("config.update_from_flattened_dict({'optimizer.nmae': 'sgd'})", "did you mean 'optimizer.name'"),
        ("config.optimiser.name = 'sgd'", "optimiser: the config has no such key; did you mean 'optimizer'"),
        ("config.unlock(); config.epoch = 8", "config.epoch: the config has no such key; did you mean 'epochs'?"),
        ("config.epochs = '8'", "epochs='8': expected a whole number, like the default 20 (mine.py, line 6)"),
        ("config.optimizer.learning_rate = True", "learning_rate=True: expected a number, like the default"),
        ("config.update({'optimizer': {'momentum': False}})", "optimizer.momentum=False: expected a number"),
        ("config.epochs = True", "epochs=True: expected a whole number, like the default 20 (mine.py, line 6)"),
        ("config.epochs = None", "config.epochs=None: expected a whole number, like the default 20"),
        ("config.epochs = config_dict.placeholder(int)", "config.epochs=None: expected a whole number"),
        ("config.epochs = config_dict.required_placeholder(int)", "config.epochs=None: expected a whole number"),
        ("config.data.classes = ('3', '5')", "config.data.classes=('3', '5'): expected a tuple of whole numbers"),
        ("config.optimizer = 'sgd'", "optimizer is a group; set one of its keys: optimizer.clip_norm"),
        ("config.model.options.act = print", "config.model.options.act=<built-in function print>: expected numbers"),
        ("config.reference = {'accuracy': 0.9}", "config.reference.source: missing"),
        ("return ConfigDict({'experiment': 'classification'})", "more: missing; make the config with default_c"),
        ("return None", "get_config returned NoneType and not a ConfigDict"),
        ("return 1 / 0", "ZeroDivisionError: division by zero (mine.py, line 6)"),
    ],
)
def test_mistake_in_a_config_file(line: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.format(line))
    with pytest.raises(UsageError) as error:
        experiments.check(load_config(f"{tmp_path / 'mine.py'}"), complete=True)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs = 3", "no function get_config"),
        ("get_config = 3", "no function get_config"),
        ("def get_config(:", "SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere' (mine.py, line 1)"),
        ("def get_config(): return None", "get_config returned NoneType"),
    ],
)
def test_file_that_is_no_config(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UsageError) as error:
        load_config(str(tmp_path / "mine.py"))
    assert expected in str(error.value)


def test_config_file_may_have_no_variants_and_set_options_of_its_network(tmp_path: Path) -> None:
    text = FILE.replace('variant=""', "").format("config.model.options.depth = 3; config.data.classes = [3, 5]")
    (tmp_path / "mine.py").write_text(text)
    config = load_config(str(tmp_path / "mine.py"))
    experiments.check(config, complete=True)
    assert (config.model.options.depth, config.data.classes) == (3, (3, 5))
    with pytest.raises(UsageError, match="the config has no variant 'smoke'; it has none"):
        load_config(f"{tmp_path / 'mine.py'}:smoke")


def test_changes_of_a_series_are_checked() -> None:
    config = baselines.default_config()
    config.networks = {"linear": {"model": {"nmae": "mlp"}}}
    with pytest.raises(UsageError, match=r"model.nmae: the config has no such key; did you mean 'model.name'"):
        baselines.network_runs(config, "linear")


def test_config_of_an_earlier_version_may_lack_keys_but_has_no_others() -> None:
    schema = Schema(locked(ConfigDict({"epochs": 20, "seed": 0})))
    schema.check(ConfigDict({"epochs": 3}))
    with pytest.raises(UsageError, match="seed: missing"):
        schema.check(ConfigDict({"epochs": 3}), complete=True)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("shard_parameters=true,false", "shard_parameters", [True, False]),
        ("shard_parameters=1,f", "shard_parameters", [True, False]),
        ("optimizer.learning_rate=1,1e-3,inf", "optimizer.learning_rate", [1.0, 0.001, float("inf")]),
        ("data.augment=flip,cutout", "data.augment", [("flip",), ("cutout",)]),
        ("data.augment=('flip', 'cutout'),()", "data.augment", [("flip", "cutout"), ()]),
        ("data.augment='cutout(size=2)'", "data.augment", [("cutout(size=2)",)]),
        ("data.name=3, digits", "data.name", ["3", "digits"]),
        ("dtype='float32','bfloat16'", "dtype", ["float32", "bfloat16"]),
        ("config.epochs=1,2", "epochs", [1, 2]),
    ],
)
def test_sweeps_read_values_as_flags_do(text: str, key: str, values: list[object]) -> None:
    config = tasks.default_config()
    part = notation.parse(text, flatten(config))
    space.check(part, config, tasks.schema())
    assert space.grid(part) == [{key: value} for value in values]
    assert [type(point[key]) for point in space.grid(part)] == list(map(type, values))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shard_parameters=yes", "shard_parameters='yes': expected true or false"),
        ("epochs=1.5", "epochs=1.5: expected a whole number"),
        ("epochs=None", "epochs=None: expected a whole number"),
        ("optimizer.learning_rate=True", "optimizer.learning_rate=True: expected a number"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate='fast': expected a number"),
        ("data.classes=('3', '5')", r"data.classes=\('3', '5'\): expected a tuple of whole numbers"),
        ("optimizer.drops=0.5", r"optimizer.drops=\(0.5,\): expected a tuple of texts"),
        ("optimizer.nmae=sgd", "optimizer.nmae: the config has no such key; did you mean 'optimizer.name'"),
        ("optimizer=sgd", "optimizer: optimizer is a group"),
        (
            "model.options.depth=3",
            "model.options.depth: model.options is empty; set 'depth' in a copy of the config file",
        ),
    ],
)
def test_mistake_in_a_sweep(text: str, expected: str) -> None:
    config = tasks.default_config()
    with pytest.raises(UsageError, match=f"^sweep: {expected}"):
        space.check(notation.parse(text, flatten(config)), config, tasks.schema())
