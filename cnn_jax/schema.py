"""The valid keys and values of a config: the keys of its experiment's defaults, with values of the same types.

``ml_collections`` checks less. It accepts None in place of any value and tuples with elements of any type, and an
unlocked config accepts new keys. Must not import jax: flags are read before it starts.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from cnn_jax.errors import UsageError, nearest

_RENAMED = {"model.features_from": "model.weights"}  # keys of earlier versions
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a tuple"}
_PLURALS = {bool: "true or false", int: "whole numbers", float: "numbers", str: "texts"}
_LISTED = 6  # keys in a message


def flatten(config: ConfigDict) -> dict[str, Any]:
    """A config as one dict from dotted keys to values.

    >>> flatten(ConfigDict({"seed": 0, "optimizer": {"learning_rate": 0.1}}))
    {'optimizer.learning_rate': 0.1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key in config:
        value = value_of(config, key)
        if isinstance(value, ConfigDict):
            flat.update({f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            flat[key] = value
    return dict(sorted(flat.items()))


def value_of(config: ConfigDict, key: str) -> Any:
    """The value of a key; None for a required placeholder without a value."""
    try:
        return config[key]
    except config_dict.RequiredValueError:
        return None


@dataclasses.dataclass(frozen=True)
class Schema:
    """The keys that a config may have, and the types of their values.

    A whole number is accepted as a number. A group that is empty by default accepts any keys with plain values.

    Attributes:
      defaults: Every key with its default value, which determines the type.
      examples: Values of keys whose default is an empty tuple; they determine the types of the elements.
    """

    defaults: ConfigDict
    examples: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    def check(self, config: ConfigDict, *, where: str = "config.", complete: bool = False) -> None:
        """Checks the keys of a config and the types of their values.

        Args:
          config: The config.
          where: The text that each error message starts with.
          complete: Whether the config must have every key. Configs of runs of earlier versions lack some.

        Raises:
          UsageError: A key is unknown or missing, or a value has another type.

        >>> schema = Schema(ConfigDict({"epochs": 20, "freeze": ()}), {"freeze": ("c1/*",)})
        >>> schema.check(ConfigDict({"epochs": 20, "freeze": ("c1/*",)}))
        >>> schema.check(ConfigDict({"epochs": 20, "freeze": (None,)}))
        Traceback (most recent call last):
        cnn_jax.errors.UsageError: config.freeze=(None,): expected a tuple of texts, such as ('c1/*',), or ()
        """
        self._check_group(config, self.defaults, "", where)
        missing = [key for key in flatten(self.defaults) if key not in flatten(config)] if complete else []
        if missing:
            raise UsageError(f"{where}{_listed(missing)}: missing; make the config with default_config() and change it")

    def _check_group(self, group: ConfigDict, defaults: ConfigDict, prefix: str, where: str) -> None:
        for name in group:
            key = f"{prefix}{name}"
            if name not in defaults:
                raise UsageError(where + unknown_key(key, flatten(self.defaults)))
            value, default = value_of(group, name), defaults[name]
            if isinstance(default, ConfigDict) and default and isinstance(value, ConfigDict):
                self._check_group(value, default, f"{key}.", where)
            elif isinstance(default, ConfigDict) and isinstance(value, ConfigDict):
                _check_plain(value, f"{where}{key}")
            elif not fits(value, self.examples.get(key, default)):
                example = self.examples.get(key)
                right = f"a tuple of {_plural(example[0])}, such as {example}, or ()" if example else expected(default)
                raise UsageError(f"{where}{key}={value!r}: expected {right}")


def fits(value: Any, default: Any) -> bool:
    """Whether a value has the type of a default value; elements of tuples must have the type of the default's elements.

    >>> fits(3, 0.5), fits(True, 1), fits((3, 4), (32, 32, 1)), fits(("a", 4), (32, 32, 1)), fits((3, "a"), ())
    (True, False, True, False, True)
    """
    if default is None:
        return True
    if isinstance(default, tuple):
        return isinstance(value, tuple) and _elements_fit(value, default)
    types = {float: (int, float)}.get(type(default), (type(default),))
    return isinstance(value, types) and isinstance(value, bool) == isinstance(default, bool)


def _elements_fit(value: Sequence[Any], default: tuple[Any, ...]) -> bool:
    types = {type(element) for element in default}
    if types == {int, float}:
        return all(fits(element, 0.0) for element in value)
    if len(types) > 1:  # such as (pattern, factor)
        return len(value) == len(default) and all(map(fits, value, default))
    return not default or all(fits(element, default[0]) for element in value)


def expected(default: Any) -> str:
    """Describes the values that :func:`fits` accepts.

    >>> expected(20), expected((32, 32, 1))
    ('a whole number, like the default 20', 'a tuple of whole numbers, like the default (32, 32, 1)')
    """
    if isinstance(default, ConfigDict):
        return "a group of keys"
    name = _NAMES.get(type(default), f"a {type(default).__name__}")
    if isinstance(default, tuple) and default:
        name = f"a tuple of {_plural(default[0])}"
    return f"{name}, like the default {default!r}"


def _plural(element: Any) -> str:
    if isinstance(element, tuple):
        return f"({', '.join(_NAMES[type(part)].removeprefix('a ') for part in element)})"
    return _PLURALS.get(type(element), "values")


def _check_plain(value: Any, where: str) -> None:
    """Rejects values that cannot be stored as JSON."""
    if isinstance(value, ConfigDict):
        for name in value:
            _check_plain(value[name], f"{where}.{name}")
    elif isinstance(value, tuple | list):
        for element in value:
            _check_plain(element, where)
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise UsageError(f"{where}={value!r}: expected numbers, texts, tuples or groups, which config.json can store")


def path_of(config: ConfigDict, group: ConfigDict) -> str | None:
    """The prefix of the dotted keys of a group; None for a group that is not part of the config.

    >>> config = ConfigDict({"model": {"options": {"depth": 3}}})
    >>> path_of(config, config.model.options)
    'model.options.'
    """
    if group is config:
        return ""
    inner = ((name, value_of(config, name)) for name in config)
    found = ((name, path_of(value, group)) for name, value in inner if isinstance(value, ConfigDict))
    return next((f"{name}.{path}" for name, path in found if path is not None), None)


def locked(config: ConfigDict) -> ConfigDict:
    """Locks a config: a new key is an error, except in groups that are empty, such as ``model.options``.

    Also an error is true or false for a number.

    >>> config = locked(ConfigDict({"epochs": 20, "model": {"options": {}}}))
    >>> config.model.options.depth = 3
    >>> config.epoch = 3
    Traceback (most recent call last):
    AttributeError: 'Key "epoch" does not exist and cannot be added since the config is locked...
    """
    config.lock()
    for _, group in _empty_groups(config):
        group.unlock()
    for group in _groups(config):
        object.__setattr__(group, "__class__", _Checked)  # ConfigDict has no other hook
    return config


class _Checked(ConfigDict):
    """A config whose numbers cannot be set to true or false, which ``ConfigDict`` would convert to 1.0 and 0.0."""

    def __setitem__(self, key: Any, value: Any) -> None:
        present = value_of(self, key) if key in self else None
        is_number = isinstance(present, int | float) and not isinstance(present, bool)
        if self.is_type_safe and is_number and isinstance(value, bool):
            raise TypeError(f"{key}={value}: expected {expected(present)}")
        super().__setitem__(key, value)


def _groups(config: ConfigDict) -> Iterable[ConfigDict]:
    """A config and the groups in it."""
    yield config
    for name in config:
        value = value_of(config, name)
        if isinstance(value, ConfigDict):
            yield from _groups(value)


def with_keys(config: ConfigDict, keys: Mapping[str, Any]) -> ConfigDict:
    """A copy of a locked config with more keys, or other defaults.

    >>> with_keys(locked(ConfigDict({"epochs": 20})), {"seeds": 3}).seeds
    3
    """
    copy = config.copy_and_resolve_references().unlock()
    copy.update(keys)
    return locked(copy)


def override(config: ConfigDict, changes: Mapping[str, Any], *, where: str = "") -> ConfigDict:
    """A copy of a config in which some keys have other values of the same types.

    Args:
      config: The config, which is not changed.
      changes: Dotted key -> value.
      where: The beginning of error messages.

    Raises:
      UsageError: A key is unknown or is a group, or a value has another type.

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
            if is_empty_group(config, group):
                raise UsageError(f"{where}{key}: {group} is empty; set {option!r} in a copy of the config file first")
            raise UsageError(where + unknown_key(key, known))
        default = known[key]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if not fits(value, () if isinstance(default, tuple) else default):  # elements are compared with the schema's
            raise UsageError(f"{where}{key}={value!r}: expected {expected(default)}")
        changed.update_from_flattened_dict({key: value})
    return changed


def unknown_key(key: str, keys: Iterable[str], value: str | None = None) -> str:
    """The error message for a key that a config does not have.

    Args:
      key: The dotted key.
      keys: The config's dotted keys.
      value: The given value, if the message should show it.

    >>> unknown_key("optimizer.lr", ["epochs", "optimizer.learning_rate"])
    "optimizer.lr: the config has no such key; did you mean 'optimizer.learning_rate'?"
    """
    keys = list(keys)
    of_group = [known for known in keys if known.startswith(f"{key}.")]
    if of_group:
        given = key if value is None else f"{key}={value}"
        return f"{given}: {key} is a group; set one of its keys: {', '.join(of_group)}"
    if key in _RENAMED:
        return f"{key}: this key is now called {_RENAMED[key]}"
    name = key.rpartition(".")[2]
    likely = [known for known in keys if known.rpartition(".")[2] == name or _initials(known) == name]  # lr, wd
    likely.sort(key=lambda known: -difflib.SequenceMatcher(None, key, known).ratio())
    groups = {known[:place] for known in keys for place, letter in enumerate(known) if letter == "."}
    guess = f"did you mean {' or '.join(map(repr, likely[:3]))}?" if likely else nearest(key, [*keys, *groups])
    return f"{key}: the config has no such key; {guess}"


def _initials(key: str) -> str:
    return "".join(word[:1] for word in key.rpartition(".")[2].split("_"))


def is_empty_group(config: ConfigDict, key: str) -> bool:
    """Whether a dotted key is a group without keys."""
    return any(key == name for name, _ in _empty_groups(config))


def _empty_groups(config: ConfigDict, prefix: str = "") -> Iterable[tuple[str, ConfigDict]]:
    for name in config:
        value = value_of(config, name)
        if isinstance(value, ConfigDict):
            yield from _empty_groups(value, f"{prefix}{name}.") if value else [(f"{prefix}{name}", value)]


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more
