"""Compares single convolutions and pools of this project with stock JAX and PyTorch, in one run.

    python benchmarks/ops.py [--quick] [--layers lenet_c1,resnet20_16] [--seconds 0.2]

Each contender runs in a separate process, because XLA's flags and thread pools belong to a process. They are measured
in turn, layer by layer, so that changes of the machine's load affect all of them alike. The measurements are:

* alone: one compiled call that computes one product (output, input gradient or kernel gradient) of one layer;
* in a loop: the same inside ``lax.fori_loop``, to which ``lax.scan`` is lowered. Each step adds a number from the
  previous result to its operands, so that XLA cannot move computations out of the loop. "loop / alone" compares with a
  single call that also adds a number;
* memory: arguments, results and buffers of one program with all three products, from ``compiled.memory_analysis()``.

Every time is a median. PyTorch runs eagerly, in the faster of the contiguous and channels-last layouts.
Results are written to ``benchmarks/results/ops-<machine>.md`` and ``.json``.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import record
from op_contenders import CONTENDERS, LAYERS

from cnn_jax import native
from cnn_jax.runtime.xla import apply_recommended_flags, recommended_xla_flags

QUICK = ("lenet_c1", "resnet20_32", "depthwise_3x3", "max_3_s2")
NAMES = {
    "output": "forward",
    "input_gradient": "input gradient",
    "kernel_gradient": "kernel gradient",
    "training": "forward and gradient",
}


class Contender:
    """A process that measures layers on request and answers with a line of JSON for each."""

    def __init__(self, name: str, backend: str, seconds: float) -> None:
        environment = {**os.environ, "JAX_PLATFORMS": {"gpu": "cuda"}.get(backend, backend)}
        if "default flags" not in name:
            apply_recommended_flags(environment)
        command = [sys.executable, str(Path(__file__).with_name("op_contenders.py")), name, str(seconds)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, layer: str) -> dict[str, float]:
        """The measurements of a layer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(layer + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the contender died at layer {layer}; its message is above")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


# --- the table --------------------------------------------------------------------------------------------------------

Measured = dict[str, dict[str, dict[str, float]]]  # layer -> contender -> what -> milliseconds or bytes
Row = tuple[str, str, dict[str, float]]  # layer, product, milliseconds by column
COLUMNS = {  # title: contender, suffix of the measurement's name
    "ours": ("ours", ""),
    "stock": ("stock", ""),
    "stock, default flags": ("stock, default flags", ""),
    "PyTorch": ("PyTorch", ""),
    "ours in a loop": ("ours", " in a loop"),
    "stock in a loop": ("stock", " in a loop"),
    "ours, shifted": ("ours", " of shifted operands"),
    "stock, shifted": ("stock", " of shifted operands"),
}
RATIOS = {
    "PyTorch / ours": ("PyTorch", "ours"),
    "stock / ours": ("stock", "ours"),
    "stock, default flags / ours": ("stock, default flags", "ours"),
    "ours, loop / alone": ("ours in a loop", "ours, shifted"),
    "stock, loop / alone": ("stock in a loop", "stock, shifted"),
}
MEMORY = {  # title: the contender and the measurement that our memory is compared with
    "memory, ours / stock": ("stock", "bytes"),
    "memory, auto / direct": ("ours", "bytes of direct"),
}


def rows(measured: Measured) -> list[Row]:
    """Every product of every layer, and the sum of the three products of each convolution."""
    table: list[Row] = []
    for name, contenders in measured.items():
        products = ["output", "training"] if LAYERS[name].pool else ["output", "input_gradient", "kernel_gradient"]
        times = [
            {title: contenders[who][product + suffix] for title, (who, suffix) in COLUMNS.items()}
            for product in products
        ]
        table += [(name, NAMES[product], cells) for product, cells in zip(products, times, strict=True)]
        if not LAYERS[name].pool:
            table.append((name, "all three", {title: sum(cells[title] for cells in times) for title in COLUMNS}))
    return table


def summary(measured: Measured) -> dict[str, dict[str, float]]:
    """The geometric mean, minimum and maximum of every ratio over whole layers, for convolutions and for pools."""
    result = {}
    for kind, whole in (("convolutions", "all three"), ("pools", NAMES["training"])):
        layers = [(name, cells) for name, what, cells in rows(measured) if what == whole]
        values = {
            ratio: [cells[above] / cells[below] for _, cells in layers] for ratio, (above, below) in RATIOS.items()
        }
        values |= {
            ratio: [measured[name]["ours"]["bytes"] / measured[name][who][what] for name, _ in layers]
            for ratio, (who, what) in MEMORY.items()
        }
        for ratio, numbers in values.items():
            if numbers:
                result[f"{kind}: {ratio}"] = record.spread(numbers)
    return result


def text_table(measured: Measured) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table as text. Memory is for the whole layer."""
    header = ["layer", "milliseconds", *COLUMNS, *RATIOS, "MB", *MEMORY]
    body = []
    for name, product, cells in rows(measured):
        ratios = [f"{cells[above] / cells[below]:.2f}" for above, below in RATIOS.values()]
        memory = [""] * (1 + len(MEMORY))
        if product in ("all three", NAMES["training"]):
            ours = measured[name]["ours"]["bytes"]
            others = (measured[name][who][what] for who, what in MEMORY.values())
            memory = [f"{ours / 1e6:.1f}", *(f"{ours / other:.2f}" for other in others)]
        body.append([name, product, *(f"{value:.2f}" for value in cells.values()), *ratios, *memory])
    return header, body


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    about = [
        'Written by `python benchmarks/ops.py`, whose docstring explains the measurements. "Stock" is `jax.lax` with',
        "JAX's gradients. Ratios above 1 are in our favour, except loop / alone and memory.",
    ]

    def tables(measured: Measured) -> list[str]:
        overall = [
            [ratio, *(f"{number:.2f}" for number in numbers.values())] for ratio, numbers in summary(measured).items()
        ]
        header = ["ratio over whole layers", "geometric mean", "least", "most"]
        return [*record.table(header, overall), *record.table(*text_table(measured))]

    return record.page("Convolutions and pools, layer by layer", report, about, tables)


def show(measured: Measured) -> None:
    """Prints the table and its summary."""
    from rich.console import Console
    from rich.table import Table

    header, body = text_table(measured)
    table = Table(*header)
    for cells in body:
        table.add_row(*cells, end_section=cells[1] in ("all three", NAMES["training"]))
    console = Console(width=None if sys.stdout.isatty() else 220)
    console.print(table)
    for ratio, numbers in summary(measured).items():
        console.print(f"{ratio:50s}", *(f"{name} {number:.2f}" for name, number in numbers.items()))


# --- the run ----------------------------------------------------------------------------------------------------------


def has_gpu() -> bool:
    """Whether JAX finds a GPU. It is checked in a separate process, because the check initialises JAX."""
    question = [sys.executable, "-c", "import jax; jax.devices('gpu')"]
    return subprocess.run(question, capture_output=True, check=False).returncode == 0


def run(backend: str, layers: list[str], seconds: float) -> Measured:
    """Measures every layer with every contender, in turn."""
    contenders = {name: Contender(name, backend, seconds) for name in CONTENDERS}
    measured: Measured = {}
    for layer in layers:
        measured[layer] = {name: contender.measure(layer) for name, contender in contenders.items()}
        print(f"{backend} {layer}", file=sys.stderr)
    for contender in contenders.values():
        contender.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"measure only {', '.join(QUICK)} and write no results")
    parser.add_argument("--layers", help="layers to measure, separated by commas; by default all")
    parser.add_argument("--seconds", type=float, default=0.2, help="the duration of each measurement")
    arguments = parser.parse_args()
    layers = arguments.layers.split(",") if arguments.layers else list(QUICK if arguments.quick else LAYERS)
    unknown = set(layers) - set(LAYERS)
    if unknown:
        parser.error(f"unknown layers {', '.join(sorted(unknown))}; known: {', '.join(LAYERS)}")

    load = os.getloadavg()[0]
    backends: dict[str, Measured] = {}
    for backend in ["cpu", *["gpu"] * has_gpu()]:
        backends[backend] = run(backend, layers, arguments.seconds)
        show(backends[backend])
    if not arguments.quick:
        native.enable()
        write(backends, load)


def write(backends: dict[str, Measured], load: float) -> None:
    """Updates this machine's results."""
    circumstances = {
        **record.circumstances(("jax", "jaxlib", "torch", "numpy")),
        "XLA_FLAGS": f"`{recommended_xla_flags()}`, except in columns with default flags",
        "load average before the run (the run itself adds to it)": f"{load:.2f}",
        "native CPU kernels of ours": native.describe(),
        "dtype": "float32",
    }
    record.renew("ops", circumstances, backends, LAYERS, markdown)


if __name__ == "__main__":
    main()
