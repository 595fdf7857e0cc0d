#!/usr/bin/env bash
# The NumPy interface of safetensors writes float8 arrays that it cannot read.
#
# What: safetensors.numpy.save accepts the five float8 types of ml_dtypes and writes a valid file. load of the same
#   bytes raises a bare KeyError (also for bfloat16). load_file and safe_open("numpy") raise "module 'numpy' has no
#   attribute 'float8_e4m3fn'", although ml_dtypes is imported, and although load_file reads bfloat16, which NumPy also
#   lacks.
# Versions: safetensors 0.8.0, numpy 2.4.6, ml_dtypes 0.6.0, Python 3.11.
# Why it hurts: JAX's float8 arrays have these types, so a network that was saved in float8 for inference cannot be
#   opened again without PyTorch. NumPy and JAX users also cannot open float8 files written by PyTorch.
# What we do: weights.load reads the bytes of float8 tensors at their offsets in the header, and converts them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
cat > "$folder/float8.py" <<'PYTHON'
import importlib.metadata
import sys

import ml_dtypes
import numpy as np
import safetensors.numpy

print({name: importlib.metadata.version(name) for name in ("safetensors", "numpy", "ml_dtypes")})
path = sys.argv[1]
outcomes = {}
for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"):
    array = np.ones((2, 3)).astype(getattr(ml_dtypes, name))
    safetensors.numpy.save_file({"kernel": array}, path)
    readers = {
        "load_file": lambda: safetensors.numpy.load_file(path),
        "load": lambda: safetensors.numpy.load(open(path, "rb").read()),
    }
    for reader, read in readers.items():
        try:
            outcome = "read" if np.array_equal(read()["kernel"], array) else "other numbers"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        print(f"{name:16} save_file: written   {reader}: {outcome}")
        outcomes[name, reader] = outcome.partition(":")[0]
float8 = {outcome for (name, _), outcome in outcomes.items() if name.startswith("float8")}
sys.exit(float8 != {"AttributeError", "KeyError"} or outcomes["bfloat16", "load_file"] != "read")
PYTHON
"$folder/venv/bin/python" "$folder/float8.py" "$folder/x.safetensors" || { echo "CHANGED"; exit 1; }
echo "As stated."
