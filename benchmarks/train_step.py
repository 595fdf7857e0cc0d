"""Compares one training step of whole networks in this project, stock Flax and PyTorch, in one run.

    python benchmarks/train_step.py [--quick] [--networks lenet_5,resnet_20] [--seconds 3]

Each contender runs in a separate process, because XLA's flags and thread pools belong to a process. They are measured
in turn, network by network, so that changes of the machine's load affect all of them alike. One step is the forward and
backward pass of a batch that is already on the device, and an update by SGD with momentum, including auxiliary heads
and dropout; that of DCGAN is of both of its networks, with Adam. Before a network is measured, its parameters here,
in stock Flax and in PyTorch are compared. Columns:

* ours: ``train.make_step``, one compiled step per call, with the XLA flags, huge pages and native CPU kernels of
  ``launch.py``;
* ours, XLA alone: the same without the native CPU kernels;
* ours in a loop: the same steps inside a compiled loop, as in ``launch.py``;
* stock Flax, per call and in a loop: the same network of ``nnx.Conv``, ``nnx.BatchNorm``, ``nnx.max_pool``, with JAX's
  default flags. SegNet's unpooling, which Flax does not have, is a product with a one-hot array. Stock loops can take
  minutes per step. Those that take more than ``--limit`` seconds with compilation are not measured, and networks that
  are not in ``--stock-loops`` are not tried;
* PyTorch: eager in the faster of the contiguous and channels-last layouts, ``torch.compile`` in that layout, and eager
  with large arrays in huge pages.

Every time is a median. Compile times are without a cache. On a CPU all contenders compute in float32, on a GPU in
bfloat16 with float32 parameters and larger batches; DCGAN always in float32. Results are written to
``benchmarks/results/train_step-<machine>.md`` and ``.json``.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import record
from ops import has_gpu
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from train_step_contenders import NETWORKS

from cnn_jax import native
from cnn_jax.runtime.huge_pages import apply_recommended_tunables, recommended_glibc_tunables
from cnn_jax.runtime.xla import apply_recommended_flags, recommended_xla_flags

QUICK = ("lenet_5", "resnet_20")
STOCK_LOOPS = "lenet_5,resnet_20,alexnet"
COLUMNS = {  # title: contender, measurement
    "ours": ("ours", "step"),
    "ours in a loop": ("ours", "loop"),
    "ours, XLA alone": ("ours, XLA alone", "step"),
    "stock Flax": ("stock", "step"),
    "stock Flax in a loop": ("stock", "loop"),
    "PyTorch eager": ("PyTorch", "eager"),
    "torch.compile": ("PyTorch", "compiled"),
    "PyTorch eager, huge pages": ("PyTorch, huge pages", "eager"),
}
COMPARED = ("ours", "stock", "PyTorch")  # contenders whose networks are written separately
COMPILED = ("ours", "ours in a loop", "ours, XLA alone", "stock Flax", "torch.compile")
RATIOS = {  # title: columns of the numerator and of the denominator; the minimum of several columns is used
    "best PyTorch / ours": (
        ("PyTorch eager", "torch.compile", "PyTorch eager, huge pages"),
        ("ours", "ours in a loop"),
    ),
    "ours, XLA alone / ours": (("ours, XLA alone",), ("ours",)),
    "torch.compile / ours": (("torch.compile",), ("ours", "ours in a loop")),
    "stock Flax / ours": (("stock Flax",), ("ours", "ours in a loop")),
    "ours / ours in a loop": (("ours",), ("ours in a loop",)),
    "stock Flax / ours, both in a loop": (("stock Flax in a loop",), ("ours in a loop",)),
}

Cell = dict[str, Any]  # milliseconds, batch, and optionally compile (seconds) and layout; or only a note
Measured = dict[str, dict[str, Cell]]  # network -> column -> cell


class Contender:
    """A process that makes measurements on request. It is restarted after a timeout."""

    def __init__(self, name: str, backend: str, seconds: float) -> None:
        self._name = name
        self._environment = {**os.environ, "JAX_PLATFORMS": {"gpu": "cuda"}.get(backend, backend)}
        self._environment["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
        self._environment["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
        self._environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        self._environment["CNN_JAX_NATIVE"] = "1" if name == "ours" else "0"
        if name.startswith("ours"):
            apply_recommended_flags(self._environment)
        if name in ("ours", "ours, XLA alone", "PyTorch, huge pages"):
            apply_recommended_tunables(self._environment)
        script = str(Path(__file__).with_name("train_step_contenders.py"))
        self._command = [sys.executable, script, name.split(",")[0], str(seconds)]
        self._process: subprocess.Popen[str] | None = None

    def ask(self, network: str, what: str, *, limit: float) -> Cell:
        """The result of a measurement, or a note that says why there is none."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._answers: queue.Queue[str] = queue.Queue()
            threading.Thread(target=self._read, args=(self._process, self._answers), daemon=True).start()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{network} {what}\n")
        self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=limit)
        except queue.Empty:
            self.close()
            return {"note": f"over {limit:.0f} s"}
        if not answer:
            self.close()
            return {"note": "failed"}  # the process has printed its message; other measurements continue
        return json.loads(answer)

    @staticmethod
    def _read(process: "subprocess.Popen[str]", answers: "queue.Queue[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def run(
    backend: str, networks: Sequence[str], stock_loops: Sequence[str], seconds: float, limit: float
) -> Iterator[Measured]:
    """Measures every network with every contender, in turn. Yields all results so far after each network."""
    contenders = {name: Contender(name, backend, seconds) for name in dict.fromkeys(who for who, _ in COLUMNS.values())}
    measured: Measured = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(backend, total=len(networks) * len(COLUMNS))
        for name in networks:
            check_parameters(name, contenders)
            measured[name] = {}
            for title, (who, what) in COLUMNS.items():
                progress.update(task, description=f"{backend}: {NETWORKS[name].title}, {title}")
                if title == "stock Flax in a loop" and name not in stock_loops:
                    measured[name][title] = {"note": "not tried"}
                else:
                    wait = limit if title == "stock Flax in a loop" else 600
                    measured[name][title] = contenders[who].ask(name, what, limit=wait)
                progress.advance(task)
                cell = measured[name][title]
                progress.console.print(f"{NETWORKS[name].title:10} {title:22} {shown(cell)}")
            yield measured
    for contender in contenders.values():
        contender.close()


