"""Random networks, with products counted in loops and receptive fields measured with impulses."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from cnn_jax import nn
from tests.compiled import compiled

CHANNELS = 4
RNGS = nnx.Rngs(0)


class Step(nnx.Module):
    """Some layers, and a function of an array and the layers.

    Args:
      layers: The layers: any single layer, or several that keep the size of the map.
      apply: Called with the array and the layers.
      times: How many times each layer runs.
      mirrors: Whether padding contains entries of the map; these do not count for fields.
    """

    def __init__(
        self, layers: list[nnx.Module], apply: Callable[..., jax.Array], *, times: int = 1, mirrors: bool = False
    ) -> None:
        self.layers = nnx.List(layers)
        self.apply = apply
        self.times = times
        self.mirrors = mirrors

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.apply(x, *self.layers)


class Network(nnx.Module):
    """Steps one after the other."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = nnx.List(steps)

    def __call__(self, x: jax.Array) -> jax.Array:
        for step in self.steps:
            x = step(x)
        return x


def products(network: Network, shape: tuple[int, ...]) -> int:
    """The number of products of weights with inputs in a network, counted one by one, in every iteration of loops."""
    number = 0
    for step in network.steps:
        graph, state = nnx.split(step)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        output = jax.eval_shape(lambda state, x, graph=graph: nnx.merge(graph, state)(x), state, x).shape[1:]
        number += sum(step.times * products_of(layer, shape[:-1], output[:-1]) for layer in step.layers)
        shape = output
    return number


def products_of(layer: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
    """The number of products of a layer between maps of these sizes.

    A convolution uses every entry of the window at each output position. A transposed convolution, and any axis with
    a dilated input, uses every entry of the window at each input position.
    """
    spread = getattr(layer, "input_dilation", (1,) * len(inputs))
    if isinstance(layer, nnx.ConvTranspose | nn.ConvTranspose):
        spread = (2,) * len(inputs)
    spread = (spread,) * len(inputs) if isinstance(spread, int) else spread
    positions = [size if rate > 1 else number for size, number, rate in zip(inputs, outputs, spread, strict=True)]
    window = getattr(layer, "kernel_size", ())
    groups = getattr(layer, "feature_group_count", 1)
    number = 0
    for feature, channel in itertools.product(range(layer.out_features), range(layer.in_features)):
        if feature * groups // layer.out_features == channel * groups // layer.in_features:
            number += sum(1 for _ in itertools.product(*map(range, (*positions, *window))))
    return number


def seen(network: Callable[..., Any], shape: tuple[int, ...]) -> np.ndarray:
    """Which positions of the input (last axes) each unit of the output (first axes) depends on.

    All weights are positive, so that an impulse changes every unit that depends on it.
    """
    space = shape[:-1]
    impulses = np.zeros((math.prod(space), *space, shape[-1]), np.float32)
    impulses.reshape(len(impulses), len(impulses), shape[-1])[np.arange(len(impulses)), np.arange(len(impulses))] = 1
    graph, state = nnx.split(network)
    answers = compiled(lambda state, x: nnx.merge(graph, state)(x))(state, impulses)
    answers = np.asarray(answers).sum(axis=-1) > 0
    return np.moveaxis(answers, 0, -1).reshape(*answers.shape[1:], *space)


def positive(network: nnx.Module) -> nnx.Module:
    """The network with kernels of ones and biases of zeros."""
    graph, state = nnx.split(network)

    def fill(path: tuple, leaf: jax.Array) -> np.ndarray:
        return np.full(leaf.shape, "kernel" in jax.tree_util.keystr(path), np.float32)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, state))


