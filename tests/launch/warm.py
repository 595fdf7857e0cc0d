"""A process that has imported everything that ``launch.py`` imports, and forks to run it.

It has not used a device, so each fork behaves like a new Python process with its own arguments, environment, signals,
output and exit code. :mod:`tests.launch.process` starts it with the number of a socket.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import sys

IMPORTED = (
    "cnn_jax.cli.main",
    "cnn_jax.experiments.baselines",
    "cnn_jax.tasks.report",
    "cnn_jax.experiments.finetune",
    "matplotlib.pyplot",
    "sklearn.datasets",
    "tensorboardX",
    "tensorflow_datasets",
)


def serve(requests: socket.socket) -> None:
    """Answers each request with the pid of a fork and later its exit code; returns only in the forks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, streams, _, _ = socket.recv_fds(requests, 1 << 16, 3)
        if not message:  # the requester has ended
            os._exit(0)
        if os.fork() == 0:
            break
        for stream in streams:
            os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    answer = streams.pop()
    pid = os.fork()
    if pid:  # the process between the fork and the requester: it waits for the fork and sends its exit code
        os.write(answer, b"%d\n" % pid)
        os.write(answer, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
    for stream in (requests.detach(), answer, *streams):
        os.close(stream)
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["launch.py", *request["arguments"]]


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path("launch.py", run_name="__main__")
