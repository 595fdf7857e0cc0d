#!/usr/bin/env bash
# TensorFlow Datasets reads the split "train[-1%:]" of 30 examples as all 30 of them, and "train[:-1%]" as none.
#
# Version: tensorflow-datasets 4.9.10, the newest when this was written. TensorFlow is not needed to reproduce it.
# A percentage is rounded to a number of examples: -1% of 30 is round(-0.3) = 0, and the slice [0:] is everything. This
# happens for 1 % with up to 50 examples, and for 10 % with up to 5. Positive percentages are consistent.
# Why it hurts: "train on train[:-1%], validate on train[-1%:]" is a common way to hold out examples. On a small data
# set the validation set silently becomes the whole training set, and its score that of the training examples.
# What we do about it: cnn_jax.data rejects a negative percentage that rounds to 0 examples, and suggests train[-1:].
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "tensorflow-datasets==4.9.10" "setuptools<81" "importlib_resources>=6"

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import tensorflow_datasets as tfds
from tensorflow_datasets.core.splits import AbstractSplit

print("tensorflow-datasets", tfds.__version__, "python", sys.version.split()[0])
size = 30
infos = {
    "train": tfds.core.SplitInfo(name="train", shard_lengths=[size], num_bytes=0, filename_template=None)
}


def examples(split):
    """The numbers of the examples that a split expression selects."""
    (part,) = AbstractSplit.from_spec(split).to_absolute(infos)
    return range(size)[part.from_ : part.to]


for split in ("train[:-1%]", "train[-1%:]", "train[:-4%]", "train[-4%:]", "train[:99%]", "train[99%:]"):
    print(f"{split:12} of {size}: {len(examples(split))} examples")
as_stated = len(examples("train[-1%:]")) == size and len(examples("train[:-1%]")) == 0
print("as stated" if as_stated else "no longer as stated")
sys.exit(0 if as_stated else 1)
PYTHON
