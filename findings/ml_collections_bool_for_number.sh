#!/usr/bin/env bash
# ml_collections' ConfigDict accepts True and False for numbers: a float becomes 1.0, an int changes its type to bool.
#
# Version: ml_collections 1.1.0, the newest when this was written.
# ConfigDict is type-safe: 'fast' or (0.1,) for a float is a TypeError. But bool is a subclass of int in Python, so
# config.momentum = True stores 1.0. For an int, True is stored as it is, and the field has the type bool from then on:
# config.epochs = 5 in the next line is refused. Elements of tuples and lists are not compared at all.
# Why it hurts: "momentum = True" and "dropout_rate = True" (YAML: on, yes) are plausible mistakes, since other keys are
# switches. The run begins without a word, with momentum 1.0, which diverges, or with a dropout that keeps nothing.
# What we do about it: configs refuse true and false for numbers in the line that sets them (cnn_jax.schema.locked), and
# every value, also in tuples, is compared with a schema before a run begins.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "ml_collections==1.1.0"

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

from ml_collections import ConfigDict

print("ml_collections", version("ml_collections"), "python", sys.version.split()[0])


def stored(config, key, value):
    """What a field has after it was set to a value."""
    try:
        config[key] = value
    except TypeError as error:
        print(f"  {key} = {value!r}: TypeError: {error}")
        return TypeError
    print(f"  {key} = {value!r}: stored {config[key]!r}")
    return config[key]


config = ConfigDict({"momentum": 0.9, "epochs": 20, "nesterov": False, "mean": (0.5,)})
config.lock()
print(config.to_dict())
refuses_text = stored(config, "momentum", "0.5") is TypeError
refuses_numbers = stored(config, "nesterov", 1) is TypeError
as_float = stored(config, "momentum", True)
as_int = stored(config, "epochs", True)
refuses_ints = stored(config, "epochs", 5) is TypeError
elements = stored(config, "mean", (True, "x"))
as_stated = refuses_text and refuses_numbers and type(as_float) is float and as_float == 1.0
as_stated = as_stated and as_int is True and refuses_ints and elements == (True, "x")
print("as stated" if as_stated else "no longer as stated")
sys.exit(0 if as_stated else 1)
PYTHON
