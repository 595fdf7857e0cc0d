"""White cell or platelet, and where? A class head and a box head on one network, on windows of blood pictures.

From each picture of the Complete Blood Count data set (see ``detect_blood_cells.py``), here 120x160, windows of 60x80
are cut that hold exactly one white cell or exactly one platelet, among any number of red cells. ``separate`` trains the
box head on the features of the class head. In ``white_cell`` the images are whole pictures, of those with exactly one
white cell (281 for training, 59 for the test), so that only the box is to be found. ``python -m cnn_jax.data.prepare
blood_cells`` says where the data are; for a folder elsewhere add ``--config.data.data_dir=path/to/blood_cells``.

Command:  python launch.py --config=configs/localize_blood_cells.py, and localize_blood_cells.py:separate, :white_cell
Time:     270 s on one shared core (AMD EPYC), from the command to the report, compiling included
Expected: test class and box both right 75.81 %, IoU 60.11 %; the constant box has 31.90 % (1 seed)
          separate: 67.74 % and 51.14 % (1 seed); the class is right for all 62 test images in both
          white_cell: box right 93.22 %, IoU 71.75 %; the constant box has 16.78 % (1 seed)
"""

from os import PathLike
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

PICTURE, WINDOW = (120, 160), (60, 80)
CLASSES = ("WBC", "Platelets")
TRIES, MOST = 12, 6  # windows that are tried around each cell, and those that are taken for training; one for the test


def _pictures(split: str, data_dir: str | PathLike[str] | None) -> data.Dataset:
    return data.load(f"boxes:{data_dir or 'blood_cells'}", split, image_shape=(*PICTURE, 3))


def _objects(pictures: data.Dataset, number: int, classes: tuple[str, ...]) -> tuple[np.ndarray, list[int]]:
    """The boxes of the objects of some classes in a picture, and the places of their classes in that list."""
    count = pictures.fields["boxes_count"][number]
    names = [pictures.class_names[label] for label in pictures.fields["label"][number][:count]]
    chosen = [place for place, name in enumerate(names) if name in classes]
    return pictures.fields["boxes"][number][chosen], [classes.index(names[place]) for place in chosen]


def stained_cells(split: str, *, data_dir: str | PathLike[str] | None = None, **_: Any) -> data.Dataset:
    """Windows of pictures that hold one whole object of :data:`CLASSES` and nothing of another one."""
    pictures = _pictures(split, data_dir)
    generator = np.random.default_rng(len(pictures))
    images, boxes, labels = [], [], []
    for number, picture in enumerate(pictures.images):
        corners, classes = _objects(pictures, number, CLASSES)
        for box, label in zip(corners, classes, strict=True):
            first = np.ceil(np.maximum(0, box[2:] - WINDOW)).astype(int)
            last = np.floor(np.minimum(np.subtract(PICTURE, WINDOW), box[:2])).astype(int)
            taken = 0
            for _try in range(TRIES if (first <= last).all() else 0):
                start = generator.integers(first, last + 1)
                stop = start + WINDOW
                seen = (corners[:, 2:] > start).all(axis=1) & (corners[:, :2] < stop).all(axis=1)
                if seen.sum() == 1 and taken < (1 if split == "test" else MOST):
                    images.append(picture[start[0] : stop[0], start[1] : stop[1]])
                    boxes.append([box - np.tile(start, 2)])
                    labels.append([label])
                    taken += 1
    return data.from_boxes("stained_cells", split, np.stack(images), boxes, labels, class_names=CLASSES)


def white_cell(split: str, *, data_dir: str | PathLike[str] | None = None, **_: Any) -> data.Dataset:
    """Whole pictures with exactly one white cell."""
    pictures = _pictures(split, data_dir)
    found = [_objects(pictures, number, CLASSES[:1]) for number in range(len(pictures))]
    chosen = [number for number, (_, classes) in enumerate(found) if len(classes) == 1]
    boxes, labels = zip(*(found[number] for number in chosen), strict=True)
    return data.from_boxes("white_cell", split, pictures.images[chosen], boxes, labels, class_names=CLASSES[:1])


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, its variants ``separate`` and ``white_cell``, or ``smoke``: a few steps of a smaller network."""
    check_variant(variant, ("separate", "white_cell", "smoke"))
    config = default_config("localization")
    examples, size = ("white_cell", PICTURE) if variant == "white_cell" else ("stained_cells", WINDOW)
    config.data.name, config.data.data_dir = f"{__file__}:{examples}", "blood_cells"
    config.input_shape = (*size, 3)
    config.data.train, config.data.validation = "train+validation", ""  # the 300 images of the published split
    config.data.augment = ("flip",)
    config.model.name = "localizer"
    config.model.options = {"separate": variant == "separate", "backbone_options": {"dropout_rate": 0.1}}
    config.batch_size, config.epochs, config.evaluate_every = 32, 10, "5 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.001
    if variant == "white_cell":
        config.epochs, config.evaluate_every = 25, "25 epochs"
    if variant == "smoke":
        config.duration, config.evaluate_every, config.model.width = "2 steps", "2 steps", 0.25
    return config
