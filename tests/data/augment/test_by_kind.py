"""Augmentation of fields of each kind: masks and boxes move with the pixels of their image.

The channels of the images are a one-hot encoding of the mask's classes, the row, the column, and ones, so that they
show where each pixel of a result came from.
"""

import functools
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data import Field, augment
from cnn_jax.errors import UsageError

KEY = jax.random.key(9)
COUNT, HEIGHT, WIDTH, CLASSES, ENTRIES = 60, 14, 18, 3, 4
RANDOM = np.random.default_rng(1)
OUTSIDE = 77
SPEC = {
    "image": Field("image"),
    "mask_": Field("mask", outside=OUTSIDE, ignored=255),
    "rows": Field("weights"),
    "boxes": Field("boxes", count="objects"),
    "what": Field("label", count="objects", class_names=tuple("abcdefghij")),
    "objects": Field("count"),
    "said": Field("text", count="words"),
    "words": Field("count"),
    "score": Field("target"),
}
EXACT = (
    "flip(probability=0.5)",
    "pad_and_crop(padding=5)",
    "pad_and_crop(padding=5, mode='mirror')",
    "random_crop(size=(9, 11))",
)
LINEAR = (
    *EXACT,
    "random_crop(size=(12, 10), sides=(15, 40))",
    "random_resized_crop(scale=(0.2, 0.9))",
    "affine(rotation=50, scale=(0.6, 1.5), squeeze=0.3, shear=0.3, translation=0.2)",
)
SMOOTH = (*LINEAR, "affine(rotation=50, translation=0.4, mode='mirror')", "elastic(alpha=12, sigma=2)")


def made() -> dict[str, np.ndarray]:
    """A batch of masks with blobs of classes, images of their one-hot encoding and coordinates, and boxes."""
    coarse = RANDOM.integers(0, CLASSES, (COUNT, 5, 6))
    mask = np.kron(coarse, np.ones((1, 3, 3), int))[:, :HEIGHT, :WIDTH].astype(np.uint8)
    rows, columns = np.broadcast_to(np.mgrid[:HEIGHT, :WIDTH][:, None], (2, COUNT, HEIGHT, WIDTH))
    chart = [*np.moveaxis(np.eye(CLASSES)[mask], -1, 0), rows, columns, np.ones(mask.shape)]
    corners = np.sort(RANDOM.random((COUNT, ENTRIES, 2, 2)) * [HEIGHT, WIDTH], axis=2).reshape(COUNT, ENTRIES, 4)
    objects = RANDOM.integers(0, ENTRIES + 1, COUNT).astype(np.int32)
    real = np.arange(ENTRIES) < objects[:, None]
    return {
        "image": np.stack(chart, axis=-1).astype(np.float32),
        "mask_": mask,
        "rows": rows.astype(np.float32),
        "boxes": np.where(real[..., None], corners, 0).astype(np.float32),
        "what": np.where(real, RANDOM.integers(1, 10, real.shape), 0).astype(np.int32),
        "objects": objects,
        "said": RANDOM.integers(0, 100, (COUNT, 5)).astype(np.int32),
        "words": np.full(COUNT, 3, np.int32),
        "score": RANDOM.random(COUNT).astype(np.float32),
    }


BATCH = made()


@functools.cache
def augmented(call: str) -> dict[str, np.ndarray]:
    """The batch after one augmentation, compiled once for all tests."""
    augmentation = augment.Augmentation([call], spec=SPEC)
    run = jax.jit(lambda batch: augmentation(KEY, batch, step=0, epoch=0))
    return jax.tree.map(np.asarray, run(BATCH))


@pytest.mark.parametrize("call", SMOOTH)
def test_a_mask_is_where_its_image_is(call):
    """With linear interpolation the nearest pixel has a weight of at least 1/4, so a share above 3/4 is its class."""
    result = augmented(call)
    shares, mask = result["image"][..., :CLASSES], result["mask_"]
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {*range(CLASSES), OUTSIDE}
    for number in range(CLASSES):
        assert (mask[shares[..., number] > 0.75 + 1e-4] == number).all()
        assert (shares[mask == number][:, number] >= 0.25 - 1e-4).all()
    np.testing.assert_allclose(
        result["rows"], result["image"][..., CLASSES], atol=1e-4
    )  # weights, interpolated as pixels
    outside = mask == OUTSIDE
    assert (result["image"][outside][:, -1] <= 0.75 + 1e-4).all()
    assert outside.any() == ("mirror" not in call and ("pad" in call or "affine" in call or "elastic" in call))
    if call in EXACT:
        np.testing.assert_array_equal(shares, np.where(outside[..., None], 0, np.eye(CLASSES)[mask % OUTSIDE]))


