"""The output of a run: figures, a self-contained HTML page, and progress in the terminal.

All functions take plain arrays and values and are independent of Flax, configs and training.
:mod:`~cnn_jax.report.figures` draws figures, :mod:`~cnn_jax.report.page` writes a page of figures, numbers and tables,
and :mod:`~cnn_jax.report.progress` shows progress. Each module is imported separately, because importing matplotlib is
slow and only some of them need it.
"""
