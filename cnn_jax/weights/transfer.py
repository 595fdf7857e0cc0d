"""Loading and saving: the model is never changed, a tensor that does not fit is an error, and both directions agree."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import models, nn
from cnn_jax.errors import UsageError
from cnn_jax.weights import files
from cnn_jax.weights.about import IMAGENET_MEAN, IMAGENET_STD, About
from cnn_jax.weights.layouts import BATCHES, LAYOUTS, Entry, entries, is_auxiliary, layout_of, paths

__all__ = ["LAYOUTS", "Loaded", "create", "load", "save", "to_torch"]

_ROWS = 40  # of a table of tensors that do not fit


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What :func:`load` returns; called, it is the model.

    Attributes:
      model: a copy of the model, with the tensors in place.
      about: the normalisation of inputs and the names of classes, as far as they are known.
      layout: that of the file, one of :data:`LAYOUTS`.
      unused: names in the file of auxiliary heads that the model does not have.
      kept: paths in the model of auxiliary heads that the file does not have; they are as they were.

    >>> model = models.create("mlp_two_neurons", rngs=nnx.Rngs(0))
    >>> loaded = load(model, {path: leaf[...] for path, leaf in paths(nnx.state(model)).items()})
    >>> loaded.layout, loaded(jnp.ones((1, 28, 28, 1))).shape
    ('cnn_jax', (1, 10))
    """

    model: Any
    about: About
    layout: str
    unused: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __call__(self, x: Any, **options: Any) -> Any:
        """Calls the model."""
        return self.model(x, **options)


def load(model: nnx.Module, path_or_name: str | Path | Mapping[str, Any]) -> Loaded:
    """Puts trained weights into a network.

    The layout is seen from the names of the tensors: torchvision's or timm's for AlexNet (``alexnet_torchvision``),
    VGG, GoogLeNet (``googlenet_torchvision``) and ResNet (``resnet_50`` and deeper with ``stride='v1.5'``); or that of
    :func:`save`. Numbers are converted to the type of the model's parameters. Batch normalisation uses PyTorch's
    running variance as it is; in further training it moves towards the biased variance, PyTorch's to the unbiased one.

    Args:
      model: the network; it may be abstract, from ``nnx.eval_shape``, so that nothing is drawn for nothing.
      path_or_name: a ``.safetensors`` file; a ``.pth``, ``.pt`` or ``.bin`` of PyTorch, which must be installed, and
        which reads tensors only; a name on the Hugging Face hub, ``'timm/resnet18.tv_in1k'``; or a state dict.

    Returns:
      The network with its new tensors, and what is known about them. Files of PyTorch do not say how inputs are
      normalised: without a ``config.json`` of timm's beside them, networks for 3 channels and 1,000 classes get
      torchvision's ImageNet numbers, and GoogLeNet the 0.5 that torchvision's ``transform_input`` amounts to.

    Raises:
      UsageError: tensors that are missing, too many or misshapen, in a table; a file that cannot be read or fetched; a
        network that torchvision does not have; by timm's ``config.json``, weights of a network that is not here.

    >>> from cnn_jax import models
    >>> model = nnx.eval_shape(lambda: models.create("mlp_two_neurons", rngs=nnx.Rngs(0)))
    >>> load(model, {"classifier.0.weight": np.ones((3, 784))})
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: weights: the state dict does not fit the model: ...
    """
    tensors = files.open_tensors(path_or_name)
    layout = layout_of(tensors.shapes)
    graph, rngs, state = nnx.split(model, nnx.RngState, ...)  # type: ignore[misc]
    leaves = paths(state)
    wanted = entries(model, layout)
    heads = any(map(is_auxiliary, tensors.shapes))
    kept = tuple(e.path for e in wanted if is_auxiliary(e.path) and not heads and _is_known(leaves[e.path]))
    wanted = [entry for entry in wanted if entry.path not in kept]
    names = {entry.name for entry in wanted}
    spare = [name for name in tensors.shapes if name not in names and name.rpartition(".")[-1] != BATCHES]
    unused = tuple(name for name in spare if is_auxiliary(name) and not any(map(is_auxiliary, names)))
    _check(model, tensors, wanted, [name for name in spare if name not in unused])

    for entry in wanted:
        # A copy: on a CPU, asarray would share its memory with the state dict of a PyTorch model.
        leaves[entry.path] = jnp.array(entry.inward(tensors.read(entry.name)), leaves[entry.path].dtype)
    state = jax.tree.unflatten(jax.tree.structure(state), leaves.values())
    about = tensors.about
    if about.mean is None and layout != "cnn_jax":
        mean, std = _usual_normalisation(model, wanted)
        about = dataclasses.replace(about, mean=mean, std=std)
    return Loaded(nnx.merge(graph, rngs, state), about, layout, unused, kept)


