"""``python -m cnn_jax.data.folder path``: what there is in a folder of images, and which files cannot be read."""

import argparse
import sys
from collections.abc import Sequence

from cnn_jax.data.folder import scan_folder
from cnn_jax.runtime.command import exit_code
from cnn_jax.runtime.terminal import say


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 2 with one line on stderr for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.data.folder",
        description="Decodes every image of a folder with one subfolder per class, and reports what it found.",
    )
    parser.add_argument("folders", nargs="+", metavar="folder", help="what --config.data.name=folder:... would read")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)

    def scan() -> None:
        for folder in options.folders:
            say(scan_folder(folder))

    return exit_code(scan, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
