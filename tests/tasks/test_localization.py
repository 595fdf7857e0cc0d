"""Localisation: one class and one box for each image."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from cnn_jax import data, models
from cnn_jax.errors import UsageError
from cnn_jax.tasks import Localization, default_config
from cnn_jax.tasks.task import Examples, TargetStatistics

BOXES = np.array([[[2, 4, 12, 14]], [[10, 0, 30, 20]], [[0, 0, 0, 0]]], np.float32)
LABELS = np.array([[1], [0], [0]], np.int32)
COUNTS = np.array([1, 1, 0], np.int32)
SPEC = {
    "image": data.Field("image", (32, 32, 1), "uint8"),
    "boxes": data.Field("boxes", (1, 4), "float32", count="n"),
    "label": data.Field("label", (1,), "int32", ("cat", "dog"), count="n"),
    "n": data.Field("count", (), "int32"),
}
MEAN, STD = (6.0, 2.0, 21.0, 17.0), (4.0, 2.0, 9.0, 3.0)
BATCH = {"boxes": jnp.asarray(BOXES), "label": jnp.asarray(LABELS), "n": jnp.asarray(COUNTS)}
OUTPUTS = np.random.default_rng(0).normal(0, 1, (3, 6)).astype(np.float32)


def task(**overrides: object) -> Localization:
    config = default_config("localization")
    config.input_shape = (32, 32, 1)
    config.update(overrides)
    return Localization(config, Examples("mine", SPEC, targets={"boxes": TargetStatistics(MEAN, STD)}))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    return shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


def test_the_loss_is_cross_entropy_and_huber_of_standardised_corners() -> None:
    total = 0.0
    for outputs, box, label in zip(OUTPUTS[:2], BOXES[:2, 0], LABELS[:2, 0], strict=True):
        of_class = np.log(np.exp(outputs[:2]).sum()) - outputs[label]
        distance = np.abs(outputs[2:] - (box - MEAN) / STD)
        total += of_class + 3 * np.where(distance < 1, distance**2 / 2, distance - 0.5).mean()
    assert float(task(box_weight=3.0).loss(jnp.asarray(OUTPUTS), BATCH)) == pytest.approx(total / 2, rel=1e-5)


def test_scores_are_means_over_images_with_an_object() -> None:
    """The first image is right, the second has the right class and a box elsewhere, the third has no object."""
    outputs = OUTPUTS.copy()
    outputs[0] = [0, 5, *(BOXES[0, 0] - MEAN) / STD]
    outputs[1] = [5, 0, *((0, 20, 8, 30) - np.array(MEAN)) / STD]
    sums = task().measure(jnp.asarray(outputs), BATCH)
    means = {name: float(total / count) for name, (total, count) in sums.items()}
    assert means["accuracy"] == 1.0
    assert means["both"] == 0.5
    assert means["iou"] == pytest.approx(0.5, abs=1e-6)
    constant = np.mean([iou(np.array(MEAN), box) for box in BOXES[:2, 0]])
    assert means["iou_of_constant_box"] == pytest.approx(constant, rel=1e-5)


@pytest.mark.parametrize("separate", [True, False])
def test_a_separate_box_head_does_not_train_the_shared_layers(separate: bool) -> None:
    shape = {"num_classes": 6, "input_shape": (16, 16, 1), "width": 1 / 8, "separate": separate}
    model = models.create("localizer", rngs=nnx.Rngs(0), **shape)
    model.heads.box_head.kernel[...] = jnp.ones_like(
        model.heads.box_head.kernel[...]
    )  # zeros would let nothing through
    images = jnp.asarray(np.random.default_rng(1).normal(0, 1, (2, 16, 16, 1)), jnp.float32)
    gradients = nnx.to_pure_dict(nnx.grad(lambda network: network(images)[:, -4:].sum())(model))
    reached = {
        name for name, leaves in gradients.items() if any(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(leaves))
    }
    assert "heads" in reached
    assert ("conv1" in reached) is not separate


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"box_loss": "l2"}, "box_loss='l2' is unknown"),
        ({"data": {"resize": "bilinear"}}, "localisation takes images in the size that their boxes are for"),
        ({"data": {"test_time": "mirror"}}, "test_time='mirror' has no meaning for boxes"),
    ],
)
def test_a_wrong_config_is_named(overrides: dict, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        task(**overrides)
    assert part in str(caught.value)


@pytest.mark.parametrize("framing", ["fit", "stretch", "crop"])
@pytest.mark.parametrize("size", [(32, 32), (64, 40), (20, 50)])
def test_corners_are_in_pixels_of_the_image_of_the_file(framing: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Where a bright object is in the image that the network is given, and where it is in the file."""
    top, left, bottom, right = true = np.array([size[0] // 3, size[1] // 3, 2 * size[0] // 3, 2 * size[1] // 3])
    image = np.zeros(size, np.uint8)
    image[top:bottom, left:right] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    form = {"height": 32, "width": 32, "channels": 1, "invert": False}
    read = data.read_image(tmp_path / "a.png", resize=framing, **form).pixels[..., 0]
    bright = np.argwhere(read > 127)
    prediction = np.array([0.1, 0.9, *bright.min(axis=0), *(bright.max(axis=0) + 1)], np.float32)
    found = task().of_file(prediction, size, framing)
    assert found[:2].tolist() == prediction[:2].tolist()
    shown = max(1, max(size) / 32)  # pixels of the file for one of the network's
    np.testing.assert_allclose(found[2:], true, atol=shown)


def test_a_box_ends_where_the_image_of_the_file_does() -> None:
    found = task().of_file(np.array([1, 0, -4, 0, 40, 36], np.float32), (16, 32), "fit")
    assert found[2:].tolist() == [0, 0, 16, 32]
