"""Split expressions against TFDS's own ReadInstruction and NumPy slices; surprising expressions are rejected."""

import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cnn_jax.data.splits import members_of_split, part_of, resolve_split
from cnn_jax.errors import UsageError

BOUNDS = {
    "abs": (None, 0, 1, 5, 29, -1, -5, -29),
    "%": (None, 0, 0.5, 1, 10, 33, 50, 99, 100, -0.5, -1, -10, -33, -50, -99, -100),
}


def number_of_examples(bound: float | None, unit: str, size: int) -> int | None:
    return bound if bound is None or unit == "abs" else round(bound * size / 100)


@pytest.mark.parametrize("size", [1, 7, 30, 50, 99, 100, 150, 1297])
def test_every_slice_is_that_of_tfds_and_of_numpy_or_rejected(size):
    info = tfds.core.SplitInfo(name="train", shard_lengths=[size], num_bytes=0, filename_template=None)
    members = {"train": np.arange(size), "test": np.arange(3)}
    chosen = refused = 0
    for unit, bounds in BOUNDS.items():
        for start, stop in itertools.product(bounds, bounds):
            if start is stop is None:
                continue
            sign = "" if unit == "abs" else unit
            texts = ["" if bound is None else f"{bound}{sign}" for bound in (start, stop)]
            split = f"train[{':'.join(texts)}]"
            counts = [number_of_examples(bound, unit, size) for bound in (start, stop)]
            outside = any(abs(count or 0) > size for count in counts)
            vanished = any((bound or 0) < 0 and count == 0 for bound, count in zip((start, stop), counts, strict=True))
            expected = np.arange(size)[slice(*counts)]
            if outside or vanished or not len(expected):
                with pytest.raises(UsageError):
                    members_of_split("made", split, members)
                refused += 1
                continue
            (part,) = tfds.core.ReadInstruction("train", from_=start, to=stop, unit=unit).to_absolute({"train": info})
            np.testing.assert_array_equal(expected, np.arange(size)[part.from_ : part.to])
            np.testing.assert_array_equal(members_of_split("made", split, members), expected, err_msg=split)
            chosen += 1
    assert refused > 20
    assert chosen > 2


@pytest.mark.parametrize("last", ["-1%", "-10%", "-33%", "-0.5%", "-1", "-1shard"])
def test_the_last_examples_and_all_but_them_are_the_set(last):
    members = {"train": np.arange(30)}
    splits = f"train[{last}:]", f"train[:{last}]"
    if last in ("-1%", "-0.5%"):  # rounds to 0 examples: TFDS would train on the whole validation set
        for split in (*splits, f"train+{splits[0]}"):
            with pytest.raises(UsageError, match=rf"{last} of 30 examples is none; give a number .* train\[-1:\]"):
                members_of_split("made", split, members)
    elif last == "-1shard":  # there is one shard, so the rest is empty
        assert len(members_of_split("made", splits[0], members)) == 30
        with pytest.raises(UsageError, match="is empty"):
            members_of_split("made", splits[1], members)
    else:
        held_out, rest = (members_of_split("made", split, members) for split in splits)
        np.testing.assert_array_equal(np.concatenate([rest, held_out]), members["train"])


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        ("train[-0:]", "-0 of 30 examples is none"),
        ("train[-0%:]", "-0% of 30 examples is none"),
        ("train[:0shard]", "0shard of 30 examples is none"),
        ("train[10:50%]", r"\[10:50%\] mixes units; give both"),
        ("train[-1:100%]", "mixes units"),
        ("train[1shard:50%]", "mixes units"),
        ("train[:1%]", "is empty"),
        ("train[99%:]", "is empty"),
        ("test+train[5:3]", "is empty"),
        ("train[-31:]", "incompatible with 30 examples"),
        ("train[5]", "no split"),
        ("train[101%:]", "no split"),
        ("all[:5]", "no split"),
        ("Train", "no split"),
    ],
)
def test_surprising_expressions_are_rejected(split, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        resolve_split("made", split, {"train": [30], "test": [5]})
    assert "\n" not in str(caught.value)


def test_shards_have_their_own_lengths():
    shard_lengths = {"train": [10, 20, 5]}
    assert resolve_split("made", "train[1shard]", shard_lengths) == [("train", 10, 30)]
    assert resolve_split("made", "train[-1shard:]", shard_lengths) == [("train", 30, 35)]
    assert resolve_split("made", "train[0:50%]", shard_lengths) == [("train", 0, 18)]


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("train", "Train", "TRAIN", "Training", "train_set", "trainset", "TrainSet", "train-images"), "train"),
        (("val", "valid", "Validation", "dev", "eval", "VAL_DATA", "dev set", "valset"), "validation"),
        (("test", "Testing", "TEST", "test_set", "Test Data", "test.images", "TestImages"), "test"),
        (("contest", "trainer", "test tube", "retrain", "devil", "", "set", "images", "train2017", "train_test"), ""),
    ],
)
def test_names_of_parts(names, part):
    assert [part_of(name) for name in names] == [part] * len(names)
