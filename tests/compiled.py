"""Compiles functions of small arrays quickly: as one program, without optimisations."""

import functools
from collections.abc import Callable

import jax

# XLA's own passes are the same at level 0. Only the machine code is slower, which does not matter for tiny arrays.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def with_gradients(function: Callable) -> Callable:
    """A function of a cotangent and arguments that returns the function's value and its gradients."""

    @compiled
    def run(dy, *arguments):
        y, pull_back = jax.vjp(function, *arguments)
        return y, *pull_back(dy)

    return run
