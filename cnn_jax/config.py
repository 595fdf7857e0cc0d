"""Configs by name, on the command line and on disk: finding, reading, checking and comparing them.

Must not import jax: flags are read before it starts.
"""

import inspect
import json
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.files import user_path
from cnn_jax.runtime.objects import add_folder, import_file

_ROOT = Path(__file__).parent
FOLDER = next((folder for folder in (_ROOT / "configs", _ROOT.parent / "configs") if folder.is_dir()), _ROOT)
"""The configs that come with cnn_jax: in the installed package, or beside it in a checkout."""

_RENAMED = {"model.features_from": "model.weights"}  # keys of earlier versions


def find_config(name: str) -> str:
    """The file of ``--config``, which may also be the name of a config that comes with cnn_jax.

    Args:
      name: A path, or a name such as ``'lenet5_digits'``; either may end in ``':variant'``.

    Returns:
      The path, with the variant; the name as it is where there is no such file.

    >>> find_config("lenet5_digits:smoke") == f"{FOLDER / 'lenet5_digits.py'}:smoke"
    True
    """
    file, colon, variant = name.partition(":")
    if user_path(file).is_file():
        return f"{user_path(file)}{colon}{variant}"
    own = FOLDER / f"{file.removeprefix('configs/').removesuffix('.py')}.py"
    return f"{own}{colon}{variant}" if own.is_file() else name


def load_config(name: str) -> ConfigDict:
    """The config that a file makes, such as one that another config changes in some keys.

    Args:
      name: As for :func:`find_config`.

    Raises:
      UsageError: There is no such file, or it has no function ``get_config``.

    >>> load_config("lenet5_digits:smoke").epochs
    2
    """
    get_config = getattr(config_module(name), "get_config", None)
    if get_config is None:
        raise UsageError(f"config {name}: the file has no function get_config(variant) that returns a ConfigDict")
    return _made(get_config, name.partition(":")[2])


def config_module(name: str) -> ModuleType:
    """The Python module of a config file, for configs that share more than keys.

    Args:
      name: As for :func:`find_config`.

    >>> config_module("lenet5_digits").get_config("smoke").epochs
    2
    """
    path = find_config(name)
    check_config_file(path)
    return import_file(Path(path.partition(":")[0]).resolve())


def _made(get_config: Any, variant: str) -> ConfigDict:
    """The config of a file; ``get_config`` may have no argument where there are no variants."""
    if inspect.signature(get_config).parameters:
        return get_config(variant)
    check_variant(variant, ())
    return get_config()


def check_variant(variant: str, known: Sequence[str]) -> None:
    """Rejects a variant (what follows the colon in ``--config=file.py:variant``) that a config file does not have.

    >>> check_variant("smok", ("smoke",))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: the config has no variant 'smok'; did you mean 'smoke'?
    """
    if variant and variant not in known:
        raise UsageError(
            f"the config has no variant {variant!r}; {nearest(variant, known) if known else 'it has none'}"
        )


def flatten(config: ConfigDict) -> dict[str, Any]:
    """A config as one dict from dotted keys to values.

    >>> flatten(ConfigDict({"seed": 0, "optimizer": {"learning_rate": 0.1}}))
    {'optimizer.learning_rate': 0.1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update({f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            flat[key] = value
    return dict(sorted(flat.items()))


def to_json(config: ConfigDict) -> str:
    """A config as JSON, keys sorted.

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
    """The config that :func:`to_json` wrote; sequences come back as tuples, as configs have them.

    >>> from_json('{"a": [2, 3]}').a
    (2, 3)
    """
    return ConfigDict(with_tuples(json.loads(text)))


def with_tuples(value: Any) -> Any:
    """JSON values with tuples in place of lists.

    >>> with_tuples({"shape": [3, [4]]})
    {'shape': (3, (4,))}
    """
    if isinstance(value, dict):
        return {key: with_tuples(inner) for key, inner in value.items()}
    return tuple(with_tuples(inner) for inner in value) if isinstance(value, list) else value


