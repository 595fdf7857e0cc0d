"""Lists of augmentations in configs; a result depends only on the key of its example."""

import inspect

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_jax.data import augment
from cnn_jax.errors import UsageError

KEY = jax.random.key(11)
SEVERAL = ("alternating_flip", "pad_and_crop(padding=2, mode='mirror')", "color_pca")
COVARIANCE = ((0.1, 0.05, 0.05), (0.05, 0.1, 0.05), (0.05, 0.05, 0.1))


def batch(count: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (8, 10, 10, 3), np.uint8)
    labels, numbers = np.arange(8, dtype=np.int32), np.arange(100, 108, dtype=np.int32)
    return {"image": images[:count], "label": labels[:count], "index": numbers[:count]}


def compiled(calls: tuple[str, ...]):
    augmentation = augment.Augmentation(calls, num_classes=8, covariance=COVARIANCE)
    return jax.jit(lambda batch, step: augmentation(KEY, batch, step=step, epoch=step // 5))


def test_every_augmentation_has_its_key_first_and_keyword_only_options():
    for function in augment.AUGMENTATIONS.values():
        parameters = inspect.signature(function).parameters
        assert list(parameters)[:2] == ["key", "images"]
        kinds = {parameter.kind for name, parameter in parameters.items() if name not in ("key", "images", "labels")}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_neither_the_size_of_the_batch_nor_its_devices_have_a_part_in_the_result():
    run = compiled(SEVERAL)
    whole = run(batch(8), 3)["image"]
    np.testing.assert_allclose(run(batch(4), 3)["image"], whole[:4], atol=1e-6)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    placed = jax.device_put(batch(8), NamedSharding(mesh, PartitionSpec("data")))
    np.testing.assert_allclose(run(placed, 3)["image"], whole, atol=1e-6)
    assert len(placed["image"].sharding.device_set) == 4


def test_steps_and_examples_differ_and_repetitions_do_not():
    run = compiled(("pad_and_crop(padding=3)", "brightness"))
    same = {**batch(8), "image": np.broadcast_to(batch(1)["image"], (8, 10, 10, 3))}
    first, second = run(same, 0)["image"], run(same, 1)["image"]
    np.testing.assert_array_equal(run(same, 0)["image"], first)
    rows = np.concatenate([first, second]).reshape(16, -1)
    assert len(np.unique(rows, axis=0)) == 16


def test_works_inside_a_scan_and_under_vmap():
    augmentation = augment.Augmentation(("mixup(alpha=1)",), num_classes=8)
    one = compiled(("mixup(alpha=1)",))

    def body(step, _):
        return step + 1, augmentation(KEY, batch(8), step=step, epoch=0)

    _, scanned = jax.jit(lambda: jax.lax.scan(body, 0, length=3))()
    for step in range(3):
        np.testing.assert_allclose(scanned["label"][step], one(batch(8), step)["label"], atol=1e-6)
    shapes = jax.eval_shape(
        jax.vmap(lambda key: augmentation(key, batch(8), step=0, epoch=0)), jax.random.split(KEY, 2)
    )
    assert shapes["image"].shape == (2, 8, 10, 10, 3)
    np.testing.assert_allclose(scanned["label"].sum(axis=-1), 1, rtol=1e-6)


def test_labels_become_distributions_only_where_pictures_are_mixed():
    assert not augment.Augmentation(("flip",), num_classes=8).mixes
    plain = compiled(("flip",))(batch(8), 0)
    np.testing.assert_array_equal(plain["label"], np.arange(8))
    mixed = jax.eval_shape(compiled(("flip", "cutmix")), batch(8), 0)
    assert mixed["label"].shape == (8, 8)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("flop", "unknown augmentation 'flop'; did you mean 'flip'?"),
        ("pad_and_crop(paddin=4)", "pad_and_crop has no option 'paddin'; did you mean 'padding'?"),
        ("pad_and_crop(4)", "'pad_and_crop(4)' is not an augmentation with options"),
        ("pad_and_crop(padding=", "is not an augmentation with options"),
        ("cutout(size=int('4'))", "is not an augmentation with options"),
        ("cutout(**{'size': 4})", "cutout has no option 'None'"),
        ("color_pca(covariance=((1.0,),))", "color_pca has no option 'covariance'"),
        ("alternating_flip(epoch=1)", "alternating_flip has no option 'epoch'; it has no options"),
        ("__import__('os')", "is not an augmentation with options"),
    ],
)
def test_what_a_config_may_not_say(call, complaint):
    with pytest.raises(UsageError) as caught:
        augment.Augmentation([call], num_classes=2)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
