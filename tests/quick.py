"""How tests compile: quickly, for compilation is most of their time. This module does not import jax."""

# Without optimisations of the machine code, and with XLA's older emitters of loops: a third of the time that XLA needs
# otherwise. XLA's own passes over the program are the same.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