def override(config: ConfigDict, changes: Mapping[str, Any], *, where: str = "") -> ConfigDict:
    """A copy of a config in which some keys have other values, of the types that the config has.

    Args:
      config: Stays as it is.
      changes: Dotted key -> value.
      where: What the line of an error begins with.

    Raises:
      UsageError: An unknown key, a group, or a value of another type.

    >>> config = ConfigDict({"seed": 0, "optimizer": {"learning_rate": 0.1}})
    >>> override(config, {"optimizer.learning_rate": 1}).optimizer.learning_rate
    1.0
    >>> override(config, {"optimizer.learning_rat": 1})
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: optimizer.learning_rat: the config has no such key; did you mean 'optimizer.learn...'?
    """
    known = flatten(config)
    changed = config.copy_and_resolve_references()
    for key, value in changes.items():
        if key not in known:
            group, _, option = key.rpartition(".")
            if _is_empty_group(config, group):
                raise UsageError(f"{where}{key}: {group} is empty; set {option!r} in a copy of the config file first")
            raise UsageError(where + _unknown_key(key, known))
        default = known[key]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(default) and default is not None:
            raise UsageError(f"{where}{key}={value!r}: {_expected(default)}")
        changed.update_from_flattened_dict({key: value})
    return changed


def read_run_config(workdir: Path) -> ConfigDict:
    """The config of an earlier run.

    Raises:
      UsageError: The folder holds no run, or its config cannot be read.

    >>> read_run_config(Path("nowhere"))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: --workdir=nowhere holds no run (no config.json); train first, or name another folder
    """
    saved = workdir / "config.json"
    if not saved.is_file():
        raise UsageError(f"--workdir={workdir} holds no run (no {saved.name}); train first, or name another folder")
    return upgraded(ConfigDict(with_tuples(read_json_object(saved))))


def upgraded(config: ConfigDict) -> ConfigDict:
    """A config that an earlier version wrote, with the keys of this one.

    >>> upgraded(ConfigDict({"model": {"name": "mlp", "features_from": "runs/a", "whiten": 0}})).model.to_dict()
    {'name': 'mlp', 'weights': 'runs/a'}
    """
    fields = config.to_dict()
    model = fields.get("model")
    if isinstance(model, dict) and "features_from" in model:
        model["weights"] = model.pop("features_from")
        model.pop("whiten", None)  # the network says by itself what its initialisation needs
    return ConfigDict(fields)


