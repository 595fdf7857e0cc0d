#!/usr/bin/env bash
# TensorFlow Datasets cannot open a prepared set of audio or video without TensorFlow, although reading needs none.
#
# Version: tensorflow-datasets 4.9.10, the newest when this was written. TensorFlow is not installed here.
# Since 4.9 prepared sets are read without TensorFlow ("tfds.data_source"), and images, texts and tensors are. But the
# declarations of the features `Audio` and `Video` ask TensorFlow for the name of a dtype (`tf.dtypes.as_dtype`) when
# they are made, so that a set that has one cannot even be opened, whatever else is in it: ModuleNotFoundError.
# Why it hurts: sets of speech and of video for convolutional networks need a TensorFlow of 600 MB beside JAX or PyTorch
# to be read, only for that one name. The values themselves are decoded with NumPy and Pillow.
# What we do about it: cnn_jax.data gives TFDS NumPy's dtype while it makes these declarations, and decodes the rest.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "tensorflow-datasets==4.9.10" "setuptools<81" "importlib_resources>=6"

"$folder/venv/bin/python" - <<'PYTHON' 2> /dev/null
import sys

import numpy as np
import tensorflow_datasets as tfds

print("tensorflow-datasets", tfds.__version__, "python", sys.version.split()[0])
features = tfds.features
made = {
    "Image": lambda: features.Image(shape=(8, 8, 1)),
    "Text": lambda: features.Text(),
    "Tensor": lambda: features.Tensor(shape=(8,), dtype=np.float32),
    "Audio": lambda: features.Audio(sample_rate=8000),
    "Video": lambda: features.Video(shape=(None, 8, 8, 1)),
}
found = {}
for name, make in made.items():
    try:
        make()
        found[name] = "is made"
    except ImportError as error:
        found[name] = f"{type(error).__name__}: {error}"
    print(f"{name:8} {found[name]}")
as_stated = all(found[name] == "is made" for name in ("Image", "Text", "Tensor")) and all(
    "tensorflow" in found[name] for name in ("Audio", "Video")
)
print("as stated" if as_stated else "no longer as stated")
sys.exit(0 if as_stated else 1)
PYTHON
