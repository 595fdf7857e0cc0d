"""Sweeps with trials in a PostgreSQL server that is stopped and restarted."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.orm import Session

from cnn_jax.errors import UsageError
from cnn_jax.sweep.leases import Leases
from cnn_jax.sweep.settings import SweepPlace
from cnn_jax.sweep.store import LeaseLost, Store
from tests.launch.process import ROOT, environment, launch
from tests.sweep.driving import begin, driver, until
from tests.sweep.test_kills import assert_complete, begun


class Server:
    """A separate server on a loopback port, run as an unprivileged user, which PostgreSQL requires."""

    def __init__(self, directory: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self._binaries = found[-1] if found else Path(shutil.which("postgres") or "/missing/postgres").parent
        assert (self._binaries / "postgres").exists(), "install PostgreSQL: apt-get install postgresql"
        self._data = directory / "data"
        self._user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            shutil.chown(directory, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._run("initdb", "--username=postgres", "--auth=trust", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -p {self._port}"
        self._run("pg_ctl", "start", "-w", "-l", str(self._data.parent / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), f"--pgdata={self._data}", *arguments]
        user = {"user": self._user} if os.getuid() == 0 else {}
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=quiet, stderr=quiet, stdin=quiet, cwd="/", timeout=120, **user)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory:  # not tmp_path, which only its owner can read
        server = Server(Path(directory))
        try:
            yield server
        finally:
            server.stop()


def test_connections_are_cut_and_the_server_restarts(server: Server, tmp_path: Path) -> None:
    store = begin(tmp_path, storage=server.url, points=9, config={"evaluations": 10, "pause": 0.2})
    with driver(tmp_path) as process:
        until(lambda: begun(tmp_path))
        engine = sql.create_engine(SweepPlace(tmp_path, server.url).url)
        others = "pid <> pg_backend_pid() AND datname = 'postgres'"
        cut = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}"
        with engine.connect() as connection:
            assert connection.execute(sql.text(cut)).scalar_one() >= 2
        engine.dispose()
        until(lambda: (tmp_path / "trials/0003").exists())
        server.stop()
        server.start()
        output = process.communicate()[0]
    assert process.returncode == 0, output
    assert_complete(tmp_path, store, count=9)
    store.close()


def test_nobody_takes_a_trial_between_the_look_at_its_lease_and_the_write(server: Server, tmp_path: Path) -> None:
    """A worker that is paused there for longer than its lease cannot write to a trial of another worker."""
    store = begin(tmp_path, storage=server.url, points=1)
    (trial,) = store.claim() or ()
    engine = sql.create_engine(store.place.url, connect_args={"options": "-c lock_timeout=300"})
    leases = Leases(engine, store.place.study)  # of this process, like the store's
    with Session(engine) as session:
        assert leases.holds("trial 0", session)
        with pytest.raises(sql.exc.OperationalError, match="lock timeout"):
            leases.give_back("trial 0")
    store.report(trial, 1, {"validation/accuracy": 0.5})
    leases.give_back("trial 0")
    with pytest.raises(LeaseLost):
        store.report(trial, 2, {"validation/accuracy": 0.5})
    assert [one.number for one in store.claim() or ()] == [trial.number]
    assert [(one.evaluation, one.score) for one in store.running()] == [(1, 0.5)]
    engine.dispose()
    store.close()


def test_independent_workers_join_by_the_url(server: Server, tmp_path: Path) -> None:
    store = begin(tmp_path, storage=server.url, points=6, config={"evaluations": 3, "pause": 0.1})
    command = [sys.executable, "launch.py", "--mode=sweep-worker", f"--storage={server.url}", f"--workdir={tmp_path}"]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    finished = [int(output.split("finished ")[1].split()[0]) for output in outputs]
    assert sum(finished) == 6
    assert min(finished) > 0
    assert [row.state for row in store.rows()] == ["complete"] * 6
    store.close()


def test_which_sweep_of_several(server: Server, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        begin(tmp_path / name, storage=server.url, points=1).close()
    done = launch("--mode=sweep-worker", f"--storage={server.url}")
    assert done.returncode == 2
    assert f"--workdir={tmp_path / 'first'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--storage=postgresql"):
        Store(SweepPlace(tmp_path, "postgresql+psycopg://nobody@127.0.0.1:1/none"))
