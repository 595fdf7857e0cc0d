"""GoogLeNet against the published counts, and its auxiliary heads and blocks against the paper's figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models
from cnn_jax.errors import UsageError
from cnn_jax.models.googlenet import AUXILIARY_LOGITS
from tests.compiled import compiled
from tests.models.traced import abstract, table, total

MODULES = {
    "3a": 163_696,
    "3b": 388_736,
    "4a": 376_176,
    "4b": 449_160,
    "4c": 510_104,
    "4d": 605_376,
    "4e": 868_352,
    "5a": 1_043_456,
    "5b": 1_444_080,
}


def head(channels: int, batch_norm: bool) -> int:
    """The parameters of a 1x1 convolution to 128 channels, and of dense layers from 4x4x128 to 1024 to 1000."""
    return 128 * channels + (2 if batch_norm else 1) * 128 + 2048 * 1024 + 1024 + 1024 * 1000 + 1000


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("googlenet", 6_998_552, 1_582_671_872), ("googlenet_torchvision", 6_624_904, 1_498_376_192)],
)
def test_counts_are_the_published_ones(name: str, parameters: int, multiply_adds: int) -> None:
    assert (total(name).parameters, total(name).multiply_adds) == (parameters, multiply_adds)
    heads = sum(head(channels, name == "googlenet_torchvision") for channels in (512, 528))
    assert geometry.parameter_count(abstract(name)) == parameters + heads


def test_heads_can_be_left_out() -> None:
    assert geometry.parameter_count(abstract("googlenet", auxiliary_heads=False)) == 6_998_552


def test_modules_have_the_parameters_of_the_table() -> None:
    rows = table("googlenet").values()
    found = {name: sum(row.parameters for row in rows if row.name.startswith(f"inception{name}/")) for name in MODULES}
    assert found == MODULES


@pytest.mark.parametrize("name", ["googlenet", "googlenet_torchvision"])
def test_maps_have_the_sizes_of_the_paper(name: str) -> None:
    rows = table(name)
    conv3, blocks = "conv3/conv", ["3b", "4e", "5b"]
    shapes = [rows[layer].output_shape for layer in ("conv1/conv", "maxpool1", conv3, "maxpool2")]
    assert shapes == [(112, 112, 64), (56, 56, 64), (56, 56, 192), (28, 28, 192)]
    assert [rows[f"inception{block}/concatenate"].output_shape for block in blocks] == [
        (28, 28, 480),
        (14, 14, 832),
        (7, 7, 1024),
    ]


def test_torchvisions_windows_are_smaller() -> None:
    window = {
        name: table(name)["inception3a/5x5/conv/conv"].kernel_size for name in ("googlenet", "googlenet_torchvision")
    }
    assert window == {"googlenet": (5, 5), "googlenet_torchvision": (3, 3)}
    assert table("googlenet_torchvision")["maxpool4"].kernel_size == (2, 2)
    assert abstract("googlenet_torchvision").conv1.bn.epsilon == 1e-3


def test_a_field_is_that_of_the_largest_branch() -> None:
    """Before the module the field is 27 with jump 8; the 5x5 branch adds 4 jumps."""
    rows = table("googlenet")
    assert rows["maxpool2"].receptive_field.size == (27, 27)
    sizes = {branch: rows[f"inception3a/{branch}/conv/conv"].receptive_field.size[0] for branch in ("3x3", "5x5")}
    assert sizes == {"3x3": 27 + 2 * 8, "5x5": 27 + 4 * 8}
    assert rows["inception3a/1x1/conv"].receptive_field.size == (27, 27)
    assert rows["inception3a/concatenate"].receptive_field.size == (27 + 4 * 8,) * 2


def test_the_naive_block_passes_all_channels_on() -> None:
    rows = table("inception_naive", auxiliary_heads=False)
    assert rows["inception3a/concatenate"].output_shape == (28, 28, 64 + 128 + 32 + 192)
    positions, channels = 28 * 28, 192
    block = sum(row.multiply_adds for row in rows.values() if row.name.startswith("inception3a/"))
    assert block == positions * channels * (64 + 9 * 128 + 25 * 32)
    reduced = sum(row.multiply_adds for row in table("googlenet").values() if row.name.startswith("inception3a/"))
    assert block > 2.3 * reduced


def test_heads_run_in_training_only() -> None:
    model = abstract("googlenet")
    assert not any(name.startswith("aux") for name in table("googlenet"))
    rows = geometry.trace(model, (224, 224, 3), train=True)
    names = [row.name for row in rows]
    assert names.index("inception4a/concatenate") < names.index("aux1/fc2") < names.index("inception4b/1x1/conv")
    assert {row.output_shape for row in rows if row.name in AUXILIARY_LOGITS} == {(1000,)}
    assert [row.output_shape for row in rows if row.name.endswith("/avgpool")] == [(4, 4, 512), (4, 4, 528)]
    assert geometry.total(rows).parameters == geometry.parameter_count(model)


def test_starts_as_caffes_version() -> None:
    """Biases of 0.2, but 0 in the output layers; dropout of 0.4, and of 0.7 in the heads."""

    def biases() -> dict[str, jax.Array]:
        model = models.create("googlenet", width=1 / 64)
        return {
            "/".join(map(str, path)): jnp.stack([bias[...].min(), bias[...].max()])
            for path, bias in nnx.to_flat_state(nnx.state(model, nnx.Param))
            if path[-1] == "bias"
        }

    zero = {"aux1/fc2/bias", "aux2/fc2/bias", "fc/bias"}
    found = compiled(biases)()
    assert found.keys() > zero | {"conv1/conv/bias", "aux1/fc1/bias"}
    assert all((values == np.float32(0 if name in zero else 0.2)).all() for name, values in found.items())
    model = abstract("googlenet")
    assert [part.dropout.rate for part in (model, model.aux1, model.aux2)] == [0.4, 0.7, 0.7]


def test_too_small_an_input_names_the_heads() -> None:
    with pytest.raises(UsageError, match=r"64x64x3: auxiliary head: .* 5x5 .*auxiliary_heads=False"):
        nnx.eval_shape(lambda: models.create("googlenet", input_shape=(64, 64, 3), rngs=nnx.Rngs(0)))
