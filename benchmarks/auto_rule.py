"""Compares ``ops.conv(method="auto")`` with lax in compile time and run time, over a wide grid of shapes.

    python benchmarks/auto_rule.py [--count 60] [--seconds 0.1] [--again 1.15]

The grid consists of the layers in :data:`KNOWN` and of ``--count`` random shapes, which are the same in every run:
windows of 1 to 1,024 entries, 1 to 512 channels, ranks 1 to 3, strides, dilations, groups, depthwise, batches of 1 to
32. For the output, the input gradient and the kernel gradient, ``ops.conv`` and ``lax.conv_general_dilated`` with JAX's
gradients are compiled once and called in turn, in one process for each set of XLA flags.

Compile times are CPU seconds. Run times are the minimum over several blocks of calls, as wall time and as CPU time. On
a machine with other load, use CPU time. Without other load, use wall time, which includes the effect of parallelism.
``--again`` measures rows again whose ratio is above a bound, because other programs may have disturbed them.
Results are written to ``benchmarks/results/auto_rule-<machine>.md`` and ``.json``.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import record
from op_contenders import conv_products, stock_conv

from cnn_jax.runtime.xla import apply_recommended_flags, recommended_xla_flags

PRODUCTS = ("output", "input_gradient", "kernel_gradient")
WINDOWS = {
    1: (1, 2, 3, 5, 9, 16, 25, 64, 101, 256, 401, 1024),
    2: (1, 2, 3, 5, 7, 11, 15, 21, 31, 63),
    3: (1, 2, 3, 5, 7),
}
SIZES = {1: (64, 256, 1000, 4096, 16000), 2: (8, 14, 28, 56, 128, 256), 3: (8, 16, 32)}
CHANNELS = (1, 1, 2, 3, 4, 8, 16, 64, 128, 512)


class Shape(NamedTuple):
    """One convolution. All sizes are the same along all spatial axes."""

    rank: int
    size: int
    window: int
    batch: int
    channels: int
    features: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: str = "VALID"

    @property
    def out(self) -> int:
        """The output size along each axis."""
        if self.padding == "SAME":
            return -(-self.size // self.stride)
        return (self.size - (self.window - 1) * self.dilation - 1) // self.stride + 1

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the three arrays."""
        return {
            "x": (self.batch, *(self.size,) * self.rank, self.channels),
            "kernel": (*(self.window,) * self.rank, self.channels // self.groups, self.features),
            "dy": (self.batch, *(self.out,) * self.rank, self.features),
        }

    def __str__(self) -> str:
        x, kernel = (",".join(map(str, self.arrays[role])) for role in ("x", "kernel"))
        options = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        extra = "".join(f" {name} {value}" for name, value in options.items() if value > 1)
        return f"({x}) * ({kernel}){extra} {self.padding}"


KNOWN = (
    Shape(1, 16000, 401, 4, 1, 64),
    Shape(1, 16000, 1024, 1, 1, 1),
    Shape(2, 512, 63, 1, 1, 1),
    Shape(1, 16000, 5, 4, 1, 6),
    Shape(2, 128, 81, 1, 1, 1, padding="SAME"),  # a Gaussian of sigma 10
    Shape(2, 28, 31, 1, 32, 32, groups=32, padding="SAME"),
    Shape(2, 32, 5, 128, 1, 6),
    Shape(2, 14, 5, 128, 6, 16),
    Shape(2, 32, 3, 64, 16, 16, padding="SAME"),
    Shape(2, 112, 16, 4, 3, 128, stride=16),
    Shape(2, 28, 31, 4, 4, 128, stride=4, padding="SAME"),
    Shape(2, 7, 7, 8, 128, 128),
)


def grid(count: int) -> list[Shape]:
    """The known layers, and ``count`` random shapes for which stock JAX needs at most about a second."""
    draw = random.Random(0)
    shapes = list(KNOWN)
    while len(shapes) < len(KNOWN) + count:
        rank = draw.choice((1, 1, 2, 2, 2, 3))
        window, channels, features = draw.choice(WINDOWS[rank]), draw.choice(CHANNELS), draw.choice(CHANNELS)
        dilation, kind = draw.choice((1, 1, 1, 1, 2)), draw.random()
        groups = 1
        if kind < 0.25:
            groups = channels
            features = channels * draw.choice((1, 1, 2))
        elif kind < 0.4:
            groups = draw.choice((2, 4, 8))
            channels, features = groups * draw.choice((2, 8, 16, 64)), groups * draw.choice((1, 8, 64))
        stride = draw.choice((1, 1, 1, 1, 2, 4, window)) if dilation == 1 else 1
        padding, batch = draw.choice(("VALID", "SAME")), draw.choice((1, 1, 4, 32))
        shape = Shape(
            rank, draw.choice(SIZES[rank]), window, batch, channels, features, stride, dilation, groups, padding
        )
        if (window - 1) * dilation + 1 > shape.size * (2 if padding == "SAME" else 1):
            continue
        products = math.prod(shape.arrays["dy"]) * math.prod(shape.arrays["kernel"][:-1])
        largest = max(map(math.prod, shape.arrays.values()))
        if 10**5 < products < (3 * 10**7 if groups > 1 or rank == 3 else 3 * 10**8) and largest < 4 * 10**6:
            shapes.append(shape)
    return shapes


# --- one process ------------------------------------------------------------------------------------------------------


def measure(shape: Shape, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Product -> ours or lax -> compile time in seconds, wall and CPU time in milliseconds."""
    import jax

    from cnn_jax import ops

    def stock(x: Any, kernel: Any) -> Any:
        options = {"stride": shape.stride, "dilation": shape.dilation, "groups": shape.groups}
        return stock_conv(x, kernel, padding=shape.padding, **options)

    def ours(x: Any, kernel: Any) -> Any:
        options = {"strides": shape.stride, "kernel_dilation": shape.dilation, "feature_group_count": shape.groups}
        return ops.conv(x, kernel, padding=shape.padding, **options)

    generator = np.random.default_rng(0)
    arrays = {role: jax.device_put(generator.standard_normal(size, np.float32)) for role, size in shape.arrays.items()}
    result: dict[str, dict[str, dict[str, float]]] = {}
    convs = {"ours": ours, "lax": stock}
    contenders = {who: conv_products(conv, shape.arrays["x"], shape.arrays["kernel"]) for who, conv in convs.items()}
    for product in PRODUCTS:
        calls, times = {}, {}
        for who, products in contenders.items():
            function, roles = products[product]
            arguments = [arrays[role] for role in roles]
            start = time.process_time()
            compiled = jax.jit(function).lower(*arguments).compile()
            times[who] = {"compile": time.process_time() - start}
            once, cpu = timed(lambda compiled=compiled, arguments=arguments: compiled(*arguments), 1)
            times[who] |= {"ms": 1e3 * once, "cpu": 1e3 * cpu}
            calls[who] = (compiled, arguments, max(1, min(50, int(5e-3 / once))))
        end = time.perf_counter() + seconds
        for round_ in range(100):
            slow = sum(times[who]["ms"] for who in times) > 300  # milliseconds: one more call is enough
            if round_ >= (1 if slow else 3) and time.perf_counter() > end:
                break
            for who, (compiled, arguments, number) in calls.items():
                wall, cpu = timed(lambda compiled=compiled, arguments=arguments: compiled(*arguments), number)
                times[who]["ms"] = min(times[who]["ms"], 1e3 * wall)
                times[who]["cpu"] = min(times[who]["cpu"], 1e3 * cpu)
        result[product] = times
    return result


def timed(call: Callable[[], Any], number: int) -> tuple[float, float]:
    """The wall and CPU time of one call in seconds, averaged over ``number`` calls."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(number):
        call().block_until_ready()
    return (time.perf_counter() - wall) / number, (time.process_time() - cpu) / number


def answer_questions(seconds: float) -> None:
    """The main loop of a measuring process: reads a shape as a line of JSON and answers with a line of JSON."""
    for line in sys.stdin:
        print(json.dumps(measure(Shape(*json.loads(line)), seconds)), flush=True)


# --- the run and its results ------------------------------------------------------------------------------------------

Measured = dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]]  # flags -> shape -> product -> who -> what


