"""Folders of images with masks: pairing, meaning of the values, sizes, and one line for each error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.data.masks import mask_values
from cnn_jax.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), np.uint8)
CLASSES = np.random.default_rng(1).integers(0, 3, (4, 6, 8), np.uint8)
PALETTE = [(0, 0, 0), (255, 0, 0), (0, 255, 0), *[(number, 9, 9) for number in range(3, 256)]]


def grey(classes: np.ndarray) -> Image.Image:
    return Image.fromarray(classes)


def palette(classes: np.ndarray) -> Image.Image:
    image = Image.fromarray(classes).convert("P")
    image.putdata(classes.ravel().tolist())
    image.putpalette(sum(PALETTE, ()))
    return image


def colours(classes: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(PALETTE, np.uint8)[classes])


def write(
    root: Path, masks=grey, *, images="images/{}.png", names="masks/{}.png", count: int = 4, table: str = ""
) -> str:
    for number in range(count):
        for pattern, image in ((images, Image.fromarray(PIXELS[number])), (names, masks(CLASSES[number]))):
            file = root / pattern.format(f"cell {number}")
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
    if table:
        (root / "classes.csv").write_text(table)
    return f"masks:{root}"


def loaded(name: str, split: str = "sorted", shape=(6, 8, 3), **options) -> data.Dataset:
    return data.open_set(name, split, image_shape=shape, **options).to_memory()


COLOURED = "name,value\nnone,#000000\ncell,#ff0000\nnucleus,0 255 0\n"
FORMS = {
    "grey": (grey, {}, ("0", "1", "2")),
    "palette": (palette, {}, ("0", "1", "2")),
    "palette with a table": (palette, {"table": "none,0\ncell,1\nnucleus,2\n"}, ("none", "cell", "nucleus")),
    "palette with colours": (palette, {"table": COLOURED}, ("none", "cell", "nucleus")),
    "colours": (colours, {"table": COLOURED}, ("none", "cell", "nucleus")),
    "one folder": (grey, {"images": "{}.png", "names": "{}_mask.png"}, ("0", "1", "2")),
    "endings": (grey, {"images": "Images/{}.png", "names": "labels/{}_seg.png"}, ("0", "1", "2")),
    "grey as colours": (lambda classes: grey(classes).convert("RGB"), {}, ("0", "1", "2")),
    "16 bits": (lambda classes: Image.fromarray(classes.astype(np.uint16)), {}, ("0", "1", "2")),
}


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_every_form_are_read(form: str, tmp_path: Path) -> None:
    masks, options, names = FORMS[form]
    found = loaded(write(tmp_path, masks, **options))
    assert found.class_names == names
    np.testing.assert_array_equal(found.images, PIXELS)
    np.testing.assert_array_equal(found.fields["segmentation"], CLASSES)
    assert found.spec["segmentation"].ignored == 255


def test_black_and_white_are_two_classes_and_a_table_may_ignore_a_value(tmp_path: Path) -> None:
    two = loaded(write(tmp_path / "two", lambda classes: grey((classes > 0) * np.uint8(255))))
    assert two.class_names == ("background", "foreground")
    np.testing.assert_array_equal(two.fields["segmentation"], CLASSES > 0)
    table = "cell,0\nnucleus,1\nignored,2\n"
    ignoring = loaded(write(tmp_path / "three", table=table))
    assert ignoring.class_names == ("cell", "nucleus")
    np.testing.assert_array_equal(ignoring.fields["segmentation"], np.where(CLASSES == 2, 255, CLASSES))


def test_splits(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / "parts" / part, count=3 if part == "train" else 2)
    name = f"masks:{tmp_path / 'parts'}"
    assert len(data.open_set(name, "train", image_shape=(6, 8, 3))) == 3
    assert len(data.open_set(name, "test[:1]", image_shape=(6, 8, 3))) == 1
    numbered = tmp_path / "numbered"
    for number in (10, 9, 2):
        write(numbered, images=f"images/{number}.png", names=f"masks/{number}.png", count=1)
        Image.fromarray(np.full((6, 8), number, np.uint8)).save(numbered / f"images/{number}.png")
    ordered = loaded(f"masks:{numbered}", "sorted[1:]", (6, 8, 1))
    assert ordered.images[:, 0, 0, 0].tolist() == [9, 10], "numbers in names are ordered as numbers"


@pytest.mark.parametrize("framing", ["crop", "fit", "stretch"])
def test_another_size_moves_the_mask_with_the_image(framing: str, tmp_path: Path) -> None:
    """An image that equals its mask still does, except at the edges of classes, where pixels are mixed."""
    square = np.zeros((12, 20), np.uint8)
    square[3:9, 6:14] = 1
    for folder, pixels in (("images", square * 255), ("masks", square)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    found = loaded(f"masks:{tmp_path}", "sorted", (24, 24, 1), framing=framing)
    image, mask = found.images[0, ..., 0], found.fields["segmentation"][0]
    sure = (image < 20) | (image > 235)
    known = mask != 255
    np.testing.assert_array_equal((image > 127)[sure & known], mask[sure & known])
    assert (mask == 1).sum() > 50
    assert (~known).any() == (framing == "fit"), "what is added at the borders is ignored"


def wrong_value(root: Path) -> str:
    return write(root, table="none,0\ncell,1\n")


def other_size(root: Path) -> str:
    name = write(root)
    grey(CLASSES[1][:5]).save(root / "masks/cell 1.png")
    return name


def cut_short(root: Path) -> str:
    name = write(root)
    file = root / "masks/cell 2.png"
    file.write_bytes(file.read_bytes()[:60])
    return name


def missing(root: Path, which: str) -> str:
    name = write(root)
    (root / which / "cell 3.png").unlink()
    return name


def empty(root: Path) -> str:
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    return f"masks:{root}"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (wrong_value, ("masks/cell ", "the value 2 at (", "none of classes.csv")),
        (other_size, ("masks/cell 1.png: has 5x8 pixels, but", "images/cell 1.png has 6x8")),
        (cut_short, ("masks/cell 2.png", "cannot be read as an image")),
        (lambda root: missing(root, "masks"), ("images/cell 3.png has no mask",)),
        (lambda root: missing(root, "images"), ("masks/cell 3.png is the mask of no image",)),
        (empty, ("no images in", "put them into 'images'")),
        (lambda root: write(root, images="images/{}.png", names="elsewhere/{}.png"), ("no folder 'masks' beside it",)),
        (lambda root: write(root, colours), ("is a mask of colours; state the colour of each class in classes.csv",)),
        (lambda root: write(root, lambda classes: grey(classes * 100)), ("200 in", "a line such as liver,200")),
        (lambda root: write(root, table="none,0\ncell,red\n"), ("'red' is no value; write name,7",)),
        (lambda root: write(root, table="none,0\ncell,0\n"), ("one value or one colour for each line",)),
        (lambda root: f"masks:{root / 'nowhere'}", ("there is no folder",)),
    ],
)
def test_invalid_folders_are_reported_in_one_line(make, parts: tuple, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(make(tmp_path))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_palette_with_few_colours_is_renumbered_by_pillow(tmp_path: Path) -> None:
    """So what is written is compared after a round trip: a palette of 256 keeps its numbers."""
    file = tmp_path / "mask.png"
    palette(np.array([[0, 1, 255]], np.uint8)).save(file)
    assert mask_values(file, colours=False).tolist() == [[0, 1, 255]]


def test_border_weights_are_those_of_a_loop_over_objects() -> None:
    classes = np.zeros((9, 11), np.int32)
    classes[1:4, 1:4], classes[1:4, 6:9], classes[7, 2] = 1, 2, 1
    objects = [{(r, c) for r in range(1, 4) for c in range(1, 4)}, {(r, c) for r in range(1, 4) for c in range(6, 9)}]
    objects.append({(7, 2)})
    found = data.border_weights(classes, weight=10.0, sigma=2.0)
    for row, column in np.ndindex(classes.shape):
        distances = sorted(min(np.hypot(row - r, column - c) for r, c in each) for each in objects)
        expected = 10 * np.exp(-((distances[0] + distances[1]) ** 2) / 8) if classes[row, column] == 0 else 0
        assert found[row, column] == pytest.approx(expected, abs=1e-6)
    assert not data.border_weights(np.pad([[1]], 2), weight=10.0, sigma=2.0).any(), "one object has no second one"
