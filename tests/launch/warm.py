"""A process that has imported everything that ``launch.py`` and sweeps import, and forks to run them.

It has not used a device, so each fork behaves like a new Python process with its own arguments, environment, signals,
streams and exit code. :mod:`tests.launch.process` starts it with the number of a socket that listens.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

IMPORTED = (
    "alembic.command",
    "cnn_jax.cli.main",
    "cnn_jax.experiments.baselines",
    "cnn_jax.experiments.finetune",
    "cnn_jax.sweep.page",
    "cnn_jax.sweep.vectorized",
    "cnn_jax.sweep.worker",
    "cnn_jax.tasks.report",
    "matplotlib.pyplot",
    "optuna.storages",
    "sklearn.datasets",
    "sqlalchemy.dialects.sqlite",
    "tensorboardX",
    "tensorflow_datasets",
    "tests.sweep.driving",
    "tests.sweep.trivial",
)


def received(sockets: list[socket.socket]) -> tuple[bytes, list[int]]:
    """The next request of any client and its streams. The first socket listens; the clients' are added to it."""
    listener = sockets[0]
    while True:
        for ready in select.select(sockets, [], [])[0]:
            if ready is listener:
                sockets.append(listener.accept()[0])
                continue
            message, streams, _, _ = socket.recv_fds(ready, 1 << 16, 4)
            if message:
                return message, streams
            sockets.remove(ready)
            if sockets == [listener]:  # all clients have ended
                os._exit(0)


def serve(listener: socket.socket) -> dict[str, Any]:
    """Answers each request with the pid of a fork and later its exit code; returns only in the forks, the request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sockets = [listener]
    while True:
        message, streams = received(sockets)
        if os.fork() == 0:
            break
        for stream in streams:
            os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in sockets:
        each.close()
    answer = streams.pop()
    pid = os.fork()
    if pid:  # the process between the fork and the client: it waits for the fork and sends its exit code
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(BrokenPipeError):  # the client has ended
            os.write(answer, b"%d\n" % pid)
            os.write(answer, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in (answer, *streams):
        os.close(stream)
    request = json.loads(message)
    if request["session"]:
        os.setsid()
    os.sched_setaffinity(0, request["cores"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request


def run(program: str, *arguments: str) -> None:
    """Runs ``launch.py``, or the ``main`` of a module after ``-m``, to its exit code."""
    if program != "-m":
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")
        return
    module = importlib.import_module(arguments[0])
    sys.argv = [str(module.__file__), *arguments[1:]]
    sys.exit(module.main())


def main() -> None:
    """Imports everything, serves, and in each fork runs what was requested."""
    codes: list[int] = []

    @atexit.register  # as the first function, so that it is called last
    def leave() -> None:
        """Skips the end of the interpreter, which takes 2 s: clearing all that was imported copies all of its pages."""
        if codes:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(codes[0])

    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # garbage collection in a fork would copy them, too
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        run(*request["arguments"])
    except SystemExit as end:
        if isinstance(end.code, int):
            codes.append(end.code)
        raise


if __name__ == "__main__":
    main()
