"""Compiles the native CPU kernels into the wheel where there is a C++ compiler. pyproject.toml has everything else.

The wheel then has three libraries, and is for one platform. ``CNN_JAX_NATIVE=0`` makes one without libraries, for any
platform, and ``CNN_JAX_NATIVE=avx512`` (or ``avx2``, ``sse2``) one with a single library.
"""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

sys.path.insert(0, str(Path(__file__).parent))  # which build tools leave out
from cnn_jax.native import build


class WheelWithKernels(bdist_wheel):
    """A wheel with the libraries, or without them where they cannot be compiled."""

    def run(self) -> None:
        """Adds the libraries to what was built, before the wheel is made of it."""
        self.run_command("build")
        switch = os.environ.get("CNN_JAX_NATIVE") or "1"
        if switch != "0":
            folder = Path(self.get_finalized_command("build").build_lib, "cnn_jax", "native")
            try:
                build.add_to_package(folder, [*build.INSTRUCTIONS] if switch == "1" else [switch])
                self.plat_name_supplied = True  # so that the name of the wheel contains its platform
            except build.UnavailableError as error:
                print(f"native CPU kernels: not in this wheel; {error}", file=sys.stderr)
        super().run()


setup(cmdclass={"bdist_wheel": WheelWithKernels})
