"""The layers that ``ops.py`` compares, and the measurements of each contender.

Run as a program with the name of a contender, it reads names of layers from standard input and answers each with a line
of JSON.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # cnn_jax, also where it is not installed


@dataclass(frozen=True)
class Layer:
    """One convolution or pool. Window, stride, padding and dilation are the same along all axes."""

    x: tuple[int, ...]
    window: int
    features: int = 0
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    pool: str = ""

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.x) - 2

    @property
    def kernel(self) -> tuple[int, ...]:
        """The shape of the kernel."""
        return (*(self.window,) * self.rank, self.x[-1] // self.groups, self.features)

    @property
    def dy(self) -> tuple[int, ...]:
        """The shape of the output and its cotangent."""
        reach = (self.window - 1) * self.dilation + 1
        space = ((size + 2 * self.padding - reach) // self.stride + 1 for size in self.x[1:-1])
        return (self.x[0], *space, self.x[-1] if self.pool else self.features)


STEPS = 4  # the number of steps of a measured loop

LAYERS = {
    "lenet_c1": Layer((128, 32, 32, 1), 5, 6),
    "lenet_c3": Layer((128, 14, 14, 6), 5, 16),
    "resnet20_16": Layer((64, 32, 32, 16), 3, 16, padding=1),
    "resnet20_32": Layer((64, 16, 16, 32), 3, 32, padding=1),
    "resnet20_64": Layer((64, 8, 8, 64), 3, 64, padding=1),
    "alexnet_1": Layer((16, 227, 227, 3), 11, 96, stride=4),
    "alexnet_2": Layer((16, 27, 27, 96), 5, 256, padding=2, groups=2),
    "alexnet_3": Layer((16, 13, 13, 256), 3, 384, padding=1),
    "alexnet_4": Layer((16, 13, 13, 384), 3, 384, padding=1, groups=2),
    "alexnet_5": Layer((16, 13, 13, 384), 3, 256, padding=1, groups=2),
    "vgg_1_1": Layer((4, 224, 224, 3), 3, 64, padding=1),
    "vgg_1_2": Layer((4, 224, 224, 64), 3, 64, padding=1),
    "vgg_4_2": Layer((4, 28, 28, 512), 3, 512, padding=1),
    "resnet_7x7_s2": Layer((8, 224, 224, 3), 7, 64, stride=2, padding=3),
    "resnet_3x3_s2": Layer((8, 56, 56, 64), 3, 128, stride=2, padding=1),
    "resnet_1x1": Layer((8, 56, 56, 256), 1, 64),
    "depthwise_3x3": Layer((8, 56, 56, 128), 3, 128, padding=1, groups=128),
    "dilated_3x3": Layer((8, 28, 28, 128), 3, 128, padding=2, dilation=2),
    "conv_1d": Layer((64, 1000, 64), 9, 64, padding=4),
    "conv_3d": Layer((2, 16, 56, 56, 32), 3, 32, padding=1),
    "max_3_s2": Layer((8, 54, 54, 96), 3, stride=2, pool="max"),
    "max_2_s2": Layer((8, 112, 112, 64), 2, stride=2, pool="max"),
    "max_3_s1": Layer((8, 28, 28, 192), 3, padding=1, pool="max"),
    "avg_2_s2": Layer((128, 28, 28, 6), 2, stride=2, pool="avg"),
    "avg_3_s2": Layer((8, 54, 54, 96), 3, stride=2, pool="avg"),
}

Timed = Callable[[], object]


def operands(layer: Layer) -> dict[str, np.ndarray]:
    """Normally distributed arrays for the input, kernel and cotangent of a layer."""
    generator = np.random.default_rng(0)
    shapes = {"x": layer.x, "kernel": layer.kernel, "dy": layer.dy}
    return {role: generator.standard_normal(shape, np.float32) for role, shape in shapes.items()}


def stock_conv(x: Any, kernel: Any, *, stride: int, padding: Any, dilation: int, groups: int) -> Any:
    """A convolution by ``lax``, channels last, with the same stride and dilation along all axes."""
    from jax import lax

    rank = x.ndim - 2
    axes = "DHW"[-rank:]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * rank,
        padding,
        rhs_dilation=(dilation,) * rank,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )


def conv_products(
    conv: Callable[[Any, Any], Any], x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]
) -> dict[str, tuple[Callable, tuple[str, ...]]]:
    """For the output and both gradients of a convolution of these shapes, a function and its arguments' roles."""
    import jax
    import jax.numpy as jnp

    def input_gradient(dy: Any, kernel: Any) -> Any:
        return jax.vjp(lambda x: conv(x, kernel), jnp.zeros(x_shape))[1](dy)[0]

    def kernel_gradient(x: Any, dy: Any) -> Any:
        return jax.vjp(lambda kernel: conv(x, kernel), jnp.zeros(kernel_shape))[1](dy)[0]

    return {
        "output": (conv, ("x", "kernel")),
        "input_gradient": (input_gradient, ("dy", "kernel")),
        "kernel_gradient": (kernel_gradient, ("x", "dy")),
    }


