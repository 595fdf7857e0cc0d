"""Every method against the NumPy loop: outputs and both gradients, for random combinations of arguments."""

import collections
import functools
import math
import random

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from cnn_jax import ops
from tests.compiled import compiled
from tests.ops import reference
from tests.ops.cases import (
    BOUNDARIES,
    DTYPES,
    NAMES,
    TINY,
    UNIT,
    build,
    close,
    searched,
    summed_in,
    varied,
)

METHODS = ["auto", "direct", "im2col", "toeplitz", "fft", "winograd", "winograd_f43"]


def bounds(case, method, terms, left, right, products):
    """The documented bound on the error of sums of ``terms`` products of entries of ``left`` and ``right``.

    ``products`` are the same sums of absolute values. The last rounding, to the dtype of the result, comes on top; in
    a narrow dtype also the few additions that undo a boundary rule.
    """
    unit = UNIT[summed_in(case.dtype)]
    rank = len(case.axes)
    largest = np.abs(left).max() * np.abs(right).max()
    if method == "fft":
        points = math.prod(axis.extent + abs(axis.low) + abs(axis.high) + axis.stride for axis in case.axes)
        error = 10 * unit * math.log2(points + 2) * np.linalg.norm(left) * np.linalg.norm(right)
    elif method.startswith("winograd"):
        error = (terms + 4) * unit * {"winograd": 9, "winograd_f43": 190}[method] ** rank * largest
    else:
        error = (terms + 4) * unit * products
    return error + 4 * UNIT[case.dtype] * products + TINY[case.dtype] * (1 + terms)


def assert_output(case, method):
    with jax.enable_x64(case.dtype == "float64"):
        x, kernel, _ = case.arrays()
        options = {**case.options, "boundary_value": case.value, "mask": case.mask(), "method": method}
        y = compiled(functools.partial(ops.conv, **options))(x, kernel)
    assert y.dtype == case.dtype
    assert y.shape == (*case.batch, *case.output, case.groups * case.features)
    assert_equal_output(case, method, x, kernel, y)


def assert_equal_output(case, method, x, kernel, y):
    left, kernel, value = case.merged(x), case.seen(kernel), case.value
    expected = reference.conv(left, kernel, case.axes, value=value, **case.rule)
    products = reference.conv(np.abs(left), np.abs(kernel), case.axes, value=abs(value), **case.rule)
    everything = np.append(left.ravel(), value) if case.boundary == "constant" else left
    terms = math.prod(case.window) * kernel.shape[-2]
    close(y, expected, bounds(case, method, terms, everything, kernel, products), "output")


def assert_gradients(case, method):
    with jax.enable_x64(case.dtype == "float64"):
        x, kernel, dy = case.arrays()
        mask, value = case.mask(), case.value

        @compiled
        def run(x, kernel, dy):
            options = {**case.options, "boundary_value": value, "mask": mask}
            conv = functools.partial(ops.conv, **options, method=method)
            y, vjp = jax.vjp(conv, x, kernel)
            return y, *vjp(dy)

        y, dx, dkernel = run(x, kernel, dy)
    assert y.shape == dy.shape
    assert {y.dtype.name, dx.dtype.name, dkernel.dtype.name} == {case.dtype}

    assert_equal_output(case, method, x, kernel, y)

    kernel, left, right, value = case.seen(kernel), case.merged(x), case.merged(dy), case.value
    sizes = [np.abs(array) for array in (left, kernel, right)]
    expected = reference.conv_transpose(right, kernel, case.axes, **case.rule)
    products = reference.conv_transpose(sizes[2], sizes[1], case.axes, **case.rule)
    terms = math.prod(case.window) * case.features * math.prod(case.output)
    close(dx, expected, bounds(case, method, terms, right, kernel, products), "input gradient")

    expected = case.seen(reference.kernel_gradient(left, right, case.axes, value=value, **case.rule))
    products = case.seen(reference.kernel_gradient(sizes[0], sizes[2], case.axes, value=abs(value), **case.rule))
    everything = np.append(left.ravel(), value) if case.boundary == "constant" else left
    terms = math.prod(right.shape[:-1])
    close(dkernel, expected, bounds(case, method, terms, everything, right, products), "kernel gradient")