def sources(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The positions of a result's pixels, their origins, both as (row, column) of centres, and which are known.

    A pixel is known if it came only from inside the image, and not from a mirror reflection.
    """
    known = image[..., -1] > 1 - 1e-5
    at = np.stack(np.mgrid[: image.shape[0], : image.shape[1]], axis=-1) + 0.5
    return at, image[..., CLASSES : CLASSES + 2] + 0.5, known


@pytest.mark.parametrize("call", [call for call in LINEAR if "mirror" not in call])
def test_boxes_go_where_the_linear_map_of_the_pixels_takes_their_corners(call):
    result = augmented(call)
    compared = 0
    for example in range(COUNT):
        at, source, known = sources(result["image"][example])
        inner = known & (source > 1).all(axis=-1) & (source < [HEIGHT - 1, WIDTH - 1]).all(axis=-1)
        if inner.sum() < 8 or min(np.ptp(source[inner], axis=0)) < 1.5:
            continue
        inputs = np.column_stack([source[inner], np.ones(inner.sum())])
        linear, *_ = np.linalg.lstsq(inputs, at[inner])
        expected, labels = [], []
        for box, label in zip(BATCH["boxes"][example], BATCH["what"][example], strict=True):
            if label == 0:  # padding
                continue
            corners = np.array([[row, column, 1] for row in box[[0, 2]] for column in box[[1, 3]]]) @ linear
            low, high = (corner.clip(0, at.shape[:2]) for corner in (corners.min(axis=0), corners.max(axis=0)))
            if (high - low).min() > 0.02:
                expected.append([*low, *high])
                labels.append(label)
        number = result["objects"][example]
        areas = (result["boxes"][example, :, 2:] - result["boxes"][example, :, :2]).min(axis=-1)
        kept = (np.arange(ENTRIES) < number) & (areas > 0.02)
        np.testing.assert_allclose(result["boxes"][example][kept], np.reshape(expected, (-1, 4)), atol=0.01)
        np.testing.assert_array_equal(result["what"][example][kept], labels)
        compared += 1
    assert compared > COUNT / 2


def test_boxes_of_an_elastic_image_are_those_of_the_pixels_that_come_from_inside():
    result = augmented("elastic(alpha=12, sigma=2)")
    for example in range(COUNT):
        at, source, known = sources(result["image"][example])
        boxes = []
        for box, label in zip(BATCH["boxes"][example], BATCH["what"][example], strict=True):
            inside = known & (source >= box[:2]).all(axis=-1) & (source < box[2:]).all(axis=-1)
            if label and inside.any():
                boxes.append([*(at[inside].min(axis=0) - 0.5), *(at[inside].max(axis=0) + 0.5)])
        # Pixels on the border come half from outside, so they are not known here: compare boxes away from it.
        found = result["boxes"][example][: result["objects"][example]]
        away = [box for box in boxes if min(box[:2]) > 1 and box[2] < HEIGHT - 1 and box[3] < WIDTH - 1]
        assert all((np.abs(found - box).max(axis=-1) < 1e-4).any() for box in away)


@pytest.mark.parametrize("call", SMOOTH)
def test_entries_behind_the_count_are_zero_and_boxes_lie_inside(call):
    result = augmented(call)
    height, width = result["image"].shape[1:3]
    real = np.arange(ENTRIES) < result["objects"][:, None]
    assert (result["objects"] <= BATCH["objects"]).all()
    assert not result["boxes"][~real].any()
    assert not result["what"][~real].any()
    assert (result["what"][real] > 0).all()
    top, left, bottom, right = np.moveaxis(result["boxes"][real], -1, 0)
    assert ((top >= 0) & (top < bottom) & (bottom <= height) & (left >= 0) & (left < right) & (right <= width)).all()
    for name in ("said", "words", "score"):
        np.testing.assert_array_equal(result[name], BATCH[name])


def test_photometric_augmentations_leave_all_but_pixels():
    calls = ["brightness(strength=0.9)", "contrast", "saturation", "cutout(size=4)"]
    batch = {**BATCH, "image": BATCH["image"][..., :3]}
    result = augment.Augmentation(calls, spec=SPEC)(KEY, batch, step=0, epoch=0)
    alone = augment.Augmentation(calls, num_classes=2)
    of_images = alone(KEY, {"image": batch["image"], "label": BATCH["objects"]}, step=0, epoch=0)
    np.testing.assert_array_equal(result["image"], of_images["image"])
    assert (np.asarray(result["image"]) != batch["image"]).any()
    for name in BATCH.keys() - {"image"}:
        np.testing.assert_array_equal(result[name], BATCH[name])


class TestSolidsAndSignals:
    """Volumes, video and signals: all slices are moved in the same way; other axes have their own random numbers."""

    DEPTH, LENGTH = 6, 30
    spec: ClassVar = {
        "scan": Field("volume"),
        "organ": Field("mask"),
        "film": Field("video"),
        "photo": Field("image"),
        "sound": Field("signal"),
        "phone": Field("mask"),
    }

    def batch(self) -> dict[str, np.ndarray]:
        """Arrays whose channels are noise, the position along depth or length, and one."""
        slices = np.broadcast_to(np.arange(self.DEPTH)[:, None, None], (20, self.DEPTH, 8, 9))
        noise = np.random.default_rng(3).random((20, self.DEPTH, 8, 9))
        scan = np.stack([noise, slices, np.ones_like(noise)], axis=-1).astype(np.float32)
        times = np.broadcast_to(np.arange(self.LENGTH), (20, self.LENGTH))
        sound = np.stack([times, np.ones_like(times)], axis=-1).astype(np.float32)
        return {
            "scan": scan,
            "organ": slices.astype(np.int32),
            "film": scan[:, :4],
            "photo": scan[:, 0],
            "sound": sound,
            "phone": times.astype(np.uint8),
        }

    def run(self, call: str) -> dict[str, np.ndarray]:
        augmentation = augment.Augmentation([call], spec=self.spec)
        return jax.tree.map(np.asarray, jax.jit(lambda batch: augmentation(KEY, batch, step=0, epoch=0))(self.batch()))

    @pytest.mark.parametrize("call", ["flip", "affine(rotation=40, shear=0.2)", "elastic(alpha=6, sigma=2)"])
    def test_slices_and_frames_move_as_an_image(self, call):
        batch, result = self.batch(), self.run(call)
        plain = augment.Augmentation([call], spec={"photo": Field("image")})
        for number in range(4):
            expected = plain(KEY, {"photo": batch["scan"][:, number]}, step=0, epoch=0)["photo"]
            np.testing.assert_allclose(result["scan"][:, number], expected, atol=1e-5)
            np.testing.assert_allclose(result["film"][:, number], expected, atol=1e-5)
        np.testing.assert_array_equal(result["film"][:, 0], result["photo"])

    def test_a_flip_reverses_signals_of_the_same_examples(self):
        batch, result = self.batch(), self.run("flip")
        mirrored = (result["photo"] == batch["photo"][:, :, ::-1]).all(axis=(1, 2, 3))
        assert 3 < mirrored.sum() < 17
        np.testing.assert_array_equal(
            result["sound"], np.where(mirrored[:, None, None], batch["sound"][:, ::-1], batch["sound"])
        )
        np.testing.assert_array_equal(result["phone"], result["sound"][..., 0])

    def test_shifts_are_whole_numbers_along_every_axis(self):
        result = self.run("pad_and_crop(padding=3)")
        for name, mask, axis in (("scan", "organ", 1), ("sound", "phone", 1)):
            chart, one = result[name][..., -2], result[name][..., -1] == 1
            steps = chart - np.arange(chart.shape[axis]).reshape([-1 if i == axis else 1 for i in range(chart.ndim)])
            shifts = [set(example[known]) for example, known in zip(steps, one, strict=True)]
            assert all(len(shift) == 1 and shift <= set(range(-3, 4)) for shift in shifts)
            assert len(set.union(*shifts)) > 3
            outside = -1 if mask == "organ" else 255
            np.testing.assert_array_equal(result[mask], np.where(one, chart, outside))

    def test_scale_and_translation_are_linear_along_depth_and_length(self):
        result = self.run("affine(scale=(0.5, 0.9), translation=0.1)")
        for name, mask, size in (("scan", "organ", self.DEPTH), ("sound", "phone", self.LENGTH)):
            chart, one = result[name][..., -2], result[name][..., -1]
            if name == "scan":  # the middle of the plane stays inside
                chart, one = chart[:, :, 4, 4], one[:, :, 4, 4]
            for line, known, classes in zip(chart, one > 1 - 1e-5, result[mask], strict=True):
                at = np.flatnonzero(known)
                slope, offset = np.polyfit(at, line[at], 1) if len(at) > 1 else (1.5, 0)
                np.testing.assert_allclose(line[at], slope * at + offset, atol=1e-3)
                assert 1 / 0.9 - 1e-3 <= slope <= 1 / 0.5 + 1e-3
                centre = (size - 1) / 2
                if len(at) > 1:  # the middle comes from the shifted position, in fractions of the side
                    assert abs(slope * centre + offset - centre) <= slope * 0.1 * size + 1e-3
                classes = classes[:, 4, 4] if name == "scan" else classes
                np.testing.assert_allclose(classes[at], line[at], atol=0.5 + 1e-3)

    def test_windows_along_depth_and_length(self):
        chosen = {name: self.batch()[name] for name in ("scan", "organ")}
        spec = {name: self.spec[name] for name in chosen}
        crop = augment.random_crop(KEY, augment.Fields(chosen, spec), size=(4, 5, 6)).arrays
        assert crop["scan"].shape == (20, 4, 5, 6, 3)
        np.testing.assert_array_equal(crop["organ"], crop["scan"][..., 1])
        assert len(np.unique(crop["organ"][:, 0, 0, 0])) == 3
        sounds = augment.Fields({"sound": self.batch()["sound"]}, {"sound": Field("signal")})
        times = np.asarray(augment.random_crop(KEY, sounds, size=(7,)).arrays["sound"][..., 0])
        np.testing.assert_array_equal(np.diff(times), 1)
        assert times.shape == (20, 7)
        with pytest.raises(UsageError, match="needs height and width; these fields have length"):
            augment.affine(KEY, sounds, rotation=5)

    def test_elastic_signals_stay_in_order_and_move(self):
        moved = self.run("elastic(alpha=6, sigma=2)")["sound"][..., 0]
        assert (np.abs(moved[:, 8:22] - np.arange(8, 22)) < 6).all()
        assert (moved[:, 8:22] != np.arange(8, 22)).mean() > 0.9

    def test_one_factor_for_all_frames_and_slices(self):
        batch, result = self.batch(), self.run("brightness(strength=0.5)")
        for name in ("scan", "film"):  # their last channel is one
            factors = result[name][..., -1].reshape(20, -1)
            assert (np.ptp(factors, axis=1) < 1e-6).all()
        np.testing.assert_array_equal(result["film"], result["scan"][:, :4])
        np.testing.assert_array_equal(result["sound"], batch["sound"])


class TestMixing:
    spec: ClassVar = {
        "image": Field("image"),
        "label": Field("label"),
        "several": Field("labels"),
        "score": Field("target"),
    }
    images = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None, None], (40, 8, 9, 1))
    batch: ClassVar = {
        "image": images,
        "label": np.arange(40, dtype=np.int32),
        "several": (np.arange(40)[:, None] % [2, 3, 5] == 0).astype(np.uint8),
        "score": np.random.default_rng(0).random((40, 2)).astype(np.float32),
    }

    @pytest.mark.parametrize("call", ["mixup(alpha=1)", "cutmix"])
    def test_all_that_is_said_of_an_example_is_averaged_by_one_weight(self, call):
        augmentation = augment.Augmentation([call], num_classes=40, spec=self.spec)
        result = jax.tree.map(np.asarray, augmentation(KEY, self.batch, step=0, epoch=0))
        weights = np.diag(result["label"])
        for name, values in (("label", np.eye(40)), *((name, self.batch[name]) for name in ("several", "score"))):
            expected = weights[:, None] * values + (1 - weights)[:, None] * np.roll(values, -1, axis=0)
            np.testing.assert_allclose(result[name], expected, atol=1e-6)
        following = (self.images + 1) % 40
        own = (following - result["image"]) / (following - self.images)
        np.testing.assert_allclose(own.mean(axis=(1, 2, 3)), weights, atol=1e-4)

    def test_cutmix_cuts_masks_and_frames_by_the_same_box(self):
        spec = {"image": Field("image"), "where": Field("mask"), "film": Field("video")}
        film = np.broadcast_to(self.images[:, None], (40, 3, 8, 9, 1))
        batch = {"image": self.images, "where": self.images[..., 0].astype(np.uint8), "film": film}
        result = augment.Augmentation(["cutmix"], spec=spec)(KEY, batch, step=0, epoch=0)
        np.testing.assert_array_equal(result["where"], result["image"][..., 0])
        np.testing.assert_array_equal(result["film"], np.broadcast_to(result["image"][:, None], film.shape))
        assert len(np.unique(np.asarray(result["where"][:, 4, 4]) == batch["where"][:, 4, 4])) == 2

    @pytest.mark.parametrize(
        ("call", "field", "complaint"),
        [
            ("mixup", Field("mask"), "mixup: cannot mix other, of kind 'mask'; cutmix cuts masks"),
            ("mixup", Field("text", count="n"), "mixup: cannot mix other, of kind 'text'"),
            ("cutmix", Field("boxes", count="n"), "cutmix: cannot mix other, of kind 'boxes'"),
            ("cutmix", Field("signal"), "cutmix: cannot mix other, of kind 'signal'"),
            ("mixup", Field("labels", ignored=255), "mixup: cannot mix other, where 255 means not labelled"),
            ("mixup", Field("label"), "mixup needs to know num_classes"),
        ],
    )
    def test_what_cannot_be_mixed_is_refused(self, call, field, complaint):
        with pytest.raises(UsageError, match=re.escape(complaint)):
            augment.Augmentation([call], spec={"image": Field("image"), "other": field})


def test_an_augmentation_of_images_alone_is_refused_where_masks_would_not_follow(monkeypatch):
    def roll(key, images, *, by=1):
        return jnp.roll(images, by, axis=2)

    monkeypatch.setitem(augment.AUGMENTATIONS, "roll", roll)
    batch = {"image": BATCH["image"], "label": BATCH["objects"]}
    rolled = augment.Augmentation(["roll(by=2)"], num_classes=5)(KEY, batch, step=0, epoch=0)
    np.testing.assert_array_equal(rolled["image"], np.roll(BATCH["image"], 2, axis=2))
    with pytest.raises(UsageError, match="roll changes images alone, but the examples have image, mask_, rows, boxes"):
        augment.Augmentation(["roll"], spec=SPEC)
    monkeypatch.setitem(augment.AUGMENTATIONS, "roll", augment.photometric(roll))
    augment.Augmentation(["roll"], spec=SPEC)


def test_a_batch_without_all_fields_of_the_spec_is_refused():
    with pytest.raises(UsageError, match="the batch has photo, but no image, label; give spec= of the examples"):
        augment.Augmentation(["flip"], num_classes=2)(KEY, {"photo": BATCH["image"]}, step=0, epoch=0)


@pytest.mark.parametrize(
    ("arrays", "kinds", "complaint"),
    [
        ({"a": (2, 4, 4, 1), "b": (2, 4, 5)}, ("image", "mask"), "b has width 5, another field 4"),
        ({"a": (2,), "b": (2, 3)}, ("label", "labels"), "there is no image, mask, volume, video or signal to move"),
        ({"a": (2, 7, 1), "b": (2, 3, 4)}, ("signal", "boxes"), "boxes need the image that they are in"),
    ],
)
def test_fields_that_do_not_fit_each_other(arrays, kinds, complaint):
    spec = {name: Field(kind, count="n" if kind == "boxes" else "") for name, kind in zip(arrays, kinds, strict=True)}
    fields = augment.Fields({name: jnp.zeros(shape) for name, shape in arrays.items()}, spec)
    with pytest.raises(UsageError, match=complaint):
        augment.flip(KEY, fields)
