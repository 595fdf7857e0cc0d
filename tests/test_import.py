"""Importing cnn_jax is fast and sets no flags, and all of its public names exist."""

import json
import os
import subprocess
import sys

import cnn_jax
from cnn_jax.runtime import huge_pages, xla
from tests.requirements import require_data


def run(program: str) -> dict:
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "GLIBC_TUNABLES")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


def test_import_brings_in_neither_jax_nor_flax_and_sets_no_flags() -> None:
    found = run("import sys, os, json, cnn_jax; print(json.dumps([sorted(sys.modules), os.environ.get('XLA_FLAGS')]))")
    modules, flags = found
    assert not {"jax", "flax", "numpy", "matplotlib", "tensorflow"} & set(modules)
    assert flags is None


def test_every_subpackage_is_there() -> None:
    assert set(dir(cnn_jax)) >= {"data", "filters", "geometry", "models", "nn", "ops", "report", "train"}
    for name in cnn_jax.__all__:
        assert getattr(cnn_jax, name) is not None


def test_reading_a_prepared_set_needs_no_tensorflow() -> None:
    program = (
        "import sys, json; from cnn_jax import data; data.load('mnist', 'test[:9]');"
        "print(json.dumps(sorted(sys.modules)))"
    )
    require_data("mnist")
    assert "tensorflow" not in run(program)


def test_recommended_flags_are_known_to_the_installed_jaxlib() -> None:
    """XLA aborts the process on an unknown flag."""
    program = (
        "import os, json, cnn_jax; os.environ['XLA_FLAGS'] = cnn_jax.recommended_xla_flags();"
        "import jax; print(json.dumps(float(jax.numpy.ones(3).sum())))"
    )
    assert run(program) == 3.0
    assert xla.recommended_xla_flags() != "", "no flags were tried for the installed jaxlib"


def test_starting_again_brings_large_arrays_in_huge_pages() -> None:
    """Counted by the system for 64 MiB from the C library's allocator."""
    program = (
        "import json, os, re; from cnn_jax.runtime import huge_pages; huge_pages.restart_with_huge_pages();"
        "block = bytearray(b'1') * (1 << 26); maps = open('/proc/self/smaps').read();"
        "sizes = re.findall(r'AnonHugePages: +([0-9]+) kB', maps);"
        "print(json.dumps([os.environ.get('GLIBC_TUNABLES', ''), sum(map(int, sizes))]))"
    )
    tunables, kilobytes = run(program)
    assert tunables == huge_pages.recommended_glibc_tunables()
    assert tunables == "" or kilobytes >= 1 << 15


def test_flags_of_the_user_stay() -> None:
    environment = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=all --xla_dump_to=x"}
    assert xla.apply_recommended_flags(environment) == []
    assert environment["XLA_FLAGS"] == "--xla_cpu_experimental_ynn_fusion_type=all --xla_dump_to=x"
    environment = {"XLA_FLAGS": "--xla_dump_to=x"}
    assert xla.apply_recommended_flags(environment) == [xla.recommended_xla_flags()]
    assert environment["XLA_FLAGS"].startswith("--xla_dump_to=x ")
