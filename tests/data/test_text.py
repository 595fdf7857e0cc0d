"""Sentences: tokens against Kim's rule, the vocabulary of the training set, layouts of files, and bad files."""

import re

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data.text import tokenize
from cnn_jax.errors import UsageError

SENTENCES = [
    "It isn't bad, really!",
    "the film's plot (if any) won't surprise you -- you've seen it .",
    "they'd say: I'll be back; 3.5 stars?",
]


def kim(text: str) -> list[str]:
    """The rule of the paper's code (clean_str), substitution by substitution."""
    text = re.sub(r"[^A-Za-z0-9(),!?'`]", " ", text)
    for contraction in ("'s", "n't", "'ve", "'re", "'d", "'ll"):
        text = text.replace(contraction, f" {contraction}")
    for sign in ",!()?":
        text = text.replace(sign, f" {sign} ")
    return text.lower().split()


def test_words_are_those_of_the_paper():
    for sentence in SENTENCES:
        assert tokenize(sentence) == kim(sentence)
    assert tokenize("Größe ist nicht alles") == ["größe", "ist", "nicht", "alles"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.txt").write_text("good a fine film\nbad\ta dull film\ngood fine\n")
    (tmp_path / "test.txt").write_text("bad a dreadful film\ngood fine fine fine fine\nbad dull\ngood film\n")
    return tmp_path


def test_tokens_are_numbered_by_the_training_set(folder):
    test = data.load(f"text:{folder}", "test", image_shape=(3,))
    names = test.spec["text"].class_names
    assert names == ("<padding>", "<unknown>", "a", "film", "fine", "dull")[:2] + tuple(
        sorted(("a", "film", "fine", "dull"), key=lambda word: (-{"dull": 1}.get(word, 2), word))
    )
    assert [[names[token] for token in row] for row in test.inputs[:2]] == [["a", "<unknown>", "film"], ["fine"] * 3]
    assert test.fields["text_count"].tolist() == [3, 3, 1, 1]
    assert (test.inputs[2:, 1:] == 0).all()
    assert "1 of 4 texts" in test.report
    assert (test.class_names, test.labels.tolist()) == (("bad", "good"), [0, 1, 0, 1])
    half = data.load(f"text:{folder}", "test", image_shape=(3,), train="train[:1]")
    assert set(half.spec["text"].class_names[2:]) == {"a", "fine", "film"}


def test_a_file_of_each_class_by_a_pattern_in_latin_1(tmp_path):
    (tmp_path / "plot.good").write_bytes("très bon\x85 film\nbon\n".encode("latin-1"))  # \x85 ends no line here
    (tmp_path / "plot.bad").write_bytes(b"mauvais\nnul\n")
    found = data.load(f"text:{tmp_path}/plot.{{label}}", "train")
    assert (found.class_names, len(found)) == (("bad", "good"), 4)
    assert "très" in found.spec["text"].class_names


def test_columns_of_a_csv_file(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text('label,text\ngood,"a fine, short film"\nbad,dull\n' + "good,fine\nbad,dull\n" * 5)
    found = data.load(f"text:{file}", "all")
    assert (len(found), found.image_shape) == (12, (5,))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"", "a.txt: is empty"),
        ("a.txt", b"good\n", "line 1: has no text after the label 'good'"),
        ("a.txt", b"one sentence\nother sentence\nthird sentence\n", "begin each line with its label and a tab"),
        ("a.txt", b"\x00\x01", "no text file"),
        ("none.txt", None, "no file or folder"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        data.load(f"text:{tmp_path / name}", "train")
    assert name in str(caught.value)
    assert expected in str(caught.value)


def test_folders_without_texts(tmp_path):
    with pytest.raises(UsageError, match="one file whose name begins or ends with 'train'"):
        data.load(f"text:{tmp_path}", "train")
    with pytest.raises(UsageError, match="none matches the pattern"):
        data.load(f"text:{tmp_path}/x.{{label}}", "train")
    with pytest.raises(UsageError, match=r"the pattern needs \{label\}"):
        data.load(f"text:{tmp_path}/x.{{class}}", "train")


def test_texts_that_do_not_fit_the_network(folder):
    texts = data.load(f"text:{folder}", "train", image_shape=(4,))
    preprocess = data.Preprocess.measure(texts, (4,))
    np.testing.assert_array_equal(preprocess(texts.inputs), texts.inputs)
    with pytest.raises(UsageError, match=r"set it to \(4,\)"):
        data.Preprocess.scaled((5,))(texts.inputs)
    with pytest.raises(UsageError, match=r"must be \(number of words,\)"):
        data.load(f"text:{folder}", "train", image_shape=(4, 1))
