"""The flags of a sweep: their combinations, and errors before anything starts."""

import contextlib
import dataclasses
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver
from ml_collections import ConfigDict

from cnn_jax import experiments
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.schema import Schema
from cnn_jax.sweep import command, space
from cnn_jax.sweep.driver import show
from cnn_jax.sweep.settings import Sweep, read_sweep_file
from cnn_jax.sweep.table import TrialRow, with_spreads
from tests.sweep import trivial

EXPERIMENT = types.ModuleType("trivial_experiment")
EXPERIMENT.metrics = lambda config: [Metric("accuracy", "higher", "%"), Metric("loss", "lower")]  # type: ignore[attr-defined]
EXPERIMENT.schema = lambda config: Schema(trivial.default_config())  # type: ignore[attr-defined]
EXPERIMENT.monitor = lambda config: "validation/accuracy"  # type: ignore[attr-defined]
FILE = """
def get_hyper(hyper):
    {}
"""


@pytest.fixture(autouse=True, scope="module")
def parsed_flags() -> None:
    if not absl_flags.FLAGS.is_parsed():
        absl_flags.FLAGS(["launch.py"])


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps are started or continued, but their trials do not run."""
    monkeypatch.setitem(sys.modules, EXPERIMENT.__name__, EXPERIMENT)
    monkeypatch.setattr(command, "drive", lambda store, workers: store.rows())
    monkeypatch.setattr(command, "show", lambda *_: None)


def begin(directory: Path, file: str | None = None, **given: Any) -> Sweep:
    """The sweep of a folder after a command with a config."""
    with flagsaver.flagsaver(**given):
        command.sweep(trivial.default_config(), file, directory, lambda config: EXPERIMENT)
    return read_sweep_file(directory)[1]


def described(file: str | None = None, **given: Any) -> Sweep:
    """The sweep that flags describe."""
    with tempfile.TemporaryDirectory() as folder:
        return begin(Path(folder), file, **given)


def test_lists_are_a_grid_and_ranges_are_sampled() -> None:
    grid = described(sweep="rate=0.1,0.2; kind=a,b,c")
    assert (grid.sampler, grid.points, grid.ahead) == ("grid", 6, grid.ahead)
    assert described(sweep="rate=0.1,0.2; kind=a,b,c", trials=4).points == 4
    drawn = described(sweep="rate=log(1e-3,1)")
    assert (drawn.sampler, drawn.points) == ("sobol", 50)
    assert described(sweep="rate=0.1,0.2", sampler="tpe", trials=7).points == 7


def test_default_metric_is_the_monitored_one() -> None:
    assert described(sweep="rate=0.1").metric == Metric("validation/accuracy", "higher", "%")
    assert described(sweep="rate=0.1", metric="test/loss").metric == Metric("test/loss", "lower")


def test_points_started_ahead_of_results_depend_on_the_workers() -> None:
    assert described(sweep="rate=0.1", workers=1).ahead == 1
    assert described(sweep="rate=0.1", workers=3).ahead == 6
    assert described(sweep="rate=0.1", workers=3, ahead=4).ahead == 4
    assert described(sweep="rate=0.1", runner="vectorized", batch=16).ahead == 16


def test_space_of_the_config_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE.format('return hyper.product([hyper.sweep("config.rate", [0.1, 0.2])])'))
    assert space.grid(described(f"{path}:smoke").space) == [{"rate": 0.1}, {"rate": 0.2}]
    path.write_text(FILE.format('return [{"rate": 0.1, "kind": "b"}]'))
    assert space.grid(described(str(path)).space) == [{"rate": 0.1, "kind": "b"}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 1 / 0", "ZeroDivisionError"),
        ("return 3", "returned 3"),
        ('return hyper.log_unifrom("rate", 0.1, 1)', "no hyper.log_unifrom; did you mean 'log_uniform'"),
        ('return [{"rate": 0.1}, {}]', "must be one of dicts"),
        ("return hyper.product()", "nothing is swept over"),
        ("return None", "give --sweep="),
        ('return hyper.sweep("rat", [0.1])', "'rate'"),
        ('return hyper.product(hyper.uniform("rate", 1, 0))', "no range"),
    ],
)
def test_invalid_space_in_the_config_file(body: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(body))
    with pytest.raises(UsageError, match=expected):
        described(str(path))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sweep": "rat=0.1"}, "'rate'"),
        ({"sweep": "rate=fast"}, "rate='fast': expected a number"),
        ({"sweep": "rate=0.1", "sampler": "tpee"}, "'tpe'"),
        ({"sweep": "rate=0.1", "pruner": "halfing"}, "'halving'"),
        ({"sweep": "rate=uniform(0,1)", "sampler": "grid"}, "'rate'"),
        ({"sweep": "seed=0..2", "seeds": 3}, "exclude each other"),
        ({"sweep": "rate=0.1", "metric": "accuracy"}, "--metric=accuracy must be split/metric, such as 'validation/"),
        ({"sweep": "rate=0.1", "metric": "test/acuracy"}, "--metric=test/acuracy .*'test/accuracy'"),
        ({"sweep": "rate=0.1", "slurm": ["partition"]}, "--slurm=partition must be a list"),
    ],
)
def test_mistakes(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as found:
        described(**given)
    assert "\n" not in str(found.value)


def test_a_series_of_runs_cannot_be_swept() -> None:
    with pytest.raises(UsageError, match="single runs; baselines is a series"):
        experiments.find_single(ConfigDict({"experiment": "baselines"}))


def test_invalid_storage_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="postgresql://"):
        begin(tmp_path / "sweep", sweep="rate=0.1", storage="sweeps.db")
    assert not (tmp_path / "sweep").exists()


def test_sweep_whose_trials_all_failed(tmp_path: Path) -> None:
    rows = [TrialRow(n, n, "failed", reason=f"the loss is nan at step {n}") for n in (1, 2)]
    with pytest.raises(UsageError, match=r"all trials failed, the first one: the loss is nan at step 1; .*sweep\.csv"):
        show(described(sweep="rate=0.1,0.2"), tmp_path, rows)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_table_lists_pruned_points_by_their_last_scores(
    seeds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"complete": (0.7, 0.9), "pruned": (0.8,), "failed": (None,)}
    points = [(state, score) for state, found in scores.items() for score in found]
    rows = [
        TrialRow(seeds * point + seed, point, state, score, overrides={"rate": float(point)})
        for point, (state, score) in enumerate(points)
        for seed in range(seeds)
    ]
    sweep = dataclasses.replace(described(sweep="rate=0.1,0.2"), seeds=seeds, metric=Metric("test/score", "higher"))
    show(sweep, tmp_path, with_spreads(rows))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "0." in line and "\u2502" in line]
    found = [(line[3], next(word for word in line if word in scores), line[-2]) for line in lines]
    assert found == [("0.9", "complete", "1"), ("0.8", "pruned", "2"), ("0.7", "complete", "0")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sweep.json", r"sweep.json is damaged .*remove it, and give"),
        ("sweep.db", r"sweep.db cannot be used \(file is not a database\); .*remove .*sweep.db\* and run the same"),
    ],
)
def test_damaged_sweep_says_what_to_remove(name: str, words: str, tmp_path: Path) -> None:
    flags = {"sweep": "rate=0.1", "trials": 1}
    begin(tmp_path, **flags)
    for file in tmp_path.glob(f"{name}*"):
        file.unlink()
    (tmp_path / name).write_bytes(b"{" * 2000)
    with pytest.raises(UsageError, match=words):
        begin(tmp_path, **flags)
    (tmp_path / name).unlink()
    begin(tmp_path, **flags)


@pytest.mark.parametrize(("runner", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_nothing_is_written_for_a_runner_that_is_not_installed(
    runner: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"needs {library}: pip install -e '.\[{runner}\]'"):
        begin(tmp_path / "sweep", sweep="rate=0.1", runner=runner)
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_does_not_start_in_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="no sweep"):
        begin(tmp_path, sweep="rate=0.1")


def test_a_grid_limited_by_trials_can_be_continued(tmp_path: Path) -> None:
    sweeps = [begin(tmp_path, sweep="rate=0.1,0.2,0.3", trials=count) for count in (1, 2, 9, 1)]
    assert [sweep.points for sweep in sweeps] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sampler": "tpe"}, "sampler: 'grid' -> 'tpe'"),
        ({"seeds": 2}, "seeds: 1 -> 2"),
        ({"sweep": "rate=0.1,0.3"}, "another search space"),
        ({}, ""),
    ],
)
def test_flags_of_another_sweep_without_a_config(given: dict[str, Any], expected: str, tmp_path: Path) -> None:
    known = begin(tmp_path, sweep="rate=0.1,0.2")
    with flagsaver.flagsaver(**given):
        for name in given:
            absl_flags.FLAGS[name].present += 1
        with pytest.raises(UsageError, match=expected) if expected else contextlib.nullcontext():
            command.sweep(None, None, tmp_path, lambda config: EXPERIMENT)
    assert read_sweep_file(tmp_path)[1].to_json() == known.to_json()
