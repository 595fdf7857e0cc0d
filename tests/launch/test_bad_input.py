"""Every user error gives one clear line and exit code 2, and loses no data."""

import shutil
from pathlib import Path

import pytest

from cnn_jax.config import load_config
from cnn_jax.errors import UsageError
from cnn_jax.tasks import run as runs
from tests.launch.process import launch

DIGITS = "--config=configs/lenet5_digits.py"
SMOKE = "--config=configs/lenet5_digits.py:smoke"


def rejected(*arguments: str, **options) -> str:
    """Runs launch.py with an error of the user, and returns its only line of output."""
    done = launch(*arguments, **options)
    assert done.returncode == 2, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("launch.py: ")
    assert "Traceback" not in done.stdout + done.stderr
    return lines[0]


def config_file(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return f"--config={path}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([DIGITS, "--config.optimizer.learning_rat=0.1"], ["optimizer.learning_rat", "'optimizer.learning_rate'"]),
        ([DIGITS, "--config.optimiser.learning_rate=0.1"], ["optimiser.learning_rate", "'optimizer.learning_rate'"]),
        ([DIGITS, "--config.epochs.more=1"], ["epochs.more", "no such key"]),
        ([DIGITS, "--config.optimizer.learning_rate=fast"], ["optimizer.learning_rate=fast", "a number", "0.1"]),
        ([DIGITS, "--config.epochs=1.5"], ["epochs=1.5", "a whole number"]),
        ([DIGITS, "--config.epochs", "many"], ["epochs", "a whole number"]),
        ([DIGITS, "--config.optimizer=sgd"], ["optimizer=sgd", "group", "optimizer.name"]),
        ([DIGITS, "--confg.seed=1"], ["confg", "known"]),
        ([DIGITS, "--mode=fly"], ["mode", "fly", "predict"]),
        (["--config=configs/lenet5_digit.py"], ["configs/lenet5_digit.py", "configs/lenet5_digits.py"]),
        (["--config=configs/lenet5_digits.py:smok"], ["'smok'", "'smoke'"]),
        ([], ["--config"]),
        ([DIGITS, "--mode=eval"], ["--workdir"]),
        (["--config.epochs=3", "--workdir=/nonexistent"], ["/nonexistent holds no run"]),
        ([SMOKE, "--config.freeze=None"], ["config.freeze=(None,)", "a tuple of texts, such as ('c1/*',)"]),
        ([SMOKE, "--num_processes=2"], ["--coordinator_address and --process_id"]),
        ([SMOKE, "--config.seed", "1", "2"], ["'2' is not a flag", "quotes"]),
        (["--config=lenet5_digit"], ["'lenet5_digits'"]),
        ([SMOKE, "--config.model.features_from=runs/a"], ["model.weights"]),
        ([SMOKE, "--config.model.options.dropout_rate=0.5"], ["model.options is empty", "'dropout_rate'"]),
        (["--config=configs/lenet5_mnist.py:smoke", "--mode=sweep"], ["--sweep='key=values", "get_hyper"]),
        ([SMOKE, "--mode=sweep", "--sweep=optimizer.learning_rat=0.1,1"], ["'optimizer.learning_rate'"]),
        (["--mode=sweep", "--workdir=/nonexistent"], ["/nonexistent", "holds no sweep", "--config"]),
        (["--mode=sweep-worker"], ["holds no sweep"]),
        ([SMOKE, "--sweep=optimizer.learning_rate=0.1,1"], ["--sweep is for --mode=sweep"]),
        ([SMOKE, "--mode=sweep", "--workers=0"], ["--workers=0", "positive"]),
        ([SMOKE, "--mode=sweep", "--workdir=gs://mine/sweep"], ["gs://mine/sweep is an address", "a folder"]),
        ([SMOKE, "--mode=predict", "--workdir=/nonexistent", "--images=x.png"], ["/nonexistent holds no trained run"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_mistake_on_the_command_line(arguments: list[str], expected: list[str], tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    given = (
        any(argument.startswith("--workdir") for argument in arguments) or not arguments or "--mode=eval" in arguments
    )
    line = rejected(*arguments, *([] if given else [f"--workdir={workdir}"]))
    for part in expected:
        assert part in line
    assert not (workdir / "checkpoints").exists(), "something was begun"


def test_batch_that_does_not_split_over_the_eight_devices_of_the_tests(tmp_path: Path) -> None:
    config = load_config("lenet5_digits:smoke")
    config.batch_size = 30
    with pytest.raises(UsageError, match="batch_size=30 does not split over 8 devices; use 24 or 32"):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_first_nan_is_traced_to_its_line(tmp_path: Path) -> None:
    nans = ["--config.debug_nans", "--config.optimizer.learning_rate=nan", "--config.optimizer.schedule=constant"]
    done = launch(SMOKE, f"--workdir={tmp_path / 'run'}", *nans)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "in step 1: invalid value (nan)" in line
    assert "cnn_jax/train/step.py" in line
    assert "optimizer.update" in line


def test_typo_in_a_config_file(tmp_path: Path) -> None:
    text = "from cnn_jax.tasks import default_config\ndef get_config():\n    c = default_config()\n    c.epoch = 3\n"
    line = rejected(config_file(tmp_path, text), "--config.seed=1")
    assert "mine.py: epoch: the config has no such key; did you mean 'epochs'? (mine.py, line 4)" in line


def test_workdir_of_another_config(trained: Path) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    line = rejected(f"--workdir={trained}", "--config.optimizer.learning_rate=0.07", "--config.seed=3")
    assert "optimizer.learning_rate" in line
    assert "0.07" in line
    assert "seed: 0 -> 3" in line
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_workdir_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in rejected(SMOKE, f"--workdir={tmp_path / 'file' / 'run'}")


def test_eval_of_a_folder_without_a_run(tmp_path: Path) -> None:
    assert "holds no run" in rejected("--mode=eval", f"--workdir={tmp_path}")


def test_run_with_a_truncated_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"seed": 0,')
    assert f"{tmp_path / 'config.json'} is damaged" in rejected("--mode=eval", f"--workdir={tmp_path}")
    assert f"{tmp_path / 'config.json'} is damaged" in rejected(SMOKE, f"--workdir={tmp_path}")


def test_full_disk(trained: Path, tmp_path: Path) -> None:
    """A limit on the file size simulates a full disk; both make write(2) fail."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for path in sorted((run / "checkpoints").iterdir())[1:]:
        shutil.rmtree(path)
    kept = sorted((run / "checkpoints").iterdir())

    no_room = ["sh", "-c", 'ulimit -f 400 && exec "$@"', "sh"]  # blocks of 512 bytes; Python ignores SIGXFSZ itself
    line = rejected(f"--workdir={run}", under=no_room)
    assert "File too large" in line
    assert "intact" in line
    assert kept[0] in (run / "checkpoints").iterdir()
    done = launch(f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert (run / "result.json").read_bytes() == (trained / "result.json").read_bytes()


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    # The smoke variant reaches the end of its warm-up, and the infinite rate, in the second of its two epochs.
    rate = ["--config.optimizer.learning_rate=1e38", "--config.optimizer.schedule=constant"]
    line = rejected(SMOKE, f"--workdir={run}", *rate, "--config.optimizer.warmup=1.9 epochs")
    assert "the loss is" in line
    assert "step" in line
    assert "learning_rate" in line


def damage(run: Path, *, steps: int) -> list[Path]:
    """Truncates the array files of the newest checkpoints, those of the optimiser and the weights, to half."""
    checkpoints = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name))[-steps:]
    for checkpoint in checkpoints:
        for file in checkpoint.rglob("d/*"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return checkpoints


def test_truncated_newest_checkpoint_falls_back(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (newest,) = damage(run, steps=1)
    done = launch(f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert f"{newest} is damaged" in done.stdout + done.stderr
    assert "falling back" in done.stdout + done.stderr
    assert (run / "result.json").read_bytes() == (trained / "result.json").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_all_checkpoints_truncated(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    damaged = damage(run, steps=10)
    line = rejected("--mode=eval", f"--workdir={run}")
    assert str(damaged[-1]) in line
    assert "damaged" in line


def test_checkpoint_of_another_network(trained: Path) -> None:
    line = rejected("--mode=eval", f"--workdir={trained}", SMOKE, "--config.model.width=0.5")
    assert "another network" in line
    assert "c1" in line


def test_debug_shows_the_traceback() -> None:
    done = launch(DIGITS, "--config.epochs=1.5", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
