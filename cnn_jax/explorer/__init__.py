"""The explorer: a trained network on one HTML page that computes it in the browser, layer by layer.

:func:`export` turns a network into a graph of simple records with their weights. :func:`write` puts the graph and the
scripts that compute it into one self-contained page. The scripts beside this module are readable as they are:
``kernels.js`` has one function per kind of layer, and ``explain.js`` says how one number was computed.
"""

from cnn_jax.explorer.graph import Graph, Node, export, preprocessed, rounded_to_half
from cnn_jax.explorer.live import LOOPBACK, Answer, Live, require_server
from cnn_jax.explorer.page import Codes, Explored, render, write

__all__ = [
    "LOOPBACK",
    "Answer",
    "Codes",
    "Explored",
    "Graph",
    "Live",
    "Node",
    "export",
    "preprocessed",
    "render",
    "require_server",
    "rounded_to_half",
    "write",
]
