"""Localisation: one class and one box for each image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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
