"""Captioned canvases, whose combinations are held out, and folders of images with captions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.data.canvases import RELATIONS, caption_of
from cnn_jax.errors import UsageError

NOUNS = [(name, f"{name}s") for name in "zyxwvutsrq"]
NUMBERS = {noun: number for number, pair in enumerate(NOUNS) for noun in pair}


def canvases(split: str, count: int = 300, **options) -> data.Dataset:
    options = {"side": 40, "item_sides": (8, 12), **options}
    return data.captioned_canvases(data.load("digits", split), NOUNS, split, count=count, **options)


def parsed(caption: str) -> tuple | None:
    """The combination of a caption, by the grammar; None for one group."""
    for relation in RELATIONS:
        first, found, second = caption.partition(f" {relation} ")
        if found:
            return NUMBERS[first.split()[1]], relation, NUMBERS[second.split()[1]]
    return None


@pytest.fixture(scope="module")
def splits() -> dict[str, data.Dataset]:
    return {split: canvases(split) for split in ("train", "validation", "test")}


def test_held_out_combinations_never_occur_in_training(splits):
    combinations = {split: set(data.combinations_of(split, 10)) for split in splits}
    assert [len(found) for found in combinations.values()] == [126, 18, 36]
    assert len(set().union(*combinations.values())) == 10 * 9 * 2, "they share none"
    for split, found in splits.items():
        seen, new = found.fields["combination"].astype(bool).T
        assert (seen != new).all()
        for number in range(len(found)):
            combination = parsed(caption_of(found, number))
            held_out = combination is not None and combination in combinations[split] - combinations["train"]
            assert new[number] == held_out
            assert combination is None or held_out or combination in combinations["train"]
        assert new.mean() == 0 if split == "train" else 0.3 < new.mean() < 0.5


def test_canvases_show_what_their_captions_say():
    """Items of one grey value for each class: pieces are counted, and the centres of the groups compared."""
    from scipy.ndimage import binary_erosion, center_of_mass, label

    items = data.load("digits", "test")
    plain = np.broadcast_to((20 * (1 + items.labels)).astype(np.uint8)[:, None, None, None], items.images.shape).copy()
    plain[:, [0, -1]] = plain[:, :, [0, -1]] = 0  # a border, so that neighbours do not touch
    found = data.Dataset("plain", "test", {**items.fields, "image": plain}, items.spec)
    made = data.captioned_canvases(found, NOUNS, "test", count=60, side=72, item_sides=(16, 24))
    counts = {"a": 1, "two": 2, "three": 3}
    for number, image in enumerate(made.images[..., 0]):
        groups, centres = [], []
        for grey in range(10):
            there = np.abs(image.astype(int) - 20 * (1 + grey)) < 3
            pieces, count = label(binary_erosion(there, np.ones((3, 3))))  # without the soft edges of lighter items
            if count:
                groups.append((grey, count))
                centres.append(np.mean(center_of_mass(pieces > 0, pieces, range(1, count + 1)), axis=0))
        caption = caption_of(made, number)
        said = [(NUMBERS[words[1]], counts[words[0]]) for words in map(str.split, _groups(caption))]
        assert sorted(said) == sorted(groups), caption
        if len(said) == 2:
            first, second = (centres[[grey for grey, _ in groups].index(of)] for of, _ in said)
            down, right = second - first
            assert (right > abs(down)) if "left of" in caption else (down > abs(right)), caption


def _groups(caption: str) -> list[str]:
    for relation in RELATIONS:
        caption = caption.replace(f" {relation} ", "|")
    return caption.split("|")


def test_canvases_are_the_same_for_a_seed(splits):
    assert canvases("test").fingerprint() == splits["test"].fingerprint()
    assert canvases("test", seed=1).fingerprint() != splits["test"].fingerprint()
    tokens, counts = splits["test"].fields["caption"], splits["test"].fields["caption_count"]
    assert ((tokens > 1).sum(axis=1) == counts).all(), "no unknown word"
    assert counts.max() < tokens.shape[1], "there is room for the end"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "canvases have no split 'dev'"),
        ({"item_sides": (8, 14)}, "images of 8 to 14 pixels do not fit side=40"),
        ({"nouns": NOUNS[:3]}, "3 nouns for 10 classes"),
    ],
)
def test_wrong_canvases_are_named(options, message):
    given = {"nouns": NOUNS, "split": "test", "count": 1, "side": 40, "item_sides": (8, 12), **options}
    with pytest.raises(UsageError, match=message):
        data.captioned_canvases(data.load("digits", "test"), **given)


def images(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 10 * number, np.uint8)).save(root / name)


def open_folder(root: Path, split: str) -> data.Dataset:
    return data.load(f"captions:{root}", split, image_shape=(6, 8, 3))


def captions(found: data.Dataset) -> list[str]:
    return [caption_of(found, number) for number in range(len(found))]


def test_a_folder_with_a_file_for_each_part(tmp_path):
    images(tmp_path, "images/a.png", "images/b.png", "c.png")
    (tmp_path / "train.csv").write_text('image,caption\na.png,"A dog, and a cat."\na.png,A dog!\n')
    (tmp_path / "val.txt").write_text("c.png\ta dog\n")
    (tmp_path / "captions_test.txt").write_text("images/b.png#0\tA bird and a cat\nb.png#1\ta dog\n")
    train, test = open_folder(tmp_path, "train"), open_folder(tmp_path, "test")
    assert captions(train) == ["a dog , and a cat", "a dog !"]
    assert captions(test) == ["a <unknown> and a cat", "a dog"]
    assert train.spec["caption"] == test.spec["caption"]
    assert train.spec["caption"].shape == (7,), "of the longest caption, and its end"
    assert test.report.endswith(
        "2 captions of 1 images in 'test', 6 words; 1 captions have words that no training caption has"
    )
    assert train.images[0, 0, 0].tolist() == [0, 0, 0]
    assert test.images[1, 0, 0].tolist() == [10, 10, 10]
    assert data.count_shared(train, train) == 2


def test_captions_of_an_image_are_in_one_part(tmp_path):
    names = [f"{number}.png" for number in range(20)]
    images(tmp_path, *names)
    lines = [f"{name},caption {kind} of {name}" for kind in ("one", "two", "three") for name in names]
    (tmp_path / "captions.txt").write_text("\n".join(["image,caption", *lines]))
    found = {split: captions(open_folder(tmp_path, split)) for split in ("train", "validation", "test")}
    assert {split: len(said) for split, said in found.items()} == {"train": 48, "validation": 6, "test": 6}
    records = data.open_set(f"captions:{tmp_path}", "all", image_shape=(6, 8, 3))
    assert len(records) == 60
    parts = [{image.name for image in data.open_set(f"captions:{tmp_path}", split, image_shape=(6, 8, 3)).reader.images}
             for split in found]  # fmt: skip
    assert sum(map(len, parts)) == len(set().union(*parts)) == 20


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it has none"),
        ({"captions.csv": "a.png,a dog\nb.png,a cat\n"}, "line 2: there is no image 'b.png'"),
        ({"captions.csv": "a.png,a dog\na.png,\n"}, "line 2: the caption of 'a.png' is empty"),
        ({"captions.csv": "a.png,...\n"}, "line 1: the caption of 'a.png' is empty"),
        ({"captions.csv": "image,caption\n"}, "captions.csv: has no captions"),
        ({"captions.csv": "c.png,a dog\n"}, "line 1: 2 images are called 'c.png'"),
        ({"captions.csv": "a.png,a dog\n", "readme.txt": "mine"}, "it has captions.csv, readme.txt"),
        ({"train.csv": "a.png,a dog\n", "test.csv": "a.png,a cat\n"}, "has captions of two parts, test and train"),
    ],
)
def test_mistakes_get_one_line(tmp_path, files, message):
    images(tmp_path, "a.png", "x/c.png", "y/c.png")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        open_folder(tmp_path, "train")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
