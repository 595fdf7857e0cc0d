"""Convolution and pooling, layer by layer: this project, stock JAX and PyTorch, side by side in one run.

    python benchmarks/ops.py [--quick] [--layers lenet_c1,resnet20_16] [--seconds 0.2]

Each contender is a process of its own, because XLA's flags and the thread pools belong to a process; they are asked in
turn, layer by layer, so that all of them meet the same moods of the machine. What is timed:

* alone: one compiled call that computes one product (output, input gradient or kernel gradient) of one layer;
* in a loop: the same inside ``lax.fori_loop``, which is what ``lax.scan`` becomes. Each step adds a number from the
  last step's result to its operands, so that XLA can move nothing out of the loop; what such a sum costs is in the time
  that it is compared with ("loop / alone"), a single call that adds a number as well;
* memory: what ``compiled.memory_analysis()`` says of one program with all three products: arguments, results, buffers.

Every time is a median. PyTorch runs eagerly, in the better of its contiguous and channels-last layouts.
Results go to ``benchmarks/results/ops-<machine>.md`` and ``.json``.
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

from cnn_jax.runtime.xla import apply_recommended_flags, recommended_xla_flags

QUICK = ("lenet_c1", "resnet20_32", "depthwise_3x3", "max_3_s2")
NAMES = {
    "output": "forward",
    "input_gradient": "input gradient",
    "kernel_gradient": "kernel gradient",
    "training": "forward and gradient",
}


class Contender:
    """A process that measures the layers it is asked for, one line of JSON each."""

    def __init__(self, name: str, backend: str, seconds: float) -> None:
        environment = {**os.environ, "JAX_PLATFORMS": {"gpu": "cuda"}.get(backend, backend)}
        if "default flags" not in name:
            apply_recommended_flags(environment)
        command = [sys.executable, str(Path(__file__).with_name("op_contenders.py")), name, str(seconds)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, layer: str) -> dict[str, float]:
        """Its times for a layer."""
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
COLUMNS = {  # title: contender, what is added to the product's name
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
MEMORY = {  # title: whose memory ours is compared with
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
    """Geometric mean and extremes of every ratio over whole layers, of convolutions and of pools."""
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
    """Header and rows, as text; memory is that of the whole layer."""
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
        'Written by `python benchmarks/ops.py`, whose docstring says what is timed. "Stock" is `jax.lax` with',
        "JAX's own gradients. Ratios above 1 are in our favour, except those of loop / alone and of memory.",
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
    """Whether JAX finds a GPU; asked in a process of its own, because asking initialises JAX."""
    question = [sys.executable, "-c", "import jax; jax.devices('gpu')"]
    return subprocess.run(question, capture_output=True, check=False).returncode == 0


def run(backend: str, layers: list[str], seconds: float) -> Measured:
    """Asks every contender about every layer, in turn."""
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
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, and nothing is written")
    parser.add_argument("--layers", help="comma-separated: the results of these alone are renewed; by default all")
    parser.add_argument("--seconds", type=float, default=0.2, help="per measured function")
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
        write(backends, load)


def write(backends: dict[str, Measured], load: float) -> None:
    """Renews this machine's results by what was measured."""
    circumstances = {
        **record.circumstances(("jax", "jaxlib", "torch", "numpy")),
        "XLA_FLAGS": f"`{recommended_xla_flags()}`, except where it says default flags",
        "load average before the run (the run itself adds to it)": f"{load:.2f}",
        "dtype": "float32",
    }
    record.renew("ops", circumstances, backends, LAYERS, markdown)


if __name__ == "__main__":
    main()