def create(path_or_name: str | Path, *, dtype: DTypeLike | None = None) -> Loaded:
    """Builds the network that a file of :func:`save`, or timm's ``config.json`` beside it, names, with its weights.

    Args:
      path_or_name: as for :func:`load`.
      dtype: what to compute in, as for ``models.create``.

    Raises:
      UsageError: as :func:`load`, and a file that does not say which network it is of.

    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/mlp.safetensors"
    >>> options = {"num_classes": 3}
    >>> save(models.create("mlp", rngs=nnx.Rngs(0), **options), path, about=About("mlp", options))
    >>> create(path).model(jnp.ones((1, 28, 28, 1))).shape
    (1, 3)
    """
    about = files.open_tensors(path_or_name).about
    name = about.architecture
    if name is None:
        raise UsageError(f"weights: {path_or_name} does not say which network it is of; use load(model, ...)")
    return load(
        nnx.eval_shape(lambda: models.create(name, dtype=dtype, rngs=nnx.Rngs(0), **about.options)), path_or_name
    )


def save(model: nnx.Module, path: str | Path, *, layout: str = "cnn_jax", about: About | None = None) -> None:
    """Writes the tensors of a network to a file, whole or not at all.

    Args:
      model: any network for the layout ``'cnn_jax'``; for the others those that torchvision has too.
      path: ends in ``.safetensors``, or in ``.pth``, ``.pt`` or ``.bin`` for a state dict, which needs PyTorch.
      layout: ``'cnn_jax'``, the names and shapes of the network's own tensors; ``'torchvision'``; or ``'timm'``, which
        differs for VGG only.
      about: what to say of them in the metadata of a safetensors file.

    Raises:
      UsageError: an unknown layout, ending or architecture; a network that the layout does not have.

    >>> import tempfile
    >>> model = models.create("mlp_two_neurons", rngs=nnx.Rngs(0))
    >>> path = f"{tempfile.mkdtemp()}/mlp.safetensors"
    >>> save(model, path, layout="torchvision")
    >>> sorted(files.open_tensors(path).shapes.items())[:2]
    [('classifier.0.bias', (2,)), ('classifier.0.weight', (2, 784))]
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"weights: {path}: there is no folder {str(path.parent)!r}; make it first")
    about = about or About()
    if about.architecture is not None:
        models.variant(about.architecture)
    if path.suffix in files.SAFETENSORS:
        metadata = about.to_metadata() | ({} if layout == "cnn_jax" else {"format": "pt"})
        files.write_safetensors(path, _tensors(model, layout), metadata)
    elif path.suffix not in files.TORCH:
        raise UsageError(f"weights: {path} must end in one of {', '.join((*files.SAFETENSORS, *files.TORCH))}")
    elif layout == "cnn_jax":
        raise UsageError(
            f"weights: {path.name} is a file of PyTorch's; give layout='torchvision', or save .safetensors"
        )
    else:
        files.write_torch(path, _tensors(model, layout))


def to_torch(model: nnx.Module, *, layout: str = "torchvision") -> dict[str, Any]:
    """A network's tensors as PyTorch has them, for ``load_state_dict``.

    Args:
      model: a network that torchvision has too; see :func:`load`.
      layout: ``'torchvision'`` or ``'timm'``, as for :func:`save`.

    Returns:
      Names to tensors of PyTorch, which must be installed.

    Raises:
      UsageError: another layout, another network, or no PyTorch.
    """
    if layout == "cnn_jax":
        raise UsageError("weights: to_torch makes a state dict of layout='torchvision' or 'timm'")
    torch = files.import_torch("a state dict")
    return {name: torch.from_numpy(array) for name, array in _tensors(model, layout).items()}


def _tensors(model: nnx.Module, layout: str) -> dict[str, np.ndarray]:
    """A network's tensors by their names in a layout."""
    leaves = paths(nnx.state(model, nnx.Not(nnx.RngState)))
    tensors = {}
    for entry in entries(model, layout):
        if not _is_known(leaves[entry.path]):
            raise UsageError("weights: the network is one of nnx.eval_shape and holds no numbers that could be written")
        array = np.asarray(leaves[entry.path])
        if layout != "cnn_jax" and array.dtype == jnp.bfloat16:
            array = array.astype(np.float32)  # NumPy's bfloat16 is unknown to PyTorch
        tensors[entry.name] = entry.outward(array)
        if layout != "cnn_jax" and entry.name.endswith("running_var"):
            tensors[entry.name.replace("running_var", BATCHES)] = np.zeros((), np.int64)
    return tensors


