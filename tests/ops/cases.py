"""Random valid convolutions that combine all arguments."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from tests.ops import reference

BOUNDARIES = ["zero", "constant", "replicate", "mirror", "symmetric", "periodic"]
NAMES = ["VALID", "SAME", "SAME_LOWER", "HALF", "FULL", "CAUSAL"]
DTYPES = ["float32", "float64", "bfloat16", "float16"]


@dataclass
class Case:
    axes: list[reference.Axis]
    padding: str | int | list
    batch: tuple[int, ...]
    groups: int
    per_group: int
    features: int
    boundary: str
    value: float
    rounding: str
    flip: bool
    masked: bool
    dtype: str
    seed: int
    options: dict = field(init=False)

    def __post_init__(self):
        self.options = {
            "strides": tuple(axis.stride for axis in self.axes),
            "padding": self.padding,
            "input_dilation": tuple(axis.input_dilation for axis in self.axes),
            "kernel_dilation": tuple(axis.dilation for axis in self.axes),
            "feature_group_count": self.groups,
            "boundary": self.boundary,
            "flip_kernel": self.flip,
            "rounding": self.rounding,
        }

    @property
    def sizes(self):
        return tuple(axis.size for axis in self.axes)

    @property
    def window(self):
        return tuple(axis.window for axis in self.axes)

    @property
    def output(self):
        return reference.output_shape(self.axes, self.rounding)

    @property
    def rule(self):
        """What the reference wants besides the axes."""
        return {"groups": self.groups, "boundary": self.boundary, "rounding": self.rounding}

    def arrays(self):
        """x, kernel and a cotangent for the output, in the dtype of the case; NumPy's, which compiles nothing."""
        rng = np.random.default_rng(self.seed)
        shapes = [
            (*self.batch, *self.sizes, self.groups * self.per_group),
            (*self.window, self.per_group, self.groups * self.features),
            (*self.batch, *self.output, self.groups * self.features),
        ]
        return [rng.standard_normal(shape).astype(jnp.dtype(self.dtype)) for shape in shapes]

    def mask(self):
        rng = np.random.default_rng(self.seed + 1)
        return rng.random((self.per_group, self.groups * self.features)) < 0.6 if self.masked else None

    def seen(self, kernel):
        """The kernel as the reference has it: flipped and masked; its own inverse."""
        kernel = np.asarray(kernel, np.float64)
        if self.masked:
            kernel = np.where(self.mask(), kernel, 0)
        return np.flip(kernel, range(len(self.axes))) if self.flip else kernel

    def merged(self, array):
        """With one batch axis, as the reference has it."""
        return np.asarray(array, np.float64).reshape(-1, *array.shape[len(self.batch) :])


def build(pick, *, winograd=False, linear=False, dtypes=DTYPES):
    """A valid convolution of rank 1 to 4 with small arrays, made of the choices of ``pick``.

    ``winograd`` keeps to windows of 3 and steps of 1, ``linear`` leaves out the constant boundary.
    """
    rank = pick([1, 1, 1, 2, 2, 2, 2, 3, 3, 4])
    boundary = pick([name for name in BOUNDARIES if not (linear and name == "constant")])
    rounding = pick(["floor", "ceil", "strict"])
    name = pick([*NAMES, "numbers", "numbers"])
    steps = [1] if winograd else [1, 1, 2, 3]
    axes, pads = [], []
    for _ in range(rank):
        size = pick(range(1, {1: 9, 2: 9, 3: 5, 4: 4}[rank]))
        window = 3 if winograd else pick(range(1, {1: 5, 2: 5, 3: 4, 4: 3}[rank]))
        stride, dilation, input_dilation = pick(steps), pick(steps), pick(steps)
        blank = reference.Axis(size, window, stride, 0, 0, input_dilation, dilation)
        extent, reach = blank.extent, blank.reach
        if name == "numbers":
            low = pick(range(1 - extent, reach + 3))
            high = pick(range(1 - extent - min(low, 0), reach + 3))
            high = max(high, reach - extent - low)  # else the window does not fit
        else:
            low, high = reference.named_padding(name, extent, reach, stride)
            if extent + low + high < reach:
                low, high = reach - extent, 0
        if rounding == "strict":
            high += -(extent + low + high - reach) % stride
        pads.append((low, high))
        axes.append(reference.Axis(size, window, stride, low, high, input_dilation, dilation))
    resolved = [reference.named_padding(name, a.extent, a.reach, a.stride) for a in axes] if name != "numbers" else None
    return Case(
        axes=axes,
        padding=name if resolved == pads else pads,
        batch=pick([(2,), (2,), (), (2, 1)]),
        groups=pick([1, 1, 2, 3]),
        per_group=pick([1, 2]),
        features=pick([1, 2]),
        boundary=boundary,
        value=pick([0.5, -2.0]) if boundary == "constant" else 0.0,
        rounding=rounding,
        flip=pick([False, True]),
        masked=pick([False, False, False, True]),
        dtype=pick(dtypes),
        seed=pick(range(2**20)),
    )


def varied(**choices):
    """Cases that have as little in common as possible: for a few of them."""
    return st.randoms(use_true_random=True).map(lambda rng: build(rng.choice, **choices))


@st.composite
def searched(draw, **choices):
    """Cases that Hypothesis varies and shrinks choice by choice: for many of them."""
    return build(lambda options: draw(st.sampled_from(options)), **choices)


UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TINY = {"float64": 1e-300, "float32": 1e-35, "float16": 2.0**-24, "bfloat16": 1e-35}


def summed_in(dtype):
    return "float64" if dtype == "float64" else "float32"


def close(actual, expected, bound, what):
    """Asserts that every error is below its bound, and says by how much not."""
    actual = np.asarray(actual, np.float64).reshape(expected.shape)
    excess = np.abs(actual - expected) / bound
    assert np.all(np.isfinite(actual)), f"{what} is not finite"
    assert excess.max() <= 1, f"{what}: error {np.abs(actual - expected).max():.3g} is {excess.max():.3g} bounds"