def jax_products(layer: Layer, who: str, method: str = "auto") -> dict[str, tuple[Callable, tuple[str, ...]]]:
    """For each product, a traceable function and the roles of its arguments; ``who`` is ``ours`` or ``stock``."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from cnn_jax import enable_native, ops

    enable_native()

    window, strides = (layer.window,) * layer.rank, (layer.stride,) * layer.rank
    padding = ((layer.padding, layer.padding),) * layer.rank

    def stock_pool(x: Any) -> Any:
        edges = ((0, 0), *padding, (0, 0))
        shape, steps = (1, *window, 1), (1, *strides, 1)
        if layer.pool == "max":
            return lax.reduce_window(x, -jnp.inf, lax.max, shape, steps, edges)
        return lax.reduce_window(x, 0.0, lax.add, shape, steps, edges) / layer.window**layer.rank

    if layer.pool:
        our_pool = ops.max_pool if layer.pool == "max" else ops.avg_pool

        def pool(x: Any) -> Any:
            return stock_pool(x) if who == "stock" else our_pool(x, window, strides=strides, padding=padding)

        def training(x: Any, dy: Any) -> Any:
            y, gradient = jax.vjp(pool, x)
            return y, *gradient(dy)

        return {"output": (pool, ("x",)), "training": (training, ("x", "dy"))}

    def conv(x: Any, kernel: Any) -> Any:
        if who == "stock":
            options = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
            return stock_conv(x, kernel, padding=padding, **options)
        return ops.conv(
            x,
            kernel,
            strides=strides,
            padding=padding,
            kernel_dilation=(layer.dilation,) * layer.rank,
            feature_group_count=layer.groups,
            method=method,
        )

    def training(x: Any, kernel: Any, dy: Any) -> Any:
        y, gradients = jax.vjp(conv, x, kernel)
        return y, *gradients(dy)

    return {**conv_products(conv, layer.x, layer.kernel), "training": (training, ("x", "kernel", "dy"))}


def shifted(function: Callable) -> Callable:
    """``function`` of its operands plus a number. In a loop the number changes, so XLA cannot move the function out."""
    return lambda shift, operands: function(*(operand + shift for operand in operands))


def in_a_loop(function: Callable) -> Callable:
    """A loop over ``shifted(function)``, where each step is shifted by a number from the previous results."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def loop(steps: Any, operands: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            results = shifted(function)(carry[0], operands)
            return 1e-30 * jax.tree.leaves(results)[0].ravel()[0], results

        empty = jax.tree.map(lambda result: jnp.zeros(result.shape), jax.eval_shape(function, *operands))
        return lax.fori_loop(0, steps, body, (0.0, empty))

    return loop


def measure_jax(layer: Layer, *, who: str, loops: bool, seconds: float) -> Iterator[tuple[str, float]]:
    """Yields the name of each measurement with its milliseconds or bytes."""
    import jax

    def timed(function: Callable, *arguments: Any) -> float:
        compiled = jax.jit(function).lower(*arguments).compile()
        return median_ms(lambda: jax.block_until_ready(compiled(*arguments)), seconds)

    def timed_loop(function: Callable, arguments: Any) -> float:
        compiled = jax.jit(in_a_loop(function)).lower(1, arguments).compile()
        one = median_ms(lambda: jax.block_until_ready(compiled(1, arguments)), 0)
        if one > 300:  # milliseconds: some loops of stock JAX take many seconds, so one step is enough
            return one
        return median_ms(lambda: jax.block_until_ready(compiled(STEPS, arguments)), 2 * seconds) / STEPS

    def footprint(function: Callable, *arguments: Any) -> int:
        memory = jax.jit(function).lower(*arguments).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes

    arrays = {role: jax.device_put(array) for role, array in operands(layer).items()}
    for product, (function, roles) in jax_products(layer, who).items():
        arguments = [arrays[role] for role in roles]
        if product == "training" and loops:
            yield "bytes", footprint(function, *arguments)
            if who == "ours":  # for a pool, which has no methods, this is the same program
                yield "bytes of direct", footprint(jax_products(layer, who, "direct")[product][0], *arguments)
        if product == "training" and not layer.pool:
            continue
        yield product, timed(function, *arguments)
        if loops:
            yield f"{product} of shifted operands", timed(shifted(function), 0.0, arguments)
            yield f"{product} in a loop", timed_loop(function, arguments)


