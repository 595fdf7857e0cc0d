"""The flag ``--config`` and its overrides, ``--config.key=value``: parsing them, with one line for each error.

``ml_collections`` defines the overrides; this project reads and checks the config.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import schema
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.files import user_path

COMMAND_LINE: list[str] = []
"""The command line as config_flags reads it for the names of overrides: ``--config`` comes before them."""


class ConfigParser(flags.ArgumentParser):
    """Reads the config that ``--config`` names, see :func:`cnn_jax.config.load_config`.

    Attributes:
      config: The last config that was read; its overrides may have been applied.
      is_of_run: Whether it is the config of a run, possibly of an earlier version.
    """

    config: ConfigDict | None = None
    is_of_run = False

    def parse(self, name: str) -> ConfigDict:
        """Returns the locked config."""
        self.is_of_run = Path(name).is_dir()
        self.config = schema.locked(configs.load_config(name))
        return self.config


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Reads the command line into ``absl.flags.FLAGS``.

    Overrides without ``--config`` change the config of the run in ``--workdir``.

    Returns:
      The arguments that are not flags.

    Raises:
      UsageError: A flag or config key is unknown (the message has similar ones), a value has a wrong type, or the
        config cannot be read.
    """
    workdir, mode = flag_value(arguments, "workdir"), flag_value(arguments, "mode") or ""
    named = _config_first(arguments)
    if flag_value(arguments, "config") is None and _overrides(arguments):
        if workdir is None or mode.startswith("sweep"):
            raise UsageError(f"--{_overrides(arguments)[0][0]} changes a config: also give --config=<name or file>")
        folder = user_path(workdir)
        configs.read_run_config(folder)  # raises a UsageError if there is no run
        named.insert(1, f"--config={folder}")
    COMMAND_LINE[:] = named
    try:
        return flags.FLAGS(named)
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"unknown flag --{error.flagname}; {_nearest_flags(error.flagname)}") from error
    except Exception as error:  # config_flags raises whatever ConfigDict or the type's parser raised
        if isinstance(error.__context__, UsageError):  # from ConfigParser; absl reports it as a wrong value
            raise error.__context__ from error
        raise UsageError(_diagnosis(arguments, error)) from error


def flag_value(arguments: Sequence[str], name: str) -> str | None:
    """The value of a flag on a command line that is not parsed yet; the last one if it is given several times."""
    return next((value for flag, value in reversed(_flags(arguments)) if flag == name), None)


def _config_first(arguments: Sequence[str]) -> list[str]:
    """The command line with ``--config`` before its overrides, which config_flags reads from left to right.

    >>> _config_first(["launch.py", "--config.epochs=2", "--config", "mine.py", "a.png"])
    ['launch.py', '--config', 'mine.py', '--config.epochs=2', 'a.png']
    """
    first, others, rest = [], [], iter(arguments[1:])
    for argument in rest:
        name, equals, _ = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name != "config":
            others.append(argument)
        else:
            first += [argument] if equals else [argument, *itertools.islice(rest, 1)]
    return [*arguments[:1], *first, *others]


def _overrides(arguments: Sequence[str]) -> list[tuple[str, str]]:
    return [(flag, value) for flag, value in _flags(arguments) if flag.startswith("config.")]


def _flags(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Each flag with its value, which may be the next argument."""
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-"):
            found.append((flag, value if equals else following))
    return found


def _diagnosis(arguments: Sequence[str], error: Exception) -> str:
    """Returns one line about the override that caused an error of config_flags."""
    config = getattr(flags.FLAGS["config"].parser, "config", None)
    if config is not None:
        keys = schema.flatten(config)
        for flag, value in _overrides(arguments):
            key = flag.removeprefix("config.")
            group, _, option = key.rpartition(".")
            if schema.is_empty_group(config, group):
                return f"--{flag}: {group} is empty in this config; set {option!r} in a copy of the config file"
            if key not in keys:
                return f"--config.{schema.unknown_key(key, keys, value)}"
            if f"--{flag}=" in str(error):
                return f"--{flag}={value}: expected {schema.expected(keys[key])}"
    text = " ".join(str(error).split())
    return text if isinstance(error, flags.Error) else f"{type(error).__name__}: {text}"


def _nearest_flags(name: str) -> str:
    own = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    return nearest(name, own or ["config", "workdir", "mode"])
