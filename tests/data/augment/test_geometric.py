"""Geometric augmentations against NumPy's slices, Pillow's and SciPy's interpolation, and their own distributions.

The channels of the images are rows and columns, so that they show where each pixel of a result came from.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from cnn_jax.data import augment
from cnn_jax.errors import UsageError

KEY = jax.random.key(3)
NOISE = np.random.default_rng(0).random((400, 12, 12)).astype(np.float32)


def charted(height: int = 12, width: int = 12, count: int = 400) -> np.ndarray:
    """Images with four channels: row, column, one, noise."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    chart = np.broadcast_to(np.stack([rows, columns, np.ones_like(rows)], axis=-1), (count, height, width, 3))
    noise = np.random.default_rng(0).random((count, height, width, 1)).astype(np.float32)
    return np.concatenate([chart, noise], axis=-1)


def interpolated(image: np.ndarray, coordinates: np.ndarray, mode: str) -> np.ndarray:
    return ndimage.map_coordinates(image, coordinates, order=1, mode=mode, cval=0.0)


class TestFlip:
    images = np.random.default_rng(0).random((2000, 2, 3, 1)).astype(np.float32)

    def test_each_picture_is_mirrored_or_not_at_the_given_rate(self):
        flipped = np.asarray(jax.jit(partial(augment.flip, probability=0.3))(KEY, self.images))
        mirrored = (flipped == self.images[:, :, ::-1]).all(axis=(1, 2, 3))
        assert (mirrored | (flipped == self.images).all(axis=(1, 2, 3))).all()
        assert stats.binomtest(int(mirrored.sum()), 2000, 0.3).pvalue > 1e-3

    def test_alternating_flip_shows_both_views_in_turn_whatever_the_batch(self):
        view = jax.jit(augment.alternating_flip)
        indices = np.random.default_rng(1).permutation(2000)
        epochs = [np.asarray(view(KEY, self.images, indices=indices, epoch=epoch)) for epoch in range(3)]
        np.testing.assert_array_equal(epochs[1], epochs[0][:, :, ::-1])
        np.testing.assert_array_equal(epochs[2], epochs[0])
        mirrored = (epochs[0] == self.images[:, :, ::-1]).all(axis=(1, 2, 3))
        assert stats.binomtest(int(mirrored.sum()), 2000, 0.5).pvalue > 1e-3
        reordered = view(KEY, self.images[::-1], indices=indices[::-1], epoch=0)
        np.testing.assert_array_equal(reordered, epochs[0][::-1])


class TestPadAndCrop:
    @pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("mirror", "reflect")])
    def test_is_a_shift_by_whole_pixels_all_equally_often(self, mode, numpy_mode):
        images = NOISE[..., None]
        shifted = np.asarray(jax.jit(partial(augment.pad_and_crop, padding=1, mode=mode))(KEY, images))
        padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode=numpy_mode)
        matches = np.array(
            [
                (shifted == padded[:, top : top + 12, left : left + 12]).all(axis=(1, 2, 3))
                for top in range(3)
                for left in range(3)
            ]
        )
        assert (matches.sum(axis=0) == 1).all()
        assert stats.chisquare(matches.sum(axis=1)).pvalue > 1e-3

    @pytest.mark.parametrize(("side", "padding"), [(8, 1), (28, 4)])
    def test_shifts_by_an_eighth_of_the_side_by_default(self, side, padding):
        images = charted(side, side, count=20)
        by_default, explicit = augment.pad_and_crop, partial(augment.pad_and_crop, padding=padding)
        np.testing.assert_array_equal(*(jax.jit(moved)(KEY, images) for moved in (by_default, explicit)))


class TestRandomCrop:
    def test_windows_are_at_all_pixels_equally_often(self):
        images = charted(12, 14, count=400)
        crops = np.asarray(jax.jit(partial(augment.random_crop, size=(10, 11)))(KEY, images))
        tops, lefts = crops[:, 0, 0, 0].astype(int), crops[:, 0, 0, 1].astype(int)
        for crop, image, top, left in zip(crops, images, tops, lefts, strict=True):
            np.testing.assert_array_equal(crop, image[top : top + 10, left : left + 11])
        counts = np.bincount(4 * tops + lefts, minlength=12)
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_sides_are_uniform_and_pixels_are_pillows(self):
        images = charted(40, 60, count=200)
        crop = jax.jit(partial(augment.random_crop, size=(32, 48), sides=(48, 80)))
        crops = np.asarray(crop(KEY, images))
        steps = (crops[:, 24, 24, 0] - crops[:, 8, 24, 0]) / 16  # pixels of the image per pixel of the window
        np.testing.assert_allclose((crops[:, 16, 32, 1] - crops[:, 16, 16, 1]) / 16, steps, atol=1e-4)
        assert stats.kstest(40 / steps, stats.uniform(48, 32).cdf).pvalue > 1e-3
        tops = crops[:, 8, 24, 0] + 0.5 - 8.5 * steps
        lefts = crops[:, 16, 16, 1] + 0.5 - 16.5 * steps
        places = np.concatenate([tops / (40 - 32 * steps), lefts / (60 - 48 * steps)])
        assert stats.kstest(places, stats.uniform(0, 1).cdf).pvalue > 1e-3
        for i in range(10):
            box = (max(lefts[i], 0), max(tops[i], 0), lefts[i] + 48 * steps[i], tops[i] + 32 * steps[i])
            expected = Image.fromarray(images[i, ..., 3]).resize((48, 32), Image.Resampling.BILINEAR, box=box)
            np.testing.assert_allclose(crops[i, ..., 3], np.asarray(expected), atol=1e-3)


