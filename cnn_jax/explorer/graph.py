"""A network as a graph of records: one node per activation, in the order in which they are computed."""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.explorer.layers import (
    Record,
    matrix_options,
    max_pool,
    normalization,
    of_two_maps,
    record,
    refusal,
    unpooled,
)
from cnn_jax.nn.skips import INPUT

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """One activation of a network.

    Attributes:
      name: Of the activation, such as ``'block1/branch/conv1'``.
      record: How it is computed; None for the input.
      inputs: The numbers of the nodes that it is computed from.
      shape: Of one activation, (height, width, channels) or (features,).
    """

    name: str
    record: Record | None
    inputs: tuple[int, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network; the first node is its input.

    Attributes:
      nodes: In an order in which each node comes after its inputs.
    """

    nodes: tuple[Node, ...]

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    def then(self, name: str, found: Record, shape: Shape | None = None) -> "Graph":
        """The graph with one more node behind its output."""
        node = Node(name, found, (len(self.nodes) - 1,), self.output.shape if shape is None else shape)
        return Graph((*self.nodes, node))

    def weights(self) -> int:
        """The number of weights that a page stores."""
        return sum(array.size for node in self.nodes if node.record for array in node.record.arrays.values())

    def to_json(self) -> dict[str, Any]:
        """The nodes as JSON values, and the arrays of :meth:`stored` as a base64 string."""
        nodes, weights = self.stored()
        return {"nodes": nodes, "weights": base64.b64encode(weights).decode()}

    def stored(self) -> tuple[list[dict[str, Any]], bytes]:
        """The nodes as JSON values, and all arrays one after the other.

        An array is stored as float16 if that is exact, and otherwise as float32.
        """
        nodes: list[dict[str, Any]] = []
        parts: list[bytes] = []
        offset = 0
        for node in self.nodes:
            arrays: dict[str, Any] = {}
            for name, array in (node.record.arrays if node.record else {}).items():
                stored = _stored(array)
                arrays[name] = {"offset": offset, "shape": list(array.shape), "dtype": stored.dtype.name}
                data = stored.tobytes()
                parts.append(data + bytes(-len(data) % 4))
                offset += len(parts[-1])
            nodes.append(
                {
                    "name": node.name,
                    "kind": node.record.kind if node.record else "input",
                    "about": node.record.about if node.record else "the image, from 0 to 1",
                    "inputs": list(node.inputs),
                    "shape": list(node.shape),
                    **(node.record.options if node.record else {}),
                    "arrays": arrays,
                }
            )
        return nodes, b"".join(parts)


def export(model: nn.Sequence, input_shape: Sequence[int], *, name: str = "input") -> Graph:
    """The graph of a network in evaluation mode.

    Args:
      model: The network.
      input_shape: Of one input, (height, width, channels).
      name: Of the first node.

    Returns:
      The graph. Its nodes have the names that ``model(x, return_activations=True)`` gives to activations.

    Raises:
      UsageError: A layer that the page cannot compute, or inputs that are not images.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern", rngs=nnx.Rngs(0))
    >>> [(node.name, node.record.kind) for node in export(model, (32, 32, 1)).nodes[1:4]]
    [('c1', 'conv'), ('c1_tanh', 'elementwise'), ('s2', 'average')]
    """
    if len(input_shape) != 3:
        raise UsageError(
            f"the explorer shows images, (height, width, channels), but the input has {tuple(input_shape)}"
        )
    if not hasattr(model, "flow"):
        raise UsageError(f"the explorer needs a network of named layers, nn.Sequence, and not {type(model).__name__}")
    nodes = [Node(name, None, (), tuple(input_shape))]

    def add(name: str, found: Record, inputs: Sequence[int], shape: Shape) -> int:
        nodes.append(Node(name, found, tuple(inputs), shape))
        return len(nodes) - 1

    def through(prefix: str, layer: Any, x: int) -> int:
        if isinstance(layer, nn.Auxiliary):  # runs in training only
            return x
        if isinstance(layer, nn.SkipSequence):
            return skipping(prefix, layer, x)
        if hasattr(layer, "flow"):
            return layer.flow(
                x,
                visit=lambda inner, *args: through(f"{prefix}{inner}/", *args),
                join=lambda inner, values: joined(f"{prefix}{inner}", values),
            )
        shape = nodes[x].shape
        found = record(layer, shape)
        pair = None if found is None else (found, _shape_after(layer, shape))
        return named(prefix.removesuffix("/"), layer, pair, [x])

    def skipping(prefix: str, model: nn.SkipSequence, x: int) -> int:
        skips, kept = dict(model.skips), {INPUT: x}

        def visit(inner: str, layer: Any, x: int) -> int:
            name, skip = f"{prefix}{inner}", kept[skips[inner]] if inner in skips else None
            if skip is not None:
                kept[inner] = of_two(name, layer, x, skip)
            elif isinstance(layer, nn.MaxPool):  # whose indices an unpooling may need
                kept[inner] = named(name, layer, max_pool(layer, nodes[x].shape), [x])
            else:
                kept[inner] = through(f"{name}/", layer, x)
            return kept[inner]

        return model.flow(x, visit=visit, join=lambda inner, values: visit(inner, getattr(model, inner), values[0]))

    def of_two(name: str, layer: Any, x: int, skip: int) -> int:
        if isinstance(layer, nn.MaxUnpool):
            pool = nodes[skip]
            before = pool.inputs[0] if pool.inputs else skip
            return named(name, layer, unpooled(layer, pool.record, nodes[before].shape), [x, before])
        found = of_two_maps(layer, nodes[skip].shape, nodes[x].shape)
        return named(name, layer, found, [x] if isinstance(layer, nn.CutTo) else [skip, x])

    def named(name: str, layer: Any, found: tuple[Record, Shape] | None, inputs: Sequence[int]) -> int:
        if found is None:
            raise refusal(name, layer)
        return add(name, found[0], inputs, found[1])

    def joined(name: str, inputs: list[int]) -> int:
        shapes = [nodes[index].shape for index in inputs]
        match name.rpartition("/")[2]:
            case "add":
                return add(name, Record("add", "the sum of the paths"), inputs, shapes[0])
            case "concatenate":
                channels = sum(shape[-1] for shape in shapes)
                about = "the channels of the branches, one after the other"
                return add(name, Record("concatenate", about), inputs, (*shapes[0][:-1], channels))
        raise UsageError(f"the explorer cannot compute {name!r}, where paths meet; it knows 'add' and 'concatenate'")

    through("", model, 0)
    return Graph(tuple(nodes))


def preprocessed(graph: Graph, preprocess: Any, image_shape: Sequence[int]) -> Graph:
    """The graph behind its preprocessing: from an image with values from 0 to 1 to the network's input.

    Args:
      graph: Of the network.
      preprocess: A :class:`cnn_jax.data.Preprocess`.
      image_shape: Of the image, (height, width, channels).
    """
    first = Graph((Node("image", None, (), tuple(image_shape)),))
    wanted = tuple(preprocess.input_shape)
    if tuple(image_shape[:2]) != wanted[:2]:
        matrices = [_resizing(preprocess, *sizes) for sizes in zip(image_shape[:2], wanted[:2], strict=True)]
        found = Record("average", f"resized to {wanted[0]}x{wanted[1]}: {preprocess.resize}", matrix_options(*matrices))
        first = first.then("resized", found, wanted)
    factor = 1 / np.asarray(preprocess.std, np.float64)
    about = "what the network sees: (image - mean) / standard deviation"
    first = first.then("network input", normalization(np.asarray(preprocess.mean), factor, None, about))
    shift = len(first.nodes) - 1
    moved = [
        dataclasses.replace(node, inputs=tuple(index + shift for index in node.inputs)) for node in graph.nodes[1:]
    ]
    return Graph((*first.nodes, *moved))


def rounded_to_half(model: nn.Sequence) -> nn.Sequence:
    """A copy whose kernels are rounded to float16; biases, norms and what float16 cannot hold stay as they are."""
    graph, state = nnx.split(model)

    def rounded(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.ndim < 2 or float(jnp.abs(leaf).max()) > 60_000:
            return leaf
        return leaf.astype(jnp.float16).astype(leaf.dtype)

    return nnx.merge(graph, jax.tree.map(rounded, state))


def _stored(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array, dtype="<f4")
    with np.errstate(over="ignore"):
        half = array.astype("<f2")
    return half if np.array_equal(half.astype("<f4"), array) else array


def _shape_after(layer: Any, shape: Shape) -> Shape:
    def apply(x: Any) -> Any:
        return layer(x)

    if isinstance(layer, nnx.BatchNorm | nnx.Dropout | nn.GaussianNoise):
        return shape
    return jax.eval_shape(apply, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]


def _resizing(preprocess: Any, size: int, wanted: int) -> np.ndarray:
    """The matrix of the resizing of one axis, (wanted, size)."""
    along = dataclasses.replace(preprocess, input_shape=(wanted, size, 1), mean=(0.0,), std=(1.0,))
    return np.asarray(along(np.eye(size, dtype=np.float32)[None, :, :, None]))[0, ..., 0]
