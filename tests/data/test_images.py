"""The user's own images: files written with Pillow in many formats are read back and compared."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnn_jax import data
from cnn_jax.data.images import find_images, read_image
from cnn_jax.errors import UsageError
from tests.requirements import require_data

# A real digit, light ink on a dark background, with an empty margin as in a scan.
INK = np.pad(np.rint(load_digits().images[0] * (255 / 16)).astype(np.uint8), 2)
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
NOT_INVERTED = "not inverted: light ink on dark background"
INVERTED = "inverted: dark ink on light paper"


@pytest.fixture
def save(tmp_path):
    def save(image: Image.Image | np.ndarray, name: str = "image.png", **options) -> str:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return save


def read(path, height=12, width=12, channels=1, **options):
    pixels, assumed, _ = read_image(path, height=height, width=width, channels=channels, **options)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (height, width, channels)
    return pixels[..., 0] if channels == 1 else pixels, assumed


class TestPixels:
    def test_an_image_like_the_training_set_is_unchanged(self, save):
        pixels, assumed = read(save(INK))
        np.testing.assert_array_equal(pixels, INK)
        assert assumed == NOT_INVERTED

    def test_dark_ink_on_light_paper_is_inverted(self, save):
        pixels, assumed = read(save(255 - INK))
        np.testing.assert_array_equal(pixels, INK)
        assert assumed == INVERTED

    @pytest.mark.parametrize(("invert", "expected"), [(True, 255 - INK), (False, INK)])
    def test_inversion_can_be_decided(self, save, invert, expected):
        pixels, assumed = read(save(INK), invert=invert)
        np.testing.assert_array_equal(pixels, expected)
        assert assumed == ""

    def test_colour_for_a_colour_network_is_unchanged(self, save):
        pixels, assumed = read(save(COLOUR), channels=3)
        np.testing.assert_array_equal(pixels, COLOUR)
        assert assumed == ""

    def test_colour_for_a_grey_network_is_weighted_as_itu_601_says(self, save):
        pixels, assumed = read(save(COLOUR), invert=False)
        np.testing.assert_allclose(pixels, COLOUR @ [0.299, 0.587, 0.114], atol=1)
        assert assumed == "colour taken as grey"

    def test_grey_for_a_colour_network_is_repeated(self, save):
        pixels, _ = read(save(INK), channels=3)
        np.testing.assert_array_equal(pixels, np.repeat(INK[..., None], 3, axis=-1))

    @pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "LA", "CMYK"])
    def test_the_file_format_does_not_matter(self, save, mode):
        name = "image.tif" if mode in ("CMYK", "LA") else "image.png"
        pixels, assumed = read(save(Image.fromarray(INK).convert("RGB" if mode == "CMYK" else "L").convert(mode), name))
        np.testing.assert_array_equal(pixels, INK)
        assert assumed == NOT_INVERTED

    def test_one_bit(self, save):
        pixels, _ = read(save(Image.fromarray(INK > 100)))
        np.testing.assert_array_equal(pixels, np.where(INK > 100, 255, 0))

    @pytest.mark.parametrize("name", ["image.png", "image.tif", "image.pgm"])
    def test_sixteen_bits(self, save, name):
        sixteen = INK.astype(np.uint16) * 257 + np.uint16(100) * (INK < 255)
        pixels, _ = read(save(sixteen, name))
        np.testing.assert_array_equal(pixels, INK)

    @pytest.mark.parametrize("name", ["image.png", "image.tif"])
    @pytest.mark.parametrize(
        ("brightest", "bits"), [(100, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16384, 16)]
    )
    def test_fewer_bits_stored_in_sixteen(self, save, name, brightest, bits):
        scan = np.rint(INK / INK.max() * brightest).astype(np.uint16)
        pixels, assumed = read(save(scan, name))
        np.testing.assert_allclose(pixels, scan / (2**bits - 1) * 255, atol=0.5)
        assert (f"{bits} of 16 bits used: white is {2**bits - 1}" in assumed) == (bits < 16)
        pixels, assumed = read(save(scan, name), white=65535)
        np.testing.assert_allclose(pixels, scan / 65535 * 255, atol=0.5)
        assert "bits" not in assumed

    @pytest.mark.parametrize(
        ("ink", "assumed"),
        [
            (0, f"transparent parts taken as white; {INVERTED}"),
            (255, f"transparent parts taken as black; {NOT_INVERTED}"),
        ],
    )
    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_background(self, save, ink, assumed, mode):
        image = Image.new("L", (12, 12), ink)
        image.putalpha(Image.fromarray(INK))
        pixels, said = read(save(image.convert(mode)))
        np.testing.assert_allclose(pixels, INK, atol=1)
        assert said == assumed

    @pytest.mark.parametrize("mode", ["L", "P", "RGB"])
    def test_a_transparent_colour(self, save, mode):
        image = Image.fromarray(np.where(INK > 100, 0, 255).astype(np.uint8)).convert(mode)
        white = (255, 255, 255) if mode == "RGB" else image.getpixel((0, 0))
        pixels, said = read(save(image, transparency=white))
        np.testing.assert_array_equal(pixels, np.where(INK > 100, 255, 0))
        assert said == f"transparent parts taken as white; {INVERTED}"

    def test_rotated_by_the_exif_orientation(self, save):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees clockwise
        pixels, _ = read(save(np.rot90(INK), exif=exif))
        np.testing.assert_array_equal(pixels, INK)

    def test_first_frame_of_an_animation(self, save):
        frames = [Image.fromarray(INK), Image.fromarray(INK.T.copy())]
        pixels, assumed = read(save(frames[0], "image.gif", save_all=True, append_images=frames[1:]))
        np.testing.assert_array_equal(pixels, INK)
        assert assumed == f"first of 2 frames; {NOT_INVERTED}"


class TestSizes:
    def test_shrinks_with_the_antialiasing_triangle_filter(self, save):
        pixels, assumed = read(save(INK.repeat(8, axis=0).repeat(8, axis=1)))
        # A triangle filter as wide as two blocks of eight weights a block and its neighbours as 1 : 6 : 1.
        smooth = np.stack([np.convolve(row, [1 / 8, 6 / 8, 1 / 8], "same") for row in INK.astype(float)])
        smooth = np.stack([np.convolve(column, [1 / 8, 6 / 8, 1 / 8], "same") for column in smooth.T]).T
        np.testing.assert_allclose(pixels, smooth, atol=1.01)
        assert assumed.endswith("96x96 resized to 12x12 (fit)")

    def test_fit_keeps_the_aspect_on_the_border_s_colour(self, save):
        wide = np.full((20, 40), 30, np.uint8)
        wide[4:16, 14:26] = 250  # a square
        pixels, _ = read(save(wide), 20, 20)
        assert (pixels[:5] == 30).all()
        assert (pixels[15:] == 30).all()
        bright = pixels > 140
        assert bright.any(axis=0).sum() == bright.any(axis=1).sum() == 6

    def test_stretch_does_not_and_crop_cuts_the_centre_out(self, save):
        wide = np.zeros((20, 40), np.uint8)
        wide[:, 10:30] = 250
        path = save(wide)
        np.testing.assert_array_equal(read(path, 20, 20, resize="crop", invert=False)[0], np.full((20, 20), 250))
        stretched = read(path, 20, 20, resize="stretch", invert=False)[0]
        assert (stretched[:, 7:13] == 250).all()
        assert (stretched[:, :4] == 0).all()

    @pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 700)])
    @pytest.mark.parametrize("resize", ["fit", "stretch", "crop"])
    def test_any_size_and_aspect(self, save, size, resize):
        pixels, *_ = read(save(np.full(size, 7, np.uint8)), 9, 7, resize=resize)
        assert pixels.shape == (9, 7)


class TestPolarity:
    """All three real data sets have light ink on a dark background: as published, and inverted."""

    @pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
    def test_inversion_of_real_images_is_always_detected(self, tmp_path, name):
        if name != "digits":
            require_data(name)
        images = data.load(name, "test[:100]").images
        for number, image in enumerate(images[..., 0]):
            for ink, said in ((image, NOT_INVERTED), (255 - image, INVERTED)):
                path = tmp_path / f"{number}.png"
                Image.fromarray(ink).save(path, compress_level=0)
                pixels, assumed = read(path, *image.shape)
                assert assumed == said
                np.testing.assert_array_equal(pixels, image)


class TestBadFiles:
    @pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.gif", "image.tif", "image.webp", "image.bmp"])
    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.5])
    def test_cut_short(self, save, tmp_path, name, kept):
        noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
        path = tmp_path / name
        save(noise, name)
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(UsageError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: cannot be read as an image: ")
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_an_image(self, tmp_path):
        path = tmp_path / "notes.png"
        path.write_text("Buy milk.\n" * 100)
        with pytest.raises(UsageError, match=r"notes.png: cannot be read as an image"):
            read(path)
        with pytest.raises(UsageError, match=r"missing.png: there is no such file"):
            read(tmp_path / "missing.png")
        with pytest.raises(UsageError, match="cannot be read as an image"):
            read(tmp_path)

    def test_a_damaged_byte_is_noticed_or_harmless(self, save, tmp_path):
        path = tmp_path / "image.png"
        save(COLOUR, path.name)
        whole = path.read_bytes()
        refused = 0
        for position in range(0, len(whole), 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
            try:
                read(path, channels=3)
            except UsageError:
                refused += 1
        assert refused > 20

    def test_numbers_that_are_not_grey_values(self, save):
        with pytest.raises(UsageError, match="grey values from -5 to 70000; save it with 8 or 16 bits"):
            read(save(np.array([[-5, 70000]], np.int32), "image.tif"))
        with pytest.raises(UsageError, match="has floating point pixels"):
            read(save(np.array([[0.5, 0.7]], np.float32), "image.tif"))

    def test_unknown_options(self, save):
        path = save(INK)
        with pytest.raises(UsageError, match="channels=2; images have 1"):
            read(path, channels=2)


class TestFind:
    def test_files_and_folders_in_order_and_once(self, tmp_path):
        names = ["b.PNG", "a.jpg", "deep/er/c.webp", "notes.txt", ".hidden.png", ".cache/d.png", "._b.PNG"]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = find_images([tmp_path / "notes.txt", tmp_path, tmp_path / "a.jpg"])
        assert found == [tmp_path / name for name in ["notes.txt", "a.jpg", "b.PNG", "deep/er/c.webp"]]

    def test_home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "a.png").touch()
        assert find_images(["~/a.png"]) == [tmp_path / "a.png"]

    def test_nothing_found(self, tmp_path):
        with pytest.raises(UsageError, match="no images in this folder"):
            find_images([tmp_path])
        with pytest.raises(UsageError, match=r"nowhere.png: there is no such file or folder"):
            find_images([tmp_path / "nowhere.png"])
        with pytest.raises(UsageError, match="patterns as --images"):
            find_images([tmp_path / "*.png"])
        with pytest.raises(UsageError, match="there is no such file"):
            find_images([tmp_path / ("long" * 200)])
        with pytest.raises(UsageError, match="no images given"):
            find_images([])
