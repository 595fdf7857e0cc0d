"""The page: one HTML file with the graph, its weights, a few images and the scripts, and no request to anywhere."""

import base64
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float, Integer, Shaped
from markupsafe import Markup
from PIL import Image

from cnn_jax import filters
from cnn_jax.errors import UsageError
from cnn_jax.explorer.graph import Graph
from cnn_jax.ops.padding import BOUNDARIES
from cnn_jax.report.embedding import script_hash, script_json, stylesheet
from cnn_jax.runtime.files import write_atomically

SCRIPTS = (
    *("kernels.js", "network.js", "explain.js", "worker.js", "ink.js"),
    *("drawing.js", "images.js", "outputs.js", "stack.js", "explorer.js"),
)
MOST_BYTES = 20_000_000  # of weights; a browser takes long to open more
COMPLETE_CHECK = 30_000  # values of the test input's activations; of larger networks fewer are compared, evenly spaced
SPARSE_CHECK = 10_000  # so many
_MOST_ROWS = 21  # of a kernel of the second view
_PHOTOGRAPH = (144, 96)  # width, height


@dataclasses.dataclass(frozen=True)
class Codes:
    """A layer of two numbers, as a square to walk in.

    Attributes:
      node: The name of the layer.
      codes: Its output for some images, (n, 2).
      labels: The class of each of these images; None without classes.
      names: Of the classes.
    """

    node: str
    codes: Float[np.ndarray, "n 2"]
    labels: Integer[np.ndarray, " n"] | None
    names: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Explored:
    """What a page shows.

    Attributes:
      title: Of the page.
      subtitle: One line below it.
      graph: Of the network, from the image to its output; a node is called ``'network input'``.
      mean: Of the preprocessing, per channel, to show the network's input as an image again.
      std: The same.
      labels: The names of the outputs.
      view: How the last node is shown: ``'bars'``, ``'image'``, ``'classes'`` of pixels, or as ``'maps'`` only.
      probabilities: Whether the outputs are probabilities.
      images: Test images, uint8 (n, height, width, channels); the first is the one that the page is checked with.
      titles: A title for each.
      activations: The values of each node for all images, by name: (n, ...).
      ink_extent: How much of a training image ink takes, if they are ink; see :mod:`cnn_jax.data.ink`.
      framing: How images of other sizes are scaled: ``'fit'``, ``'crop'`` or ``'stretch'``.
      codes: Of an autoencoder with two numbers for each image.
      footer: The last line.
    """

    title: str
    subtitle: str
    graph: Graph
    mean: Sequence[float]
    std: Sequence[float]
    labels: Sequence[str]
    view: str
    probabilities: bool
    images: Shaped[np.ndarray, "n height width channels"]
    titles: Sequence[str]
    activations: Mapping[str, Shaped[np.ndarray, "..."]]
    ink_extent: float | None = None
    framing: str = "fit"
    codes: Codes | None = None
    footer: str = ""


def write(path: Path, explored: Explored) -> None:
    """Writes the page.

    Args:
      path: Of the file.
      explored: What it shows.

    Raises:
      UsageError: The weights are too many for a page.
    """
    write_atomically(path, render(explored))


def render(explored: Explored, *, live: Mapping[str, Any] | None = None) -> str:
    """The page as HTML.

    Args:
      explored: What it shows.
      live: For a page with a server behind it, which has the weights: the names of attribution ``methods``, and the
        ``query`` of its requests.

    Raises:
      UsageError: The weights are too many for a page.
    """
    nodes, weights = explored.graph.stored()
    size = 0 if live else len(weights)
    if size > MOST_BYTES:
        raise UsageError(
            f"the network has {size / 1e6:.0f} MB of weights, and a page holds at most {MOST_BYTES / 1e6:.0f} MB; "
            "leave out --output for a live page, which has no limit"
        )
    data = {
        "graph": {"nodes": nodes, "weights": "" if live else base64.b64encode(weights).decode()},
        "live": live,
        "bounds": [_bound(explored.activations[node.name]) for node in explored.graph.nodes],
        "check": {"image": _base64(explored.images[0]), "reference": _reference(explored)},
        "preprocess": {"mean": list(explored.mean), "std": list(explored.std)},
        "output": {"labels": list(explored.labels), "probabilities": explored.probabilities, "view": explored.view},
        "latent": explored.codes and _square(explored.graph, explored.codes),
        "examples": [
            {"title": title, "image": _base64(image)}
            for title, image in zip(explored.titles, explored.images, strict=True)
        ],
        "imageShape": list(explored.images.shape[1:]),
        "inkExtent": explored.ink_extent,
        "framing": explored.framing,
        "kernels": {"kernels": _image_kernels(), "photograph": _photograph(), "boundaries": boundaries()},
    }
    page = {
        "title": explored.title,
        "subtitle": explored.subtitle,
        "examples": data["examples"],
        "channels": explored.images.shape[-1],
        "footer": explored.footer,
    }
    return _template().render(page=page, data=data)


