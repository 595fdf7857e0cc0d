"""Measures the time of a training step per image over batch size, depth, image size and number of devices.

    python benchmarks/scaling.py [--quick] [--seconds 1]

It measures one optimiser step of a plain convolutional network (3x3 kernels with 32 channels, a 2x2 max pool after
every second layer if the size allows it, global average, linear), from the state and a batch on the device to the new
state, without compilation. One of the four quantities varies; the others stay at batch 32, 4 layers, 32x32 pixels and
one device. Simulated devices share the same cores, so their line shows the cost of splitting a batch and no gain. Each
case runs in a separate process, because the number of devices of a process is fixed. Every time is a median.

Results are written to ``benchmarks/results/scaling-<machine>.md``, ``.json`` and ``.png``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import record

from cnn_jax.runtime.huge_pages import restart_with_huge_pages
from cnn_jax.runtime.xla import apply_recommended_flags

CHANNELS = 32
BASE = {"batch": 32, "depth": 4, "side": 32, "devices": 1}
GROWING = {
    "batch": [1, 4, 16, 64, 256],
    "depth": [1, 2, 4, 8, 16],
    "side": [8, 16, 32, 64, 128],
    "devices": [1, 2, 4, 8],
}
QUICK = {"batch": [4, 16], "depth": [1, 2], "side": [8, 16], "devices": [1, 2]}


def measure(case: dict[str, int], seconds: float) -> float:
    """The time of one training step per image of the batch in milliseconds, measured in this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from cnn_jax import nn, ops, train

    parallel = train.DataParallel(num_devices=case["devices"])

    def create(key: jax.Array) -> nn.Sequence:
        rngs, layers, side = nnx.Rngs(key), {}, case["side"]
        for number in range(case["depth"]):
            layers[f"c{number}"] = nn.Conv(CHANNELS if number else 3, CHANNELS, (3, 3), rngs=rngs)
            layers[f"c{number}_relu"] = jax.nn.relu
            if number % 2 and side >= 4:
                layers[f"p{number}"] = nn.MaxPool((2, 2), strides=(2, 2))
                side //= 2
        layers["average"] = lambda x: x.mean(axis=(1, 2))
        return nn.Sequence({**layers, "output": nn.Linear(CHANNELS, 10, rngs=rngs)})

    graph = nnx.split(nnx.eval_shape(lambda: create(jax.random.key(0))), nnx.Param, ...)[0]

    def loss(params: Any, model_state: Any, batch: train.Batch, _key: jax.Array) -> Any:
        logits = nnx.merge(graph, params, model_state)(batch["image"], train=True)
        losses = ops.softmax_cross_entropy(logits, batch["label"])
        return losses.mean(), ({"loss": (losses.sum(), jnp.float32(losses.size))}, model_state)

    optimizer = train.create_optimizer("nesterov", 0.01)

    def init() -> train.TrainState:
        _, params, model_state = nnx.split(create(jax.random.key(0)), nnx.Param, ...)
        return train.create_state(jax.random.key(0), params, model_state, optimizer)

    random = np.random.default_rng(0)
    images = random.normal(size=(case["batch"], case["side"], case["side"], 3)).astype(np.float32)
    examples = parallel.replicate({"image": images, "label": random.integers(0, 10, case["batch"])})
    steps = train.make_scanned_steps(
        train.make_step(loss, optimizer, parallel=parallel),
        batch_size=case["batch"],
        num_examples=case["batch"],
        longest=1,
        parallel=parallel,
    )
    first_state = jax.jit(init, out_shardings=parallel.shardings(jax.eval_shape(init)))
    state, _ = jax.block_until_ready(steps(first_state(), examples, 1))
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(steps(state, examples, 1))
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times) / case["batch"]


def measured_elsewhere(case: dict[str, int], seconds: float) -> float:
    """Runs :func:`measure` in a separate process with the given number of simulated devices."""
    environment = dict(os.environ)
    if case["devices"] > 1:
        flags = environment.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={case['devices']}".strip()
    command = [sys.executable, __file__, "--case", json.dumps(case), "--seconds", str(seconds)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = ["# The time of a training step per image", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()]
    lines += ["", "Written by `python benchmarks/scaling.py`, whose docstring explains the measurements.", ""]
    for name, points in report["milliseconds_per_image"].items():
        fixed = ", ".join(f"{other} {value}" for other, value in BASE.items() if other != name)
        lines += [f"## {name} ({fixed})", ""]
        lines += record.table([name, "ms / image"], [[value, f"{number:.3f}"] for value, number in points.items()])
    return "\n".join([*lines, f"![plot of the tables]({record.path_of('scaling').with_suffix('.png').name})", ""])


def plot(measured: dict[str, dict[str, float]], path: Path) -> None:
    """One panel for each quantity, with logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(2, 2).flat, measured.items(), strict=True):
        axes.loglog([int(value) for value in points], list(points.values()), "o-", base=2)
        axes.set(xlabel=name, ylabel="ms / image", xticks=[int(value) for value in points], xticklabels=list(points))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="measure two values of each quantity and write no results")
    parser.add_argument("--seconds", type=float, default=1.0, help="the duration of each measurement")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    restart_with_huge_pages()
    apply_recommended_flags(os.environ)
    if arguments.case:
        print(measure(json.loads(arguments.case), arguments.seconds))
        return
    measured: dict[str, dict[str, float]] = {}
    for name, values in (QUICK if arguments.quick else GROWING).items():
        measured[name] = {}
        for value in values:
            measured[name][str(value)] = measured_elsewhere({**BASE, name: value}, arguments.seconds)
            print(f"{name} {value}: {measured[name][str(value)]:.3f} ms / image", flush=True)
    if not arguments.quick:
        circumstances = record.circumstances(("jax", "jaxlib", "flax", "numpy"))
        circumstances["backend"] = os.environ.get("JAX_PLATFORMS", "JAX's default")
        report = {"circumstances": circumstances, "milliseconds_per_image": measured}
        record.write("scaling", report, markdown)
        plot(measured, record.path_of("scaling").with_suffix(".png"))


if __name__ == "__main__":
    main()
