"""XLA flags for fast compilation, which is most of the time of tests. This module does not import jax."""

import importlib.metadata

# Without optimisations of the machine code, and with XLA's older loop emitters, which jaxlib 0.12 no longer has, XLA
# needs a third of the time. XLA's own passes over the program are the same. Code that is not split for parallel
# compilation takes 0.87 of the CPU time of a convolution with its gradients, traced and compiled.
XLA_FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA aborts on an unknown flag.
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
