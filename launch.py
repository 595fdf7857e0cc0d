"""The command line in a checkout; ``pip install .`` makes it the command ``cnn-jax``. See :mod:`cnn_jax.cli.main`."""

import sys

from cnn_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
