"""Which XLA flags make convolutional networks fast on the jaxlib that is installed, and how to apply them.

XLA reads ``XLA_FLAGS`` once, when JAX first touches a device, so the flags must be in the environment before that.
``import cnn_jax`` never sets them. ``launch.py`` sets and logs them. In your own program, write this before you import
jax::

    import os, cnn_jax
    os.environ["XLA_FLAGS"] = cnn_jax.recommended_xla_flags()

This module must not import jax.
"""

import os
from collections.abc import Mapping, MutableMapping
from importlib import metadata

# An unknown flag aborts the process. Each entry therefore names the jaxlib versions it was tested on: [first, last).
_CPU_FLAGS: tuple[tuple[tuple[int, int], tuple[int, int], str], ...] = (
    # jaxlib computes single convolutions with YNNPACK, whose weight gradients are half as fast as Eigen's. Its fused
    # reductions stay enabled, because without them batch normalisation falls back to reduce-window.
    ((0, 10), (0, 13), "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"),
)


def recommended_xla_flags(jaxlib_version: str | None = None) -> str:
    """Returns the flags that this project recommends for a jaxlib version, as a value for ``XLA_FLAGS``.

    Args:
      jaxlib_version: For example ``'0.10.2'``; the installed version by default.

    Returns:
      Flags separated by spaces; an empty string for a version that was not tested.

    >>> recommended_xla_flags("0.10.2")
    '--xla_cpu_experimental_ynn_fusion_type=-individual_convolution'
    >>> recommended_xla_flags("0.4.30")
    ''
    """
    text = jaxlib_version or metadata.version("jaxlib")
    major, minor = (int(part) for part in text.split(".")[:2])
    return " ".join(flag for first, end, flag in _CPU_FLAGS if first <= (major, minor) < end)


def apply_recommended_flags(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Adds the recommended flags to ``XLA_FLAGS``. Flags that the user has set stay unchanged.

    Must run before JAX touches a device.

    Returns:
      The flags that were added.

    >>> environment = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type="}
    >>> apply_recommended_flags(environment), environment["XLA_FLAGS"]
    ([], '--xla_cpu_experimental_ynn_fusion_type=')
    """
    present = environ.get("XLA_FLAGS", "")
    names = {flag.split("=")[0] for flag in present.split()}
    added = [flag for flag in recommended_xla_flags().split() if flag.split("=")[0] not in names]
    if added:
        environ["XLA_FLAGS"] = " ".join([*present.split(), *added])
    return added


def options_for_single_use(platform: str) -> dict[str, str | bool | int]:
    """Returns ``compiler_options`` of ``jax.jit`` for functions that run once, such as a network's initialisation.

    On a CPU the results have the same bits and the function runs equally fast (LeNet-5 to VGG-A), but compilation takes
    a third of the time. Training steps should be compiled with all optimisations. For other platforms there are no
    options, because none were tested.

    Args:
      platform: The platform, as from ``jax.default_backend()``.

    >>> options_for_single_use("cpu"), options_for_single_use("gpu")
    ({'xla_backend_optimization_level': 1}, {})
    """
    return {"xla_backend_optimization_level": 1} if platform == "cpu" else {}


def describe(added: list[str], environ: Mapping[str, str] = os.environ) -> str:
    """Describes the XLA flags in use and where they come from, in one line for the log.

    >>> describe([], {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"})
    'XLA flags: --xla_cpu_enable_fast_math=true from the environment'
    """
    present = environ.get("XLA_FLAGS", "")
    own = " ".join(flag for flag in present.split() if flag not in added)
    parts = [f"{' '.join(added)} chosen for jaxlib {metadata.version('jaxlib')}"] if added else []
    parts += [f"{own} from the environment"] if own else []
    return f"XLA flags: {', '.join(parts) or 'none'}"
