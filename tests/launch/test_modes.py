"""The files of a successful run of ``launch.py``, and the modes that use them."""

import csv
import json
import re
import signal
import time
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from tensorboardX.proto.event_pb2 import Event

from cnn_jax.config import load_config
from cnn_jax.tasks import run
from tests.launch.process import ROOT, launch, started


def test_run_writes_all_files(trained: Path) -> None:
    for name in ("config.json", "environment.json", "data.json", "metrics.jsonl", "result.json", "report.html"):
        assert (trained / name).stat().st_size > 0, name
    assert list((trained / "figures").glob("*.png"))
    assert len(list((trained / "checkpoints").iterdir())) == 2


def test_config_json_is_the_resolved_config(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    assert config["epochs"] == 2
    assert config["data"]["name"] == "digits"


def test_environment_names_versions_devices_and_command(trained: Path) -> None:
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["packages"].keys() >= {"jax", "jaxlib", "flax", "optax", "numpy"}
    assert environment["devices"] == ["cpu cpu"]
    assert environment["command"][0] == "launch.py"


def test_metrics_have_one_line_a_step_and_split(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    keys = [(row["step"], row["split"]) for row in rows]
    assert len(keys) == len(set(keys))
    assert keys == sorted(keys, key=lambda key: key[0])
    assert {split for _, split in keys} == {"train", "validation", "test"}
    assert all(np.isfinite([row["loss"], row["accuracy"]]).all() for row in rows)


def test_tensorboard_events_are_those_of_the_metrics(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    expected = {(row["step"], f"{row['split']}/accuracy"): row["accuracy"] for row in rows}
    (path,) = (trained / "tensorboard").iterdir()
    found = {}
    data = path.read_bytes()
    while data:  # a record is its length (8 bytes), a checksum (4), the event, a checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
        data = data[12 + length + 4 :]
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-6)


def test_eval_is_exact_on_the_full_test_set(trained: Path) -> None:
    """The printed accuracy equals the accuracy computed here from the probabilities that predict writes."""
    done = launch("--mode=eval", f"--workdir={trained}", fresh=True)
    assert done.returncode == 0, done.stderr
    scores = json.loads((trained / "result.json").read_text())["scores"]
    assert f"{scores['test/accuracy']:.2%}" in done.stdout


def test_predict_reads_real_digits(trained: Path, tmp_path: Path) -> None:
    """Images of real digits, dark on light and enlarged, like scans."""
    digits = load_digits()
    labels = []
    for position in range(60):
        ink = np.kron(digits.images[position], np.ones((12, 12)))
        paper = (255 - np.pad(ink, 2) * 255 / 16).astype(np.uint8)
        Image.fromarray(paper).save(tmp_path / f"{position:02d}.png")
        labels.append(int(digits.target[position]))
    output = tmp_path / "out.csv"
    done = launch("--mode=predict", f"--workdir={trained}", f"--images={tmp_path}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "inverted" in done.stdout
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [Path(row["image"]).name for row in rows] == [f"{position:02d}.png" for position in range(60)]
    for row in rows:
        assert sum(float(row[str(digit)]) for digit in range(10)) == pytest.approx(1, abs=1e-4)
    # Two epochs are few; chance is 0.1.
    assert accuracy_score(labels, [int(row["class"]) for row in rows]) > 0.5


def test_summary_prints_the_table() -> None:
    done = launch("--config.batch_size=8", "--config", "configs/lenet5_digits.py", "--mode=summary")  # in any order
    assert done.returncode == 0, done.stderr
    for text in ("c1", "5x5", "28x28x6", "48,120", "61,706", "416,520"):
        assert text in done.stdout


def test_help_explains_the_flags() -> None:
    done = launch("--help")
    assert done.returncode == 0
    for flag in ("--config", "--workdir", "--mode", "--images", "--output", "--[no]debug"):
        assert flag in done.stdout
    assert "python launch.py --config=lenet5_digits" in done.stdout


def test_training_a_finished_run_again_changes_nothing(trained: Path) -> None:
    before = {name: (trained / name).read_bytes() for name in ("metrics.jsonl", "result.json", "report.html")}
    done = launch(f"--workdir={trained}")
    assert done.returncode == 0, done.stderr
    assert {name: (trained / name).read_bytes() for name in before} == before
    assert "XLA flags" not in done.stdout, "they are in environment.json"
    network, data, device = done.stdout.splitlines()[:3]
    assert re.fullmatch(r"network: lenet_5_modern, 61,706 parameters, input 32x32x1, 10 outputs", network)
    assert re.fullmatch(r"data: digits, [\d,]+ training, \d+ validation, \d+ test examples", data)
    assert re.fullmatch(r"device: cpu, \d+ cores", device)
    assert "compil" not in done.stdout, "nothing is left to train"


def test_launch_is_short() -> None:
    assert len((ROOT / "launch.py").read_text().splitlines()) < 80


def test_strict_promotion(trained: Path, tmp_path: Path) -> None:
    """Training, evaluation and prediction give the same results with JAX's strict type promotion."""
    config, workdir = load_config("lenet5_digits:smoke"), tmp_path / "run"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        run.train(config, workdir)
        run.evaluate(config, workdir, checkpoint="latest")
        run.predict(config, workdir, images=[str(tmp_path / "black.png")], output=None, checkpoint="latest")
    results = [json.loads((folder / "result.json").read_text()) for folder in (trained, workdir)]
    assert results[0]["scores"]["test/accuracy"] == pytest.approx(results[1]["scores"]["test/accuracy"], abs=0.01)


def test_the_live_explorer_opens_a_browser_and_ends_with_control_c(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, command = tmp_path / "opened", tmp_path / "browser"
    command.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    command.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{command} %s")
    with started("--mode=explore", f"--workdir={trained}", "--open") as process:
        until = time.monotonic() + 100
        while not opened.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.02)
        url = opened.read_text().strip()
        with urllib.request.urlopen(url, timeout=20) as page:
            assert b"layer by layer" in page.read()
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 130, printed
    lines = printed.splitlines()
    assert lines[-2:] == [f"the explorer is at {url}; Ctrl-C ends it", "launch.py: ended by SIGINT"]
