"""Derivative kernels against the known derivatives of polynomials."""

import numpy as np
import pytest

from cnn_jax import filters
from cnn_jax.errors import UsageError


def moment(kernel, *powers):
    """The kernel's answer, at the origin, to the monomial with these powers along its axes."""
    kernel = np.asarray(kernel, float)
    axes = np.indices(kernel.shape) - kernel.shape[0] // 2
    return (kernel * np.prod([axis**power for axis, power in zip(axes, powers, strict=True)], axis=0)).sum()


@pytest.mark.parametrize("name", ["prewitt", "sobel", "scharr"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_normalized_derivatives_answer_one_to_a_slope_of_one_along_their_axis_only(name, rank):
    for axis in range(rank):
        kernel = getattr(filters, name)(axis=axis, rank=rank, normalized=True)
        slopes = [moment(kernel, *(int(other == index) for index in range(rank))) for other in range(rank)]
        assert slopes == pytest.approx([float(other == axis) for other in range(rank)], abs=1e-6)
        assert moment(kernel, *(0,) * rank) == pytest.approx(0, abs=1e-6)


def test_derivative_kernels_as_they_are_usually_printed():
    np.testing.assert_array_equal(filters.prewitt(axis=0), [[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(filters.sobel(axis=1), [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    np.testing.assert_array_equal(filters.scharr(axis=-1), [[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])


def test_finite_differences_of_a_parabola():
    squares = np.array([4.0, 9.0, 16.0])  # of 2, 3, 4; the derivative at 3 is 6
    found = [filters.finite_difference(axis=0, rank=1, kind=kind) @ squares for kind in ("forward", "backward")]
    assert (*map(float, found), float(filters.finite_difference(axis=0, rank=1) @ squares)) == (7, 5, 6)
    assert filters.finite_difference(axis=-2, rank=3).shape == (1, 3, 1)


@pytest.mark.parametrize(("angle", "phase"), [(0, 0), (30, 90), (90, -40), (135, 0)])
def test_gabor_is_a_wave_across_its_stripes_under_a_gaussian(angle, phase):
    wavelength, sigma, aspect, radius = 5.0, 2.0, 0.7, 4
    kernel = filters.gabor(wavelength, angle=angle, phase=phase, sigma=sigma, aspect=aspect, radius=radius)
    along = np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])  # (down, right): up for small angles
    across = np.array([along[1], -along[0]])
    for place in np.ndindex(9, 9):
        offset = np.array(place) - radius
        distance, position = offset @ across, offset @ along
        density = np.exp(-(distance**2) / (2 * sigma**2)) * np.exp(-((position * aspect) ** 2) / (2 * sigma**2))
        expected = density * aspect / (2 * np.pi * sigma**2) * np.cos(2 * np.pi * distance / 5 + np.radians(phase))
        assert float(kernel[place]) == pytest.approx(expected, abs=1e-7)


def test_gabor_and_line_answer_most_to_lines_of_their_own_angle():
    down, right = np.mgrid[:33, :33]
    for angle, place in {0: down, 45: down + right, 90: right, 135: down - right}.items():
        lines = (place % 8 == 0).astype(np.float32)[..., None]
        for make in (filters.line, lambda angle: filters.gabor(8 if angle in (0, 90) else 8 / np.sqrt(2), angle=angle)):
            answers = {other: float(filters.apply(lines, make(other)).max()) for other in (0, 45, 90, 135)}
            assert max(answers, key=answers.__getitem__) == angle


def test_lines_add_to_zero_and_turn_into_each_other():
    for angle in (0, 45, 90, 135):
        assert float(filters.line(angle).sum()) == 0
        np.testing.assert_array_equal(np.rot90(filters.line(angle)), filters.line((angle + 90) % 180))


@pytest.mark.parametrize(
    ("neighbours", "rank", "curvature"), [("axes", 1, 2), ("axes", 2, 2), ("axes", 3, 2), ("all", 2, 6)]
)
def test_laplacian_answers_to_curvature_and_to_nothing_flatter(neighbours, rank, curvature):
    kernel = filters.laplacian(rank=rank, neighbours=neighbours)
    rest = (0,) * (rank - 1)
    assert (moment(kernel, 0, *rest), moment(kernel, 1, *rest), moment(kernel, 2, *rest)) == (0, 0, curvature)


@pytest.mark.parametrize("rank", [1, 2])
def test_laplacian_of_gaussian_is_the_second_derivative_of_the_gaussian(rank):
    # By second differences of step h, whose error is about h**2 = 1e-6; in float32, so is that of the kernel.
    sigma, radius, h = 1.5, 8, 1e-3
    grid = np.indices((2 * radius + 1,) * rank) - float(radius)

    def density(*shift):
        squared = ((grid.T + np.array(shift)) ** 2).sum(axis=-1).T
        return np.exp(-squared / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** (rank / 2)

    steps = h * np.eye(rank)
    expected = sum(density(*step) + density(*-step) - 2 * density(*np.zeros(rank)) for step in steps) / h**2
    kernel = filters.laplacian_of_gaussian(sigma, radius=radius, rank=rank)
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    assert moment(kernel, *(2,) + (0,) * (rank - 1)) == pytest.approx(2, rel=1e-3)


def test_section_is_the_middle_row_of_the_two_dimensional_kernel():
    # Up to the sign, the height and the mean that each subtracts: so differences of entries are proportional.
    section = np.diff(np.asarray(filters.laplacian_of_gaussian_section(2), float))
    row = np.diff(np.asarray(filters.laplacian_of_gaussian(2), float)[8])
    np.testing.assert_allclose(section / section[0], row / row[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filters.sobel(axis=2), "filters.sobel: axis=2 is not one of the 2 axes; use -2 to 1"),
        (lambda: filters.prewitt(axis=0, rank=0), "filters.prewitt: rank=0 must be at least 1"),
        (lambda: filters.line(30), "filters.line: angle=30 must be one of 0, 45, 90, 135 degrees"),
        (
            lambda: filters.laplacian(neighbours="eight"),
            "filters.laplacian: unknown neighbours='eight'; known: 'all', 'axes'",
        ),
        (lambda: filters.finite_difference(axis=2), "filters.finite_difference: axis=2 is not one of the 2 axes"),
        (
            lambda: filters.finite_difference(axis=0, kind="centered"),
            "filters.finite_difference: unknown kind='centered'; did you mean 'central'",
        ),
        (lambda: filters.gabor(0), "filters.gabor: wavelength=0 must be a number above 0"),
        (lambda: filters.gabor(4, aspect=-1), "filters.gabor: aspect=-1 must be a number above 0"),
        (lambda: filters.gabor(4, sigma=0), "filters.gabor: sigma=0 must be a number of pixels above 0"),
        (lambda: filters.laplacian_of_gaussian(-1), "filters.laplacian_of_gaussian: sigma=-1 must be"),
        (
            lambda: filters.laplacian_of_gaussian_section(1, radius=-2),
            "filters.laplacian_of_gaussian_section: radius=-2",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        call()
