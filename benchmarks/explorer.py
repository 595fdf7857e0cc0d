"""Measures the explorer's pages: sizes, the time of a frame in headless Chromium, and the ratio to JAX on one core.

Command: python benchmarks/explorer.py
Needs chromium on the PATH. Takes about two minutes on two CPU cores.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
CORES = os.sched_getaffinity(0)
os.sched_setaffinity(0, {min(CORES)})  # so that JAX has threads for one core only

import jax  # noqa: E402
from flax import nnx  # noqa: E402

from cnn_jax import explorer, tasks  # noqa: E402
from cnn_jax.tasks import run  # noqa: E402
from cnn_jax.tasks.explore import explored  # noqa: E402
from tests.report.browser import tab  # noqa: E402

NETWORKS = {"lenet_5_modern": ((32, 32, 1), 16.0, 600), "resnet_20": ((32, 32, 3), 120.0, 1000)}
"""Name -> input shape, most milliseconds for a frame, most kilobytes for a page."""
FRAMES = 30


def measured(name: str, folder: Path) -> dict[str, float]:
    """Kilobytes and milliseconds of one network with arbitrary weights."""
    shape = NETWORKS[name][0]
    config = tasks.default_config()
    config.model.name, config.input_shape = name, shape
    network = run.untrained(config)
    model = network.create(jax.random.key(0))
    model.eval()
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    titles = [f"image {number}" for number in range(len(images))]
    page = explored(network, model, images, titles, title=name, subtitle="", ink_extent=0.7 if shape[-1] == 1 else None)
    path = folder / f"{name}.html"
    explorer.write(path, page)
    os.sched_setaffinity(0, CORES)  # the browser inherits this
    with tab(folder) as browser:
        browser.open(path)
        badge = browser.run("explorer.then(() => document.getElementById('badge').textContent)")
        times = browser.run(
            f"""explorer.then(async ({{explorer}}) => {{
              const image = Float32Array.from({{ length: {np.prod(shape)} }}, () => Math.random());
              const compute = [], frame = [];
              for (let i = 0; i < {FRAMES}; i += 1) {{
                const started = performance.now();
                const answer = await explorer.ask({{ do: "run", given: image, from: 0 }});
                explorer.values = answer.values;
                explorer.draw();
                frame.push(performance.now() - started);
                compute.push(answer.milliseconds);
              }}
              return [compute, frame];
            }})"""
        )
    os.sched_setaffinity(0, {min(CORES)})
    graph, state = nnx.split(model)
    forward = jax.jit(lambda state, x: nnx.merge(graph, state)(x, train=False, return_activations=True))
    x = network.preprocess(images[:1])
    jax.block_until_ready(forward(state, x))
    seconds = []
    for _ in range(FRAMES):
        started = time.perf_counter()
        jax.block_until_ready(forward(state, x))
        seconds.append(time.perf_counter() - started)
    print(f"{name}: {badge}")
    for what, values in (("compute", times[0]), ("frame", times[1]), ("JAX", [1000 * value for value in seconds])):
        print(f"  {what}: fastest {min(values):.2f} ms, median {statistics.median(values):.2f} ms")
    compute, frame = (statistics.median(values) for values in times)
    own = 1000 * statistics.median(seconds)
    size = path.stat().st_size / 1000
    return {"kB": size, "compute ms": compute, "frame ms": frame, "JAX ms": own, "ratio": compute / own}


def main() -> None:
    """Prints a line for each network, and whether it meets its targets."""
    for name, (_, most_ms, most_kb) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measured(name, Path(folder))
        for what, most in (("frame ms", most_ms), ("kB", most_kb), ("ratio", 10)):
            print(f"  {what} {found[what]:.2f}, at most {most:g}: {'met' if found[what] <= most else 'NOT MET'}")


if __name__ == "__main__":
    main()
