"""Loads and saves weights. Loading returns a new model, and any tensor that does not fit is an error."""

import dataclasses
import logging
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
from cnn_jax.runtime.files import check_output, user_path
from cnn_jax.typed import typed
from cnn_jax.weights import adaptation, files, places, torch_files
from cnn_jax.weights.about import IMAGENET_MEAN, IMAGENET_STD, About
from cnn_jax.weights.layouts import BATCHES, LAYOUTS, Entry, entries, is_auxiliary, layout_of, paths

__all__ = ["LAYOUTS", "Loaded", "create", "load", "save", "to_torch"]

logger = logging.getLogger(__name__)

_ROWS = 40  # the maximum number of rows in the table of tensors that do not fit


@typed
@dataclasses.dataclass(frozen=True)
class Loaded:
    """The result of :func:`load`. Calling it calls the model.

    Attributes:
      model: A copy of the model with the loaded tensors.
      about: The metadata: the normalisation of inputs and the class names, as far as they are known.
      layout: The layout of the file, one of :data:`LAYOUTS`.
      unused: The names of tensors in the file that the model does not use: auxiliary classifiers, or a head for other
        classes.
      kept: The paths of tensors that the file does not have and that keep the model's values: auxiliary classifiers, or
        the model's own head.
      notes: Remarks about where the network was found in the file, and which names and numbers were changed. They are
        also logged in one line.

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
    notes: tuple[str, ...] = ()

    def __call__(self, x: Any, **options: Any) -> Any:
        """Calls the model."""
        return self.model(x, **options)


@typed
def load(
    model: nnx.Module,
    path_or_name: str | Path | Mapping[str, Any],
    *,
    key: str | None = None,
    adapt: bool = False,
) -> Loaded:
    """Loads pretrained weights into a copy of a network.

    The layout is determined from the names of the tensors. It is torchvision's or timm's for AlexNet
    (``alexnet_torchvision``), VGG, GoogLeNet (``googlenet_torchvision``) and ResNet (``resnet_50`` and deeper with
    ``stride='v1.5'``), or that of :func:`save`. Numbers are converted to the type of the model's parameters. Batch
    normalisation uses PyTorch's running variance without a correction. In further training it moves towards the biased
    variance; PyTorch's moves towards the unbiased one.

    The network may be anywhere in the file: under a key such as ``state_dict`` or ``model``, with prefixes such as
    ``module.`` or ``backbone.`` before its names. One log line says which names and numbers were changed.

    Args:
      model: The network. It may be abstract, from ``nnx.eval_shape``, so that no parameters are initialised.
      path_or_name: A ``.safetensors`` file; a PyTorch file (``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.pth.tar``), from
        which only tensors are read, and which needs PyTorch; a name on the Hugging Face hub such as
        ``'timm/resnet18.tv_in1k'``; or a state dict.
      key: Selects one of several networks in the file, by the keys and prefixes before its names: ``'state_dict'``,
        ``'model/encoder_q'``. By default it is the one that fits best. Like timm, it prefers a moving average of the
        network to the network itself.
      adapt: Whether weights for other classes or channels are adapted, as timm's ``create_model(num_classes=,
        in_chans=)`` does. The model keeps its own head. For inputs of one channel the first kernel is summed over its
        channels; otherwise its three channels are repeated and scaled by 3 / channels.

    Returns:
      The network with the loaded tensors, and their metadata. PyTorch files do not store the normalisation of inputs.
      Without timm's ``config.json`` in the same folder, weights for 3 channels and 1,000 classes get torchvision's
      ImageNet mean and standard deviation. GoogLeNet gets 0.5 for both, which is the effect of torchvision's
      ``transform_input``.

    Raises:
      UsageError: Tensors are missing, unexpected or of another shape (the message has a table of them); integers
        (quantised weights) or complex numbers are given for real parameters; several networks fit; a file cannot be
        read or downloaded; torchvision does not have the network; timm's ``config.json`` names a network that this
        package does not have.

    References:
      Wightman, PyTorch Image Models, ``timm.models.adapt_input_conv`` and ``load_state_dict``, version 1.0.

    >>> from cnn_jax import models
    >>> model = nnx.eval_shape(lambda: models.create("mlp_two_neurons", rngs=nnx.Rngs(0)))
    >>> load(model, {"classifier.0.weight": np.ones((3, 784))})
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: weights: the state dict does not fit the model: ...
    """
    tensors = files.open_tensors(path_or_name)
    return _log_notes(tensors.source, _load(model, tensors, key, adapt))


def _load(model: nnx.Module, tensors: files.Tensors, key: str | None, adapt: bool) -> Loaded:
    layout = layout_of(tensors.shapes)
    graph, rngs, state = nnx.split(model, nnx.RngState, ...)  # type: ignore[misc]
    leaves = paths(state)
    wanted = entries(model, layout)
    found = places.find(
        tensors.source, tensors.shapes, tensors.read, {entry.name: entry.shape for entry in wanted}, key
    )
    heads = any(map(is_auxiliary, found.shapes))
    kept = tuple(e.path for e in wanted if is_auxiliary(e.path) and not heads and _is_known(leaves[e.path]))
    wanted = [entry for entry in wanted if entry.path not in kept]
    names = {entry.name for entry in wanted}
    spare = [name for name in found.shapes if name not in names and name.rpartition(".")[-1] != BATCHES]
    unused = tuple(name for name in spare if is_auxiliary(name) and not any(map(is_auxiliary, names)))
    about = tensors.about
    if about.mean is None and layout != "cnn_jax":
        mean, std = _usual_normalisation(model, wanted, found.shapes)
        about = dataclasses.replace(about, mean=mean, std=std)

    possible = adaptation.between(model, wanted, found.shapes)
    adapted = possible if adapt else adaptation.Adaptation()
    _check(tensors.source, found.shapes, wanted, [name for name in spare if name not in unused], possible, adapted)
    notes = [*tensors.notes, *found.notes]
    if adapted.head:
        if not all(_is_known(leaves[entry.path]) for entry in adapted.head):
            raise UsageError(
                "weights: adapt=True keeps the model's own head, but a model from nnx.eval_shape has no values for it; "
                "give a model from models.create, or use weights.create(path, num_classes=...)"
            )
        kept += tuple(entry.path for entry in adapted.head)
        unused += tuple(entry.name for entry in adapted.head if entry.name in found.shapes)
        wanted = [entry for entry in wanted if entry not in adapted.head]
        notes.append(f"the model keeps its own head: {', '.join(entry.path for entry in adapted.head)}")
        about = _with_option(about, "num_classes", adapted.head[0].own_shape[-1])
    if adapted.stem is not None:
        channels = adapted.stem.own_shape[-2]
        notes.append(f"{adapted.stem.path} adapted to inputs of {channels} channel{'s' if channels > 1 else ''}")
        about = _with_option(about, "input_shape", getattr(model, "input_shape", None))

    types: dict[str, None] = {}
    for entry in wanted:
        array, dtype = found.read(entry.name), leaves[entry.path].dtype
        _check_numbers(f"{tensors.source}: tensor {entry.name!r}", array.dtype, dtype)
        if array.dtype != dtype:
            types[f"{array.dtype} converted to {dtype}"] = None
        if entry == adapted.stem:
            array = adaptation.adapted_kernel(entry, array)
        # A copy: on a CPU, asarray would share its memory with the state dict of a PyTorch model.
        leaves[entry.path] = jnp.array(entry.inward(array), dtype)
    state = jax.tree.unflatten(jax.tree.structure(state), leaves.values())
    return Loaded(nnx.merge(graph, rngs, state), about, layout, unused, kept, (*notes, *types))


@typed
def create(
    path_or_name: str | Path,
    *,
    dtype: DTypeLike | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    key: str | None = None,
    rngs: nnx.Rngs | None = None,
) -> Loaded:
    """Creates a network with pretrained weights, from a file that names the network.

    The name is in files of :func:`save`, or in timm's ``config.json`` in the same folder.

    Args:
      path_or_name: A file or a name on the hub, as for :func:`load`.
      dtype: The type to compute in, as for ``models.create``.
      num_classes: The number of outputs, as in timm. If it differs from the file's, the network gets a new head.
      in_chans: The number of input channels, as in timm. The first kernel is adapted as in :func:`load`.
      key: Selects one of several networks in the file, as for :func:`load`.
      rngs: The random keys of a new head's parameters. The default is ``nnx.Rngs(0)``.

    Returns:
      The network and the metadata, as :func:`load` does.

    Raises:
      UsageError: An error of :func:`load`, or the file does not name its network.

    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/mlp.safetensors"
    >>> options = {"num_classes": 3}
    >>> save(models.create("mlp", rngs=nnx.Rngs(0), **options), path, about=About("mlp", options))
    >>> loaded = create(path, num_classes=5)
    >>> loaded.model.output.kernel.shape, loaded.about.options
    ((100, 5), {'num_classes': 5})
    """
    tensors = files.open_tensors(path_or_name)
    about = tensors.about
    name = about.architecture
    if name is None:
        raise UsageError(f"weights: {path_or_name} does not name its network; use load(model, ...)")
    options = dict(about.options)
    if in_chans is not None:
        shape = options.get("input_shape", models.variant(name).input_shape)
        options["input_shape"] = (*shape[:-1], in_chans)
    model = nnx.eval_shape(lambda: models.create(name, dtype=dtype, rngs=nnx.Rngs(0), **options))
    loaded = _load(model, tensors, key, adapt=in_chans is not None)
    if num_classes is not None and num_classes != options.get("num_classes", models.variant(name).num_classes):
        loaded = dataclasses.replace(
            loaded,
            model=models.replace_head(loaded.model, num_classes, rngs=rngs),
            about=_with_option(loaded.about, "num_classes", num_classes),
            notes=(*loaded.notes, f"a new head for {num_classes} classes"),
        )
    return _log_notes(tensors.source, loaded)


def _log_notes(source: str, loaded: Loaded) -> Loaded:
    """Logs the notes in one line, and returns its argument."""
    if loaded.notes:
        logger.warning("weights: %s: %s", source, "; ".join(loaded.notes))
    return loaded


def _with_option(about: About, name: str, value: Any) -> About:
    """The metadata of adapted weights, without the class names or the normalisation, which no longer apply."""
    options = {**about.options, name: value} if about.architecture else about.options
    if name == "num_classes":
        return dataclasses.replace(about, options=options, class_names=None)
    return dataclasses.replace(about, options=options, mean=None, std=None)


@typed
def save(model: nnx.Module, path: str | Path, *, layout: str = "cnn_jax", about: About | None = None) -> None:
    """Writes the tensors of a network to a file, atomically.

    Args:
      model: The network. The layout ``'cnn_jax'`` supports any network, the others those of torchvision.
      path: The file, which ends in ``.safetensors``, or in ``.pth``, ``.pt`` or ``.bin`` for a PyTorch state dict. The
        latter needs PyTorch.
      layout: ``'cnn_jax'`` for the names and shapes of this package, ``'torchvision'``, or ``'timm'``, which differs
        from ``'torchvision'`` for VGG only.
      about: The metadata of a safetensors file.

    Raises:
      UsageError: The layout, file extension or architecture is unknown, or the layout does not support the network.

    >>> import tempfile
    >>> model = models.create("mlp_two_neurons", rngs=nnx.Rngs(0))
    >>> path = f"{tempfile.mkdtemp()}/mlp.safetensors"
    >>> save(model, path, layout="torchvision")
    >>> sorted(files.open_tensors(path).shapes.items())[:2]
    [('classifier.0.bias', (2,)), ('classifier.0.weight', (2, 784))]
    """
    path = user_path(path)
    check_output(path, (*files.SAFETENSORS, *files.TORCH), what="weights: path")
    about = about or About()
    if about.architecture is not None:
        models.variant(about.architecture)
    if path.suffix.lower() in files.SAFETENSORS:
        metadata = about.to_metadata() | ({} if layout == "cnn_jax" else {"format": "pt"})
        files.write_safetensors(path, _tensors(model, layout), metadata)
    elif layout == "cnn_jax":
        raise UsageError(
            f"weights: {path.name} is a PyTorch file; give layout='torchvision', or save a .safetensors file"
        )
    else:
        files.write_torch(path, _tensors(model, layout))


@typed
def to_torch(model: nnx.Module, *, layout: str = "torchvision") -> dict[str, Any]:
    """Converts a network's tensors to a PyTorch state dict, for ``load_state_dict``.

    Args:
      model: A network that torchvision also has; see :func:`load`.
      layout: ``'torchvision'`` or ``'timm'``, as for :func:`save`.

    Returns:
      A mapping from names to PyTorch tensors.

    Raises:
      UsageError: The layout or the network is not supported, or PyTorch is not installed.
    """
    if layout == "cnn_jax":
        raise UsageError("weights: to_torch makes a state dict of layout='torchvision' or 'timm'")
    torch = torch_files.import_torch("a state dict")
    return {name: torch.from_numpy(array) for name, array in _tensors(model, layout).items()}


def _tensors(model: nnx.Module, layout: str) -> dict[str, np.ndarray]:
    """A network's tensors, by their names in a layout."""
    leaves = paths(nnx.state(model, nnx.Not(nnx.RngState)))
    tensors = {}
    for entry in entries(model, layout):
        if not _is_known(leaves[entry.path]):
            raise UsageError(
                "weights: a network from nnx.eval_shape has no values to save; give one from models.create"
            )
        array = np.asarray(leaves[entry.path])
        if layout != "cnn_jax" and array.dtype == jnp.bfloat16:
            array = array.astype(np.float32)  # torch.from_numpy does not accept bfloat16
        tensors[entry.name] = entry.outward(array)
        if layout != "cnn_jax" and entry.name.endswith("running_var"):
            tensors[entry.name.replace("running_var", BATCHES)] = np.zeros((), np.int64)
    return tensors


