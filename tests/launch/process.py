"""Runs ``launch.py`` in a separate process, as users do.

Its imports take seconds, so by default it is forked from a process that has already imported them,
:mod:`tests.launch.warm`. With ``fresh=True`` it is started with ``python launch.py``.
"""

import atexit
import contextlib
import fcntl
import functools
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cnn_jax.runtime.huge_pages import apply_recommended_tunables
from tests import quick

ROOT = Path(__file__).parents[2]


class Fork:
    """``subprocess.Popen`` of a command ``python launch.py ...`` or ``python -m module ...``, forked when it is warm.

    With ``stdout=PIPE`` the output goes to a temporary file, so that a process never waits until it is read.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int | None = None,
        stdout: int | io.IOBase = subprocess.PIPE,
        stderr: int | io.IOBase = subprocess.STDOUT,
        start_new_session: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self._printed: tuple[str, str] | None = None
        with contextlib.ExitStack() as theirs:
            self.stdin = None
            if stdin == subprocess.PIPE:
                read, write = os.pipe()
                their_stdin, self.stdin = theirs.enter_context(open(read)), open(write, "w")  # noqa: SIM115
            else:
                their_stdin = theirs.enter_context(open(os.devnull))
            self._stdout = tempfile.TemporaryFile("w+") if stdout == subprocess.PIPE else None  # noqa: SIM115
            self._stderr = tempfile.TemporaryFile("w+") if stderr == subprocess.PIPE else None  # noqa: SIM115
            their_stdout = self._stdout or stdout
            their_stderr = self._stderr or (their_stdout if stderr == subprocess.STDOUT else stderr)
            ours, their_answers = socket.socketpair()
            theirs.enter_context(their_answers)
            request = {
                "arguments": command[1:],
                "environment": dict(env),
                "cores": sorted(os.sched_getaffinity(0)),
                "session": start_new_session,
            }
            streams = [file.fileno() for file in (their_stdin, their_stdout, their_stderr, their_answers)]
            socket.send_fds(_warm(), [json.dumps(request).encode()], streams)
        self._answers = ours.makefile("rb")
        ours.close()  # the file keeps it open
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the process has ended and returns its exit code."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = int(self._answers.readline())
        self._answers.close()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits until the process has ended and returns its stdout and stderr."""
        self.wait(timeout)
        if self._printed is None:
            self._printed = _content(self._stdout), _content(self._stderr)
        return self._printed

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        self.communicate()


def _content(file: io.IOBase | None) -> str:
    if file is None:
        return ""
    with file:
        file.seek(0)
        return file.read()


@functools.cache
def _warm() -> socket.socket:
    """A connection to the warm process that all processes of a run of pytest share; the first one starts it."""
    path = Path(os.environ["CNN_JAX_WARM"])
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started: list[subprocess.Popen[bytes]] = []
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):  # refused: it has ended with its last client
            path.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(str(path))
                listener.listen()
                command = [sys.executable, "-m", "tests.launch.warm", str(listener.fileno())]
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=_warm_environment(),
                    stdin=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()],
                )
                started.append(process)
            client.connect(str(path))

    def end() -> None:
        client.close()
        for process in started:
            process.wait()

    atexit.register(end)
    return client


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
    process = Fork(command, env=_warm_environment(), stderr=subprocess.PIPE)
    try:
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.wait(), stdout, stderr)


def start(*arguments: str, fresh: bool = False) -> Fork | subprocess.Popen[str]:
    """Starts ``launch.py`` and returns at once; its stderr goes to its stdout."""
    command = [sys.executable, "launch.py", *arguments]
    if not fresh:
        return Fork(command, env=_warm_environment())
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@contextlib.contextmanager
def started(*arguments: str, fresh: bool = False) -> Iterator[Fork | subprocess.Popen[str]]:
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
