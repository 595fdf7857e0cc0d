"""Instance segmentation: the loss against a loop, decoding of masks that were put in, and wrong configs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import data, train
from cnn_jax.errors import UsageError
from cnn_jax.tasks import InstanceSegmentation, default_config
from cnn_jax.tasks.boxed import run_lengths
from cnn_jax.tasks.instance_segmentation import GRID, stretched
from cnn_jax.tasks.sets import known_examples

# Two images of 16x24 pixels, so 4x6 cells: a disc and an L beside each other, and no object.
ROWS, COLUMNS = np.mgrid[:16, :24]
DISC = (ROWS - 7) ** 2 + (COLUMNS - 6) ** 2 < 30
ELL = (ROWS >= 2) & (ROWS < 14) & (COLUMNS >= 14) & (COLUMNS < 22) & ((COLUMNS < 18) | (ROWS >= 9))
OBJECTS = np.stack([DISC + 2 * ELL, 0 * ELL]).astype(np.int32)


def corners(mask):
    inside = np.argwhere(mask)
    return [*inside.min(axis=0), *(inside.max(axis=0) + 1)]


BOXES = [[corners(DISC), corners(ELL)], []]
SET = data.from_boxes(
    "mine", "train", np.zeros((2, 16, 24, 1), np.uint8), BOXES, [[0, 1], []], class_names=("a", "b"), objects=OBJECTS
)
BATCH = {name: jnp.asarray(array) for name, array in SET.fields.items()}
K, CELL = 2, 4


def task(**overrides):
    config = default_config("instance_segmentation")
    config.model.options.prototypes, config.max_detections = K, 6
    config.update(overrides)
    return InstanceSegmentation(config, known_examples(SET))


OWN = task()


@jax.jit
def measured(outputs):
    """The metrics of the two images: the sum of their losses, and the predictions, cut at the border."""
    return OWN.measure(outputs, BATCH)


def pixel(outputs, image, row, column, prototype):
    """The value of a prototype at a pixel: outputs of a cell are its pixels, row by row, of each prototype."""
    cell = outputs[image, row // CELL, column // CELL, 6 + K :].reshape(K, CELL, CELL)
    return cell[prototype, row % CELL, column % CELL]


def test_the_loss_of_masks_is_the_cross_entropy_of_the_pixels_in_the_boxes():
    outputs = np.random.default_rng(0).normal(size=(2, 4, 6, 6 + K + K * CELL**2)).astype(np.float32)
    losses = []
    for number, (top, left, bottom, right) in enumerate(BOXES[0]):
        cell = int((top + bottom) / 2 / CELL), int((left + right) / 2 / CELL)
        own = np.tanh(outputs[0, cell[0], cell[1], 6 : 6 + K])
        wrong = []
        for row in range(top, bottom):
            for column in range(left, right):
                logit = sum(own[k] * pixel(outputs, 0, row, column, k) for k in range(K))
                wrong.append(np.log1p(np.exp(-logit if OBJECTS[0, row, column] == number + 1 else logit)))
        losses.append(np.mean(wrong))
    # Without coefficients a mask is 0.5 everywhere, whose cross-entropy is known.
    without = outputs.copy()
    without[..., 6 : 6 + K] = 0
    found = [float(measured(jnp.asarray(each))["loss"][0]) for each in (outputs, without)]
    assert found[0] - found[1] == pytest.approx(np.mean(losses) - np.log(2), rel=1e-4)


def perfect(scale=30.0):
    """Outputs that describe the true boxes and masks; the first prototype is the disc, the second the L."""
    outputs = np.full((2, 4, 6, 6 + K + K * CELL**2), -9, np.float32)
    for number, (top, left, bottom, right) in enumerate(BOXES[0]):
        place = np.array([(top + bottom) / 2, (left + right) / 2]) / CELL
        row, column = place.astype(int)
        outputs[0, row, column, number] = 5 - number
        outputs[0, row, column, 2:4] = place - (row, column)
        outputs[0, row, column, 4:6] = np.log([(bottom - top) / CELL, (right - left) / CELL])
        outputs[0, row, column, 6 : 6 + K] = np.where(np.arange(K) == number, 9, 0)
    maps = np.stack([DISC, ELL]) * 2.0 - 1
    cells = maps.reshape(K, 4, CELL, 6, CELL).transpose(1, 3, 0, 2, 4)
    outputs[0, ..., 6 + K :] = scale * cells.reshape(4, 6, -1)
    return jnp.asarray(outputs)


def test_masks_are_decoded_scored_and_cut_with_their_boxes():
    prediction = np.asarray(measured(perfect())["found"].values)
    assert prediction.shape == (2, 6, 6 + 4 + GRID**2)
    found = OWN.masked(prediction[0], (16, 24), least=0.5)
    assert found.classes.tolist() == [0, 1]
    for mask, true in zip(found.masks, (DISC, ELL), strict=True):
        assert (mask != true).sum() <= 4, "but for pixels at the corners of the border"
    cut = OWN.within(prediction[:1], (16, 18))
    assert not OWN.masked(cut[0], (16, 24), least=0.5).masks[1][:, 18:].any()
    scores = OWN.scores(train.averages(train.added({}, measured(perfect()))))
    assert scores["mask_ap50"] == scores["ap"] == 1.0
    # Without objects in the masks the boxes are as good, and the masks are not.
    scores = OWN.scores(train.averages(train.added({}, measured(perfect(-30.0)))))
    assert (scores["mask_ap50"], scores["ap"]) == (0.0, 1.0)


def test_files_have_the_masks_and_pictures_are_tinted(tmp_path):
    prediction = np.asarray(measured(perfect())["found"].values)[0]
    OWN.write_predictions(tmp_path, {"a.png": prediction}, {"a.png": (16, 24)})
    disc, ell, *_ = json.loads((tmp_path / "boxes.json").read_text())["annotations"]
    masks = OWN.masked(prediction, (16, 24), least=0.5).masks
    assert disc["segmentation"] == run_lengths(masks[0])
    assert (disc["area"], ell["area"]) == (masks[0].sum(), masks[1].sum())
    painted = OWN.painted(np.zeros((16, 24, 1), np.uint8), prediction)
    np.testing.assert_array_equal(painted.any(axis=-1), masks.any(axis=0))
    assert (painted[7, 6] != painted[12, 20]).any(), "classes have their own colours"


def test_a_mask_is_stretched_over_its_box():
    grid = np.zeros((4, 4))
    grid[:, 2:] = 1
    found = stretched(grid, np.array([2.0, 2.0, 10.0, 10.0]), np.array([2.0, 2.0, 8.0, 10.0]), (12, 12))
    expected = np.zeros((12, 12), bool)
    expected[2:8, 6:10] = True
    np.testing.assert_array_equal(found, expected)


def test_the_mask_of_an_ensemble_is_the_mean_of_those_of_its_networks():
    members = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 4, 6, 6 + K + K * CELL**2)), jnp.float32)
    coefficients, maps = OWN._mask_outputs(OWN.average(members))
    each = [OWN._mask_outputs(member) for member in members]
    logits = [np.einsum("brck,bhwk->brchw", *parts) for parts in each]
    np.testing.assert_allclose(np.einsum("brck,bhwk->brchw", coefficients, maps), np.mean(logits, axis=0), atol=1e-5)
    np.testing.assert_allclose(OWN.average(members)[..., :6], members[..., :6].mean(axis=0), atol=1e-6)


def test_without_a_head_or_numbers_of_the_objects_it_is_refused():
    with pytest.raises(UsageError, match=r"needs a head for masks; set model.options.prototypes, such as 8"):
        task(model={"options": {"prototypes": 0}})
    fields = {name: array for name, array in SET.fields.items() if name != "instance"}
    bare = data.Dataset("bare", "train", fields, {name: SET.spec[name] for name in fields})
    with pytest.raises(UsageError, match="objects needs the number of each object in it; give a field 'instance'"):
        InstanceSegmentation(default_config("instance_segmentation"), known_examples(bare))
