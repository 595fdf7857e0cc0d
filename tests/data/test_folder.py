"""Folders of images and npz files are read as they were written."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.data.folder import scan_folder
from cnn_jax.data.folder.__main__ import main
from cnn_jax.errors import UsageError

RANDOM = np.random.default_rng(0)
SHAPE = (12, 12, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def colour(value: tuple[int, int, int], size: tuple[int, int] = (20, 16)) -> Image.Image:
    return Image.new("RGB", size, value)


def write(folder, name: str, image: Image.Image, **options) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def class_folders(folder, count: int = 20):
    """Creates two classes; the red value of an image is its number."""
    for name in ("bee", "ant"):
        for number in range(count):
            write(folder, f"{name}/deep/{number}.png", colour((number, 0, 200 if name == "bee" else 100)))
    return folder


def test_classes_are_subfolders_and_parts_are_disjoint_stratified_and_mixed(tmp_path):
    folder = class_folders(tmp_path / "pets")
    parts = {part: data.load(f"folder:{folder}", part, image_shape=SHAPE) for part in ("train", "validation", "test")}
    assert parts["train"].class_names == ("ant", "bee")
    seen = []
    for part, each_class in (("train", 16), ("validation", 2), ("test", 2)):
        assert np.bincount(parts[part].labels).tolist() == [each_class, each_class]
        assert set(parts[part].images[parts[part].labels == 1, 0, 0, 2]) == {200}
        seen += list(zip(parts[part].labels.tolist(), parts[part].images[:, 0, 0, 0].tolist(), strict=True))
    assert sorted(seen) == [(label, number) for label in range(2) for number in range(20)]
    assert (np.diff(parts["train"].labels) != 0).sum() > 5, "the order is not mixed"
    sliced = data.load(f"folder:{folder}", "train[:25%]", image_shape=SHAPE)
    np.testing.assert_array_equal(sliced.images, parts["train"].images[:8])


def test_parts_in_folders_of_their_own(tmp_path):
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for name in ("ant", "bee"):
            for number in range(count):
                write(tmp_path / "set", f"{part}/{name}/{number}.jpg", colour((9, 9, 9)))
    for split, size in (("train", 6), ("validation", 4), ("test", 2), ("train+test", 8)):
        assert len(data.open_set(f"folder:{tmp_path / 'set'}", split, image_shape=SHAPE)) == size


def layout(root, text: str):
    """Creates the files of a folder: words are paths; each image has another shade of grey."""
    for number, path in enumerate(text.split()):
        write(root, path, colour((number, number, number)), format="png")
    return root


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Training", "", "Testing"),
        ("TRAIN", "VAL", "TEST"),
        ("train_set", "dev_set", "test_set"),
        ("Train", "eval", "test"),
        ("trainset", "valset", "testset"),
        ("train-images", "valid", "Test Images"),
    ],
)
def test_parts_with_common_names(tmp_path, train, validation, test):
    sizes = {train: 3, validation: 2, test: 1}
    for part, size in sizes.items():
        for name in ("ant", "bee") if part else ():
            for number in range(size):
                write(tmp_path / "set", f"{part}/{name}/{number}.png", colour((9, 9, 9)))
    for split, part in (("train", train), ("validation", validation), ("test", test)):
        if part:
            found = data.open_set(f"folder:{tmp_path / 'set'}", split, image_shape=SHAPE)
            assert (len(found), found.class_names) == (2 * sizes[part], ("ant", "bee"))


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    folder = layout(tmp_path / "set", "train/1.png car/2.png plane/3.png test_tube/big/4.png")
    assert scan_folder(folder).class_names == ("car", "plane", "test_tube", "train")


def test_ignored_files_and_folders_are_reported(tmp_path):
    folder = layout(tmp_path / "set", "ant/1.png ant/tiny/2.png bee/3.png bee/._3.png __MACOSX/ant/1.png loose.jpg")
    for path in ("ant/notes.txt", "bee/new.HEIC", "bee/old.heic", "bee/LICENSE", ".DS_Store"):
        (folder / path).write_text("x")
    found = scan_folder(folder)
    assert found.class_names == ("ant", "bee")
    assert [file.path for file in found.files] == ["ant/1.png", "ant/tiny/2.png", "bee/3.png"]
    report = str(found)
    assert "other files, left out: .heic 2, .txt 1, without a suffix 1" in report
    assert "1 images in no class folder, left out, such as loose.jpg" in report
    assert "1 classes have images in folders of their own, which are not classes: tiny" in report


def test_classes_one_level_too_deep_are_reported(tmp_path):
    report = str(
        scan_folder(layout(tmp_path / "set", "monday/ant/1.png monday/bee/2.png friday/ant/3.png friday/bee/4.png"))
    )
    assert (
        "folders of their own, which are not classes: ant, bee; if these are the classes, make them the first" in report
    )


def test_suffixes_that_cameras_and_browsers_give(tmp_path):
    folder = tmp_path / "set"
    write(folder, "a/1.jfif", colour((1, 1, 1)), format="jpeg")
    write(folder, "a/2.jpe", colour((2, 2, 2)), format="jpeg")
    write(folder, "a/3.JPEG", colour((3, 3, 3)), format="jpeg")
    write(folder, "a/4.tga", colour((4, 4, 4)))
    found = data.load(f"folder:{folder}", "all", image_shape=SHAPE)
    assert sorted(found.images[:, 0, 0, 0].tolist()) == [1, 2, 3, 4]


def test_links_are_followed_once_and_dangling_ones_reported(tmp_path):
    folder, pool = tmp_path / "set", layout(tmp_path / "pool", "1.png deep/2.png 3.png")
    layout(folder, "ant/0.png")
    (folder / "ant/linked").symlink_to(pool)
    (folder / "ant/one.png").symlink_to(pool / "3.png")
    (folder / "ant/gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "bee").symlink_to(pool / "deep")
    (pool / "circle").symlink_to(folder / "ant")
    found = scan_folder(folder)
    assert [file.path for file in found.files] == [
        "ant/0.png", "ant/linked/1.png", "ant/linked/3.png", "ant/linked/deep/2.png", "ant/one.png", "bee/2.png"
    ]  # fmt: skip
    assert [(file.path, file.error) for file in found.broken] == [
        ("ant/gone.png", "cannot be read: No such file or directory")
    ]
    assert data.find_images([folder / "bee"]) == [folder / "bee/2.png"]


def test_names_that_are_not_utf_8(tmp_path):
    folder = layout(tmp_path / "set", "bee/1.png")
    write(folder, os.fsdecode(b"caf\xe9/\xff.png"), colour((5, 5, 5)))
    found = data.load(f"folder:{folder}", "all", image_shape=SHAPE)
    assert found.class_names == ("bee", r"caf\xe9")
    assert sorted(found.images[:, 0, 0, 0].tolist()) == [0, 5]
    found.report.encode()


def test_very_large_images_can_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's limit is twice this number
    folder = layout(tmp_path / "set", "ant/large.png")
    write(folder, "ant/small.png", colour((7, 7, 7), size=(10, 10)))
    (broken,) = scan_folder(folder).broken
    assert broken.path == "ant/large.png"
    assert "has more than 200 pixels" in broken.error
    assert "set the environment variable CNN_JAX_MAX_PIXELS" in broken.error
    monkeypatch.setenv("CNN_JAX_MAX_PIXELS", "320")  # 20x16
    assert len(data.load(f"folder:{folder}", "all", image_shape=SHAPE)) == 2
    monkeypatch.setenv("CNN_JAX_MAX_PIXELS", "318")
    with pytest.raises(UsageError, match="has more than 318 pixels"):
        data.load(f"folder:{folder}", "all", image_shape=(6, 6, 3))
    monkeypatch.setenv("CNN_JAX_MAX_PIXELS", "much")
    with pytest.raises(UsageError, match="CNN_JAX_MAX_PIXELS=much must be a whole number"):
        data.load(f"folder:{folder}", "all", image_shape=SHAPE)


def test_every_kind_of_image_is_read_upright_and_in_colour(tmp_path):
    folder = tmp_path / "kinds"
    left_red = Image.fromarray(np.array([[[255, 0, 0]] * 8 + [[0, 0, 255]] * 8] * 16, np.uint8))
    write(folder, "a/0_plain.png", left_red)
    write(folder, "a/1_lossless.webp", left_red, lossless=True)
    write(folder, "a/2_palette.png", left_red.convert("P", palette=Image.Palette.ADAPTIVE))
    write(folder, "a/3_opaque_alpha.png", left_red.convert("RGBA"))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the stored image is its right side
    write(
        folder, "a/4_turned.jpg", left_red.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=100, subsampling=0
    )
    write(folder, "a/5_grey.png", Image.new("L", (16, 16), 77))
    write(folder, "a/6_clear.png", Image.new("RGBA", (16, 16), (0, 0, 0, 0)))
    found = data.open_set(f"folder:{folder}", "all", image_shape=(16, 16, 3))
    names = [path[4:] if path[3] == "_" else path for path in found.reader.paths]
    images = dict(zip(found.reader.paths, found.to_memory().images, strict=True))
    assert len(names) == 7
    for path in ("a/0_plain.png", "a/1_lossless.webp", "a/2_palette.png", "a/3_opaque_alpha.png", "a/4_turned.jpg"):
        np.testing.assert_allclose(images[path].astype(int), np.asarray(left_red).astype(int), atol=3, err_msg=path)
    assert (images["a/5_grey.png"] == 77).all()
    assert len(np.unique(images["a/6_clear.png"])) == 1
    grey = data.load(f"folder:{folder}", "all", image_shape=(16, 16, 1))
    assert grey.images.shape == (7, 16, 16, 1)


@pytest.mark.parametrize(("framing", "box"), [("crop", (5, 0, 15, 10)), ("stretch", (0, 0, 20, 10))])
def test_framing_is_pillows_resize_of_a_box(tmp_path, framing, box):
    image = Image.fromarray(RANDOM.integers(0, 256, (10, 20, 3), np.uint8))
    write(tmp_path / "set", "a/0.png", image)
    found = data.load(f"folder:{tmp_path / 'set'}", "train", image_shape=(5, 5, 3), framing=framing)
    expected = np.asarray(image.resize((5, 5), Image.Resampling.BILINEAR, box=box))
    np.testing.assert_allclose(found.images[0].astype(int), expected.astype(int), atol=1)


def test_a_large_photograph_decoded_smaller_looks_the_same(tmp_path):
    smooth = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    write(tmp_path / "set", "a/0.jpg", smooth, quality=95)
    found = data.load(f"folder:{tmp_path / 'set'}", "train", image_shape=(30, 40, 3))
    expected = np.asarray(smooth.resize((40, 30), Image.Resampling.BILINEAR))
    assert np.abs(found.images[0].astype(int) - expected.astype(int)).max() <= 6


def test_damaged_files_are_listed_and_skipped(tmp_path):
    folder = class_folders(tmp_path / "pets", 4)
    whole = folder / "ant/whole.jpg"
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    (folder / "ant/cut.jpg").write_bytes(whole.read_bytes()[:2000])
    (folder / "bee/letter.png").write_text("not an image")
    (folder / "cat").mkdir()
    found = data.open_set(f"folder:{folder}", "all", image_shape=SHAPE)
    assert len(found) == 9
    assert "9 images, 3 classes" in found.report
    assert "ant 5, bee 4, cat 0" in found.report
    assert "without an image: cat" in found.report
    assert "2 broken, left out" in found.report
    assert "ant/cut.jpg: cannot be read" in found.report
    assert "bee/letter.png: cannot be read as an image: it is in no known format" in found.report
    assert "from 20x16 to 64x64" in found.report


def test_a_file_without_read_permission_counts_as_damaged(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "pets", 3)
    from cnn_jax.data import folder as module

    check = module._checked

    def refused(path):  # root can read everything, so no real file raises this
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return check(path)

    monkeypatch.setattr(module, "_checked", refused)
    report = str(scan_folder(folder))
    assert "4 images" in report
    assert "ant/deep/1.png: cannot be read: Permission denied" in report


def test_only_changed_files_are_looked_at_again_and_change_the_fingerprint(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "pets", 4)
    looked_at = []
    from cnn_jax.data import folder as module

    check = module._checked
    monkeypatch.setattr(module, "_checked", lambda path: looked_at.append(path.name) or check(path))
    before = data.open_set(f"folder:{folder}", "all", image_shape=SHAPE).fingerprint()
    assert len(looked_at) == 8
    assert data.open_set(f"folder:{folder}", "all", image_shape=SHAPE).fingerprint() == before
    assert len(looked_at) == 8
    write(folder, "ant/deep/0.png", colour((255, 255, 255), size=(21, 16)))
    assert data.open_set(f"folder:{folder}", "all", image_shape=SHAPE).fingerprint() != before
    assert looked_at[8:] == ["0.png"]


def test_a_file_that_goes_missing_while_it_is_read(tmp_path):
    found = data.open_set(f"folder:{class_folders(tmp_path / 'pets')}", "train", image_shape=SHAPE)
    shutil.rmtree(tmp_path / "pets")
    with pytest.raises(UsageError, match="cannot be read any more: No such file"):
        found.take([0])


def make_nothing(folder):
    folder.mkdir()


def make_flat(folder):
    write(folder, "1.png", colour((1, 1, 1)))


def make_empty_classes(folder):
    (folder / "ant").mkdir(parents=True)


def make_unknown_folder(folder):
    write(folder, "train/ant/1.png", colour((1, 1, 1)))
    write(folder, "extra/ant/1.png", colour((1, 1, 1)))


def make_unknown_class(folder):
    write(folder, "train/ant/1.png", colour((1, 1, 1)))
    write(folder, "test/bee/1.png", colour((1, 1, 1)))


def laid_out(text: str):
    return lambda folder: layout(folder, text)


@pytest.mark.parametrize(
    ("make", "split", "complaint"),
    [
        (laid_out("Training/1.png Testing/2.png"), "train", "'Training' has no subfolders; make a folder 'train'"),
        (laid_out("val/ant/1.png test/ant/2.png"), "train", "has no 'train'; make a folder 'train'"),
        (
            laid_out("val/ant/1.png valid/ant/2.png train/ant/3.png"),
            "train",
            "'val' and 'valid' are both for validation",
        ),
        (laid_out("seg_train/ant/1.png seg_test/ant/2.png"), "train", "'seg_test', 'seg_train' look like parts"),
        (laid_out("pets/ant/1.png pets/bee/2.png"), "train", "all is in one folder, 'pets', which would be the only"),
        (laid_out("train/pets/ant/1.png train/pets/bee/2.png"), "train", "all is in one folder, 'pets'"),
        (laid_out("__MACOSX/ant/1.png"), "train", "has no subfolders"),
        (laid_out("ant/1.heic bee/2.heic"), "train", "no images in its 2 class folders (other files: .heic)"),
        (lambda folder: None, "train", "there is no folder"),
        (make_nothing, "train", "has no subfolders; put the images of each class"),
        (make_flat, "train", "has no subfolders; put the images of each class"),
        (make_empty_classes, "train", "no images in its 1 class folders"),
        (make_unknown_folder, "train", "has 'train' beside 'extra'"),
        (make_unknown_class, "train", "class 'bee' is in 'test', but not in 'train'"),
        (class_folders, "tset", "no split 'tset'"),
    ],
)
def test_bad_folders_get_one_line(tmp_path, make, split, complaint):
    make(tmp_path / "set")
    with pytest.raises(UsageError) as caught:
        data.open_set(f"folder:{tmp_path / 'set'}", split, image_shape=SHAPE)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="give image_shape="):
        data.load(f"folder:{tmp_path / 'set'}", split)


def test_a_damaged_index_is_rebuilt(tmp_path):
    folder = class_folders(tmp_path / "pets", 3)
    scan_folder(folder)
    (index,) = (tmp_path / "cache").rglob("*.json")
    index.write_text(index.read_text()[:50])
    assert len(scan_folder(folder).files) == 6


class TestNpz:
    images = RANDOM.integers(0, 256, (40, 5, 4), np.uint8)
    labels = np.repeat(np.arange(2), 20)

    def save(self, tmp_path, **arrays) -> str:
        np.savez(tmp_path / "set.npz", **arrays)
        return f"npz:{tmp_path / 'set.npz'}"

    def test_pairs_without_parts_are_split_by_class(self, tmp_path):
        name = self.save(tmp_path, x=self.images, y=self.labels)
        parts = [data.load(name, part) for part in ("train", "validation", "test")]
        assert [np.bincount(part.labels).tolist() for part in parts] == [[16, 16], [2, 2], [2, 2]]
        rows = np.concatenate([part.images for part in parts]).reshape(40, -1)
        np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(self.images.reshape(40, -1), axis=0))

    def test_pairs_with_parts_keep_their_order(self, tmp_path):
        name = self.save(
            tmp_path,
            x_train=self.images[:30],
            y_train=self.labels[:30],
            x_test=self.images[30:],
            y_test=self.labels[30:],
        )
        np.testing.assert_array_equal(data.load(name, "train").images[..., 0], self.images[:30])
        np.testing.assert_array_equal(data.load(name, "test").labels, self.labels[30:])

    @pytest.mark.parametrize(
        "form", ["{part}_images {part}_labels", "images_{part} labels_{part}", "X_{part} Y_{part}", "{part}_x {part}_y"]
    )
    def test_parts_as_prefix_or_suffix_as_in_medmnist_and_others(self, tmp_path, form):
        arrays = {}
        for part, chosen in (("train", slice(0, 20)), ("val", slice(20, 32)), ("test", slice(32, 40))):
            image_key, label_key = form.format(part=part).split()
            arrays |= {image_key: self.images[chosen], label_key: self.labels[chosen, None].astype(np.uint8)}
        name = self.save(tmp_path, **arrays)
        found = data.load(name, "train+validation+test")
        np.testing.assert_array_equal(found.images[..., 0], self.images)
        np.testing.assert_array_equal(found.labels, self.labels)
        assert len(data.load(name, "validation")) == 12

    @pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"])
    def test_integers_of_any_width(self, tmp_path, dtype):
        found = data.load(self.save(tmp_path, x=self.images, y=(self.labels * 2).astype(dtype)), "all")
        assert found.class_names == ("0", "1", "2")
        assert np.bincount(found.labels).tolist() == [20, 0, 20]

    def test_names_as_bytes(self, tmp_path):
        words = np.array(["caf\u00e9".encode(), b"bar"])
        by_name = data.load(self.save(tmp_path, x=self.images, y=words[self.labels]), "all")
        assert by_name.class_names == ("bar", "caf\u00e9")
        by_number = data.load(self.save(tmp_path, x=self.images, y=self.labels, class_names=words), "all")
        assert by_number.class_names == ("caf\u00e9", "bar")

    def test_names_and_floats(self, tmp_path):
        floats = self.images[..., None].repeat(3, axis=-1) / 255.0
        names = np.array(["ant", "bee"])[self.labels]
        found = data.load(self.save(tmp_path, images=floats, labels=names), "all")
        assert found.class_names == ("ant", "bee")
        assert found.image_shape == (5, 4, 3)
        assert found.images.dtype == np.float32

    @pytest.mark.parametrize(
        ("arrays", "complaint"),
        [
            ({"photos": images}, "holds photos; give it images and labels"),
            ({"x": images[:, None].repeat(3, axis=1), "y": labels}, "channels must be last"),
            ({"x": images.astype(float), "y": labels}, "float64 images from 0 to 255; give integers from 0 to 255"),
            ({"x": images, "y": labels[:5]}, "40 images, but 5 labels"),
            ({"x": images, "y": labels / 1}, "float64 labels; give whole numbers from 0, or names"),
            ({"x": images, "y": np.eye(2, dtype=int)[labels]}, "labels of shape (40, 2); give (n,), of one-hot rows"),
            ({"x": images, "y": np.ones((40, 2))}, "labels of shape (40, 2); give (n,), or write several per image"),
            ({"x": images, "y": labels - 2}, "labels from -2 to -2; give class numbers from 0 upwards"),
            ({"x": images, "y": labels + 2**40}, "labels from 1099511627776 to"),
            ({"x": images, "y": labels + 10**8}, "labels from 100000000 to"),
            ({"x": images, "y": labels, "class_names": ["ant"]}, "labels from 0 to 1; give class numbers from 0 to 0"),
            ({"x": images, "y": np.array([b"\xff"] * 40)}, "the class name b'\\xff' is not UTF-8 text"),
            ({"x": images, "y": labels, "x_test": images, "y_test": labels}, "name the part of each"),
            (
                {"x_train": images, "train_x": images, "y_train": labels},
                "x_train and train_x are both images of train; leave one out",
            ),
            ({"images": images[..., None].repeat(8, axis=-1), "labels": labels}, "or write a spec, see data.save_npz"),
            (
                {"x_train": images, "y_train": labels, "x_test": images[:, 1:], "y_test": labels},
                "images of different kinds (train uint8 [5, 4, 1], test uint8 [4, 4, 1])",
            ),
            (
                {"x_train": images, "y_train": labels, "x_test": images / 255, "y_test": labels},
                "train uint8 [5, 4, 1], test float32 [5, 4, 1]",
            ),
            (
                {"x_train": images, "y_train": labels[:30], "x_test": images[:30], "y_test": labels},
                "40 images, but 30 labels",
            ),
        ],
    )
    def test_bad_arrays_get_one_line(self, tmp_path, arrays, complaint):
        with pytest.raises(UsageError) as caught:
            data.load(self.save(tmp_path, **arrays), "train")
        assert complaint in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_files_that_are_not_npz_archives(self, tmp_path):
        with pytest.raises(UsageError, match="there is no file"):
            data.load(f"npz:{tmp_path / 'no.npz'}", "train")
        (tmp_path / "text.npz").write_text("x")
        np.save(tmp_path / "one.npy", self.images)
        for file in ("text.npz", "one.npy"):
            with pytest.raises(UsageError, match=r"not a readable \.npz file"):
                data.load(f"npz:{tmp_path / file}", "train")


@pytest.mark.parametrize("module", ["cnn_jax.data.folder", "cnn_jax.data.prepare", "cnn_jax.sweep.worker"])
def test_modules_that_are_commands(module):
    """``python -m`` with warnings as errors; runpy warns about modules that their package has already imported."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module} ")


def test_the_command_reports_a_folder(tmp_path, capsys):
    folder = class_folders(tmp_path / "pets", 4)
    assert main([str(folder)]) == 0
    assert str(scan_folder(folder)) in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_folder_of_sixteen_bits_is_read_with_all_of_them(tmp_path):
    """A network that was trained on it must get new images in the same way."""
    for number in range(3):
        for name in ("a", "b"):
            write(tmp_path, f"deep/{name}/{number}.png", Image.fromarray(np.full((4, 4), 4095, np.uint16)))
            write(tmp_path, f"flat/{name}/{number}.png", Image.new("L", (4, 4), 255))
    assert data.folder_white(f"folder:{tmp_path / 'deep'}") == 65535
    assert data.folder_white(f"folder:{tmp_path / 'flat'}") is None
    assert data.folder_white("digits") is None
    assert set(np.unique(data.load(f"folder:{tmp_path / 'deep'}", "train", image_shape=(4, 4, 1)).images)) == {16}
