"""Every config: its header, and its smoke variant from the command to the report."""

import re
from pathlib import Path

import pytest

from tests.launch.process import ROOT, train
from tests.requirements import require_tfds

CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_smoke_variant_runs(path: Path, tmp_path: Path) -> None:
    (name,) = re.findall(r'data\.name = "(\w+)"', (ROOT / path).read_text()) or ["digits"]
    if name != "digits":
        require_tfds(name)
    train(tmp_path / "run", config=f"{path}:smoke")
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_header_says_command_time_and_score(path: Path) -> None:
    header = (ROOT / path).read_text().split('"""')[1]
    assert f"python launch.py --config={path}" in header
    assert re.search(r"^Time: +\d", header, re.M), header
    assert re.search(r"^Expected: .*\d+\.\d+ % ± \d\.\d+ .*mean ± std over \d+ seeds", header, re.M), header