def check_parameters(network: str, contenders: dict[str, Contender]) -> None:
    """Ends the program if the parameters of a network differ between contenders in number or size."""
    sizes = {who: contenders[who].ask(network, "parameters", limit=600).get("sizes") for who in COMPARED}
    if None in sizes.values() or len({tuple(own) for own in sizes.values()}) > 1:
        found = ", ".join(f"{who}: {sum(own):,} in {len(own)}" if own else f"{who}: none" for who, own in sizes.items())
        for contender in contenders.values():
            contender.close()
        sys.exit(f"{network}: the parameters of the contenders differ, so that times cannot be compared; {found}")


# --- the table --------------------------------------------------------------------------------------------------------


def shown(cell: Cell) -> str:
    """Formats the milliseconds per step and the images per second."""
    if "milliseconds" not in cell:
        return cell["note"]
    rate = 1e3 * cell["batch"] / cell["milliseconds"]
    return f"{cell['milliseconds']:,.1f} ms, {rate:,.{0 if rate > 100 else 1}f}/s"


def ratio(cells: dict[str, Cell], above: Sequence[str], below: Sequence[str]) -> float | None:
    """The minimum time of some columns divided by that of others, or None if one side was not measured."""
    sides = [
        [cells[title]["milliseconds"] for title in titles if "milliseconds" in cells.get(title, {})]
        for titles in (above, below)
    ]
    return min(sides[0]) / min(sides[1]) if all(sides) else None


def summary(measured: Measured) -> dict[str, dict[str, float]]:
    """The geometric mean, minimum and maximum of every ratio, and the number of networks."""
    result = {}
    for title, (above, below) in RATIOS.items():
        found = [value for cells in measured.values() if (value := ratio(cells, above, below)) is not None]
        if found:
            result[title] = {**record.spread(found), "networks": float(len(found))}
    return result