def read_json_object(file: Path) -> dict[str, Any]:
    """What a run has noted in a file.

    Raises:
      UsageError: It is no JSON object: it was edited, or the disk is damaged.
    """
    try:
        value = json.loads(file.read_text())
    except ValueError as error:
        raise UsageError(f"{file} is damaged ({error}); repair it, or train again with another --workdir") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file} is damaged (no JSON object); repair it, or train again with another --workdir")
    return value


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """What differs between two configs, one phrase a key.

    >>> differences(ConfigDict({"seed": 0, "epochs": 3}), ConfigDict({"seed": 1, "epochs": 3}))
    ['seed: 0 -> 1']
    """
    before, after = flatten(from_json(to_json(old))), flatten(from_json(to_json(new)))
    return [
        f"{key}: {before.get(key, '(absent)')!r} -> {after.get(key, '(absent)')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]


_ABSENT = object()


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Reads the command line into ``absl.flags.FLAGS``.

    Returns:
      The arguments that are not flags.

    Raises:
      UsageError: An unknown flag or config key (with the nearest real ones), a wrong type, or a config file
        that is missing, has no ``get_config``, or raises.
    """
    try:
        return flags.FLAGS(_with_config_file(arguments))
    except UsageError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"unknown flag --{error.flagname}; {_nearest_flags(error.flagname)}") from error
    except Exception as error:  # config_flags raises whatever the config file, ConfigDict or the type's parser raised
        raise UsageError(_diagnosis(arguments, error)) from error


def _with_config_file(arguments: Sequence[str]) -> list[str]:
    """The arguments with the file of ``--config`` in place of a name. The file may import the modules beside it."""
    path = _flag_value(arguments, "config")
    if path is None:
        return list(arguments)
    found = find_config(path)
    add_folder(Path(found.partition(":")[0]).resolve().parent)
    named = {f"--config={path}": f"--config={found}", f"-config={path}": f"-config={found}"}
    return [found if argument == path else named.get(argument, argument) for argument in arguments]


def check_config_file(path: str) -> None:
    """Checks the file named by ``--config`` before config_flags does, which would let a missing one through.

    Raises:
      UsageError: The file is missing.
    """
    file = path.partition(":")[0]
    if not Path(file).is_file():
        own = [other.relative_to(FOLDER).with_suffix("").as_posix() for other in FOLDER.rglob("*.py")]
        beside = [str(other) for other in Path(file).parent.glob("*.py")] if file.endswith(".py") else []
        known = [*(f"configs/{name}.py" if file.endswith(".py") else name for name in own), *beside]
        raise UsageError(f"--config={path}: there is no file {file}; {nearest(file, known)}")


def _flag_value(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        flag, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            return value if "=" in argument else next(iter(arguments[position + 1 :]), None)
    return None


def _diagnosis(arguments: Sequence[str], error: Exception) -> str:
    """Finds out which argument a failure of config_flags is about, and says so in one line."""
    path = _flag_value(arguments, "config")
    if path is not None:
        file, _, variant = path.partition(":")
        check_config_file(path)
        try:
            module = runpy.run_path(file)
        except Exception as cause:
            return f"--config={path}: {file} cannot be read: {_one_line(cause)}"
        if not callable(module.get("get_config")):
            return f"--config={path}: {file} has no function get_config(variant) that returns a ConfigDict"
        try:
            config = _made(module["get_config"], variant)
        except UsageError as cause:
            return f"--config={path}: {cause}"
        except Exception as cause:
            return f"--config={path}: get_config({variant!r}) raised {_one_line(cause)}"
        keys = flatten(config)
        for argument in arguments:
            key, _, value = argument.lstrip("-").partition("=")
            if not key.startswith("config."):
                continue
            key = key.removeprefix("config.")
            group, _, option = key.rpartition(".")
            if group and group not in keys and _is_empty_group(config, group):
                return f"--config.{key}: {group} is empty in {file}; set {option!r} there, in a copy of the file"
            if key not in keys:
                return f"--config.{_unknown_key(key, keys, value)}"
            if f"--config.{key}=" in str(error) or isinstance(error, TypeError):
                return f"--config.{key}={value}: {_expected(keys[key])}"
    return _one_line(error) if isinstance(error, flags.Error) else f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, flags.Error) else f"{type(error).__name__}: {text}"


def _unknown_key(key: str, keys: Iterable[str], value: str | None = None) -> str:
    of_group = [known for known in keys if known.startswith(f"{key}.")]
    if of_group:
        given = key if value is None else f"{key}={value}"
        return f"{given}: {key} is a group; set one of its keys: {', '.join(of_group)}"
    if key in _RENAMED:
        return f"{key}: this key is now called {_RENAMED[key]}"
    abbreviated = [known for known in keys if _initials(known) == key.rpartition(".")[2]]  # lr, wd
    guess = f"did you mean {' or '.join(map(repr, abbreviated))}?" if abbreviated else nearest(key, keys)
    return f"{key}: the config has no such key; {guess}"


def _initials(key: str) -> str:
    return "".join(word[:1] for word in key.rpartition(".")[2].split("_"))


def _is_empty_group(config: ConfigDict, group: str) -> bool:
    found: Any = config
    for name in group.split("."):
        found = found.get(name) if isinstance(found, ConfigDict) else None
    return isinstance(found, ConfigDict) and not found


def _expected(default: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a tuple"}
    name = names.get(type(default), f"a {type(default).__name__}")
    return f"expected {name}, like the default {default!r}"


def _nearest_flags(name: str) -> str:
    own = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    return nearest(name, own or ["config", "workdir", "mode"])
