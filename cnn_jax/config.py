"""Configs by name and on disk: finding, reading and comparing them.

Must not import jax: flags are read before it starts.
"""

import inspect
import itertools
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from cnn_jax import schema
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.files import user_path
from cnn_jax.runtime.objects import import_file

_ROOT = Path(__file__).parent
FOLDER = next((folder for folder in (_ROOT / "configs", _ROOT.parent / "configs") if folder.is_dir()), _ROOT)
"""The folder of the included configs: in the installed package, or beside it in a checkout."""


def find_config(name: str) -> str:
    """The file of ``--config``, which may also be the name of a config that is included in cnn_jax.

    Args:
      name: A path, or a name such as ``'lenet5_digits'``; either may end in ``':variant'``.

    Returns:
      The path, with the variant; the unchanged name if there is no such file.

    >>> find_config("lenet5_digits:smoke") == f"{FOLDER / 'lenet5_digits.py'}:smoke"
    True
    """
    file, colon, variant = name.partition(":")
    if user_path(file).is_file():
        return f"{user_path(file)}{colon}{variant}"
    own = FOLDER / f"{file.removeprefix('configs/').removesuffix('.py')}.py"
    return f"{own}{colon}{variant}" if own.is_file() else name


def load_config(name: str) -> ConfigDict:
    """Reads the config of a file or of an earlier run.

    Args:
      name: A name as for :func:`find_config`, or the folder of a run.

    Raises:
      UsageError: There is no such file, it raises an error, or its function ``get_config`` is missing or returns no
        config; or the folder contains no run.

    >>> load_config("lenet5_digits:smoke").epochs
    2
    """
    if Path(name).is_dir():
        return read_run_config(Path(name))
    get_config = getattr(config_module(name), "get_config", None)
    if not callable(get_config):
        raise UsageError(f"config {name}: the file has no function get_config(variant) that returns a ConfigDict")
    try:
        config = _call(get_config, name.partition(":")[2])
    except UsageError as error:
        raise UsageError(f"config {name}: {error}") from error
    except Exception as error:
        raise UsageError(f"config {name}: {_described(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UsageError(f"config {name}: get_config returned {type(config).__name__} and not a ConfigDict")
    return config


def config_module(name: str) -> ModuleType:
    """The Python module of a config file, for configs that share more than keys.

    Args:
      name: A name as for :func:`find_config`.

    Raises:
      UsageError: There is no such file, or it raises an error.

    >>> config_module("lenet5_digits").get_config("smoke").epochs
    2
    """
    path = find_config(name)
    check_config_file(path)
    try:
        return import_file(Path(path.partition(":")[0]).resolve())
    except UsageError as error:
        raise UsageError(f"config {name}: {error}") from error
    except Exception as error:
        raise UsageError(f"config {name}: the file cannot be read: {_described(error)}") from error


def _call(get_config: Callable[..., Any], variant: str) -> Any:
    """Calls the function of a config file, which may have no argument if it has no variants."""
    if inspect.signature(get_config).parameters:
        return get_config(variant)
    check_variant(variant, ())
    return get_config()


def _described(error: Exception) -> str:
    """An error of a config file in one line with its place; for a rejected key or value also the correct one."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = itertools.takewhile(lambda pair: not _sets_values(pair[0].f_code.co_filename), frames)
    *_, (frame, line) = own  # where the config file, or what it calls, set a value
    place = f"{Path(frame.f_code.co_filename).name}, line {line}"
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    accessed = frames[-1][0].f_locals
    group, key = accessed.get("self"), accessed.get("key", accessed.get("attribute"))
    refused = isinstance(group, ConfigDict) and isinstance(key, str)
    if refused and isinstance(error, AttributeError | KeyError | TypeError):
        roots = [value for value in frame.f_locals.values() if isinstance(value, ConfigDict)]
        known = {name: value for root in roots or [group] for name, value in schema.flatten(root).items()}
        key = next(filter(None, (schema.path_of(root, group) for root in roots)), "") + str(key)
        if key not in known:
            message = schema.unknown_key(key, known)
        elif "value" in accessed:
            message = f"{key}={accessed['value']!r}: expected {schema.expected(known[key])}"
    return message if isinstance(error, SyntaxError) else f"{message} ({place})"


def _sets_values(file: str) -> bool:
    """Whether a source file is one of those that set and check the values of a config."""
    return "ml_collections" in Path(file).parts or file == schema.__file__


def check_config_file(path: str) -> None:
    """Checks that the file of ``--config`` exists, which config_flags does not.

    Raises:
      UsageError: The file is missing.
    """
    file = path.partition(":")[0]
    if not Path(file).is_file():
        own = [other.relative_to(FOLDER).with_suffix("").as_posix() for other in FOLDER.rglob("*.py")]
        beside = [str(other) for other in Path(file).parent.glob("*.py")] if file.endswith(".py") else []
        known = [*(f"configs/{name}.py" if file.endswith(".py") else name for name in own), *beside]
        raise UsageError(f"config {path}: there is no file {file}; {nearest(file, known)}")


def check_variant(variant: str, known: Sequence[str]) -> None:
    """Rejects an unknown variant, the text after the colon in ``--config=file.py:variant``.

    >>> check_variant("smok", ("smoke",))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: the config has no variant 'smok'; did you mean 'smoke'?
    """
    if variant and variant not in known:
        raise UsageError(
            f"the config has no variant {variant!r}; {nearest(variant, known) if known else 'it has none'}"
        )


def to_json(config: ConfigDict) -> str:
    """A config as JSON with sorted keys.

    >>> print(to_json(ConfigDict({"b": 1, "a": (2, 3)})))
    {
      "a": [
        2,
        3
      ],
      "b": 1
    }
    """
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The inverse of :func:`to_json`. Sequences become tuples.

    >>> from_json('{"a": [2, 3]}').a
    (2, 3)
    """
    return ConfigDict(with_tuples(json.loads(text)))


def with_tuples(value: Any) -> Any:
    """JSON values with tuples instead of lists.

    >>> with_tuples({"shape": [3, [4]]})
    {'shape': (3, (4,))}
    """
    if isinstance(value, dict):
        return {key: with_tuples(inner) for key, inner in value.items()}
    return tuple(with_tuples(inner) for inner in value) if isinstance(value, list) else value


def read_run_config(workdir: Path) -> ConfigDict:
    """The config of an earlier run.

    Raises:
      UsageError: The folder contains no run, or its config cannot be read.

    >>> read_run_config(Path("nowhere"))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: --workdir=nowhere holds no run (no config.json); train first, or name another folder
    """
    saved = workdir / "config.json"
    if not saved.is_file():
        raise UsageError(f"--workdir={workdir} holds no run (no {saved.name}); train first, or name another folder")
    return upgraded(ConfigDict(with_tuples(read_json_object(saved))))


def upgraded(config: ConfigDict) -> ConfigDict:
    """A config of an earlier version, with the keys of this version.

    >>> upgraded(ConfigDict({"model": {"name": "mlp", "features_from": "runs/a", "whiten": 0}})).model.to_dict()
    {'name': 'mlp', 'weights': 'runs/a'}
    """
    fields = config.to_dict()
    model = fields.get("model")
    if isinstance(model, dict) and "features_from" in model:
        model["weights"] = model.pop("features_from")
        model.pop("whiten", None)  # the network itself declares what its initialisation needs
    return ConfigDict(fields)


def read_json_object(file: Path) -> dict[str, Any]:
    """Reads a file of a run.

    Raises:
      UsageError: The file is not a JSON object: it was edited, or the disk is damaged.
    """
    try:
        value = json.loads(file.read_text())
    except ValueError as error:
        raise UsageError(f"{file} is damaged ({error}); repair it, or train again with another --workdir") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file} is damaged (no JSON object); repair it, or train again with another --workdir")
    return value


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """The differences between two configs, one phrase per key.

    >>> differences(ConfigDict({"seed": 0, "epochs": 3}), ConfigDict({"seed": 1, "epochs": 3}))
    ['seed: 0 -> 1']
    """
    before, after = schema.flatten(from_json(to_json(old))), schema.flatten(from_json(to_json(new)))
    return [
        f"{key}: {before.get(key, '(absent)')!r} -> {after.get(key, '(absent)')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]


_ABSENT = object()
