"""Compares Canny's edges and histograms of oriented gradients with scikit-image on 64 images of 256x256, in turn.

    python benchmarks/classical_vision.py [--rounds 9]

The images are pieces of scikit-learn's two photographs, in grey. scikit-image (``pip install scikit-image``) takes one
image after the other; this project takes all of them in one compiled call. Both results are compared before they are
timed. The table has the medians of wall times in images per second, and of CPU times, which other processes disturb
less. Results are written to ``benchmarks/results/classical_vision-<machine>.md`` and ``.json``.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import record

from cnn_jax.runtime.xla import apply_recommended_flags

apply_recommended_flags()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from skimage import feature  # noqa: E402
from sklearn.datasets import load_sample_images  # noqa: E402

from cnn_jax import filters  # noqa: E402

COUNT, SIDE, SIGMA = 64, 256, 1.4
Run = Callable[[], np.ndarray]


def pieces() -> np.ndarray:
    """Grey pieces of the photographs, (64, 256, 256), from 0 to 1."""
    photographs = [
        image @ np.array([0.2125, 0.7154, 0.0721], np.float32) / 255 for image in load_sample_images().images
    ]
    generator, found = np.random.default_rng(0), []
    for number in range(COUNT):
        image = photographs[number % len(photographs)]
        top, left = (int(generator.integers(0, size - SIDE)) for size in image.shape)
        found.append(image[top : top + SIDE, left : left + SIDE])
    return np.stack(found).astype(np.float32)


def contenders(images: np.ndarray) -> dict[str, tuple[Run, Run]]:
    """Name -> ours and scikit-image's."""
    device = jax.device_put(images[..., None])
    own = {"pixels_per_cell": (8, 8), "cells_per_block": (2, 2)}
    return {
        f"canny(sigma={SIGMA})": (
            lambda: np.asarray(filters.canny(device, sigma=SIGMA))[..., 0],
            lambda: np.stack([feature.canny(image, sigma=SIGMA) for image in images]),
        ),
        "hog(pixels_per_cell=8, cells_per_block=2)": (
            lambda: np.asarray(filters.hog(device)).reshape(COUNT, -1),
            lambda: np.stack([feature.hog(image, **own) for image in images]),
        ),
    }


def measure(pair: tuple[Run, Run], rounds: int) -> dict[str, float]:
    """Images per second by the clock and CPU milliseconds per image of both, in turn."""
    wall: list[list[float]] = [[], []]
    cpu: list[list[float]] = [[], []]
    for _ in range(rounds):
        for which, run in enumerate(pair):
            start, used = time.perf_counter(), time.process_time()
            run()
            wall[which].append(time.perf_counter() - start)
            cpu[which].append(time.process_time() - used)
    (ours, theirs), (our_cpu, their_cpu) = ([statistics.median(times) for times in kind] for kind in (wall, cpu))
    return {
        "ours": COUNT / ours,
        "scikit-image": COUNT / theirs,
        "times faster": theirs / ours,
        "CPU ms, ours": 1e3 * our_cpu / COUNT,
        "CPU ms, scikit-image": 1e3 * their_cpu / COUNT,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Classical vision, 64 images of 256x256 in float32",
        "",
        *(f"- {name}: {value}" for name, value in report["circumstances"].items()),
        f"- medians of {report['rounds']} rounds, in turn",
        "",
        "| | images/s, ours | scikit-image | times faster | CPU ms per image, ours | scikit-image |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in report["results"].items():
        cells = [f"{row['ours']:,.0f}", f"{row['scikit-image']:,.0f}", f"{row['times faster']:.1f}"]
        cells += [f"{row[f'CPU ms, {whose}']:.1f}" for whose in ("ours", "scikit-image")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds, results = parser.parse_args().rounds, {}
    for name, pair in contenders(pieces()).items():
        ours, theirs = (run() for run in pair)
        different = np.mean(ours != theirs) if ours.dtype == bool else np.abs(ours - theirs).max()
        if different > 1e-5:
            sys.exit(f"{name}: the results differ by {different}")
        results[name] = measure(pair, rounds)
        print(name, {key: round(value, 1) for key, value in results[name].items()})
    circumstances = record.circumstances(["jax", "scikit-image", "numpy"])
    record.write("classical_vision", {"circumstances": circumstances, "rounds": rounds, "results": results}, markdown)


if __name__ == "__main__":
    main()