def run(flags: str, shapes: list[Shape], seconds: float) -> Iterator[tuple[str, Any]]:
    """Yields the name of each shape and its measurements, with ``'recommended'`` or ``'default'`` flags."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    if flags == "recommended":
        apply_recommended_flags(environment)
    command = [sys.executable, __file__, "--answer", "--seconds", str(seconds)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for shape in shapes:
            process.stdin.write(json.dumps(shape) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise SystemExit(f"the measuring process died at {shape}; its message is above")
            yield str(shape), json.loads(answer)
            print(flags, shape, file=sys.stderr)
        process.stdin.close()


def ratio(times: dict[str, dict[str, float]]) -> float:
    """Our time divided by lax's, for wall or CPU time, whichever is lower: other programs disturb them differently."""
    return min(times["ours"][what] / times["lax"][what] for what in ("ms", "cpu"))


def above(products: dict[str, dict[str, dict[str, float]]], bound: float) -> bool:
    """Whether the ratio of any product is above the bound."""
    return any(ratio(times) > bound for times in products.values())


def tables(measured: Measured) -> list[str]:
    """For each set of flags and each product, the worst rows and the number of rows above the bounds."""
    lines = []
    for flags, shapes in measured.items():
        lines += [f"### {flags} flags, {len(shapes)} shapes", ""]
        for product in PRODUCTS:
            rows = [(name, *(products[product][who] for who in ("ours", "lax"))) for name, products in shapes.items()]
            ratios = {name: ratio(products[product]) for name, products in shapes.items()}
            slow = sum(value > 1.2 for value in ratios.values())
            late = sum(ours["compile"] > 2 and lax["compile"] < 0.5 for _, ours, lax in rows)
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            longest = max(ours["compile"] for _, ours, _ in rows)
            lines += [
                f"{product}: geometric mean of ours / lax {mean:.2f}; above 1.2 in wall and CPU time both: {slow}; "
                f"compiling for more than 2 s of CPU where lax needs less than 0.5: {late} (longest {longest:.2f} s). "
                "Worst:",
                "",
            ]
            worst = sorted(rows, key=lambda row: -ratios[row[0]])[:6]
            lines += record.table(
                ["shape", "ours ms", "lax ms", "ratio", "ours CPU ms", "lax CPU ms", "ratio", "compile s", "lax"],
                [
                    [
                        name,
                        *(f"{value:.2f}" for value in (ours["ms"], lax["ms"], ours["ms"] / lax["ms"])),
                        *(f"{value:.2f}" for value in (ours["cpu"], lax["cpu"], ours["cpu"] / lax["cpu"])),
                        *(f"{value:.2f}" for value in (ours["compile"], lax["compile"])),
                    ]
                    for name, ours, lax in worst
                ],
            )
    return lines


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    about = ["Written by `python benchmarks/auto_rule.py`, whose docstring explains the measurements."]
    return record.page("The rule of `method='auto'` against lax", report, about, tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="the number of random shapes")
    parser.add_argument("--seconds", type=float, default=0.1, help="the duration of the measurement of each product")
    parser.add_argument(
        "--again", type=float, help="measure only shapes whose ratio in this machine's results is above this"
    )
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer_questions(arguments.seconds)
        return
    load = os.getloadavg()[0]
    shapes = grid(arguments.count)
    measured: Measured = {"recommended": {}, "default": {}}
    if arguments.again:
        measured = json.loads(record.path_of("auto_rule").read_text())["backends"]["cpu"]
    for flags, known in measured.items():
        wanted = [shape for shape in shapes if not arguments.again or above(known[str(shape)], arguments.again)]
        known.update(run(flags, wanted, arguments.seconds))
    print("\n".join(tables(measured)))
    circumstances = {
        **record.circumstances(("jax", "jaxlib", "numpy")),
        "XLA_FLAGS": f"recommended: `{recommended_xla_flags()}`; default: none",
        "load average before the run (the run itself adds to it)": f"{load:.2f}",
        "dtype": "float32",
    }
    record.write("auto_rule", {"circumstances": circumstances, "backends": {"cpu": measured}}, markdown)


if __name__ == "__main__":
    main()
