"""What a run shows of itself: figures, one self-contained page, and a line of progress. Arrays in, pictures out.

Nothing here knows of Flax, configs or training. :mod:`~cnn_jax.report.figures` draws, :mod:`~cnn_jax.report.page` puts
figures, numbers and tables on a page, :mod:`~cnn_jax.report.progress` talks to the terminal; each is imported on its
own, since only the first needs matplotlib.
"""