def _check(model: nnx.Module, tensors: files.Tensors, wanted: list[Entry], extra: list[str]) -> None:
    """Raises the table of what does not fit."""
    found = tensors.shapes
    missing = [entry.name for entry in wanted if entry.name not in found]
    misshapen = [entry.name for entry in wanted if found.get(entry.name, entry.shape) != entry.shape]
    rows = [*missing, *extra, *misshapen]
    if not rows:
        return
    counts = {"missing": missing, "too many": extra, "misshapen": misshapen}
    summary = ", ".join(f"{len(names)} {kind}" for kind, names in counts.items() if names)
    classes = _classes(model, wanted, found) if rows == misshapen else None
    mend = "create the network that they are of"
    if classes is not None:
        mend = f"create the network with num_classes={classes}, load, and then replace its head"
    shapes = {entry.name: entry.shape for entry in wanted}
    texts = [("tensor", "in the file", "in the model")]
    texts += [(name, str(found.get(name, "-")), str(shapes.get(name, "-"))) for name in rows[:_ROWS]]
    widths = [max(len(row[column]) for row in texts) for column in range(3)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in texts]
    lines += [f"and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
    title = f"weights: {tensors.source} does not fit the model: {summary} of {len(wanted)} tensors; {mend}"
    raise UsageError("\n  ".join([title, *lines]))


def _classes(model: nnx.Module, wanted: list[Entry], found: Mapping[str, tuple[int, ...]]) -> int | None:
    """The number of classes of a file, if that is all by which it does not fit."""
    outputs = models.output_layers(model) if isinstance(model, nn.Sequence) else []
    heads = tuple(f"{'/'.join(path)}/" for path in outputs)
    numbers = set()
    for entry in wanted:
        theirs, ours = found[entry.name], entry.shape
        if theirs == ours:
            continue
        # Where the outputs are: the first axis of codes, the last one here of kernels and biases.
        axis = 0 if entry.path.endswith("/centers") else entry.order.index(len(entry.split) - 1)
        alike = len(theirs) == len(ours) and (*theirs[:axis], *theirs[axis + 1 :]) == (*ours[:axis], *ours[axis + 1 :])
        numbers.add(theirs[axis] if alike and entry.path.startswith(heads) else None)
    return numbers.pop() if len(numbers) == 1 else None


def _is_known(leaf: Any) -> bool:
    return not isinstance(leaf, jax.ShapeDtypeStruct)


def _usual_normalisation(
    model: nnx.Module, wanted: list[Entry]
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """What torchvision and timm train with on ImageNet; nothing for networks of other channels or classes."""
    kernels = [entry for entry in wanted if entry.path.endswith("/kernel")]
    if kernels[0].own_shape[-2] != 3 or kernels[-1].own_shape[-1] != 1000:
        return None, None
    if any(isinstance(getattr(model, name), nn.Parallel) for name in getattr(model, "names", ())):
        return (0.5,) * 3, (0.5,) * 3
    return IMAGENET_MEAN, IMAGENET_STD
