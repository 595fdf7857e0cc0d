"""How tests compile: quickly, for compilation is most of their time. This module does not import jax."""

import importlib.metadata

# Without optimisations of the machine code, and with XLA's older emitters of loops, which jaxlib 0.12 no longer has: a
# third of the time that XLA needs otherwise. XLA's own passes over the program are the same.
XLA_FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"  # XLA ends a process with a flag that it does not know
