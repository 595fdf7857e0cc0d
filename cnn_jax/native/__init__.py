"""Kernels of our own for CPUs, which XLA calls through ``jax.ffi``: C++ that is compiled once.

``cnn_jax.enable_native()`` turns them on for the programs that are compiled from then on; ``launch.py`` always does.
``cnn_jax.ops`` then uses them in the CPU lowering of its primitives, for the shapes for which they are faster than
XLA's operations (``cnn_jax.ops.choice``). Everything works without them. ``docs/native.md`` explains how to add one.

======================  ============================================================
``build.py``            compiles the C++: into a wheel, or on its first use into the user's cache
``library.py``          loads it
``calls.py``            one function per kernel, from arrays to arrays
``convolution.cc``      the three products of a convolution, by direct sums
``winograd.cc``         the same for windows of 3x3 and 5x5, by Winograd's algorithm
``products.cc``         the innermost loops of matrix products, which both use
``batch_norm.cc``       batch normalisation in training with addend and ReLU, and its gradients
``pool.cc``             maxima and sums of windows, and their gradients
``vectors.h``           the vector type of the processor
``parallel.h``          work on XLA's threads, memory for intermediate results
======================  ============================================================
"""

from cnn_jax.native.library import describe, enable, is_enabled, is_wanted

__all__ = ["describe", "enable", "is_enabled", "is_wanted"]
