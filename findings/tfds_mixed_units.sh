#!/usr/bin/env bash
# TensorFlow Datasets uses one unit for both bounds of a slice: "train[10:50%]" starts at 10 % and not at example 10.
#
# Version: tensorflow-datasets 4.9.10, the newest when this was written. TensorFlow is not needed to reproduce it.
# The unit of the first bound that has one is used for both: "train[1000:50%]" is rejected as 1000 %, "train[10:50%]" of
# 1,000 examples is [100:500], "train[10%:2shard]" ends at 2 %, and "train[-1:100%]" is the last 1 %. Also, "[:0shard]",
# which is no shard, selects every example, while "[:0]" and "[:0%]" select none.
# Why it hurts: there is no warning. "Test on the first 100, train on the rest of the first half" as train[:100] and
# train[100:50%] fails or, with smaller numbers, trains on the wrong examples. A slice computed by a script as "0shard"
# trains on the whole data set.
# What we do about it: cnn_jax.data rejects bounds with different units, and bounds of zero shards.
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
shards = [100] * 10
infos = {"train": tfds.core.SplitInfo(name="train", shard_lengths=shards, num_bytes=0, filename_template=None)}


def chosen(split):
    """The examples that a split expression selects, as a range."""
    (part,) = AbstractSplit.from_spec(split).to_absolute(infos)
    return range(sum(shards))[part.from_ : part.to]


for split in ("train[10:50%]", "train[10%:2shard]", "train[-1:100%]", "train[:0]", "train[:0%]", "train[:0shard]"):
    print(f"{split:18} of {sum(shards)} in {len(shards)} shards: {chosen(split)}")
as_stated = (
    chosen("train[10:50%]") == range(100, 500)
    and chosen("train[-1:100%]") == range(990, 1000)
    and len(chosen("train[:0]")) == 0
    and len(chosen("train[:0shard]")) == 1000
)
print("as stated" if as_stated else "no longer as stated")
sys.exit(0 if as_stated else 1)
PYTHON
