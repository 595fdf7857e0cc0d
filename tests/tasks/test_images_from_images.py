"""What every run can do, for the tasks that make images from images: ensembles, sweeps and several devices."""

import json

import jax
import numpy as np
import pytest

from cnn_jax import train
from cnn_jax.sweep import vectorized
from cnn_jax.sweep.trial import Trial, trial_directory
from cnn_jax.tasks import default_config
from cnn_jax.tasks import run as runs
from tests.tasks.test_cyclegan import NEGATIVES, SIDE

pytestmark = pytest.mark.slow  # two compiled programs each

WEIGHT = {"image_to_image": "optimizer.momentum", "pix2pix": "adversarial_weight", "cyclegan": "cycle_weight"}


@pytest.fixture(params=WEIGHT)
def config(request, tmp_path):
    (tmp_path / "negatives.py").write_text(NEGATIVES)
    config = default_config(request.param)
    config.data.name, config.input_shape = f"{tmp_path / 'negatives.py'}:negatives", (SIDE, SIDE, 1)
    config.data.validation, config.model.name = "", f"{tmp_path / 'negatives.py'}:TINY"
    config.batch_size, config.duration, config.evaluate_every = 8, "3 steps", "3 steps"
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 0.01
    if "discriminator" in config:
        config.discriminator.width, config.discriminator.layers = 1 / 16, 1
    if "pool" in config:
        config.pool = 8
    return config


def test_an_ensemble_has_the_error_of_each_network(config, tmp_path):
    config.ensemble = 2
    runs.train(config, tmp_path / "run", report=False)
    scores = json.loads((tmp_path / "run/result.json").read_text())["scores"]
    each = scores["test/mae_1"], scores["test/mae_2"]
    assert each[0] != each[1]
    assert scores["test/mae"] <= max(each)


def test_a_sweep_trains_its_trials_in_one_program_as_each_alone(config, tmp_path):
    key, trials = WEIGHT[config.experiment], []
    for number, value in enumerate((0.25, 0.75)):
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict({key: value})
        trials.append(Trial(number, {key: value}, own, trial_directory(tmp_path / "sweep", number)))
    options = {"train": runs.train, "metric": "test/mae", "reports": False, "report": lambda *_: False}
    outcomes = {outcome.number: outcome for outcome in vectorized.run_vectorized(trials, **options)}
    assert "2 trials in one program" in (trials[0].workdir / "log.txt").read_text()
    for trial in trials:
        runs.train(trial.config, tmp_path / f"alone{trial.number}", report=False)
        scores = json.loads((tmp_path / f"alone{trial.number}/result.json").read_text())["scores"]
        assert outcomes[trial.number].score == pytest.approx(scores["test/mae"], rel=1e-4)


def test_eight_devices_learn_what_one_learns(config, tmp_path):
    found = []
    for parallel in (train.ONE_DEVICE, train.DataParallel(num_devices=8)):
        run = runs.prepare(config, tmp_path)
        program = run.program(config, parallel)
        state = program.first_state(0)
        state, _ = program.steps(state, parallel.replicate(program.problem.train_examples), 3)
        found.append(jax.device_get(jax.tree.leaves(state.params)))
    for one, eight in zip(*found, strict=True):
        np.testing.assert_allclose(eight, one, rtol=2e-3, atol=2e-5)