def measure_torch(layer: Layer, *, seconds: float) -> Iterator[tuple[str, float]]:
    """Yields the name of each product with its milliseconds, in the faster of the two layouts."""
    import torch
    import torch.nn.functional as F

    device = "cuda" if torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu" else "cpu"
    torch.set_num_threads(os.cpu_count() or 1)
    arrays = operands(layer)
    x, dy = (torch.tensor(np.moveaxis(arrays[role], -1, 1).copy(), device=device) for role in ("x", "dy"))
    kernel = torch.tensor(np.moveaxis(arrays["kernel"], (-1, -2), (0, 1)).copy(), device=device)
    each = [[value] * layer.rank for value in (layer.stride, layer.padding, layer.dilation)]
    layouts = [torch.contiguous_format]
    if layer.rank > 1:
        layouts.append(torch.channels_last if layer.rank == 2 else torch.channels_last_3d)

    def synchronized(function: Callable) -> Timed:
        def run() -> None:
            function()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    def products(layout: torch.memory_format) -> dict[str, Callable]:
        def lay(array: Any) -> Any:
            return array.contiguous(memory_format=layout)

        if layer.pool:
            source, cotangent = lay(x).requires_grad_(), lay(dy)
            pool = getattr(F, f"{layer.pool}_pool{layer.rank}d")

            def run() -> Any:
                return pool(source, layer.window, layer.stride, layer.padding)

            return {
                "output": torch.no_grad()(run),
                "training": lambda: torch.autograd.grad(run(), source, cotangent),
            }
        a, b, c = lay(x), kernel.contiguous(memory_format=layout), lay(dy)
        conv = (F.conv1d, F.conv2d, F.conv3d)[layer.rank - 1]

        def backward(*wanted: bool) -> Callable:
            arguments = (c, a, b, None, *each, False, [0] * layer.rank, layer.groups, [*wanted, False])
            return lambda: torch.ops.aten.convolution_backward(*arguments)

        return {
            "output": torch.no_grad()(lambda: conv(a, b, None, *each, layer.groups)),
            "input_gradient": backward(True, False),
            "kernel_gradient": backward(False, True),
        }

    times: dict[str, list[float]] = {}
    for layout in layouts:
        for product, function in products(layout).items():
            times.setdefault(product, []).append(median_ms(synchronized(function), seconds / len(layouts)))
    for product, candidates in times.items():
        yield product, min(candidates)


def median_ms(function: Timed, seconds: float) -> float:
    """The median time of a call in milliseconds, over at least three calls, or over one if it takes more than 1 s."""
    start = time.perf_counter()
    function()
    first = time.perf_counter() - start
    if first > 1:
        return 1e3 * first
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


CONTENDERS: dict[str, tuple[Callable[..., Iterator[tuple[str, float]]], dict[str, Any]]] = {
    "ours": (measure_jax, {"who": "ours", "loops": True}),
    "stock": (measure_jax, {"who": "stock", "loops": True}),
    "stock, default flags": (measure_jax, {"who": "stock", "loops": False}),
    "PyTorch": (measure_torch, {}),
}


def answer_questions(name: str, seconds: float) -> None:
    """The main loop of a contender's process."""
    measure, options = CONTENDERS[name]
    for line in sys.stdin:
        print(json.dumps(dict(measure(LAYERS[line.strip()], **options, seconds=seconds))), flush=True)


if __name__ == "__main__":
    answer_questions(sys.argv[1], float(sys.argv[2]))
