"""Tables of networks in plain Flax, against tables of the same networks with named layers, and against hand counts."""

import jax.numpy as jnp
import pytest
from flax import nnx
from jax import lax

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError

SHAPE = (24, 20, 3)


class Block(nnx.Module):
    """A residual block."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(features, rngs=rngs)
        self.conv2 = nnx.Conv(features, features, (3, 3), rngs=rngs)

    def __call__(self, x):
        return x + self.conv2(nnx.relu(self.bn(self.conv1(x))))


class Net(nnx.Module):
    """A network with a stem, functions between the layers, a block that is used twice, dropout and an output."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (5, 5), strides=2, padding="VALID", rngs=rngs)
        self.blocks = nnx.List([Block(8, rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(8, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), strides=(2, 2))
        for block in self.blocks:
            x = block(block(x))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        return self.fc(self.dropout(x.mean(axis=(1, 2))))


@pytest.fixture(scope="module")
def rows() -> dict[str, geometry.Row]:
    return {row.name: row for row in geometry.trace(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), SHAPE)}


def named() -> nn.Sequence:
    rngs = nnx.Rngs(0)

    def block() -> nn.Residual:
        conv = {"conv1": nn.Conv(8, 8, (3, 3), use_bias=False, rngs=rngs), "bn": nn.BatchNorm(8, rngs=rngs)}
        return nn.Residual(conv | {"relu": ops.relu, "conv2": nn.Conv(8, 8, (3, 3), rngs=rngs)})

    return nn.Sequence(
        {
            "stem": nn.Conv(3, 8, (5, 5), strides=2, padding="VALID", rngs=rngs),
            "relu": ops.relu,
            "pool": nn.MaxPool((3, 3), strides=2),
            "first": block(),
            "second": block(),
            "mean": nn.AvgPool((2, 2), strides=2),
            "whole": ops.global_avg_pool,
            "fc": nn.Linear(8, 10, rngs=rngs),
        }
    )


def test_rows_are_those_of_the_same_network_of_named_layers(rows) -> None:
    known = {row.name: row for row in geometry.trace(nnx.eval_shape(named), SHAPE)}
    pairs = {"stem": "stem", "fc": "fc"}
    for number, name in (("", "first"), ("#2", "second")):
        pairs |= {f"blocks/0/{layer}{number}": f"{name}/branch/{layer}" for layer in ("conv1", "bn", "conv2")}
    assert list(rows) == [name for name in pairs if name != "fc"] + ["dropout", "fc"]
    for name, own in pairs.items():
        row, other = rows[name], known[own]
        for field in ("kind", "output_shape", "kernel_size", "strides", "receptive_field", "multiply_adds"):
            assert getattr(row, field) == getattr(other, field), (name, field)
        assert row.parameters == (0 if "#2" in name else other.parameters), name


def test_fields_by_hand(rows) -> None:
    """5 in the stem, 4 more in the pool; then four windows of 3 with jump 4; then the whole image."""
    sizes = {name: rows[name].receptive_field.size for name in ("stem", "blocks/0/conv1", "blocks/0/conv2#2")}
    assert sizes == {"stem": (5, 5), "blocks/0/conv1": (9 + 8,) * 2, "blocks/0/conv2#2": (9 + 4 * 8,) * 2}
    assert rows["blocks/0/conv1"].receptive_field.jump == (4, 4)
    assert geometry.total(list(rows.values())).parameters == geometry.parameter_count(Net(nnx.Rngs(0)))


class Rolled(nnx.Module):
    """A network with an operation between the layers that moves positions."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.a, self.b = (nnx.Conv(3, 3, (3, 3), rngs=rngs) for _ in range(2))

    def __call__(self, x):
        return self.b(jnp.roll(self.a(x), 1, axis=1))


def test_unknown_fields_are_none() -> None:
    first, second = geometry.trace(Rolled(nnx.Rngs(0)), SHAPE)
    assert (first.receptive_field.size, second.receptive_field) == ((3, 3), None)
    assert second.output_shape == SHAPE


class Shared(nnx.Module):
    """A network with loops and conditionals, a kernel that two layers share, and its own kernel."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.a, self.b = (nnx.Conv(3, 3, (3, 3), rngs=rngs) for _ in range(2))
        self.b.kernel = self.a.kernel
        self.large = nnx.Conv(3, 3, (5, 5), rngs=rngs)
        self.own = nnx.Param(jnp.ones((1, 1, 3, 2)))

    def __call__(self, x):
        x = lax.while_loop(lambda x: x.sum() < 9, self.a, x)
        x = lax.cond(x.sum() > 0, self.b, self.large, x)
        return lax.conv_general_dilated(x, self.own[...], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_counts_in_loops_and_conditionals_and_outside_layers() -> None:
    """One step of a loop of unknown length, the larger of two branches, and a row for the network's own product."""
    a, large, own = geometry.trace(Shared(nnx.Rngs(0)), SHAPE)
    pixels = 24 * 20
    assert (a.name, a.runs, a.parameters, a.multiply_adds) == ("a", None, 84, pixels * 81)
    assert (a.receptive_field.size, large.receptive_field) == ((3, 3), None)
    assert (large.name, large.runs, large.multiply_adds) == ("large", 1, pixels * 225)
    assert (own.name, own.parameters, own.multiply_adds) == ("", 6, pixels // 4 * 6)


class Ensemble(nnx.Module):
    """Three layers of one kind in parallel, and a matrix product in another form."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.many = nnx.vmap(lambda rngs: nnx.Conv(3, 4, (3, 3), rngs=rngs))(rngs.split(3))
        self.mix = nnx.Einsum("nhwec,ecf->nhwf", (3, 4, 5), rngs=rngs)

    def __call__(self, x):
        return self.mix(nnx.vmap(lambda conv, x: conv(x), in_axes=(0, None), out_axes=3)(self.many, x))


def test_layers_that_run_side_by_side_count_as_often() -> None:
    many, mix = geometry.trace(Ensemble(nnx.Rngs(0)), SHAPE)
    assert (many.output_shape, many.runs, many.parameters) == ((24, 20, 4), 3, 3 * (9 * 12 + 4))
    assert (many.multiply_adds, many.activation_bytes) == (3 * 24 * 20 * 9 * 12, 3 * 24 * 20 * 4 * 4)
    assert (mix.multiply_adds, mix.receptive_field.size) == (24 * 20 * 3 * 4 * 5, (3, 3))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ([nn.MaxPool((2, 2))], {}, r"a list is not an nnx.Module; put layers into one, nn.Sequence"),
        (jnp.tanh, {}, "is not an nnx.Module"),
        (nnx.Linear(3, 4, rngs=nnx.Rngs(0)), {"train": True}, "train=True is for networks that name"),
        (Net(nnx.Rngs(0)), {"input_shape": (24, 20, 4)}, r"Net does not take inputs of shape \(1, 24, 20, 4\)"),
    ],
)
def test_mistakes_are_named(model, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        geometry.trace(model, options.pop("input_shape", SHAPE), **options)