class TestRandomResizedCrop:
    def test_windows_have_the_areas_and_aspects_and_pixels_that_pillow_has(self):
        scale, ratio, size = (0.25, 0.5), (0.8, 1.25), (64, 48)  # always an enlargement, so that ramps stay linear
        images = charted(40, 60, count=200)
        crop = jax.jit(partial(augment.random_resized_crop, size=size, scale=scale, ratio=ratio))
        crops = np.asarray(crop(KEY, images))
        steps_down = (crops[:, 42, 24, 0] - crops[:, 22, 24, 0]) / 20
        steps_right = (crops[:, 32, 34, 1] - crops[:, 32, 14, 1]) / 20
        heights, widths = steps_down * 64, steps_right * 48
        areas, aspects = heights * widths / (40 * 60), widths / heights
        assert stats.kstest(areas, stats.uniform(0.25, 0.25).cdf).pvalue > 1e-3
        assert stats.kstest(np.log(aspects), stats.uniform(np.log(0.8), np.log(1.25 / 0.8)).cdf).pvalue > 1e-3
        tops = crops[:, 22, 24, 0] + 0.5 - 22.5 * steps_down
        lefts = crops[:, 32, 14, 1] + 0.5 - 14.5 * steps_right
        places = np.concatenate([tops / (40 - heights), lefts / (60 - widths)])
        assert stats.kstest(places, stats.uniform(0, 1).cdf).pvalue > 1e-3
        for i in range(30):
            box = (max(lefts[i], 0), max(tops[i], 0), min(lefts[i] + widths[i], 60), min(tops[i] + heights[i], 40))
            expected = Image.fromarray(images[i, ..., 3]).resize(size[::-1], Image.Resampling.BILINEAR, box=box)
            np.testing.assert_allclose(crops[i, ..., 3], np.asarray(expected), atol=1e-3)

    def test_a_smaller_result_is_antialiased_as_pillows(self):
        shrink = jax.jit(partial(augment.random_resized_crop, size=(5, 7), scale=(1, 1), ratio=(1, 1)))
        for image, small in zip(NOISE[:5], shrink(KEY, NOISE[:5, ..., None]), strict=True):
            expected = Image.fromarray(image).resize((7, 5), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(small[..., 0], np.asarray(expected), atol=1e-5)

    def test_where_no_window_fits_the_whole_picture_is_taken(self):
        images = charted(4, 40, count=3)
        crop = jax.jit(partial(augment.random_resized_crop, scale=(0.9, 1.0), ratio=(1, 1)))
        np.testing.assert_allclose(crop(KEY, images), images, atol=1e-4)


class TestAffine:
    @pytest.mark.parametrize(
        "options",
        [{"rotation": 30}, {"scale": (0.8, 1.3)}, {"squeeze": 0.4}, {"shear": 0.3}, {"translation": 0.2}],
        ids=lambda options: next(iter(options)),
    )
    def test_each_kind_is_the_map_it_is_named_after(self, options):
        images = charted(13, 13, count=300)
        result = np.asarray(jax.jit(partial(augment.affine, **options))(KEY, images))
        # The linear map from the middle pixels to their origins, relative to the centre (6, 6).
        origin = result[:, 6, 6, :2]
        down, right = result[:, 7, 6, :2] - origin, result[:, 6, 7, :2] - origin
        maps = np.linalg.inv(np.stack([down, right], axis=-1))  # from source to result, (row, column) each
        shift = origin - 6
        if "translation" not in options:
            np.testing.assert_allclose(shift, 0, atol=1e-5)
        (a, b), (c, d) = maps.transpose(1, 2, 0)
        match next(iter(options)):
            case "rotation":
                np.testing.assert_allclose(
                    maps @ maps.transpose(0, 2, 1), np.broadcast_to(np.eye(2), maps.shape), atol=1e-4
                )
                drawn, law = np.rad2deg(np.arctan2(c, a)), stats.uniform(-30, 60)
            case "scale":
                np.testing.assert_allclose([a - d, b, c], 0, atol=1e-4)
                drawn, law = a, stats.uniform(0.8, 0.5)
            case "squeeze":
                np.testing.assert_allclose([a * d, b + 1, c + 1], 1, atol=1e-4)
                drawn, law = np.log(a), stats.uniform(-np.log(1.4), 2 * np.log(1.4))
            case "shear":
                np.testing.assert_allclose([a, d, b + 1], 1, atol=1e-4)
                drawn, law = c, stats.uniform(-0.3, 0.6)
            case "translation":
                np.testing.assert_allclose([a, d, b + 1, c + 1], 1, atol=1e-4)
                drawn, law = shift.ravel() / 13, stats.uniform(-0.2, 0.4)
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-3

    @pytest.mark.parametrize(("mode", "scipy_mode"), [("zero", "constant"), ("mirror", "mirror")])
    def test_interpolates_as_scipy(self, mode, scipy_mode):
        images = charted(count=20)
        wild = partial(
            augment.affine, rotation=40, scale=(0.7, 1.2), squeeze=0.2, shear=0.2, translation=0.2, mode=mode
        )
        result = np.asarray(jax.jit(wild)(KEY, images))
        inner = result[:, 5:7, 5:7, :2]  # no border is as near to the middle as this
        for image, corner, output in zip(images, inner, result, strict=True):
            down, right = corner[1, 0] - corner[0, 0], corner[0, 1] - corner[0, 0]
            rows, columns = np.mgrid[:12, :12] - 5
            sources = corner[0, 0][:, None, None] + down[:, None, None] * rows + right[:, None, None] * columns
            if mode == "zero":  # SciPy's "constant" does not interpolate towards the background beyond the border
                padded, sources = np.pad(image[..., 3], 1), np.clip(sources + 1, 0, 13)
                expected = interpolated(padded, sources, scipy_mode)
            else:
                expected = interpolated(image[..., 3], sources, scipy_mode)
            np.testing.assert_allclose(output[..., 3], expected, atol=1e-4)


class TestElastic:
    def test_moves_pixels_by_scipys_smoothed_noise(self):
        images = charted(14, 11, count=5)
        result = np.asarray(jax.jit(partial(augment.elastic, alpha=8, sigma=2, mode="mirror"))(KEY, images))
        for key, image, output in zip(augment.example_keys(KEY, 5), images, result, strict=True):
            noise = np.asarray(jax.random.uniform(key, (2, 14, 11), minval=-1, maxval=1))
            field = 8 * np.stack([ndimage.gaussian_filter(part, 2, mode="constant") for part in noise])
            expected = interpolated(image[..., 3], np.mgrid[:14, :11] + field, "mirror")
            np.testing.assert_allclose(output[..., 3], expected, atol=1e-4)

    @pytest.mark.parametrize(("side", "alpha", "sigma"), [(28, 34, 4), (14, 8.5, 2)])
    def test_small_images_are_moved_as_little_as_simards_digits(self, side, alpha, sigma):
        images = charted(side, side + 3, count=2)
        by_default, explicit = augment.elastic, partial(augment.elastic, alpha=alpha, sigma=sigma)
        np.testing.assert_array_equal(*(jax.jit(moved)(KEY, images) for moved in (by_default, explicit)))

    def test_typical_shift_is_the_documented_one(self):
        rows, columns = np.mgrid[:40, :40].astype(np.float32)
        images = np.broadcast_to(np.stack([rows, columns], axis=-1), (50, 40, 40, 2))
        moved = np.asarray(jax.jit(partial(augment.elastic, alpha=10, sigma=3))(KEY, images)) - images
        assert moved[:, 15:25, 15:25].std() == pytest.approx(10 / (3 * np.sqrt(12 * np.pi)), rel=0.1)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x: augment.flip(KEY, x[0]), "flip: images have shape (8, 8, 3); give (batch, height, width, channels)"),
        (lambda x: augment.flip(KEY, x.astype(np.uint8)), "flip: images are uint8; give floating-point ones"),
        (lambda x: augment.flip(KEY, x, probability=1.5), "flip: probability=1.5 must be a number from 0 to 1"),
        (lambda x: augment.flip(jax.random.split(KEY, 3), x), "(3,) keys for 2 examples"),
        (lambda x: augment.pad_and_crop(KEY, x, padding=8), "padding=8 must be a whole number from 0 to 7"),
        (lambda x: augment.pad_and_crop(KEY, x, mode="mirrored"), "did you mean 'mirror'?"),
        (lambda x: augment.random_crop(KEY, x, size=(9, 8)), "a window of 9x8 does not fit an image of 8x8; read"),
        (lambda x: augment.random_crop(KEY, x, size=(8, 8), sides=(7, 9)), "an image of 7x7; read images larger"),
        (
            lambda x: augment.random_resized_crop(KEY, x, size=(0, 3)),
            "size=(0, 3) must be (height, width), both positive",
        ),
        (
            lambda x: augment.random_resized_crop(KEY, x, scale=(0.5, 0.2)),
            "scale=(0.5, 0.2) must be two numbers above 0",
        ),
        (lambda x: augment.affine(KEY, x, shear=-1), "affine: shear=-1 must be a number from 0 to 2"),
        (lambda x: augment.elastic(KEY, x, sigma=0), "elastic: sigma=0 must be a number from 0.1 to 1000"),
    ],
)
def test_errors(call, complaint):
    with pytest.raises(UsageError) as caught:
        call(jnp.zeros((2, 8, 8, 3)))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
