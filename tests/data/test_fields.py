"""Data sets with fields of every kind: checks, streams, files, hashes, splits and preprocessing."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.data import Dataset, Field, Preprocess, Records, Stream
from cnn_jax.errors import UsageError

RANDOM = np.random.default_rng(4)
COUNT = 20
SPEC = {
    "photo": Field("image"),
    "organ": Field("mask", class_names=("none", "liver"), outside=0),
    "seams": Field("weights"),
    "animal": Field("label", class_names=("ant", "bee")),
    "tags": Field("labels", class_names=("wet", "cold", "old")),
    "centre": Field("target"),
    "boxes": Field("boxes", count="objects"),
    "what": Field("label", class_names=("leg", "wing", "eye"), count="objects"),
    "objects": Field("count"),
    "ecg": Field("signal"),
    "words": Field("text", count="length"),
    "length": Field("count"),
    "scan": Field("volume"),
    "film": Field("video"),
}


def arrays() -> dict[str, np.ndarray]:
    corners = np.sort(RANDOM.random((COUNT, 3, 2, 2)), axis=2).reshape(COUNT, 3, 4) * 6
    return {
        "photo": RANDOM.integers(0, 256, (COUNT, 6, 7, 3), np.uint8),
        "organ": RANDOM.choice([0, 1, 255], (COUNT, 6, 7)).astype(np.uint8),
        "seams": RANDOM.random((COUNT, 6, 7)).astype(np.float32),
        "animal": (np.arange(COUNT) % 2).astype(np.int32),
        "tags": RANDOM.integers(0, 2, (COUNT, 3)).astype(np.uint8),
        "centre": RANDOM.normal(size=(COUNT, 2)).astype(np.float32),
        "boxes": corners.astype(np.float32),
        "what": RANDOM.integers(0, 3, (COUNT, 3)).astype(np.int32),
        "objects": RANDOM.integers(0, 4, COUNT).astype(np.int32),
        "ecg": RANDOM.normal(size=(COUNT, 30, 2)).astype(np.float32),
        "words": RANDOM.integers(0, 1000, (COUNT, 8)).astype(np.int32),
        "length": RANDOM.integers(0, 9, COUNT).astype(np.int32),
        "scan": RANDOM.random((COUNT, 3, 4, 5, 1)).astype(np.float32),
        "film": RANDOM.integers(0, 256, (COUNT, 2, 4, 5, 3), np.uint8),
    }


ARRAYS = arrays()
WHOLE = Dataset("made", "train", ARRAYS, SPEC)


def changed(**changes: object) -> Dataset:
    """The data set with other arrays, or with other fields in its spec."""
    arrays = {**ARRAYS, **{name: value for name, value in changes.items() if isinstance(value, np.ndarray)}}
    spec = {**SPEC, **{name: value for name, value in changes.items() if isinstance(value, Field | str)}}
    return Dataset("made", "train", {name: arrays[name] for name in spec if name in arrays}, spec)


def test_every_kind_is_a_field_with_a_shape_of_its_own():
    assert {field.kind for field in WHOLE.spec.values()} == set(data.KINDS)
    for name, field in WHOLE.spec.items():
        assert (field.shape, field.dtype) == (ARRAYS[name].shape[1:], ARRAYS[name].dtype.name)
    assert WHOLE.class_names == ("ant", "bee")
    assert WHOLE.image_shape == (6, 7, 3)
    assert WHOLE.num_bytes == sum(array.nbytes for array in ARRAYS.values())
    assert (WHOLE.spec["organ"].ignored, WHOLE.spec["organ"].outside) == (255, 0)
    assert WHOLE.images is WHOLE.fields["photo"]
    assert WHOLE.labels is WHOLE.fields["animal"]


def test_parts_classes_and_chosen_examples_are_taken_of_all_fields():
    chosen = WHOLE.of_classes((1,))
    np.testing.assert_array_equal(chosen.fields["film"], ARRAYS["film"][1::2])
    assert chosen.class_names == ("bee",)
    np.testing.assert_array_equal(WHOLE.part(3, 5).fields["scan"], ARRAYS["scan"][3:5])
    for name, array in WHOLE.take([4, 1]).items():
        np.testing.assert_array_equal(array, ARRAYS[name][[4, 1]])


def bad(name: str, index: tuple[int, ...], value: float) -> np.ndarray:
    array = ARRAYS[name].copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"organ": bad("organ", (0, 0, 0), 7)},
            "organ: class numbers from 0 to 7, but 2 class_names",
        ),
        ({"organ": ARRAYS["organ"][..., None, None]}, "organ: a field of kind 'mask' has shape"),
        ({"animal": bad("animal", (3,), 2)}, "animal: class numbers from 0 to 2, but 2 class_names"),
        ({"animal": bad("animal", (3,), -1)}, "animal: class numbers from -1 to 1"),
        ({"tags": bad("tags", (1, 1), 3)}, "tags: values from 0 to 3; give 0 or 1"),
        ({"tags": ARRAYS["tags"][:, :2]}, "tags: 2 classes, but 3 class_names"),
        ({"centre": bad("centre", (0, 1), np.nan)}, "centre: holds values that are not finite"),
        ({"centre": ARRAYS["centre"].astype(int)}, "centre: a field of kind 'target' is float32, not int64"),
        ({"boxes": ARRAYS["boxes"][..., [2, 3, 0, 1]]}, "boxes: give (top, left, bottom, right)"),
        (
            {"boxes": ARRAYS["boxes"][..., :3]},
            "boxes: a field of kind 'boxes' has shape (entries, 4) per",
        ),
        ({"objects": bad("objects", (0,), 4)}, "boxes: objects from 0 to 4 of 3 entries"),
        ({"what": ARRAYS["what"][:, :2]}, "boxes and what share 'objects', but not their number of entries"),
        (
            {"what": Field("label", class_names=("leg",), count="animal")},
            "what is padded, but there is no field 'animal'",
        ),
        ({"boxes": "boxes"}, "boxes is padded, but there is no field 'boxes_count'"),
        ({"ecg": bad("ecg", (0, 0, 0), np.inf)}, "ecg: holds values that are not finite"),
        ({"words": bad("words", (0, 0), -3), "length": np.full(COUNT, 8, np.int32)}, "words: numbers from -3 to"),
        ({"scan": ARRAYS["scan"][:5]}, "different numbers of examples (photo 20"),
        ({"mask": Field("mask")}, "fields photo, organ"),
        ({"photo": Field("image", (8, 8, 3))}, "photo: declared as (8, 8, 3), but the array has uint8 (6, 7, 3)"),
        ({"photo": "picture"}, "photo: unknown kind='picture'"),
    ],
)
def test_an_invalid_field_is_rejected_by_name(changes, complaint):
    with pytest.raises(UsageError) as caught:
        changed(**changes)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        ("boxes", {}, "kind 'boxes' needs count=<name"),
        ("image", {"ignored": 3}, "ignored=3 has no meaning for kind 'image'"),
        ("image", {"count": "objects"}, "kind 'image' has no entries to count"),
        ("label", {"outside": 3}, "outside=3 has no meaning for kind 'label'"),
        ("mask", {"dtype": "float32"}, "a field of kind 'mask' is uint8 or int32, not float32"),
        ("label", {"shape": (3,)}, "a field of kind 'label' has shape () per example, not (3,)"),
    ],
)
def test_meaningless_fields_are_rejected(kind, options, complaint):
    with pytest.raises(UsageError) as caught:
        Field(kind, **options)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ["mask", "index"])
def test_names_that_batches_use_are_rejected(name):
    with pytest.raises(UsageError, match=f"'{name}' is a name that batches use themselves"):
        Dataset("made", "train", {name: ARRAYS["organ"]}, {name: "mask"})


def test_values_that_are_not_labelled_are_no_classes():
    labels, field = np.array([0, -1, 1] * 5, np.int32), Field("label", class_names=("a", "b"), ignored=-1)
    found = Dataset("made", "train", {"animal": labels}, {"animal": field})
    assert len(found) == 15
    with pytest.raises(UsageError, match="no field of kind image or volume or video or signal or text; it has animal"):
        _ = found.image_shape


def test_the_fingerprint_depends_on_every_field():
    names = ("photo", "tags", "centre", "ecg", "scan", "film")
    others = [{name: bad(name, (0,) * ARRAYS[name].ndim, float(ARRAYS[name].flat[0] == 0))} for name in names]
    others += [{"organ": Field("mask", class_names=("none", "liver"))}]
    others += [{"animal": Field("label", class_names=("x", "y"))}]
    sets = [WHOLE, *(changed(**other) for other in others)]
    assert len({found.fingerprint() for found in sets}) == len(sets)
    again = Dataset("other", "test", {name: ARRAYS[name] for name in reversed(ARRAYS)}, SPEC)
    assert again.fingerprint() == WHOLE.fingerprint()
    on_disk = [data.as_records(WHOLE), Records("made", "x", lambda rows: [], 3, WHOLE.spec, identity="other")]
    assert len({found.fingerprint() for found in on_disk}) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_hold_all_fields(workers):
    stream = Stream(data.as_records(WHOLE), workers=workers)
    key = jax.random.key(1)
    rows = np.asarray(data.batch_indices(key, 0, 8, num_examples=COUNT, batch_size=6))
    for batch, chosen in zip(stream.training_batches(key, batch_size=6, first_step=0, last_step=8), rows, strict=True):
        assert set(batch) == {*SPEC, "index"}
        np.testing.assert_array_equal(batch["index"], chosen)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(batch[name], array[chosen])


def test_evaluation_batches_mark_padding():
    batches = list(Stream(data.as_records(WHOLE), workers=0).evaluation_batches(8))
    mask = np.concatenate([batch.pop("mask") for batch in batches])
    assert mask.tolist() == [True] * COUNT + [False] * 4
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches])[mask], array)


def test_images_on_disk_are_resized_and_other_fields_unchanged():
    def read(indices):
        images = [Image.new("RGB", (14, 12), (index, 0, 0)) for index in indices]
        return [{"photo": image, "centre": np.full(2, index)} for image, index in zip(images, indices, strict=True)]

    spec = {"photo": Field("image", (6, 7, 3), "uint8"), "centre": Field("target", (2,), "float32")}
    found = Records("made", "train", read, 9, spec, identity="").to_memory()
    assert found.images[:, 0, 0, 0].tolist() == found.fields["centre"][:, 1].tolist() == list(range(9))
    with pytest.raises(UsageError, match="centre needs shape and dtype"):
        Records("made", "train", read, 9, {"centre": Field("target")}, identity="")


def test_decoded_fields_are_cached_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("cnn_jax.data.decoded.WORTH_KEEPING", 1)
    asked = []

    def read(indices):
        asked.extend(indices)
        return [
            {"file": np.full(2, index, np.float32)} for index in indices
        ]  # numpy.savez has an argument of that name

    records = Records("made", "all", read, 3, {"file": Field("target", (2,), "float32")}, identity="x", origin="y")
    for _ in range(2):
        np.testing.assert_array_equal(records.to_memory().fields["file"], [[0, 0], [1, 1], [2, 2]])
    assert asked == [0, 1, 2]


class TestFiles:
    def test_what_is_saved_is_read(self, tmp_path):
        path = tmp_path / "made.npz"
        data.save_npz(path, {"train": WHOLE.part(0, 15), "test": WHOLE.part(15, 20)})
        for part, rows in (("train", slice(0, 15)), ("test", slice(15, 20)), ("test[:2]+train[:1]", [15, 16, 0])):
            found = data.load(f"npz:{path}", part)
            assert found.spec == WHOLE.spec
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(found.fields[name], array[rows])

    def test_a_set_without_parts_is_split_by_its_label_or_without_one(self, tmp_path):
        fields = {
            "ecg": RANDOM.normal(size=(40, 5, 1)).astype(np.float32),
            "sick": (np.arange(40) % 2).astype(np.int32),
        }
        spec = {"ecg": Field("signal"), "sick": Field("label", class_names=("no", "yes"))}
        path = tmp_path / "heart.npz"
        data.save_npz(path, {"all": Dataset("heart", "all", fields, spec)})
        parts = [data.load(f"npz:{path}", part) for part in ("train", "validation", "test")]
        assert [np.bincount(part.labels).tolist() for part in parts] == [[16, 16], [2, 2], [2, 2]]
        same = [data.from_arrays("heart", part, fields, spec) for part in ("train", "validation", "test")]
        assert [part.fingerprint() for part in parts] == [part.fingerprint() for part in same]
        assert len(data.from_arrays("heart", "train", {"ecg": fields["ecg"]}, {"ecg": "signal"})) == 32

    @pytest.mark.parametrize(
        ("spec", "complaint"),
        [
            ("{", "'spec' is not a spec of fields: give JSON"),
            ('{"a": {"kind": "maks"}}', "not a spec of fields: unknown kind='maks'"),
            ('{"a": {"kid": "mask"}}', "not a spec of fields: give JSON"),
            ('{"b": {"kind": "target"}}', "its spec names b, but it holds a_test, a_train, spec"),
            (
                '{"a": {"kind": "target"}}',
                "fields of test are {'a': ('float32', (3,))}, of train",
            ),
        ],
    )
    def test_bad_files_get_one_line(self, tmp_path, spec, complaint):
        path = tmp_path / "bad.npz"
        np.savez(path, spec=spec, a_train=np.zeros((4, 2), np.float32), a_test=np.zeros((4, 3), np.float32))
        with pytest.raises(UsageError) as caught:
            data.load(f"npz:{path}", "train")
        assert complaint in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_the_spec_is_json_that_others_can_write(self, tmp_path):
        spec = json.dumps({"scan": {"kind": "image"}, "area": {"kind": "target"}})
        np.savez(tmp_path / "other.npz", spec=spec, scan=ARRAYS["photo"], area=ARRAYS["centre"])
        found = data.load(f"npz:{tmp_path / 'other.npz'}", "all")
        assert {name: field.kind for name, field in found.spec.items()} == {"scan": "image", "area": "target"}

    def test_parts_that_cannot_be_saved(self, tmp_path):
        for parts, complaint in (
            ({"trian": WHOLE}, "parts trian; give train, validation, test"),
            ({"train": WHOLE, "test": Dataset("x", "x", {"a": ARRAYS["centre"]}, {"a": "target"})}, "different fields"),
        ):
            with pytest.raises(UsageError, match=complaint):
                data.save_npz(tmp_path / "x.npz", parts)


class TestPreprocess:
    spec = WHOLE.spec

    def batch(self, shape: tuple[int, ...], resize: str) -> dict[str, np.ndarray]:
        chosen = ("photo", "organ", "boxes", "what", "objects", "centre")
        preprocess = Preprocess(shape, mean=(0.5,) * 3, std=(0.25,) * 3, resize=resize)
        result = preprocess.batch({name: ARRAYS[name] for name in chosen}, {name: self.spec[name] for name in chosen})
        np.testing.assert_array_equal(result["photo"], preprocess(ARRAYS["photo"]))
        np.testing.assert_array_equal(result["centre"], ARRAYS["centre"])
        return jax.tree.map(np.asarray, result)

    def test_masks_are_padded_with_what_is_outside_and_boxes_shifted(self):
        result = self.batch((9, 10, 3), "pad")
        np.testing.assert_array_equal(result["organ"], np.pad(ARRAYS["organ"], [(0, 0), (1, 2), (1, 2)]))
        real = np.arange(3) < ARRAYS["objects"][:, None]
        np.testing.assert_allclose(result["boxes"][real], ARRAYS["boxes"][real] + 1, rtol=1e-6)
        np.testing.assert_array_equal(result["objects"], ARRAYS["objects"])

    def test_masks_and_boxes_are_cropped(self):
        result = self.batch((3, 4, 3), "crop")
        np.testing.assert_array_equal(result["organ"], ARRAYS["organ"][:, 1:4, 1:5])
        for example in range(COUNT):
            boxes = ARRAYS["boxes"][example][: ARRAYS["objects"][example]] - 1
            clipped = boxes.clip(0, [3, 4, 3, 4])
            seen = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
            assert result["objects"][example] == seen.sum()
            np.testing.assert_allclose(result["boxes"][example][: seen.sum()], clipped[seen], atol=1e-6)
            np.testing.assert_array_equal(
                result["what"][example][: seen.sum()], ARRAYS["what"][example][: len(seen)][seen]
            )

    def test_masks_take_the_nearest_pixel_and_boxes_are_scaled(self):
        result = self.batch((12, 21, 3), "bilinear")
        np.testing.assert_array_equal(result["organ"], ARRAYS["organ"].repeat(2, axis=1).repeat(3, axis=2))
        real = np.arange(3) < ARRAYS["objects"][:, None]
        np.testing.assert_allclose(result["boxes"][real], ARRAYS["boxes"][real] * [2, 3, 2, 3], rtol=1e-5)

    @pytest.mark.parametrize("name", ["ecg", "scan", "film"])
    def test_other_inputs_are_measured_and_normalised_by_channel(self, name):
        found = Dataset("made", "train", {name: ARRAYS[name]}, {name: SPEC[name]})
        preprocess = Preprocess.measure(found, found.image_shape)
        inputs = np.asarray(preprocess(ARRAYS[name]))
        axes = tuple(range(inputs.ndim - 1))
        np.testing.assert_allclose(inputs.mean(axis=axes), 0, atol=1e-5)
        np.testing.assert_allclose(inputs.std(axis=axes), 1, atol=1e-4)
        longer = (*(size + 2 for size in found.image_shape[:-1]), found.image_shape[-1])
        padded = Preprocess(longer, (0.0,) * longer[-1], (1.0,) * longer[-1], resize="pad")(ARRAYS[name])
        scale = 255 if name == "film" else 1
        expected = np.pad(ARRAYS[name] / scale, [(0, 0), *[(1, 1)] * (inputs.ndim - 2), (0, 0)])
        np.testing.assert_allclose(padded, expected, rtol=1e-6)