def script() -> str:
    """All scripts of the page as one, without comments and indentation. The page runs it a second time in a worker."""
    files = resources.files("cnn_jax.explorer")
    text = "".join(files.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    lines = (line.strip() for line in text.splitlines())
    kept = (line for line in lines if line and not line.startswith("//") and line != '"use strict";')
    return "\n".join(['"use strict";', *kept]) + "\n"


def image_kernels() -> dict[str, Shaped[np.ndarray, "rows columns"]]:
    """The kernels of the second view by name: the small ones of :data:`cnn_jax.filters.KERNELS`, and small Gabors."""
    kernels = {name: np.asarray(make(), np.float32) for name, make in filters.KERNELS.items()}
    kernels |= {f"gabor(3, angle={a})": np.asarray(filters.gabor(3, angle=a), np.float32) for a in (0, 45, 90, 135)}
    first = "sobel(axis=1)"
    names = (first, *(name for name in kernels if name != first))
    return {name: kernels[name] for name in names if max(kernels[name].shape) <= _MOST_ROWS}


def _square(graph: Graph, found: Codes) -> dict[str, Any]:
    """The codes, and the square around them."""
    low, high = found.codes.min(axis=0), found.codes.max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    return {
        "index": [node.name for node in graph.nodes].index(found.node),
        "low": (low - margin).tolist(),
        "high": (high + margin).tolist(),
        "codes": _base64(found.codes.astype("<f4")),
        "labels": None if found.labels is None else _base64(found.labels.astype(np.uint8)),
        "names": list(found.names),
    }


def _image_kernels() -> dict[str, Any]:
    return {name: {"shape": kernel.shape, "data": _base64(kernel)} for name, kernel in image_kernels().items()}


def boundaries() -> list[str]:
    """The boundary rules of the second view, the default of :func:`cnn_jax.filters.apply` first."""
    return ["mirror", *(name for name in BOUNDARIES if name not in ("mirror", "constant"))]


def _reference(explored: Explored) -> list[dict[str, Any]]:
    """Every activation of the first image, or evenly spaced values of it where there are too many."""
    total = sum(explored.activations[node.name][0].size for node in explored.graph.nodes)
    found = []
    for index, node in enumerate(explored.graph.nodes):
        values = np.asarray(explored.activations[node.name][0], "<f4").ravel()
        stride = 1 if total <= COMPLETE_CHECK else _spacing(values.size, total)
        found.append({"index": index, "stride": stride, "values": _base64(values[::stride])})
    return found


def _spacing(size: int, total: int) -> int:
    """An odd spacing, so that the values come from all channels, whose number is usually even."""
    wanted = max(1, round(size / max(SPARSE_CHECK * size / total, 32)))
    return wanted + (wanted > 1 and wanted % 2 == 0)


def _bound(values: Shaped[np.ndarray, "..."]) -> float:
    """The largest size of a value over all images, rounded up to two digits: the end of the colour scale."""
    largest = float(np.abs(values).max())
    if not np.isfinite(largest) or largest == 0:
        return 1.0
    digit = 10.0 ** (np.floor(np.log10(largest)) - 1)
    return float(f"{np.ceil(largest / digit) * digit:.2g}")


def _base64(array: Shaped[np.ndarray, "..."]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


@functools.cache
def _photograph() -> dict[str, Any]:
    """scikit-learn's photograph of a temple, small and grey."""
    content = resources.files("sklearn.datasets.images").joinpath("china.jpg").read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        grey = image.convert("L").resize(_PHOTOGRAPH, Image.Resampling.BOX)
    return {"height": grey.height, "width": grey.width, "data": _base64(np.asarray(grey))}


def _template() -> jinja2.Template:
    files = resources.files("cnn_jax.explorer")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["css"] = Markup(stylesheet("cnn_jax.explorer", "explorer.css"))
    environment.globals["script"] = script()
    environment.filters["hash"] = script_hash
    environment.filters["json"] = script_json
    return environment.from_string(files.joinpath("explorer.html").read_text(encoding="utf-8"))
