#!/usr/bin/env bash
# nibabel reads a damaged .nii.gz file without an error and returns other values.
#
# What: a gzip file ends with a checksum of its data. nibabel stops reading at the end of the array, so the checksum is
#   never compared. A volume whose data do not fit their checksum is loaded with the damaged value and without a
#   warning; Python's gzip module and the program gzip refuse the same file.
# Versions: nibabel 5.4.2, numpy 2.4.6.
# Why it hurts: volumes for 3-D networks are stored as .nii.gz. A file that was damaged by a disk or a download becomes a
#   training example with wrong intensities, or with wrong labels.
# What we do: cnn_jax/data/nifti.py reads compressed files to their end first, and names a damaged one in one line.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import gzip
import sys

import nibabel
import numpy as np

print(f"nibabel {nibabel.__version__}, numpy {np.__version__}")
labels = np.zeros((32, 32, 32), np.uint8)
nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), "labels.nii.gz")
content = open("labels.nii.gz", "rb").read()
data = bytearray(gzip.decompress(content))
data[-1] ^= 1  # the last voxel becomes 1
open("damaged.nii.gz", "wb").write(gzip.compress(bytes(data))[:-8] + content[-8:])  # with the checksum of before
loaded = np.asarray(nibabel.load("damaged.nii.gz").dataobj)
print(f"nibabel: loaded {loaded.shape} without an error; {(loaded != labels).sum()} voxel differs")
try:
    gzip.decompress(open("damaged.nii.gz", "rb").read())
    refused = False
except gzip.BadGzipFile as error:
    refused = True
    print(f"gzip: {error}")
sys.exit(not (refused and (loaded != labels).sum() == 1))
PYTHON
