"""Folders of images with boxes: the three forms, sizes, parts, faults that are listed, and one line for mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.data.boxes import placement
from cnn_jax.errors import UsageError

HEIGHT, WIDTH = 24, 32
OBJECTS = {  # image -> (class, top, left, bottom, right)
    "a": [("cell", 2, 3, 10, 12), ("nucleus", 12, 20, 20, 30)],
    "b": [("cell", 0, 0, 24, 32)],
    "c": [],
}


def write_images(folder: Path, names: str = "abc") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.full((HEIGHT, WIDTH, 3), 20 * (1 + ord(name) % 7), np.uint8)
        for _, top, left, bottom, right in OBJECTS[name]:
            pixels[top:bottom, left:right] = 200
        Image.fromarray(pixels).save(folder / f"{name}.png")


def xml(name: str, objects: list, *, size: tuple[int, int] = (HEIGHT, WIDTH), extra: str = "") -> str:
    inside = "".join(
        f"<object><name>{label}</name>{extra}<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
        for label, top, left, bottom, right in objects
    )
    said = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{said}{inside}</annotation>"


def voc(root: Path) -> None:
    for part, names in (("Training", "ac"), ("Testing", "b")):
        write_images(root / part / "Images", names)
        (root / part / "Annotations").mkdir()
        for name in names:
            (root / part / "Annotations" / f"{name}.xml").write_text(xml(name, OBJECTS[name]))


def voc_itself(root: Path) -> None:
    """As PASCAL VOC is published: lists of names, and corners that are pixels, counted from 1."""
    write_images(root / "JPEGImages")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, objects in OBJECTS.items():
        shifted = [(label, top + 1, left + 1, bottom, right) for label, top, left, bottom, right in objects]
        (root / "Annotations" / f"{name}.xml").write_text(xml(name, shifted))
    (root / "ImageSets/Main/train.txt").write_text("a\nc\n")
    (root / "ImageSets/Main/test.txt").write_text("b\n")


def coco(root: Path) -> None:
    for part, names in (("train2017", "ac"), ("test2017", "b")):
        write_images(root / part, names)
        numbers = {name: number for number, name in enumerate(names, start=7)}
        annotations = [
            {"image_id": numbers[name], "category_id": {"cell": 3, "nucleus": 5}[label], "id": 0, "iscrowd": 0}
            | {"bbox": [left, top, right - left, bottom - top], "area": 1}
            for name in names
            for label, top, left, bottom, right in OBJECTS[name]
        ]
        content = {
            "images": [
                {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
                for name, number in numbers.items()
            ],
            "categories": [{"id": 5, "name": "nucleus"}, {"id": 3, "name": "cell"}],
            "annotations": annotations,
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    (root / "data.yaml").parent.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text("path: x\nnames:\n  0: cell\n  1: nucleus\n")
    for part, names in (("train", "ac"), ("test", "b")):
        write_images(root / "images" / part, names)
        (root / "labels" / part).mkdir(parents=True)
        for name in names:
            lines = [
                f"{['cell', 'nucleus'].index(label)} {(left + right) / 2 / WIDTH} {(top + bottom) / 2 / HEIGHT} "
                f"{(right - left) / WIDTH} {(bottom - top) / HEIGHT}"
                for label, top, left, bottom, right in OBJECTS[name]
            ]
            if lines:  # an image without a file has no objects
                (root / "labels" / part / f"{name}.txt").write_text("\n".join(lines) + "\n")


def loaded(root: Path, split: str = "train", shape=(HEIGHT, WIDTH, 3), **options) -> data.Dataset:
    return data.open_set(f"boxes:{root}", split, image_shape=shape, **options).to_memory()


def objects(found: data.Dataset) -> list[list[tuple]]:
    """The objects of each example, in the order of their number."""
    rows = [
        [(found.class_names[label], *box) for box, label in zip(boxes[:count].tolist(), labels[:count], strict=True)]
        for boxes, labels, count in zip(
            *(found.fields[name] for name in ("boxes", "label", "boxes_count")), strict=True
        )
    ]
    return sorted(rows, key=len)


@pytest.mark.parametrize("write", [voc, voc_itself, coco, yolo])
def test_the_forms_say_the_same(tmp_path: Path, write) -> None:
    write(tmp_path / "set")
    train, test = loaded(tmp_path / "set"), loaded(tmp_path / "set", "test")
    assert train.class_names == ("cell", "nucleus")
    assert [[tuple(row) for row in rows] for rows in objects(train)] == [[], [*map(tuple, OBJECTS["a"])]]
    assert objects(test) == [[*map(tuple, OBJECTS["b"])]]
    assert "3 images with 3 boxes" in train.report
    assert "1 images have none" in train.report
    assert train.fields["boxes"].shape == (2, 2, 4), "as many entries as any image has objects"
    number = int(train.fields["boxes_count"].argmax())
    assert (train.images[number][2:10, 3:12] == 200).all()


def test_crowds_and_difficult_objects_are_marked(tmp_path: Path) -> None:
    voc(tmp_path)
    file = tmp_path / "Training/Annotations/a.xml"
    file.write_text(xml("a", OBJECTS["a"], extra="<difficult>1</difficult>"))
    assert loaded(tmp_path).fields["crowd"].max(axis=0).tolist() == [1, 1]
    assert loaded(tmp_path, "test").fields["crowd"].tolist() == [[0, 0]]


@pytest.mark.parametrize("framing", ["crop", "fit", "stretch"])
@pytest.mark.parametrize("shape", [(48, 64, 1), (36, 36, 1), (20, 60, 1), (60, 20, 1)])
def test_boxes_are_where_their_pixels_are(tmp_path: Path, framing: str, shape: tuple) -> None:
    """A bright object is found again in the image that is brought to another size."""
    Image.fromarray(np.pad(np.full((12, 12), 255, np.uint8), ((6, 6), (8, 12)))).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(xml("a", [("cell", 6, 8, 18, 20)]))
    for name in "bc":
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.xml").write_text(xml(name, []))
    found = loaded(tmp_path, "all", shape, framing=framing)
    number = int(found.fields["boxes_count"].argmax())
    bright = np.argwhere(found.images[number, ..., 0] > 127)
    expected = [*bright.min(axis=0), *(bright.max(axis=0) + 1)]
    np.testing.assert_allclose(found.fields["boxes"][number, 0], expected, atol=0.75)


def test_placement_of_a_crop_is_that_of_its_middle() -> None:
    scale, offset = placement((10, 30), (20, 20), "crop")
    np.testing.assert_allclose(np.array([5, 15]) * scale + offset, [10, 10])


FAULTY = [
    ("cell", 2, 3, 10, 12),
    ("cell", -4, 5, 8, 40),
    ("cell", 5, 5, 5, 9),
    ("cell", 40, 1, 50, 9),
    ("dog", 1, 1, 5, 5),
]


def faulty(root: Path) -> None:
    voc(root)
    (root / "Training/Annotations/a.xml").write_text(xml("a", FAULTY))
    (root / "classes.txt").write_text("cell\nnucleus\n")


def test_faults_are_listed_and_fixed_dropped_or_refused(tmp_path: Path) -> None:
    faulty(tmp_path)
    fixed = loaded(tmp_path)
    assert objects(fixed)[-1] == [("cell", 2, 3, 10, 12), ("cell", 0, 5, 8, 32)]
    for part in (
        "1 box reaches beyond its image and is cut at the border",
        "2 boxes have no area and are left out",
        "1 box is of a class that is not among those stated and is left out",
        "a.xml: 'dog' from (top, left, bottom, right) = (1, 1, 5, 5)",
    ):
        assert part in fixed.report
    assert objects(loaded(tmp_path, invalid_boxes="drop"))[-1] == [("cell", 2, 3, 10, 12)]
    with pytest.raises(UsageError, match=r"a.xml: 'cell' from .* reaches beyond its image; 3 more boxes are not valid"):
        loaded(tmp_path, invalid_boxes="refuse")
    with pytest.raises(UsageError, match=r"data.invalid_boxes='fixed' is unknown; did you mean 'fix'"):
        loaded(tmp_path, invalid_boxes="fixed")


def put(path: str, text: str):
    """Writes a file into a VOC folder."""

    def change(root: Path) -> None:
        voc(root)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    return change


def yolo_line(text: str):
    def change(root: Path) -> None:
        yolo(root)
        (root / "labels/train/a.txt").write_text(text)

    return change


def coco_text(text: str):
    def change(root: Path) -> None:
        coco(root)
        (root / "annotations/instances_train2017.json").write_text(text)

    return change


A = "Training/Annotations/a.xml"


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (lambda root: root.mkdir(), "no annotations in"),
        (lambda root: write_images(root), "give images with the XML files of VOC, the JSON of COCO or"),
        (put(A, xml("a", OBJECTS["a"], size=(30, 40))), "is for an image of 30x40 pixels, but"),
        (put(A, "<annotation>"), "a.xml: cannot be read as XML"),
        (put(A, xml("a", [("cell", 1, "x", 2, 3)])), "object 1: bndbox/xmin is 'x', not a number"),
        (put(A, xml("a", [("", 1, 1, 2, 3)])), "object 1 has no name"),
        (put(A, xml("a", OBJECTS["a"]).replace("ymin", "y")), "object 1: there is no bndbox/ymin"),
        (put("Training/Annotations/z.xml", xml("z", [])), "there is no image called 'z'"),
        (put("t.json", '{"images": []}'), "has annotations of VOC and COCO; leave those of one form"),
        (yolo_line("0 0.5 0.5 1\n"), "a.txt: line 1 is not 'class x y width height'"),
        (yolo_line("cat 0.5 0.5 1 1\n"), "line 1 is not"),
        (coco_text('{"images": [], "annotations": [{"image_id": 4}]}'), "is of image 4, which is not listed"),
        (coco_text('{"images": [{"id": 1}]}'), "is not as COCO's files are: KeyError 'file_name'"),
        (coco_text('{"images": [{"id": 1, "file_name": "q.png"}]}'), "there is no image 'q.png'"),
        (coco_text('{"images": '), "is not as COCO's files are"),
    ],
)
def test_mistakes_get_one_line(tmp_path: Path, write, part: str) -> None:
    write(tmp_path / "set")
    with pytest.raises(UsageError) as error:
        loaded(tmp_path / "set")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_any_box_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.xml").write_text(xml(name, []))
    with pytest.raises(UsageError, match="has a box"):
        loaded(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        loaded(tmp_path / "nowhere")


def test_what_is_not_valid_in_a_class_of_yolo_is_listed(tmp_path: Path) -> None:
    yolo_line("7 0.5 0.5 1 1\n0 0.5 0.5 1 1\n")(tmp_path)
    found = loaded(tmp_path)
    assert objects(found)[-1] == [("cell", 0, 0, HEIGHT, WIDTH)]
    assert "'class 7'" in found.report


def test_a_tenth_of_the_training_images_is_for_validation_where_there_is_no_part(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "train").mkdir(exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH), number, np.uint8)).save(tmp_path / f"train/{number}.png")
        (tmp_path / f"train/{number}.xml").write_text(xml(str(number), [("cell", 1, 1, 5, 5)]))
    sets = [loaded(tmp_path, split) for split in ("train", "validation")]
    assert [len(found) for found in sets] == [18, 2]
    assert data.count_shared(*sets) == 0
