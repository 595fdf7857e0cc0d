"""The memory that training takes on volumes and on long series, which stay on disk."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.launch.process import ROOT

PROGRAM = r"""
import re, sys
from pathlib import Path
import jax
from cnn_jax import models, nn, ops
from cnn_jax.tasks import default_config, run

def kilobytes(field):
    return int(re.search(field + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

def tiny(*, num_classes, input_shape, width, dtype, rngs):
    rank = len(input_shape) - 1
    layers = {"conv": nn.Conv(1, 2, (3,) * rank, padding="SAME", rngs=rngs), "relu": jax.nn.relu}
    if rank == 1:
        layers["pool"] = ops.global_avg_pool
    output = nn.Linear(2, num_classes, rngs=rngs) if rank == 1 else nn.Conv(2, num_classes, (1,) * rank, rngs=rngs)
    return nn.Sequence({**layers, "output": output})

TINY = models.Variant(tiny, (64, 64, 64, 1), 2, any_rank=True)

if __name__ == "__main__":
    experiment, name, shape, count, loading, workdir = sys.argv[1:]
    config = default_config(experiment)
    config.data.name, config.data.loading, config.data.workers = name, loading, 0
    config.data.train = config.data.test = f"train[:{count}]"
    config.data.validation, config.input_shape = "", tuple(map(int, shape.split(",")))
    config.model.name, config.batch_size, config.epochs = f"{__file__}:TINY", 2, 1
    before = kilobytes("VmRSS")
    run.train(config, Path(workdir), report=False)
    print("grown by", kilobytes("VmHWM") - before)
"""


def write_volumes(folder: Path) -> None:
    """160 volumes of 1 MiB with masks of 0.25 MiB."""
    nibabel = pytest.importorskip("nibabel")
    generator = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(160):
        volume = generator.standard_normal((64, 64, 64), np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"images/{number}.nii")
        nibabel.save(nibabel.Nifti1Image((volume > 1).astype(np.uint8), np.eye(4)), folder / f"masks/{number}.nii")


def write_series(folder: Path) -> None:
    """100 series of 200,000 values, 120 MB of text, which are 0.8 MB each in memory."""
    folder.mkdir()
    values = np.random.default_rng(0).integers(-999, 999, 200_000)
    with open(folder / "train.csv", "w") as file:
        for number in range(100):
            file.write(f"{number % 2},{','.join(map(str, np.roll(values, number)))}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "source", "shape", "write"),
    [("segmentation", "masks", "64,64,64,1", write_volumes), ("classification", "series", "200000,1", write_series)],
    ids=["volumes", "series"],
)
def test_a_stream_needs_at_most_half_as_much_again_as_one_batch(experiment, source, shape, write, tmp_path) -> None:
    """Of the memory that a process takes beyond its imports, against the same training on a set of one batch."""
    program, folder = tmp_path / "program.py", tmp_path / "set"
    program.write_text(PROGRAM)
    write(folder)
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}  # one device, not those of the tests
    grown = {}
    for loading, count in (("memory", "2"), ("stream", "100%")):
        command = [sys.executable, program, experiment, f"{source}:{folder}", shape, count, loading, tmp_path / loading]
        done = subprocess.run(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True, check=True)
        grown[loading] = int(done.stdout.rpartition("grown by ")[2])
    assert grown["stream"] <= 1.5 * grown["memory"], grown
