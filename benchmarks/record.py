"""Writes the results of benchmarks to ``results/<benchmark>-<machine>.md`` and ``.json``, with date and versions."""

import datetime
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The name of the processor, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def circumstances(packages: Sequence[str]) -> dict[str, str]:
    """The date, the machine, and the versions of Python and of packages."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def path_of(benchmark: str) -> Path:
    """The JSON file of a benchmark on this machine."""
    name = "".join(c if c.isalnum() else " " for c in f"{processor()} {os.cpu_count()} cores").lower()
    return RESULTS / f"{benchmark}-{'-'.join(name.split())}.json"


def write(benchmark: str, report: dict[str, Any], markdown: Callable[[dict[str, Any]], str]) -> None:
    """Writes a report as JSON, and as the page that ``markdown`` returns for it."""
    RESULTS.mkdir(exist_ok=True)
    path = path_of(benchmark)
    path.write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(report))
    print(f"written: {path} and .md")


def renew(
    benchmark: str,
    circumstances: Mapping[str, str],
    backends: Mapping[str, Mapping[str, Any]],
    order: Collection[str],
    markdown: Callable[[dict[str, Any]], str],
) -> None:
    """Updates this machine's results with new measurements for each backend. Other results are kept."""
    path = path_of(benchmark)
    earlier = json.loads(path.read_text())["backends"] if path.exists() else {}
    merged: dict[str, dict[str, Any] | None] = {}
    for backend in ("cpu", "gpu"):
        known = {**(earlier.get(backend) or {}), **backends.get(backend, {})}
        merged[backend] = {name: known[name] for name in order if name in known} or None
    write(benchmark, {"circumstances": circumstances, "backends": merged}, markdown)


def page(title: str, report: dict[str, Any], about: Sequence[str], tables: Callable[[Any], list[str]]) -> str:
    """A report as a page: the circumstances, an introduction, and the tables of each backend."""
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in report["circumstances"].items())]
    lines += ["", *about, ""]
    for backend, measured in report["backends"].items():
        lines += [f"## {backend.upper()}", ""]
        lines += ["Not measured: JAX cannot use one on this machine.", ""] if measured is None else tables(measured)
    return "\n".join(lines)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The geometric mean, minimum and maximum of ratios."""
    mean = math.exp(statistics.fmean(map(math.log, values)))
    return {"geometric mean": mean, "least": min(values), "most": max(values)}


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, followed by an empty line."""
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *body)] + [""]
