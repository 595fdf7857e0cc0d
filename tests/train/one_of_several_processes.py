"""One of several processes that train the small network and continue from a checkpoint of eight devices.

python -m tests.train.one_of_several_processes <port> <processes> <number> <folder>
"""

import sys
from pathlib import Path

import jax
import numpy as np

from cnn_jax import train
from tests.train import small_network


def main() -> int:
    port, processes, number = map(int, sys.argv[1:4])
    jax.distributed.initialize(f"localhost:{port}", processes, number)
    folder = Path(sys.argv[4])
    for name in ("fresh", "of_eight"):
        trained = small_network.run(folder / name, train.DataParallel(shard_parameters=True))
        np.savez(folder / f"{name}-{number}.npz", loss=trained.scores["test/loss"], **small_network.numbers(trained))
    return 0


if __name__ == "__main__":
    sys.exit(main())
