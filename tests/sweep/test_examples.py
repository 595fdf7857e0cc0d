"""The sweeps in configs/sweeps: their headers, and the validity of every trial."""

import re
import runpy
from pathlib import Path

import pytest

from cnn_jax import schema
from cnn_jax.sweep import space

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs" / "sweeps").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_header_counts_the_trials_that_the_config_allows(path: Path) -> None:
    module = runpy.run_path(str(ROOT / path))
    header = module["__doc__"]
    assert f"python launch.py --config={path} --mode=sweep" in header
    config, part = module["get_config"](), module["get_hyper"](space)
    part = space.sweep(part) if isinstance(part, list) else part
    space.check(part, config)
    points = space.grid(part, schema.flatten(config))
    seeds = int((re.findall(r"--seeds=(\d+)", header) or ["1"])[0])
    assert f"Trials:   {seeds * len(points)}:" in header
    assert module["get_config"]("smoke").epochs == 1