def assert_adjoint(case, method):
    """The transposed convolution against the reference's adjoint, at the very size that the case starts from."""
    with jax.enable_x64(case.dtype == "float64"):
        _, kernel, y = case.arrays()
        options = {**case.options, "mask": case.mask(), "method": method, "output_shape": case.sizes}
        x = compiled(functools.partial(ops.conv_transpose, **options))(y, kernel)
    assert x.dtype == case.dtype
    assert x.shape == (*case.batch, *case.sizes, case.groups * case.per_group)
    kernel, y = case.seen(kernel), case.merged(y)
    expected = reference.conv_transpose(y, kernel, case.axes, **case.rule)
    products = reference.conv_transpose(np.abs(y), np.abs(kernel), case.axes, **case.rule)
    terms = math.prod(case.window) * case.features * math.prod(case.output)
    close(x, expected, bounds(case, method, terms, y, kernel, products), "transposed convolution")


def assert_matrices(case):
    """The Toeplitz matrix, im2col and its adjoint, and unshared weights, all in float64."""
    with jax.enable_x64(True):
        x, kernel, y = case.arrays()
        sliding = {name: case.options[name] for name in ("strides", "padding", "input_dilation", "kernel_dilation")}
        sliding |= {"boundary": case.boundary, "rounding": case.rounding}
        shape = (*case.output, *kernel.shape)
        local = np.random.default_rng(case.seed).standard_normal(shape)

        @compiled
        def run(x, kernel, y, local):
            columns = ops.im2col(x, case.window, **sliding)
            return (
                ops.toeplitz_matrix(kernel, case.sizes, **case.options, mask=case.mask()),
                columns,
                ops.col2im(columns, case.sizes, case.window, **sliding),
                ops.conv_local(x, local, feature_group_count=case.groups, **sliding),
            )

        matrix, columns, image, y_local = (np.asarray(array) for array in run(x, kernel, y, local))
    left, right = case.merged(x), case.merged(y)
    forward = reference.conv(left, case.seen(kernel), case.axes, **case.rule)
    backward = reference.conv_transpose(right, case.seen(kernel), case.axes, **case.rule)
    count = len(left)
    np.testing.assert_allclose(left.reshape(count, -1) @ matrix.T, forward.reshape(count, -1), atol=1e-11)
    np.testing.assert_allclose(right.reshape(count, -1) @ matrix, backward.reshape(count, -1), atol=1e-11)

    rows = np.zeros((count, *case.output, *case.window, left.shape[-1]))
    unshared = np.zeros(forward.shape)
    groups = [reference.grouped(total, case.groups) for total in (left.shape[-1], right.shape[-1])]
    for p, t, q, _ in reference.links(case.axes, case.boundary, case.rounding):
        if q is not None:
            rows[(slice(None), *p, *t)] = left[(slice(None), *q)]
            for inputs, outputs in zip(*groups, strict=True):
                entry = local[(*p, *t)][:, outputs]
                unshared[(slice(None), *p, outputs)] += left[(slice(None), *q)][:, inputs] @ entry
    back = np.zeros(left.shape)
    for p, t, q, _ in reference.links(case.axes, case.boundary, case.rounding):
        if q is not None:
            back[(slice(None), *q)] += rows[(slice(None), *p, *t)]
    np.testing.assert_array_equal(columns.reshape(rows.shape), rows)
    np.testing.assert_allclose(image.reshape(back.shape), back, atol=1e-11)
    np.testing.assert_allclose(y_local.reshape(unshared.shape), unshared, atol=1e-11)


