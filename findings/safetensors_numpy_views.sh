#!/usr/bin/env bash
# The NumPy interface of safetensors 0.8.0 writes views wrongly: the right shape, with the numbers in memory order.
#
# What: safetensors.numpy.save and save_file use the address and the size of an array and ignore its strides. A
#   transposed, sliced or Fortran-ordered array is written as the first bytes of its memory, without an error. The
#   loaded array has the right shape and dtype and wrong numbers. 0.7.0 and earlier wrote the right numbers.
#   safetensors.torch rejects such tensors with an error ("non contiguous").
# Versions: safetensors 0.8.0 (wrong), 0.7.0 (right), numpy 2.4.6, Python 3.11.
# Why it hurts: conversions between frameworks make transposed views of convolution kernels. HWIO to OIHW is
#   kernel.transpose(3, 2, 0, 1), and the .numpy() of a PyTorch model in channels_last, the format recommended for
#   convolutions, is a view. The file loads everywhere, and the weights are scrambled.
# What we do: weights.save copies arrays to C order first (write_safetensors), and a test covers views of every kind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/views.py" <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import safetensors.numpy

print("safetensors", importlib.metadata.version("safetensors"), "numpy", np.__version__)
kernel = np.arange(3 * 3 * 2 * 4, dtype=np.float32).reshape(3, 3, 2, 4)  # height, width, in, out
arrays = {
    "C order": kernel,
    "HWIO to OIHW": kernel.transpose(3, 2, 0, 1),
    "Fortran order": np.asfortranarray(kernel),
    "channels 0 to 2 of 4": kernel[..., :2],
}
wrong = []
for name, array in arrays.items():
    read = safetensors.numpy.load(safetensors.numpy.save({"kernel": array}))["kernel"]
    same = np.array_equal(read, array)
    print(f"{name:21} {array.shape} read as {read.shape}, {'the same' if same else 'OTHER NUMBERS'}")
    print(f"  written {array.ravel()[:6].tolist()}\n  read    {read.ravel()[:6].tolist()}")
    wrong += [] if same else [name]
sys.exit(wrong != sys.argv[1:])
PYTHON
try() {  # version, then the arrays expected to be wrong
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/pip" install --quiet --disable-pip-version-check "safetensors==$1" numpy==2.4.6
  "$folder/$1/bin/python" "$folder/views.py" "${@:2}"
}
try 0.7.0 || { echo "CHANGED: 0.7.0"; exit 1; }
try 0.8.0 "HWIO to OIHW" "Fortran order" "channels 0 to 2 of 4" || { echo "CHANGED: 0.8.0"; exit 1; }
echo "As stated."