class Generator:
    """Generates random networks with ``rank`` spatial axes; every step keeps the number of channels."""

    def __init__(self, seed: int, rank: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.rank = rank

    def int(self, low: int, high: int) -> int:
        return int(self.draw.integers(low, high + 1))

    def each(self, low: int, high: int) -> tuple[int, ...]:
        return tuple(self.int(low, high) for _ in range(self.rank))

    def pairs(self, low: int, high: int) -> tuple[tuple[int, int], ...]:
        return tuple((self.int(low, high), self.int(low, high)) for _ in range(self.rank))

    def padding(self, *names: str) -> Any:
        return str(self.draw.choice([*names, ""])) or self.pairs(0, 3)

    def network(self, first: int, steps: int) -> Network:
        """A network that starts with one kind of step, given by its number."""
        names = [name for name in dir(self) if name.startswith("step_")]
        chosen = [names[first % len(names)], *self.draw.choice(names, steps - 1)]
        return Network([getattr(self, name)() for name in chosen])

    def conv(self, own: bool, **options: Any) -> Any:
        defaults = {
            "strides": self.each(1, 2),
            "kernel_dilation": self.each(1, 3),
            "padding": self.padding("SAME", "VALID"),
        }
        groups = int(self.draw.choice([1, 2, CHANNELS]))
        make = nn.Conv if own else nnx.Conv
        return make(CHANNELS, CHANNELS, self.each(1, 4), feature_group_count=groups, rngs=RNGS, **(defaults | options))

    def same(self) -> Any:
        """A convolution that keeps sizes."""
        return self.conv(False, strides=1, padding="SAME")

    def step_conv(self) -> Step:
        return Step([self.conv(False)], lambda x, conv: jax.nn.relu(conv(x)))

    def step_own_conv(self) -> Step:
        return Step([self.conv(True)], lambda x, conv: conv(x))

    def step_conv_with_spread_input(self) -> Step:
        return Step([self.conv(True, input_dilation=self.each(1, 2), strides=1)], lambda x, conv: conv(x))

    def step_transposed(self) -> Step:
        make = [nnx.ConvTranspose, nn.ConvTranspose][self.int(0, 1)]
        options = {
            "strides": self.each(1, 3),
            "kernel_dilation": self.each(1, 2),
            "padding": self.padding("SAME", "VALID"),
        }
        options["transpose_kernel"] = bool(self.int(0, 1))
        return Step([make(CHANNELS, CHANNELS, self.each(1, 4), rngs=RNGS, **options)], lambda x, conv: conv(x))

    def step_pool(self) -> Step:
        pool = [nnx.max_pool, nnx.avg_pool][self.int(0, 1)]
        return Step([], functools.partial(_call, pool, self.each(1, 3), self.each(1, 2), self.padding("SAME", "VALID")))

    def step_dilated_pool(self) -> Step:
        numbers = [(1, *self.each(1, 3), 1) for _ in range(4)]
        padding = ((0, 0), *self.pairs(0, 2), (0, 0))
        return Step(
            [],
            lambda x: lax.reduce_window(
                x, 0.0, lax.add, numbers[0], numbers[1], padding, base_dilation=numbers[2], window_dilation=numbers[3]
            ),
        )

    def step_pad(self) -> Step:
        width = ((0, 0), *self.pairs(0, 4), (0, 0))
        mode = str(self.draw.choice(["constant", "reflect", "edge", "wrap", "symmetric"]))
        return Step([], lambda x: jnp.pad(x, width, mode=mode), mirrors=mode != "constant")

    def step_negative_padding(self) -> Step:
        config = [(0, 0, 0), *((self.int(-3, 3), self.int(-3, 3), self.int(0, 2)) for _ in range(self.rank)), (0, 0, 0)]
        return Step([], lambda x: lax.pad(x, 0.0, config))

    def step_slice(self) -> Step:
        cuts = [slice(self.int(0, 3), -1 - self.int(0, 3), self.int(1, 2)) for _ in range(self.rank)]
        return Step([], lambda x: x[:, *cuts])

    def step_flip(self) -> Step:
        return Step([], lambda x: jnp.flip(x, axis=1 + self.rank - 1))

    def step_repeat(self) -> Step:
        times = self.int(2, 3)
        return Step([], lambda x: jnp.repeat(x, times, axis=1))

    def step_blocks(self) -> Step:
        """A sum pool by a reshape: two neighbours become channels, which are added."""

        def apply(x: jax.Array) -> jax.Array:
            x = x[:, : x.shape[1] // 2 * 2]
            return x.reshape(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:]).sum(axis=2)

        return Step([], apply)

    def step_to_depth_and_back(self) -> Step:
        """A convolution of every second position separately."""

        def apply(x: jax.Array, conv: Any) -> jax.Array:
            x = x[:, : x.shape[1] // 2 * 2]
            blocks = jnp.moveaxis(x.reshape(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:]), 2, 1)
            y = conv(blocks.reshape(-1, *blocks.shape[2:])).reshape(blocks.shape)
            return jnp.moveaxis(y, 1, 2).reshape(x.shape)

        return Step([self.same()], apply)

    def step_flatten_and_back(self) -> Step:
        return Step([], lambda x: jax.nn.relu(x.reshape(x.shape[0], -1)).reshape(x.shape))

    def step_cut_and_join(self) -> Step:
        return Step([], lambda x: jnp.concatenate(jnp.split(x, [5, 9], axis=1), axis=1))

    def step_skip(self) -> Step:
        return Step([self.same(), self.same()], lambda x, a, b: x + b(jax.nn.relu(a(x))))

    def step_branches(self) -> Step:
        mix = nnx.Linear(2 * CHANNELS, CHANNELS, rngs=RNGS)
        return Step([self.same(), self.same(), mix], lambda x, a, b, mix: mix(jnp.concatenate([a(x), b(x)], axis=-1)))

    def step_scan(self) -> Step:
        length = self.int(1, 4)
        return Step(
            [self.same()], lambda x, conv: lax.scan(lambda x, _: (conv(x), None), x, None, length)[0], times=length
        )

    def step_stacked_scan(self) -> Step:
        """A scan over layers whose kernels are stacked in one array."""
        convs = nnx.vmap(lambda rngs: nnx.Conv(CHANNELS, CHANNELS, (3,) * self.rank, rngs=rngs))
        layers = convs(nnx.Rngs(0).split(3))
        run = nnx.scan(lambda x, conv: conv(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return Step([layers], run, times=3)

    def step_cond(self) -> Step:
        return Step(
            [self.same(), self.same()],
            lambda x, a, b: lax.cond(x.sum() > 0, lambda x: a(x) + b(x), a, x),
        )

    def step_remat(self) -> Step:
        return Step([self.same()], lambda x, conv: jax.checkpoint(lambda x: conv(x))(x))

    def step_jit_twice(self) -> Step:
        """A layer that is called twice through a function that is traced once."""

        def apply(x: jax.Array, conv: Any) -> jax.Array:
            run = jax.jit(lambda x: conv(x))
            return run(run(x))

        return Step([self.same()], apply, times=2)

    def step_vmap(self) -> Step:
        return Step([self.same()], lambda x, conv: jax.vmap(conv)(x))

    def step_tied(self) -> Step:
        a = self.same()
        b = nnx.Conv(CHANNELS, CHANNELS, a.kernel_size, feature_group_count=a.feature_group_count, rngs=RNGS)
        b.kernel = a.kernel
        return Step([a, b], lambda x, a, b: b(a(x)))

    def step_while(self) -> Step:
        return Step([], lambda x: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, 2 * s[1]), (0, x))[1])


def _call(pool: Any, window: tuple[int, ...], strides: tuple[int, ...], padding: Any, x: jax.Array) -> jax.Array:
    return pool(x, window, strides=strides, padding=padding)
