"""Downloads and prepares TFDS data sets, once: ``python -m cnn_jax.data.prepare mnist fashion_mnist``.

Writes array_record files, which :func:`cnn_jax.data.load` reads with neither TensorFlow nor a network. Preparing needs
both. Every step has a time limit, and what fails leaves nothing half-written behind.
"""

import argparse
import contextlib
import functools
import importlib.util
import io
import logging
import os
import shutil
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.data.by_hand import BY_HAND
from cnn_jax.data.tfds import tfds_builder
from cnn_jax.errors import UsageError
from cnn_jax.runtime.command import exit_code
from cnn_jax.runtime.extras import install_command
from cnn_jax.runtime.terminal import say
from cnn_jax.typed import typed

NEEDED_TO_PREPARE = ("tensorflow", "importlib_resources")
UNFINISHED_DOWNLOADS = "downloads/**/*.tmp.*"
DOWNLOAD_RETRIES = 2
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 60.0


@typed
def prepare(name: str, *, data_dir: str | None = None) -> str:
    """Downloads and prepares one data set where :func:`cnn_jax.data.load` looks for it.

    Args:
      name: Of a TFDS set, with its configuration where wanted; or of one that is fetched by hand, see
        :data:`~cnn_jax.data.by_hand.BY_HAND`.
      data_dir: Where TFDS keeps its sets; by default ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    Returns:
      One line: what there is now, and where; or some lines about what to fetch.

    Raises:
      UsageError: The set is unknown, an extra is not installed, the network cannot be reached, or TFDS fails.

    Example:
      >>> prepare("digits")
      'digits: comes with scikit-learn; nothing to prepare'
    """
    if name == "digits":
        return "digits: comes with scikit-learn; nothing to prepare"
    if name in BY_HAND:
        return BY_HAND[name]
    builder = tfds_builder(name, data_dir=data_dir)
    if builder.info.splits:
        return _summary(name, builder, "already prepared")
    if str(builder.data_path).startswith("~"):
        raise UsageError(f"preparing {name!r}: there is no home folder to keep it in; give --data_dir=<folder>")
    missing = [module for module in NEEDED_TO_PREPARE if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"preparing {name!r} needs {' and '.join(missing)}: {install_command('prepare')}")
    _download_and_prepare(name, builder)
    return _summary(name, builder, "prepared")


def _download_and_prepare(name: str, builder: Any) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import requests
    import tensorflow_datasets as tfds

    say(f"{name}: downloading and preparing in {builder.data_path} ...")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with _no_leftovers(builder), _bounded_downloads(), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except requests.exceptions.ConnectionError as error:
        url = None if error.request is None else error.request.url
        host = urllib.parse.urlsplit(url).hostname if isinstance(url, str) else "the network"
        raise UsageError(
            f"preparing {name!r}: {host} cannot be reached; connect to the internet, or set HTTPS_PROXY"
        ) from error
    except Exception as error:  # a set's own code downloads and parses whatever it likes
        reason = f"{type(error).__name__}: {error}"
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and isinstance(error, AssertionError):
            folder = Path(builder.data_dir_root) / "downloads" / "manual"
            reason = f"its files must be fetched by hand, into {folder}: {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        raise UsageError(f"preparing {name!r} failed: {' '.join(reason.split())}") from error


@contextlib.contextmanager
def _no_leftovers(builder: Any) -> Iterator[None]:
    """After a failure, removes the unfinished downloads and the empty folders that TFDS leaves."""
    root = Path(builder.data_dir_root)
    root_existed = root.exists()
    unfinished_before = set(root.glob(UNFINISHED_DOWNLOADS))
    try:
        yield
    except BaseException:
        for folder in set(root.glob(UNFINISHED_DOWNLOADS)) - unfinished_before:
            shutil.rmtree(folder, ignore_errors=True)
        within_root = [path for path in Path(builder.data_path).parents if root in path.parents]
        for folder in [*root.glob("downloads/*"), root / "downloads", *within_root, *([] if root_existed else [root])]:
            with contextlib.suppress(OSError):  # in use
                folder.rmdir()
        raise


@contextlib.contextmanager
def _bounded_downloads() -> Iterator[None]:
    """Time limits for the HTTP requests of TFDS, which sets none and repeats each for minutes."""
    import requests
    from tensorflow_datasets.core.download import downloader

    send, retries = requests.adapters.HTTPAdapter.send, downloader.MAX_RETRIES

    @functools.wraps(send)
    def send_with_limits(*args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = kwargs.get("timeout") or (CONNECT_SECONDS, SILENCE_SECONDS)
        return send(*args, **kwargs)

    requests.adapters.HTTPAdapter.send = send_with_limits  # type: ignore[method-assign]
    downloader.MAX_RETRIES = DOWNLOAD_RETRIES
    try:
        yield
    finally:
        requests.adapters.HTTPAdapter.send = send  # type: ignore[method-assign]
        downloader.MAX_RETRIES = retries


def _summary(name: str, builder: Any, state: str) -> str:
    splits = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    return f"{name}: {state} in {builder.data_path} ({splits})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 with one line on stderr for a mistake that the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m cnn_jax.data.prepare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names",
        nargs="+",
        metavar="name",
        help=f"TFDS data set, e.g. mnist, cifar10_corrupted/fog_1; or {', '.join(BY_HAND)}, for how to fetch it",
    )
    parser.add_argument(
        "--data_dir", help="where TFDS keeps its sets; default: $TFDS_DATA_DIR or ~/tensorflow_datasets"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    for library in ("absl", "urllib3"):
        logging.getLogger(library).setLevel(logging.ERROR)

    def prepare_all() -> None:
        for name in options.names:
            say(prepare(name, data_dir=options.data_dir))

    return exit_code(prepare_all, debug=options.debug)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # sys.exit would wait for TFDS's other downloads, which go on after one has failed
