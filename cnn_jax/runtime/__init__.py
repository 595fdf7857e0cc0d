"""Settings and resources of the process: XLA flags, huge pages, the compilation cache, memory, atomic file writes.

No module here imports JAX at import time, so all of them can be used before JAX starts.
"""
