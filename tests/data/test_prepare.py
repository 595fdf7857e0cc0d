"""The command that prepares data sets, in real processes with a time limit, without downloads."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.data.by_hand import BY_HAND
from cnn_jax.data.prepare import prepare as prepare_set
from tests.data.tfds_files import write_tfds_set

REPOSITORY = Path(__file__).parents[2]
SIGNALS = (
    "arrow_head",
    "italy_power_demand",
    "spoken_digits",
    "sentences_mr",
    "sentences_subj",
    "sentences_trec",
    "adrenal_3d",
)
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


def prepare(*arguments, environment=None, timeout=60):
    command = [sys.executable, "-m", "cnn_jax.data.prepare", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_every_set_that_is_not_of_tfds_says_where_it_is():
    """The header of its config names the place, and the guide has the path that the config reads."""
    for name in SIGNALS:
        guide = BY_HAND[name]
        config = (REPOSITORY / "configs" / f"{name}.py").read_text()
        assert f"python -m cnn_jax.data.prepare {name}" in config
        place = re.search(r":data/([\w-]+)", config)[1]
        assert f"data/{place}" in guide
        assert guide in prepare_set(name)


@pytest.fixture
def tensorflow_in_name_only(tmp_path):
    """An environment in which the extra seems to be installed: TFDS downloads without calling TensorFlow."""
    folder = tmp_path / "in_name_only"
    for name, contents in [
        ("tensorflow", ""),
        ("importlib_resources", "from importlib.resources import *\nfrom importlib.resources import abc\n"),
    ]:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(contents)
    return {"PYTHONPATH": str(folder), "NO_PROXY": "", "no_proxy": ""}


def assert_one_line_and_nothing_left(done, line, data_dir):
    assert done.returncode == 2
    assert done.stderr.startswith("error: " + line)
    assert done.stderr.count("\n") == 1
    assert not data_dir.exists()


@pytest.mark.skipif(HAS_TENSORFLOW, reason="the extra is installed here")
def test_without_tensorflow_it_names_the_extra(tmp_path):
    done = prepare("mnist", f"--data_dir={tmp_path / 'sets'}")
    # The comparisons with other libraries bring importlib_resources in.
    missing = " and ".join(
        name for name in ("tensorflow", "importlib_resources") if importlib.util.find_spec(name) is None
    )
    line = f"preparing 'mnist' needs {missing}: pip install -e '.[prepare]'"
    assert_one_line_and_nothing_left(done, line, tmp_path / "sets")


def test_sets_that_need_no_preparation_and_sets_that_do_not_exist(tmp_path):
    images = np.zeros((5, 4, 4, 3), np.uint8)
    write_tfds_set(tmp_path, "made", {"train": (images, [0, 1, 0, 1, 1])}, class_names=["ant", "bee"])
    done = prepare("digits", "made", "fashion_mnits", f"--data_dir={tmp_path}")
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "digits: comes with scikit-learn; nothing to prepare",
        f"made: already prepared in {tmp_path}/made/1.0.0 (train 5)",
    ]
    assert done.stderr == "error: unknown data set 'fashion_mnits'; did you mean 'fashion_mnist'?\n"


def test_unreachable_network_is_reported_quickly_and_nothing_is_written(tmp_path, tensorflow_in_name_only):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]  # bound but not listening: every connection is refused
        began = time.monotonic()
        done = prepare(
            "mnist",
            f"--data_dir={tmp_path / 'sets'}",
            environment={**tensorflow_in_name_only, "HTTPS_PROXY": f"http://127.0.0.1:{port}"},
        )
        assert time.monotonic() - began < 30
    line = "preparing 'mnist': storage.googleapis.com cannot be reached"
    assert_one_line_and_nothing_left(done, line, tmp_path / "sets")


def test_files_to_be_downloaded_by_hand(tmp_path, tensorflow_in_name_only):
    data_dir = tmp_path / "sets"
    done = prepare("imagenet2012", f"--data_dir={data_dir}", environment=tensorflow_in_name_only)
    line = f"preparing 'imagenet2012' failed: its files must be fetched by hand, into {data_dir}/downloads/manual: "
    assert_one_line_and_nothing_left(done, line, data_dir)


@pytest.mark.slow
def test_a_server_that_never_answers_times_out(tmp_path, tensorflow_in_name_only):
    with socket.create_server(("127.0.0.1", 0), backlog=99) as silent:  # accepts, but never answers
        began = time.monotonic()
        done = prepare(
            "mnist",
            f"--data_dir={tmp_path / 'sets'}",
            environment={**tensorflow_in_name_only, "HTTPS_PROXY": f"http://127.0.0.1:{silent.getsockname()[1]}"},
        )
        assert time.monotonic() - began < 45
    assert_one_line_and_nothing_left(done, "preparing 'mnist': storage.googleapis.com", tmp_path / "sets")
