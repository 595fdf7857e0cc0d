"""Ops on arrays that are split over eight devices, under shard_map and on explicit meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax import nn, ops
from tests.compiled import compiled
from tests.ops import reference
from tests.ops.reference import Axis

SPLIT, WHOLE = PartitionSpec("batch"), PartitionSpec()


# name: a function of x (16, 5, 6, 3) and kernel (3, 3, 3, 4); compiling for eight devices takes its time
OPS = {
    "conv": lambda x, kernel: ops.conv(x, kernel, padding="SAME"),
    "conv, two batch axes": lambda x, kernel: ops.conv(x[:, None], kernel, padding=1, boundary="mirror", strides=2),
    "conv, three dimensions": lambda x, kernel: ops.conv(jnp.stack([x, x], 1), kernel[None], padding=1),
    "conv of crops to nothing": lambda x, kernel: ops.conv(x, kernel, input_dilation=4, padding=[(-1, -13), (0, 0)]),
    "conv by fft": lambda x, kernel: ops.conv(x, kernel, method="fft"),
    "depthwise": lambda x, kernel: ops.depthwise_conv(x, kernel[..., :2]),
    "transposed": lambda x, kernel: ops.conv_transpose(x, jnp.swapaxes(kernel, 2, 3), padding=1, boundary="mirror"),
    "col2im": lambda x, kernel: ops.col2im(ops.im2col(x, (2, 3)), (5, 6), (2, 3)),
    "max_pool": lambda x, kernel: ops.max_pool(x, (3, 3), strides=2, padding=1),
    "max_pool, wide": lambda x, kernel: ops.max_pool(x, (5, 6)),
    "avg_pool, wide": lambda x, kernel: ops.avg_pool(x, (5, 6)),
    "local_response_norm": lambda x, kernel: ops.local_response_norm(x, size=3, alpha=0.1),
}


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), "float32") for shape in [(16, 5, 6, 3), (3, 3, 3, 4)]]


@pytest.fixture(scope="module")
def alone(arrays):
    return compiled(everything)(*arrays)


def everything(x, kernel):
    """The output of every op, its sum of squares, and the gradients of that."""

    def one(op):
        def loss(x, kernel):
            y = op(x, kernel)
            return (y**2).sum(), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, kernel)

    return {name: one(op) for name, op in OPS.items()}


def assert_same(actual, expected):
    for name, results in expected.items():
        for left, right in zip(jax.tree.leaves(actual[name]), jax.tree.leaves(results), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4 * np.abs(right).max(), err_msg=name)


def test_explicit_mesh(arrays, alone):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
    x, kernel = (jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, (SPLIT, WHOLE), strict=True))
    together = compiled(everything)(x, kernel)
    assert_same(together, alone)
    (_, y), (dx, dkernel) = together["conv"]
    assert y.sharding.spec[0] == dx.sharding.spec[0] == "batch"
    assert dkernel.sharding.is_fully_replicated


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)])
def test_images_split_along_a_spatial_axis(shape):
    """XLA alone makes the kernel gradient too large by the number of copies on the other axis of the mesh."""
    mesh = jax.make_mesh(shape, ("batch", "space"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rng = np.random.default_rng(0)
    axes = {1: [Axis(16, 3, 1, 1, 1)], 2: [Axis(16, 3, 1, 1, 1), Axis(8, 3, 2, 0, 1)]}
    for rank, spec in [(1, (None, "space")), (2, (None, "space")), (2, (None, None, "space")), (2, ("batch", "space"))]:
        space, window = [axis.size for axis in axes[rank]], (3,) * rank
        x, kernel = rng.standard_normal((8, *space, 9)), rng.standard_normal((*window, 9, 4))
        x, kernel = x.astype(np.float32), kernel.astype(np.float32)

        def products(x, kernel, rank=rank):
            strides, padding = (1, 2)[:rank], ((1, 1), (0, 1))[:rank]
            y, pull = jax.vjp(lambda x, kernel: ops.conv(x, kernel, strides=strides, padding=padding), x, kernel)
            return y, pull(jnp.sin(y))[1]

        split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
        y, gradient = compiled(products)(split, kernel)
        np.testing.assert_allclose(y, reference.conv(x, kernel, axes[rank]), rtol=1e-4, atol=1e-4)
        expected = reference.kernel_gradient(x, np.sin(np.asarray(y)), axes[rank])
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3, err_msg=f"{rank} {spec}")


def test_images_of_many_models_split_along_a_spatial_axis():
    mesh = jax.make_mesh((4, 2), ("batch", "space"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8, 16, 9)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 9, 4)).astype(np.float32)

    def gradient(x, kernel):
        y, pull = jax.vjp(lambda kernel: ops.conv(x, kernel, padding=1), kernel)
        return y, pull(jnp.sin(y))[0]

    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(None, None, "space")))
    y, gradients = compiled(jax.vmap(gradient))(split, kernel)
    for model in range(3):
        expected = reference.kernel_gradient(x[model], np.sin(np.asarray(y[model])), [Axis(16, 3, 1, 1, 1)])
        np.testing.assert_allclose(gradients[model], expected, rtol=1e-3, atol=1e-3)


def of_batch(x, kernel):
    """Of all examples together: what follows from its statistics does not depend on where they are."""

    def loss(x, kernel):
        y, mean, variance = ops.normalize_by_batch(x, scale=kernel[0, 0, :, 0], bias=kernel[0, 1, :, 1])
        again = ops.batch_norm(x, mean=mean, variance=variance)
        return (y**3).sum() + (again * y).sum(), (y, mean, variance, ops.batch_statistics(x[:, 0]))

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(x, kernel)


@pytest.mark.parametrize("spec", [("batch",), ("batch", None, None, "channels")])
def test_batch_norm_on_an_explicit_mesh(arrays, spec):
    expected = compiled(of_batch)(*arrays)
    shape = (8, 1) if len(spec) == 1 else (2, 3)
    mesh = jax.make_mesh(shape, ("batch", "channels"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    x = jax.device_put(arrays[0], NamedSharding(mesh, PartitionSpec(*spec)))
    kernel = jax.device_put(arrays[1], NamedSharding(mesh, WHOLE))
    if len(spec) > 1:
        kernel = jax.device_put(arrays[1], NamedSharding(mesh, PartitionSpec(None, None, "channels")))
    together = compiled(of_batch)(x, kernel)
    for actual, right in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-4 * np.abs(right).max())
    (_, (y, mean, _, _)), (dx, _) = together
    assert y.sharding.is_equivalent_to(x.sharding, 4)
    assert dx.sharding.is_equivalent_to(x.sharding, 4)
    assert mean.sharding.spec[0] == (spec[3] if len(spec) > 1 else None)


def test_layers_on_an_explicit_mesh(arrays):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = jax.device_put(arrays[0], NamedSharding(mesh, SPLIT))
    norm, dropout = nn.BatchNorm(3, rngs=nnx.Rngs(0)), nn.Dropout(0.5, rngs=nnx.Rngs(0))
    alone = nn.BatchNorm(3, rngs=nnx.Rngs(0))
    with jax.set_mesh(mesh):
        y, dropped = norm(x), dropout(x)
    np.testing.assert_allclose(y, alone(arrays[0]), atol=1e-5)
    np.testing.assert_allclose(norm.var[...], alone.var[...], rtol=1e-5)
    np.testing.assert_array_equal(dropped, nn.Dropout(0.5, rngs=nnx.Rngs(0))(arrays[0]))
    assert y.sharding.spec[0] == dropped.sharding.spec[0] == "batch"


def test_shard_map(arrays, alone):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def on_each(x, kernel):
        # JAX itself adds up the gradients of what all devices share.
        return {
            name: ((jax.lax.psum(loss, "batch"), y), gradients)
            for name, ((loss, y), gradients) in everything(x, kernel).items()
        }

    specs = dict.fromkeys(OPS, ((WHOLE, SPLIT), (SPLIT, WHOLE)))
    sharded = jax.shard_map(on_each, mesh=mesh, in_specs=(SPLIT, WHOLE), out_specs=specs)
    assert_same(compiled(sharded)(*arrays), alone)
