"""The networks of CycleGAN: what is made of a pair, the pool against a loop in Python, and published sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models, nn
from cnn_jax.errors import UsageError
from cnn_jax.models.cycle import Cycle, Pool
from cnn_jax.models.patch_gan import patch_gan


def test_a_pair_is_translated_there_and_back_and_kept_and_an_image_in_both_directions():
    cycle = Cycle(nn.Sequence({"plus": lambda x: x + 1}), nn.Sequence({"times": lambda x: 3 * x}), 1)
    first, second = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 1)).astype(np.float32)
    parts = dict(zip(Cycle.PARTS, np.split(cycle(np.concatenate([first, second], axis=-1)), 6, axis=-1), strict=True))
    expected = {
        "second": first + 1,
        "first": 3 * second,
        "first again": 3 * np.tanh((first + 1) / 2),
        "second again": np.tanh(3 * second / 2) + 1,
        "second kept": second + 1,
        "first kept": 3 * first,
    }
    assert parts.keys() == expected.keys()
    for name, image in expected.items():
        np.testing.assert_allclose(parts[name], image, rtol=1e-5, atol=1e-6, err_msg=name)
    short = Cycle(cycle.forward, cycle.backward, 1, keep=False)(np.concatenate([first, second], axis=-1))
    np.testing.assert_allclose(short, np.concatenate(list(expected.values())[:4], axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cycle(first), np.concatenate([first + 1, 3 * first], axis=-1), rtol=1e-6)
    with pytest.raises(UsageError, match="which cannot be translated back; use one that keeps the size"):
        Cycle(nn.Sequence({"cut": lambda x: x[:, 1:]}), nn.Sequence({"same": lambda x: x}), 1)(jnp.ones((1, 4, 4, 2)))


def test_the_pool_passes_on_each_image_or_exchanges_it_for_an_older_one():
    """What goes in is passed on or is in the pool afterwards, exactly once; about half of the images are exchanged."""
    pool, kept, exchanged = Pool(6, (2,), rngs=nnx.Rngs(0)), [], 0
    for batch in range(40):
        new = [3 * batch + number for number in range(3)]
        shown = np.asarray(pool(jnp.array([[number, -number] for number in new], jnp.float32)))
        assert (shown[:, 1] == -shown[:, 0]).all()
        if batch < 2:
            assert shown[:, 0].tolist() == new
            kept += new
        else:
            old = [number for number in shown[:, 0].tolist() if number not in new]
            exchanged += len(old)
            assert set(old) <= set(kept)
            assert all(one == own or one in old for one, own in zip(shown[:, 0].tolist(), new, strict=True))
            passed = set(shown[:, 0].tolist())
            kept = [number for number in kept if number not in old] + [one for one in new if one not in passed]
        stored = pool.images.get_value()[: len(kept), 0].tolist()
        assert sorted(stored) == sorted(kept)
    assert 40 < exchanged < 74, "57 of 114 are expected, with a standard deviation of 5"


def test_sizes_are_those_that_the_authors_print():
    """In millions: the generators with nine blocks, and the discriminators."""
    generator = nnx.eval_shape(lambda: models.create("resnet_generator"))
    discriminator = nnx.eval_shape(lambda: patch_gan(3, instance_norm=True, rngs=nnx.Rngs(0)))
    assert [round(geometry.parameter_count(model) / 1e6, 3) for model in (generator, discriminator)] == [11.378, 2.765]


@pytest.mark.parametrize(("size", "part"), [(30, "a multiple of 4 .* not 30; use 28 or 32"), (4, "at least 8, not 4")])
def test_sizes_that_do_not_fit_are_refused(size, part):
    with pytest.raises(UsageError, match=part):
        nnx.eval_shape(lambda: models.create("resnet_generator", input_shape=(size, 32, 3)))
    with pytest.raises(UsageError, match="blocks=0 must be at least 1"):
        models.create("resnet_generator", blocks=0)
