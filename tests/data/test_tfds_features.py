"""Features of TFDS sets that are no images with one label: sets written by hand, against the arrays in them."""

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import UsageError
from tests.data.tfds_files import (
    audio_feature,
    image_feature,
    label_feature,
    png,
    tensor_feature,
    text_feature,
    video_feature,
    write_tfds_examples,
)

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (4, 6, 5, 3), np.uint8)
MASKS = RANDOM.integers(0, 3, (4, 6, 5), np.uint8)
VIDEOS = RANDOM.integers(0, 256, (4, 3, 6, 5, 1), np.uint8)


def write(folder, features, columns, *, supervised=(), train=4):
    """The first ``train`` examples are the split ``train``, all are ``test``."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    splits = {"train": rows[:train], "test": rows}
    names = {"label": ["ant", "bee"]} if "label" in features else {}
    write_tfds_examples(folder, "made", splits, features, class_names=names, supervised_keys=supervised)
    return {"data_dir": folder}


def test_an_image_and_a_mask(tmp_path):
    features = {"image": image_feature((6, 5, 3)), "mask": image_feature((6, 5, 1)), "label": label_feature(2)}
    columns = {"image": [*map(png, IMAGES)], "mask": [*map(png, MASKS)], "label": [0, 1, 0, 1]}
    options = write(tmp_path, features, columns, supervised=("image", "label"), train=1)
    found = data.open_set("made", "test", features=("image", "mask"), **options).to_memory()
    np.testing.assert_array_equal(found.images, IMAGES)
    np.testing.assert_array_equal(found.fields["mask_map"], MASKS)
    # The number of classes is that of all splits, so that it is the same in each.
    train = data.open_set("made", "train", features=("image", "mask"), **options)
    assert found.spec["mask_map"].class_names == train.spec["mask_map"].class_names == ("0", "1", "2")
    assert list(data.open_set("made", "test", **options).spec) == ["image", "label"]
    every = data.open_set("made", "test", features=("image", "mask", "label"), **options).to_memory()
    assert every.labels.tolist() == [0, 1, 0, 1]


def test_images_and_masks_of_different_sizes_are_resized_together(tmp_path):
    half = np.zeros((4, 8), np.uint8)
    half[:, 4:] = 2
    features = {"image": image_feature((None, None, 1)), "segmentation": image_feature((None, None, 1))}
    columns = {"image": [png(100 * half), png(100 * half[:2])], "segmentation": [png(half), png(half[:2])]}
    options = write(tmp_path, features, columns, supervised=("image", "segmentation"))
    found = data.open_set("made", "test", image_shape=(2, 2, 1), framing="stretch", **options).to_memory()
    assert (found.images[..., 0] > 100).tolist() == [[[False, True]] * 2] * 2
    assert found.fields["segmentation"][0].tolist() == [[0, 2], [0, 2]]


def test_audio_becomes_a_signal_of_its_rate(tmp_path):
    sounds = [[0, 16384, -32768, 8192], [327]]
    features = {"audio": audio_feature((None,), 8000), "label": label_feature(2)}
    options = write(tmp_path, features, {"audio": sounds, "label": [1, 0]}, supervised=("audio", "label"))
    found = data.open_set("made", "test", image_shape=(3, 1), **options).to_memory()
    assert found.inputs[..., 0].tolist() == [[0.0, 0.5, -1.0], [np.float32(327 / 32768), 0.0, 0.0]]
    assert (found.input_kind, found.spec["audio"].rate, found.labels.tolist()) == ("signal", 8000, [1, 0])


def test_text_becomes_numbers_of_the_words_of_the_training_set(tmp_path):
    texts = [b"a good film", b"a bad one", "naïve".encode()]
    features = {"text": text_feature(), "label": label_feature(2)}
    options = write(tmp_path, features, {"text": texts, "label": [1, 0, 0]}, supervised=("text", "label"), train=2)
    found = data.open_set("made", "test", image_shape=(2,), train="train", **options).to_memory()
    words = found.spec["text"].class_names
    assert words == ("<padding>", "<unknown>", "a", "bad", "film", "good", "one")
    assert [[words[token] for token in row] for row in found.inputs] == [
        ["a", "good"],
        ["a", "bad"],
        ["<unknown>", "<padding>"],
    ]
    assert found.fields["text_count"].tolist() == [2, 2, 1]


def test_video_is_cut_and_continued_to_the_number_of_frames(tmp_path):
    frames = [[*map(png, video)] for video in VIDEOS]
    frames[1] = frames[1][:1]
    features = {"video": video_feature((None, 6, 5, 1)), "label": label_feature(2)}
    options = write(tmp_path, features, {"video": frames, "label": [0, 1, 0, 1]}, supervised=("video", "label"))
    found = data.open_set("made", "test", image_shape=(2, 6, 5, 1), **options).to_memory()
    expected = VIDEOS[:, :2].copy()
    expected[1, 1] = 0
    np.testing.assert_array_equal(found.inputs, expected)
    assert found.input_kind == "video"


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "expected"),
    [
        ((6,), "float32", "signal", (6, 1)),
        ((3, 2), "float32", "signal", (3, 2)),
        ((1, 2, 3), "float32", "image", (1, 2, 3)),
        ((1, 2, 3, 1), "uint8", "volume", (1, 2, 3, 1)),
    ],
)
def test_tensors_are_inputs_by_their_axes_and_targets(tmp_path, shape, dtype, kind, expected):
    values = [[1.5, 0.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 6]
    if dtype == "uint8":
        values = [[7, 0, 2, 3, 4, 5], [0] * 6]
    features = {"x": tensor_feature(shape, dtype), "y": tensor_feature((2,), "float32")}
    options = write(tmp_path, features, {"x": values, "y": [[0.5, 1.0], [2.0, 3.0]]}, supervised=("x", "y"))
    found = data.open_set("made", "test", **options).to_memory()
    assert (found.input_kind, found.image_shape, found.dtype) == (kind, expected, dtype)
    np.testing.assert_array_equal(found.inputs.reshape(2, -1), np.array(values, dtype))
    assert found.fields["y"].tolist() == [[0.5, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("asked", "shape", "message"),
    [
        ((), None, r"TFDS does not declare one input and one target .* in data.features, .* audio \(Audio\), boxes"),
        (("audio", "lable"), (3, 1), "has no feature 'lable'; it has audio"),
        (("audio", "text"), (3, 1), "text: a text beside audio is not read"),
        (("audio",), (3,), r"audio has different sizes \(None, 1\); give image_shape=\(length, channels\)"),
        (("audio", "open"), (3, 1), r"open: is a tensor of float32 \(None,\)"),
        (("audio", "boxes"), (3, 1), "boxes: boxes need the image that they are in; name it first"),
    ],
)
def test_mistakes(tmp_path, asked, shape, message):
    boxes = {"pythonClassName": "tensorflow_datasets.core.features.bounding_boxes.BBoxFeature", "boundingBox": {}}
    features = {
        "audio": audio_feature((None,), 8000),
        "text": text_feature(),
        "open": tensor_feature((None,), "float32"),
        "boxes": boxes,
    }
    options = write(tmp_path, features, {"audio": [[1]], "text": [b"a"], "open": [[1.0]]})
    with pytest.raises(UsageError, match=message):
        data.open_set("made", "test", features=asked, image_shape=shape, **options)


def test_features_are_those_of_tfds_sets():
    with pytest.raises(UsageError, match="names features of a TFDS set, which 'digits' is not"):
        data.open_set("digits", "test", features=("image",))


def test_what_is_known_without_reading(tmp_path):
    features = {"video": video_feature((None, 6, 5, 1)), "label": label_feature(2)}
    options = write(tmp_path, features, {"video": [[png(VIDEOS[0, 0])]], "label": [0]}, supervised=("video", "label"))
    spec = data.known_spec("made", "test", image_shape=(2, 6, 5, 1), **options)
    assert (spec["video"].shape, spec["label"].class_names) == ((2, 6, 5, 1), ("ant", "bee"))