def tables(measured: Measured) -> list[tuple[str, list[str], list[list[str]]]]:
    """The title, header and rows of each table as text."""
    times, ratios, compiling = [], [], []
    for name, cells in measured.items():
        batch = max(cell.get("batch", 0) for cell in cells.values())
        label = f"{NETWORKS[name].title} b{batch}"
        shown_cells = [shown(cells.get(title, {"note": ""})) for title in COLUMNS]  # an older run may lack a column
        times.append([label, *shown_cells, cells["PyTorch eager"].get("layout", "")])
        values = [ratio(cells, above, below) for above, below in RATIOS.values()]
        ratios.append([label, *("" if value is None else f"{value:.2f}" for value in values)])
        compiled = [cells.get(title, {}).get("compile") for title in COMPILED]
        compiling.append([label, *("" if seconds is None else f"{seconds:.1f}" for seconds in compiled)])
    overall = [
        [title, *(f"{numbers[key]:.2f}" for key in ("geometric mean", "least", "most")), f"{numbers['networks']:.0f}"]
        for title, numbers in summary(measured).items()
    ]
    return [
        ("Over the networks", ["ratio of times", "geometric mean", "least", "most", "networks"], overall),
        ("Ratios of times", ["network", *RATIOS], ratios),
        ("A step", ["network", *COLUMNS, "PyTorch's layout"], times),
        (
            "Compiling, seconds",
            ["network", *COMPILED[:-1], "torch.compile, both passes"],
            compiling,
        ),
    ]


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    about = [
        "Written by `python benchmarks/train_step.py`, whose docstring explains the measurements. Ratios above 1 are",
        'in our favour. "Ours" is the faster of one step per call and steps in a loop; "best PyTorch" likewise.',
    ]

    def sections(measured: Measured) -> list[str]:
        return [
            line
            for title, header, body in tables(measured)
            for line in (f"### {title}", "", *record.table(header, body))
        ]

    return record.page("A training step of whole networks", report, about, sections)


def show(measured: Measured) -> None:
    """Prints the tables."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    for title, header, body in tables(measured):
        table = Table(*header, title=title, title_justify="left")
        for cells in body:
            table.add_row(*cells)
        console.print(table)


def write(backends: dict[str, Measured], load: float, note: str) -> None:
    """Updates this machine's results."""
    circumstances = {
        **record.circumstances(("jax", "jaxlib", "flax", "optax", "torch", "numpy")),
        "XLA_FLAGS of ours": f"`{recommended_xla_flags()}`",
        "GLIBC_TUNABLES of ours and of PyTorch with huge pages": f"`{recommended_glibc_tunables()}`",
        "load average before the run (the run itself adds to it)": f"{load:.2f}",
        "native CPU kernels of ours": native.describe(),
        "dtype": "float32 on the CPU, bfloat16 on a GPU",
    } | ({"note": note} if note else {})
    record.renew("train_step", circumstances, backends, NETWORKS, markdown)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"measure only {', '.join(QUICK)} and write no results")
    parser.add_argument("--networks", help="networks to measure, separated by commas; by default all")
    parser.add_argument("--seconds", type=float, default=3.0, help="the duration of each measurement")
    parser.add_argument("--limit", type=float, default=60.0, help="the time limit for stock Flax in a loop, in seconds")
    parser.add_argument("--stock-loops", default=STOCK_LOOPS, help="networks to measure with stock Flax in a loop")
    parser.add_argument("--note", default="", help="a note that is stored with the results")
    arguments = parser.parse_args()
    networks = arguments.networks.split(",") if arguments.networks else list(QUICK if arguments.quick else NETWORKS)
    stock_loops = arguments.stock_loops.split(",") if arguments.stock_loops else []
    unknown = {*networks, *stock_loops} - {*NETWORKS}
    if unknown:
        parser.error(f"unknown networks {', '.join(sorted(unknown))}; known: {', '.join(NETWORKS)}")
    load = os.getloadavg()[0]
    native.enable()
    backends: dict[str, Measured] = {}
    seconds = min(arguments.seconds, 0.5) if arguments.quick else arguments.seconds
    for backend in ["cpu", *["gpu"] * has_gpu()]:
        for measured in run(backend, networks, stock_loops, seconds, arguments.limit):
            backends[backend] = measured
            if not arguments.quick:
                write(backends, load, arguments.note)
        show(backends[backend])


if __name__ == "__main__":
    main()
