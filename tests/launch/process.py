"""Runs ``launch.py`` in a separate process, as users do.

Its imports take seconds, so by default it is forked from a process that has already imported them,
:mod:`tests.launch.warm`. With ``fresh=True`` it is started with ``python launch.py``.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnn_jax.runtime.huge_pages import apply_recommended_tunables
from tests import quick

ROOT = Path(__file__).parents[2]


class Process:
    """A started ``launch.py``, with some methods of ``subprocess.Popen``."""

    def __init__(self, arguments: Sequence[str], *, merged: bool) -> None:
        self.returncode: int | None = None
        self._printed: tuple[str, str] | None = None
        self._stdout = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until it is read
        self._stderr = self._stdout if merged else tempfile.TemporaryFile("w+")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        request = json.dumps({"arguments": arguments, "environment": _warm_environment()})
        streams = [self._stdout.fileno(), self._stderr.fileno(), theirs.fileno()]
        socket.send_fds(_warm(), [request.encode()], streams)
        theirs.close()
        self._answers = ours.makefile("rb")
        ours.close()  # the file keeps it open
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the process has ended and returns its exit code."""
        if self.returncode is None and not select.select([self._answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("launch.py", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits until the process has ended and returns its stdout and stderr."""
        self.wait(timeout)
        if self._printed is None:
            for stream in (self._stdout, self._stderr):
                stream.seek(0)
            self._printed = self._stdout.read(), self._stderr.read()
            for file in (self._stdout, self._stderr, self._answers):
                file.close()
        return self._printed

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


@functools.cache
def _warm() -> socket.socket:
    """The socket to request forks; its process ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.launch.warm", str(theirs.fileno())]
    process = subprocess.Popen(
        command, cwd=ROOT, env=_warm_environment(), stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def environment() -> dict[str, str]:
    """A user's environment: without the eight simulated devices of the tests, but with fast compilation."""
    return {**os.environ, "COLUMNS": "200", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick.XLA_FLAGS}


def _warm_environment() -> dict[str, str]:
    """The environment of a restarted ``launch.py``, so that forks of the warm process need not restart."""
    result = environment()
    apply_recommended_tunables(result)
    return result


def launch(*arguments: str, under: Sequence[str] = (), fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs ``launch.py`` to its end, under another command if one is given."""
    command = [*under, sys.executable, "launch.py", *arguments]
    if fresh or under:
        return subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
    process = Process(arguments, merged=False)
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.wait(), stdout, stderr)


def start(*arguments: str, fresh: bool = False) -> Process | subprocess.Popen[str]:
    """Starts ``launch.py`` and returns at once; its stderr goes to its stdout."""
    if not fresh:
        return Process(arguments, merged=True)
    return subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def started(*arguments: str, fresh: bool = False) -> Iterator[Process | subprocess.Popen[str]]:
    """A process of :func:`start`, which is killed at the end of the ``with`` block."""
    process = start(*arguments, fresh=fresh)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def train(workdir: Path, *arguments: str, config: str = "configs/lenet5_digits.py:smoke", fresh: bool = False) -> None:
    """Trains to the end; fails with the output of the process."""
    done = launch(f"--config={config}", f"--workdir={workdir}", *arguments, fresh=fresh)
    assert done.returncode == 0, done.stdout + done.stderr