def traits(case):
    """What is special about a case."""
    yield from {f"rank {len(case.axes)}", case.boundary, f"rounding {case.rounding}", case.dtype}
    yield case.padding if isinstance(case.padding, str) else "numbers"
    yield f"batch {len(case.batch)}"
    special = {
        "negative padding": any(min(axis.low, axis.high) < 0 for axis in case.axes),
        "padding >= kernel": any(max(axis.low, axis.high) >= axis.reach for axis in case.axes),
        "padding >= input": any(max(axis.low, axis.high) >= axis.extent for axis in case.axes),
        "kernel > input": any(axis.reach > axis.extent for axis in case.axes),
        "uneven padding": any(axis.low != axis.high for axis in case.axes),
        "groups": case.groups > 1,
        "depthwise": case.groups > 1 == case.per_group,
        "flipped": case.flip,
        "masked": case.masked,
    }
    steps = {
        name: any(getattr(axis, name) > 1 for axis in case.axes) for name in ("stride", "dilation", "input_dilation")
    }
    special |= steps
    special |= {f"{case.boundary}, {name}": some for name, some in steps.items()}
    special["strided, with a rest"] = any(
        (axis.extent + axis.low + axis.high - axis.reach) % axis.stride for axis in case.axes
    )
    special[f"{case.rounding}, {len(case.axes)} axes, strided"] = steps["stride"]
    yield from (name for name, some in special.items() if some)


def test_cases_have_everything_that_can_be_combined():
    rng = random.Random(0)
    counts = collections.Counter(trait for _ in range(300) for trait in set(traits(build(rng.choice))))
    expected = [
        *(f"rank {rank}" for rank in (1, 2, 3, 4)),
        *NAMES,
        "numbers",
        *BOUNDARIES,
        *DTYPES,
        *(f"rounding {name}" for name in ("strict", "floor", "ceil")),
        *("batch 0", "batch 1", "batch 2"),
        *("negative padding", "padding >= kernel", "padding >= input", "kernel > input", "uneven padding"),
        *("groups", "depthwise", "flipped", "masked", "strided, with a rest"),
        *(f"{name}, {step}" for name in BOUNDARIES for step in ("stride", "dilation", "input_dilation")),
        *(f"{name}, {rank} axes, strided" for name in ("strict", "floor", "ceil") for rank in (1, 2, 3, 4)),
    ]
    assert not {trait: counts[trait] for trait in expected if counts[trait] < 3}


def few(count):
    """The same cases in every run, as different from each other as possible."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def many(count):
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def fit(method):
    """The choices that a method supports. F(m, 3) transposed needs steps of 1 as well."""
    return {"winograd": method.startswith("winograd")}


@pytest.mark.parametrize("method", METHODS)
def test_output(method):
    few(20)(given(case=varied(**fit(method)))(lambda case: assert_output(case, method)))()


@pytest.mark.parametrize("method", METHODS)
def test_output_and_both_gradients(method):
    few(12)(given(case=varied(**fit(method)))(lambda case: assert_gradients(case, method)))()


@pytest.mark.parametrize("method", METHODS)
def test_conv_transpose_is_the_adjoint(method):
    few(8)(given(case=varied(**fit(method), linear=True))(lambda case: assert_adjoint(case, method)))()


@few(20)
@given(case=varied(linear=True, dtypes=["float64"]))
def test_matrices_and_unshared_weights(case):
    assert_matrices(case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("method", METHODS)
def test_output_and_both_gradients_by_thousands(method, part):
    many(150)(given(case=searched(**fit(method)))(lambda case: assert_gradients(case, method)))()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_conv_transpose_by_thousands(method):
    many(120)(given(case=searched(**fit(method), linear=True))(lambda case: assert_adjoint(case, method)))()


@pytest.mark.slow
@many(300)
@given(case=searched(linear=True, dtypes=["float64"]))
def test_matrices_by_thousands(case):
    assert_matrices(case)
