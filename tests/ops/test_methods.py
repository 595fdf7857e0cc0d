"""The methods' constants, the rule that chooses them, and the tuner. Their errors are in test_conv_errors."""

import fractions
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import native, ops
from cnn_jax.errors import UsageError
from cnn_jax.ops import methods
from cnn_jax.ops.canonical import operands, windows
from cnn_jax.ops.winograd import F23, F43


@pytest.mark.parametrize("transform", [F23, F43])
def test_winograd_is_exact_in_rational_numbers(transform):
    # The identity A^T [(G g) * (B^T d)] = correlation, on all pairs of unit vectors, without any rounding.
    rational = [[[fractions.Fraction(entry).limit_denominator(1000) for entry in row] for row in m] for m in transform]
    output, kernel, inputs = (np.array(matrix, dtype=object) for matrix in rational)
    outputs, points = output.shape
    for tap, position in itertools.product(range(3), range(points)):
        y = output @ (kernel[:, tap] * inputs[:, position])
        assert list(y) == [int(position == row + tap) for row in range(outputs)]


@pytest.mark.parametrize(("method", "worst"), [("winograd", 4), ("winograd_f43", 60)])
def test_winograd_loses_as_much_accuracy_as_documented(method, worst):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 32, 32, 64)), rng.standard_normal((3, 3, 64, 16))
    with jax.enable_x64(True):
        exact = np.asarray(ops.conv(jnp.asarray(x), jnp.asarray(kernel), method="direct"))
    x, kernel = jnp.asarray(x, "float32"), jnp.asarray(kernel, "float32")
    sums = ops.conv(x, kernel, method="direct", precision="highest")  # without a precision, kernels use Winograd's, too
    direct, fast = (np.abs(np.asarray(y) - exact).mean() for y in (sums, ops.conv(x, kernel, method=method)))
    assert 0.5 * direct < fast < worst * direct


def test_auto_is_a_rule_and_not_a_race():
    x, kernel = jnp.ones((2, 12, 12, 3)), jnp.ones((3, 3, 3, 8))
    programs = {jax.jit(lambda x, k: ops.conv(x, k)).lower(x, kernel).as_text() for _ in range(3)}
    assert len(programs) == 1


def test_every_method_says_what_it_supports():
    assert list(ops.METHODS) == ["direct", "native", "im2col", "toeplitz", "fft", "winograd", "winograd_f43"]
    for name, method in ops.METHODS.items():
        assert method.supports
        assert f"``{name}``" in methods.__doc__
        assert method.error in methods.__doc__


def test_tune_prints_a_line_per_method_and_why_one_cannot(capsys):
    timings = ops.tune((2, 9, 9, 2), (3, 3, 2, 4), strides=2, repeats=2)
    printed = capsys.readouterr().out
    assert set(timings) == {"direct", "im2col", "toeplitz", "fft", *["native"] * native.is_enabled()}
    assert "2x9x9x2 * 3x3x2x4, float32, cpu" in printed
    assert "winograd is for windows of 3 at stride 1 without dilation, not 3x3 with strides (2, 2)" in printed
    assert printed.count("(auto)") == 1
    for timing in timings.values():
        assert timing.forward > 0
        assert timing.gradients > 0
        assert timing.memory >= 0
        assert 0 <= timing.error < 1e-5
    assert sorted(timing.gradients for timing in timings.values()) == [t.gradients for t in timings.values()]


def test_tune_rejects_what_conv_rejects():
    with pytest.raises(UsageError, match="tune: x of shape"):
        ops.tune((2, 9, 9, 3), (3, 3, 2, 4))
    with pytest.raises(
        UsageError, match="tune: method='fft' is not an option, because tune measures every method; leave it out"
    ):
        ops.tune((2, 9, 9, 2), (3, 3, 2, 4), method="fft")


def test_auto_follows_its_table():
    def chosen(x, kernel, **options):
        _, kernel, _ = operands("conv", jnp.ones(x), jnp.ones(kernel), 1)
        defaults = {"strides": 1, "padding": "VALID", "input_dilation": 1, "kernel_dilation": 1, "rounding": "floor"}
        geometry = windows("conv", x[1:-1], kernel.shape[:-2], **(defaults | options))
        return methods.auto(x, kernel.shape, geometry, 1)

    assert {rule.method for rule in methods.AUTO} <= set(ops.METHODS)
    assert chosen((2, 5, 5, 16), (5, 5, 16, 12)) == "im2col"
    assert chosen((2, 5, 5, 16), (5, 5, 16, 12), padding="SAME", strides=5) == "im2col"
    assert chosen((2, 5, 5, 16), (5, 5, 16, 12), padding="SAME") == "direct"
    assert chosen((2, 6, 5, 16), (5, 5, 16, 12)) == "direct"
    assert chosen((2, 4, 4, 16), (5, 5, 16, 12), padding=[(1, 0), (1, 0)]) == "direct"
