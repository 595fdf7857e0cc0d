"""Series in UCR's formats, from files that the tests write, and MNIST-1D against its published numbers."""

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data.series import read_series
from cnn_jax.errors import UsageError

HEADER = "# a comment\n@problemName made\n@univariate {u}\n@classLabel {labels}\n@data\n"
TS = HEADER.format(u="true", labels="true 1 2")
GENERATOR = np.random.default_rng(0)
VALUES = GENERATOR.standard_normal((6, 5)).round(3)


def lines(delimiter: str) -> str:
    """In UCR's format: the class is the first column, as a floating-point number."""
    rows = [delimiter.join([f"{1 + n % 2:.7e}", *map(str, row)]) for n, row in enumerate(VALUES)]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(("suffix", "delimiter"), [(".txt", "  "), (".tsv", "\t"), (".csv", ","), (".csv", ";")])
def test_tables_agree_with_numpy(tmp_path, suffix, delimiter):
    file = tmp_path / f"made{suffix}"
    file.write_text(lines(delimiter))
    found = read_series(file)
    reference = np.loadtxt(file, delimiter=None if suffix == ".txt" else delimiter)
    np.testing.assert_array_equal(np.stack(found.values)[..., 0], reference[:, 1:].astype(np.float32))
    assert found.labels == ["1", "2"] * 3
    assert [len(values) for values in read_series(file, length=6).values] == [6] * 6, "rows without a class"


def test_a_heading_names_the_column_of_the_class(tmp_path):
    file = tmp_path / "made.csv"
    file.write_text("a,b,label\n1,2,up\n3,4,down\n")
    found = read_series(file)
    assert found.labels == ["up", "down"]
    np.testing.assert_array_equal(found.values[1][:, 0], [3, 4])


def test_only_the_lines_of_a_batch_are_read(tmp_path):
    """Examples of a set on disk, in any order, after a heading and a mark of the byte order."""
    file = tmp_path / "made.csv"
    rows = [f"{n % 2},{','.join(map(str, row))}" for n, row in enumerate(np.tile(VALUES, (4, 1)))]
    file.write_text("\n\n".join(["label,a,b,c,d,e", *rows]), encoding="utf-8-sig")
    found = data.open_set(f"series:{file}", "all")
    whole, part = found.to_memory(), found.take([7, 0, 23])
    np.testing.assert_array_equal(part["signal"], whole.inputs[[7, 0, 23]])
    assert whole.class_names == ("0", "1")
    assert sorted(map(tuple, whole.inputs[..., 0].tolist())) == sorted(
        map(tuple, np.tile(VALUES, (4, 1)).astype(np.float32).tolist())
    )
    assert (whole.inputs[whole.labels == 1][:, 0, 0, None] == VALUES[1::2, 0].astype(np.float32)).any(axis=1).all()


def test_parts_by_names_of_files_and_channels_by_colons(tmp_path):
    rows = ["1,2,3:4,5,6:up", "7,8,9:1,1,1:down"]
    for part, chosen in (("TRAIN", rows), ("TEST", rows[:1])):
        text = HEADER.format(u="false", labels="true up down") + "\n".join(chosen)
        (tmp_path / f"Made_{part}.ts").write_text(text)
        (tmp_path / f"Made_{part}.txt").write_text("not read, for there is a .ts file")
    found = data.load(f"series:{tmp_path}", "train")
    assert (found.class_names, found.labels.tolist()) == (("down", "up"), [1, 0])
    np.testing.assert_array_equal(found.inputs[0], [[1, 4], [2, 5], [3, 6]])
    assert len(data.load(f"series:{tmp_path}", "test")) == 1


def test_series_of_different_lengths_are_padded_at_the_end(tmp_path):
    file = tmp_path / "made.txt"
    file.write_text("10 1 2 3\n9 4 5\n" * 10)
    found = data.load(f"series:{file}", "all")
    assert found.class_names == ("9", "10")
    assert {tuple(row) for row in found.inputs[..., 0].tolist()} == {(1, 2, 3), (4, 5, 0)}
    assert "2 to 3 values" in found.report


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.ts", "no header\n", "has no line @data"),
        ("a.ts", TS, "has no series"),
        ("a.ts", TS + "1,2,3:1\n1,x,3:2\n", "a.ts, line 7: 'x' is not a number"),
        ("a.ts", TS + "1,?,3:1\n", "line 6: '?' is a missing value; fill it in"),
        ("a.ts", TS + "1,2,3\n", "line 6: its last field, '1,2,3', is none of the classes"),
        ("a.ts", TS + "1,2:3\n", "line 6: its last field, '3', is none of the classes"),
        ("a.ts", TS + "1,2:1:1\n1,2:1\n", "line 6: its channels have 2, 1 values"),
        ("a.ts", TS + "1,2:1,2:1\n1,2:1\n", "line 7: has 1 channels, the series before it 2"),
        ("a.ts", HEADER.format(u="true", labels="false") + "1,2\n", "has no labels"),
        ("a.ts", "@timeStamps true\n" + TS, "@timeStamps true is not supported"),
        ("a.csv", "1,2,3\n1,nan,3\n", "line 2: 'nan' is a missing value"),
        ("a.csv", "1,2,3\n1,inf,3\n", "line 2: 'inf' is not a number"),
        ("a.csv", "1,2,3\n1,,3\n", "line 2: '' is a missing value"),
        ("a.csv", "1\n", "line 1: has 1 columns"),
        ("a.csv", "1;0,5;2\n1;3;0,5\n", "line 2: '0,5' is not a number; write it with a decimal point"),
        ("a.csv", "", "has no series"),
        ("a.xls", "1 2", "is not a file of series"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, text, expected):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        data.load(f"series:{file}", "train")
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_without_series(tmp_path):
    with pytest.raises(UsageError, match=r"no file such as NAME_TRAIN\.ts"):
        data.load(f"series:{tmp_path}", "train")
    with pytest.raises(UsageError, match="no file or folder"):
        data.load(f"series:{tmp_path / 'none'}", "train")


def test_mnist1d_is_the_published_set():
    """Numbers of the authors' frozen file, mnist1d_data.pkl."""
    train, test = data.load("mnist1d", "train"), data.load("mnist1d", "test")
    assert (train.inputs.shape, test.inputs.shape) == ((4000, 40, 1), (1000, 40, 1))
    first = [-0.33200567, -0.47191037, -0.77869708, -1.00974083, -0.88235257]
    np.testing.assert_allclose(train.inputs[0, :5, 0], first, rtol=1e-6)
    np.testing.assert_allclose(test.inputs[-1, -3:, 0], [0.65987565, 0.87773435, 1.19315184], rtol=1e-6)
    np.testing.assert_allclose(np.square(train.inputs, dtype=np.float64).sum(), 159248.253865, rtol=1e-6)
    assert train.labels[:12].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1, 6, 9]
    assert test.labels[-5:].tolist() == [2, 5, 9, 6, 4]
