"""Boxes of TFDS sets, which a real builder of TFDS writes: parts of the sides as (ymin, xmin, ymax, xmax)."""

import importlib.resources
import importlib.util
import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from cnn_jax import data
from cnn_jax.config import load_config
from cnn_jax.data.tfds import quiet_tfds
from cnn_jax.errors import UsageError
from cnn_jax.tasks import Detection
from cnn_jax.tasks.sets import known_examples

OBJECTS = [  # of images of 20x40 pixels: class, whether a crowd, (top, left, bottom, right) in pixels
    [("bee", False, (5, 10, 15, 40)), ("ant", True, (0, 0, 20, 10))],
    [],
    [("ant", False, (10, 4, 12, 8))],
]


def image(objects):
    """A PNG file of 20x40 pixels that is white in its boxes."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    for _, _, (top, left, bottom, right) in objects:
        pixels[top:bottom, left:right] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    buffer.seek(0)
    return buffer


def box(corners):
    top, left, bottom, right = corners
    return tfds.features.BBox(ymin=top / 20, xmin=left / 40, ymax=bottom / 20, xmax=right / 40)


OBJECT = {
    "bbox": tfds.features.BBoxFeature(),
    "label": tfds.features.ClassLabel(names=["ant", "bee"]),
    "is_crowd": np.bool_,
}


class MadeObjects(tfds.core.GeneratorBasedBuilder):
    """A set like COCO's, with one box and one class of the whole image beside the objects, like those of birds."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "objects": tfds.features.Sequence(OBJECT),
            "bbox": tfds.features.BBoxFeature(),
            "species": tfds.features.ClassLabel(names=["wren", "robin"]),
            "pixels": tfds.features.BBoxFeature(bbox_format="XYWH"),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples([0, 1]), "test": self._generate_examples([2])}

    def _generate_examples(self, numbers):
        for number in numbers:
            listed = [
                {"bbox": box(corners), "label": label, "is_crowd": crowd} for label, crowd, corners in OBJECTS[number]
            ]
            first = box((2, 8, 6, 20))
            yield (
                number,
                {"image": image(OBJECTS[number]), "objects": listed, "bbox": first, "species": 1, "pixels": first},
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    with quiet_tfds(), pytest.MonkeyPatch.context() as patched:
        if importlib.util.find_spec("importlib_resources") is None:  # which TFDS needs to write a set, not to read it
            patched.setitem(sys.modules, "importlib_resources", importlib.resources)
        MadeObjects(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def opened(folder, split, features=("image", "objects"), shape=(20, 40, 3), **options):
    return data.open_set("made_objects", split, features=features, image_shape=shape, data_dir=folder, **options)


def test_boxes_are_in_pixels_from_the_top_left_with_their_classes(folder):
    train, test = (opened(folder, split).to_memory() for split in ("train", "test"))
    assert train.class_names == ("ant", "bee")
    assert train.fields["boxes"].shape == (2, 2, 4), "as many entries as any image of any split has objects"
    number = int(train.fields["boxes_count"].argmax())
    assert train.fields["boxes_count"][1 - number] == 0
    np.testing.assert_allclose(train.fields["boxes"][number], [(5, 10, 15, 40), (0, 0, 20, 10)], atol=1e-4)
    assert train.fields["label"][number].tolist() == [1, 0]
    assert train.fields["crowd"][number].tolist() == [0, 1]
    np.testing.assert_allclose(test.fields["boxes"], [[(10, 4, 12, 8), (0, 0, 0, 0)]], atol=1e-4)


@pytest.mark.parametrize("framing", ["crop", "fit", "stretch"])
def test_boxes_stay_on_their_pixels_in_another_size(folder, framing):
    found = opened(folder, "test", shape=(40, 40, 3), framing=framing).to_memory()
    bright = np.argwhere(found.inputs[0, ..., 0] > 127)
    if not len(bright):  # a crop of the middle does not have the object
        assert framing == "crop"
        assert found.fields["boxes_count"].tolist() == [0]
        return
    np.testing.assert_allclose(found.fields["boxes"][0, 0], [*bright.min(axis=0), *(bright.max(axis=0) + 1)], atol=0.75)


@pytest.mark.parametrize(
    ("features", "names", "label"),
    [(("image", "bbox", "species"), ("wren", "robin"), 1), (("image", "bbox"), ("bbox",), 0)],
)
def test_a_box_without_a_class_has_that_of_the_image_or_the_one_that_it_is(folder, features, names, label):
    found = opened(folder, "test", features).to_memory()
    assert "species" not in found.fields
    assert (found.class_names, found.fields["label"].tolist()) == (names, [[label]])
    np.testing.assert_allclose(found.fields["boxes"], [[(2, 8, 6, 20)]], atol=1e-4)


def test_a_detection_takes_them(folder):
    examples = known_examples(opened(folder, "train").to_memory())
    assert Detection(load_config("detect_digits"), examples).class_names == ("ant", "bee")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (("image", "pixels"), "pixels: boxes in the format XYWH are not read, but REL_YXYX"),
        (("bbox", "image"), "bbox: boxes need the image that they are in; name it first in data.features"),
    ],
)
def test_other_boxes_are_refused(folder, features, message):
    with pytest.raises(UsageError, match=message):
        opened(folder, "test", features)
