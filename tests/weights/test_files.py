"""Files: their format, which is determined by content, dtypes, and arrays that safetensors would write wrongly."""

import io
import json
import tarfile
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from cnn_jax.errors import UsageError
from cnn_jax.weights import files
from tests.weights.test_places import assert_is, load, network

WHOLE = safetensors.numpy.save(network())


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("checkpoint/model.pth", "checkpoint/README"):
            file.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, **network())
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["x.SAFETENSORS", "x.safetensors", "x.pth", "model_best.pth.tar", "weights"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    (tmp_path / name).write_bytes(WHOLE)
    assert_is(load(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", b"", "x.pth is empty"),
        ("x.pth", b"<!DOCTYPE html><html>404</html>", "is a web page and not the weights.*download the file itself"),
        ("x.safetensors", b"\n <html>", "is a web page"),
        ("x.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS.*run 'git lfs pull'"),
        ("x.pth.gz", b"\x1f\x8b\x08\x00", "is compressed with gzip; unpack it"),
        (
            "x.pth.tar",
            tarred(),
            r"is a tar archive that contains 'checkpoint/model.pth', 'checkpoint/README'; unpack it",
        ),
        ("x.zip", zipped(a="", b="", c="", d=""), r"is a zip archive that contains 'a', 'b', 'c', ...; unpack it"),
        ("x.pth", zipped(a="b" * 999)[:500], "is damaged or incomplete"),
        ("x.npz", npz(), r"is a NumPy npz file; give its arrays: load\(model, dict\(np.load\(path\)\)\)"),
        ("x.pt", zipped(x__data__pkl="", **{"x__data.pkl": "", "x__constants.pkl": ""}), "is a TorchScript program"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "is HDF5.*; convert it"),
        ("x.npy", b"\x93NUMPY", "is a NumPy array; convert it"),
        ("x.json", b'{"metadata": {}}', "is JSON text and not tensors"),
        ("x.onnx", b"\x08\x07\x12\x07pytorch", "is perhaps ONNX"),
        ("x.pth", bytes(2000), "is damaged, or not a safetensors or PyTorch file"),
        ("x.bin", b"hello", "is damaged, or not a safetensors or PyTorch file"),
        ("x.safetensors", b"hello", "is not a complete safetensors file"),
        ("x.safetensors", WHOLE[:-1], "is not a complete safetensors file"),
        ("x.safetensors", WHOLE[:100], "is not a complete safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path / name)
    assert "\n" not in str(error.value)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("name", ["runs/last.ckpt", "runs/model_best.pth.tar", "runs/x.PTH"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(UsageError, match="there is no file"):
        load(name)


def test_an_unpacked_file_of_pytorch(tmp_path):
    (tmp_path / "data.pkl").touch()
    with pytest.raises(UsageError, match="is an unpacked PyTorch file"):
        load(tmp_path)


HALVES = ["float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


@pytest.mark.parametrize("dtype", [*HALVES, "float64"])
def test_real_numbers_of_any_type_are_converted_and_it_is_said(tmp_path, dtype):
    tensors = {name: array.astype(jnp.dtype(dtype)) for name, array in network().items()}
    if dtype != "float64":
        safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
    for source in [tensors] + [tmp_path / "x.safetensors"] * (dtype != "float64"):
        loaded = load(source)
        assert loaded.notes == (f"{dtype} converted to float32",)
        assert loaded.model.output.kernel.dtype == jnp.float32
        # float64 represents every number of these types, so the reference uses it.
        expected = tensors["classifier.2.weight"].astype(np.float64).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(loaded.model.output.kernel[...]).T, expected)


def test_float8_from_its_bits(tmp_path):
    """The format has a sign, four bits of exponent with bias 7 and three bits of fraction; it has no infinity."""

    def value(bits):
        exponent, fraction = bits >> 3 & 15, bits & 7
        size = (1 + fraction / 8) * 2.0 ** (exponent - 7) if exponent else fraction / 8 * 2.0**-6
        return -size if bits & 128 else size

    bits = np.array([0, 1, 8, 56, 57, 126, 129, 184, 254, 200], np.uint8)  # for ten output biases
    tensors = {name: array for name, array in network().items() if name != "classifier.2.bias"}
    header = json.loads(WHOLE[8 : 8 + int.from_bytes(WHOLE[:8], "little")])
    assert "F8_E4M3" not in json.dumps(header)
    tensors["classifier.2.bias"] = bits.view(jnp.float8_e4m3fn)
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
    bias = load(tmp_path / "x.safetensors").model.output.bias[...]
    np.testing.assert_array_equal(bias, [value(int(byte)) for byte in bits])


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("int8", r"has integers \(int8\) where the model has real numbers \(float32\); dequantise quantised weights"),
        ("uint8", "has integers"),
        ("bool", "has integers"),
        ("complex64", r"has complex numbers \(complex64\) where the model has real numbers"),
    ],
)
def test_other_numbers_are_refused(tmp_path, dtype, message):
    tensors = network() | {"classifier.2.weight": np.ones((10, 2), dtype)}
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
    for source in (tensors, tmp_path / "x.safetensors"):
        with pytest.raises(UsageError, match=f"tensor 'classifier.2.weight' {message}") as error:
            load(source)
        assert "\n" not in str(error.value)


def test_a_type_that_numpy_does_not_have(tmp_path):
    header = json.loads(WHOLE[8 : 8 + int.from_bytes(WHOLE[:8], "little")])
    offsets = {name: entry["data_offsets"][0] for name, entry in header.items()}
    last = max(offsets, key=lambda name: offsets[name])
    shape = header[last]["shape"]
    header[last] |= {"dtype": "F4", "data_offsets": [offsets[last], offsets[last] + int(np.prod(shape)) // 2]}
    text = json.dumps(header).encode()
    data = WHOLE[8 + int.from_bytes(WHOLE[:8], "little") :][: header[last]["data_offsets"][1]]
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(UsageError, match=f"tensor {last!r} has type F4, which NumPy does not support"):
        load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array.T,
        lambda array: array[:, 1:],
        lambda array: array[::-1],
        lambda array: np.asfortranarray(array),
        lambda array: np.broadcast_to(array[:1], array.shape),
        lambda array: array.astype(">f4").T,
        lambda array: array[0, 0, ...],
    ],
)
def test_views_are_written_as_they_look(tmp_path, view):
    """safetensors 0.8 ignores strides and writes the order of memory."""
    array = view(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    files.write_safetensors(tmp_path / "x.safetensors", {"a": array}, {})
    tensors = files.open_tensors(tmp_path / "x.safetensors")
    assert tensors.shapes["a"] == array.shape
    np.testing.assert_array_equal(tensors.read("a"), array)
