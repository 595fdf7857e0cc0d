"""The process that a program runs in: XLA flags, huge pages, the compilation cache, memory, files written atomically.

Nothing here imports JAX, so that all of it can be called before JAX starts.
"""