def _check(
    source: str,
    found: Mapping[str, tuple[int, ...]],
    wanted: list[Entry],
    unexpected: list[str],
    possible: adaptation.Adaptation,
    adapted: adaptation.Adaptation,
) -> None:
    """Raises an error with a table of the tensors that do not fit and are not adapted."""
    checked = [entry for entry in wanted if entry not in adapted.entries]
    missing = [entry.name for entry in checked if entry.name not in found]
    mismatched = [entry.name for entry in checked if found.get(entry.name, entry.shape) != entry.shape]
    rows = [*missing, *unexpected, *mismatched]
    if not rows:
        return
    counts = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
    summary = ", ".join(f"{len(names)} {kind}" for kind, names in counts.items() if names)
    shapes = {entry.name: entry.shape for entry in wanted}
    texts = [("tensor", "in the file", "in the model")]
    texts += [(name, str(found.get(name, "-")), str(shapes.get(name, "-"))) for name in rows[:_ROWS]]
    widths = [max(len(row[column]) for row in texts) for column in range(3)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in texts]
    lines += [f"and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
    title = f"weights: {source} does not fit the model: {summary} of {len(wanted)} tensors; "
    raise UsageError("\n  ".join([title + _fix(found, rows, possible), *lines]))


def _fix(found: Mapping[str, tuple[int, ...]], rows: list[str], possible: adaptation.Adaptation) -> str:
    """How to fix tensors that do not fit."""
    if not set(rows) <= {entry.name for entry in possible.entries}:
        return "create the network that the weights belong to"
    classes = {found[entry.name][adaptation.class_axis(entry)] for entry in possible.head if entry.name in found}
    if possible.stem is None and len(classes) == 1:
        replace = f"create the network with num_classes={classes.pop()}, load, and then replace its head"
        return f"{replace}; or keep the model's own head with adapt=True"
    fixes = ["keep the model's own head"] if possible.head else []
    fixes += ["adapt the first kernel"] if possible.stem is not None else []
    return f"{' and '.join(fixes)} with adapt=True"


def _check_numbers(what: str, theirs: Any, ours: Any) -> None:
    """Raises an error for integers or complex numbers where the model has another kind of number."""
    kinds = [
        "complex numbers"
        if jnp.issubdtype(dtype, jnp.complexfloating)
        else "real numbers"
        if jnp.issubdtype(dtype, jnp.floating)
        else "integers"
        for dtype in (theirs, ours)
    ]
    if kinds[0] == kinds[1] or kinds == ["real numbers", "complex numbers"]:
        return
    fix = "save the weights as float32"
    if kinds[0] == "integers":
        fix = "dequantise quantised weights, or save them before quantisation"
    raise UsageError(f"weights: {what} has {kinds[0]} ({theirs}) where the model has {kinds[1]} ({ours}); {fix}")


def _is_known(leaf: Any) -> bool:
    return not isinstance(leaf, jax.ShapeDtypeStruct)


def _usual_normalisation(
    model: nnx.Module, wanted: list[Entry], found: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """The normalisation of torchvision's and timm's ImageNet networks; None for other channels or classes."""
    kernels = [entry for entry in wanted if entry.path.endswith("/kernel")]
    first, last = kernels[0], kernels[-1]
    classes = found.get(last.name, last.shape)[adaptation.class_axis(last)]
    if first.own_shape[-2] != 3 or classes != 1000:
        return None, None
    if any(isinstance(getattr(model, name), nn.Parallel) for name in getattr(model, "names", ())):
        return (0.5,) * 3, (0.5,) * 3
    return IMAGENET_MEAN, IMAGENET_STD
