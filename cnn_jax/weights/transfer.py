"""Loading and saving: the model is never changed, a tensor that does not fit is an error, and both directions agree."""

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
from cnn_jax.weights import adaptation, files, places, torch_files
from cnn_jax.weights.about import IMAGENET_MEAN, IMAGENET_STD, About
from cnn_jax.weights.layouts import BATCHES, LAYOUTS, Entry, entries, is_auxiliary, layout_of, paths

__all__ = ["LAYOUTS", "Loaded", "create", "load", "save", "to_torch"]

logger = logging.getLogger(__name__)

_ROWS = 40  # of a table of tensors that do not fit


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What :func:`load` returns; called, it is the model.

    Attributes:
      model: A copy of the model, with the tensors in place.
      about: The normalisation of inputs and the names of classes, as far as they are known.
      layout: That of the file, one of :data:`LAYOUTS`.
      unused: Names in the file of heads that the model does not have: auxiliary ones, or one for other classes.
      kept: Paths in the model of heads that the file does not have; they are as they were.
      notes: What was not read as it is, in phrases: where the network was found in the file, what was stripped from
        names, converted or adapted. They are logged in one line as well.

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


def load(
    model: nnx.Module,
    path_or_name: str | Path | Mapping[str, Any],
    *,
    key: str | None = None,
    adapt: bool = False,
) -> Loaded:
    """Puts trained weights into a network.

    The layout is seen from the names of the tensors: torchvision's or timm's for AlexNet (``alexnet_torchvision``),
    VGG, GoogLeNet (``googlenet_torchvision``) and ResNet (``resnet_50`` and deeper with ``stride='v1.5'``); or that of
    :func:`save`. Numbers are converted to the type of the model's parameters. Batch normalisation uses PyTorch's
    running variance as it is; in further training it moves towards the biased variance, PyTorch's to the unbiased one.

    The network is found where it is in the file: under a key such as ``state_dict`` or ``model``, with prefixes such as
    ``module.`` or ``backbone.`` before its names. Whatever was done beyond reading is said in one line.

    Args:
      model: The network; it may be abstract, from ``nnx.eval_shape``, so that nothing is drawn for nothing.
      path_or_name: A ``.safetensors`` file; one of PyTorch (``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.pth.tar``),
        which must be installed, and which reads tensors only; a name on the Hugging Face hub,
        ``'timm/resnet18.tv_in1k'``; or a state dict.
      key: Which network of several in the file, by the keys and prefixes before its names: ``'state_dict'``,
        ``'model/encoder_q'``. By default the one that fits; of a network and its moving average the average, as timm.
      adapt: Whether a network for other classes or channels is adapted as timm's ``create_model(num_classes=,
        in_chans=)`` does it: the model keeps its own head; the first kernel is summed over its channels for an input of
        one channel, and otherwise its three channels are repeated and scaled by 3 / channels.

    Returns:
      The network with its new tensors, and what is known about them. Files of PyTorch do not say how inputs are
      normalised: without a ``config.json`` of timm's beside them, weights for 3 channels and 1,000 classes get
      torchvision's ImageNet numbers, and GoogLeNet the 0.5 that torchvision's ``transform_input`` amounts to.

    Raises:
      UsageError: Tensors that are missing, too many or misshapen, in a table; integers (quantised weights) or complex
        numbers for real parameters; several networks that fit; a file that cannot be read or fetched; a network that
        torchvision does not have; by timm's ``config.json``, weights of a network that is not here.

    References:
      Wightman, PyTorch Image Models, ``timm.models.adapt_input_conv`` and ``load_state_dict``, version 1.0.

    >>> from cnn_jax import models
    >>> model = nnx.eval_shape(lambda: models.create("mlp_two_neurons", rngs=nnx.Rngs(0)))
    >>> load(model, {"classifier.0.weight": np.ones((3, 784))})
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: weights: the state dict does not fit the model: ...
    """
    tensors = files.open_tensors(path_or_name)
    return _told(tensors.source, _load(model, tensors, key, adapt))


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
                "weights: adapt=True keeps the model's own head, but a model of nnx.eval_shape has no numbers there; "
                "give one of models.create, or use weights.create(path, num_classes=...)"
            )
        kept += tuple(entry.path for entry in adapted.head)
        unused += tuple(entry.name for entry in adapted.head if entry.name in found.shapes)
        wanted = [entry for entry in wanted if entry not in adapted.head]
        notes.append(f"the head of the model stays as it is: {', '.join(entry.path for entry in adapted.head)}")
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


def create(
    path_or_name: str | Path,
    *,
    dtype: DTypeLike | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    key: str | None = None,
    rngs: nnx.Rngs | None = None,
) -> Loaded:
    """Builds the network that a file of :func:`save`, or timm's ``config.json`` beside it, names, with its weights.

    Args:
      path_or_name: As for :func:`load`.
      dtype: What to compute in, as for ``models.create``.
      num_classes: The number of outputs, as timm has it; where it is not that of the file, the head is a new one.
      in_chans: The number of channels of inputs, as timm has it; the first kernel is adapted, see :func:`load`.
      key: As for :func:`load`.
      rngs: Draws a new head; by default ``nnx.Rngs(0)``.

    Raises:
      UsageError: As :func:`load`, and a file that does not say which network it is of.

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
        raise UsageError(f"weights: {path_or_name} does not say which network it is of; use load(model, ...)")
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
    return _told(tensors.source, loaded)


def _told(source: str, loaded: Loaded) -> Loaded:
    """The same, after a line in the log on what was not read as it is."""
    if loaded.notes:
        logger.warning("weights: %s: %s", source, "; ".join(loaded.notes))
    return loaded


def _with_option(about: About, name: str, value: Any) -> About:
    """What is known of weights that were adapted: the classes' names, or the channels' normalisation, are no longer."""
    options = {**about.options, name: value} if about.architecture else about.options
    if name == "num_classes":
        return dataclasses.replace(about, options=options, class_names=None)
    return dataclasses.replace(about, options=options, mean=None, std=None)


def save(model: nnx.Module, path: str | Path, *, layout: str = "cnn_jax", about: About | None = None) -> None:
    """Writes the tensors of a network to a file, whole or not at all.

    Args:
      model: Any network for the layout ``'cnn_jax'``; for the others those that torchvision has too.
      path: Ends in ``.safetensors``, or in ``.pth``, ``.pt`` or ``.bin`` for a state dict, which needs PyTorch.
      layout: ``'cnn_jax'``, the names and shapes of the network's own tensors; ``'torchvision'``; or ``'timm'``, which
        differs for VGG only.
      about: What to say of them in the metadata of a safetensors file.

    Raises:
      UsageError: An unknown layout, ending or architecture; a network that the layout does not have.

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
    if path.suffix.lower() in files.SAFETENSORS:
        metadata = about.to_metadata() | ({} if layout == "cnn_jax" else {"format": "pt"})
        files.write_safetensors(path, _tensors(model, layout), metadata)
    elif path.suffix.lower() not in files.TORCH:
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
      model: A network that torchvision has too; see :func:`load`.
      layout: ``'torchvision'`` or ``'timm'``, as for :func:`save`.

    Returns:
      Names to tensors of PyTorch, which must be installed.

    Raises:
      UsageError: Another layout, another network, or no PyTorch.
    """
    if layout == "cnn_jax":
        raise UsageError("weights: to_torch makes a state dict of layout='torchvision' or 'timm'")
    torch = torch_files.import_torch("a state dict")
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


def _check(
    source: str,
    found: Mapping[str, tuple[int, ...]],
    wanted: list[Entry],
    extra: list[str],
    possible: adaptation.Adaptation,
    adapted: adaptation.Adaptation,
) -> None:
    """Raises the table of what does not fit and is not adapted."""
    checked = [entry for entry in wanted if entry not in adapted.entries]
    missing = [entry.name for entry in checked if entry.name not in found]
    misshapen = [entry.name for entry in checked if found.get(entry.name, entry.shape) != entry.shape]
    rows = [*missing, *extra, *misshapen]
    if not rows:
        return
    counts = {"missing": missing, "too many": extra, "misshapen": misshapen}
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
    """What to do about tensors that do not fit."""
    if not set(rows) <= {entry.name for entry in possible.entries}:
        return "create the network that they are of"
    classes = {found[entry.name][adaptation.class_axis(entry)] for entry in possible.head if entry.name in found}
    if possible.stem is None and len(classes) == 1:
        replace = f"create the network with num_classes={classes.pop()}, load, and then replace its head"
        return f"{replace}; or keep the model's own head by adapt=True"
    fixes = ["keep the model's own head"] if possible.head else []
    fixes += ["adapt the first kernel"] if possible.stem is not None else []
    return f"{' and '.join(fixes)} by adapt=True"


def _check_numbers(what: str, theirs: Any, ours: Any) -> None:
    """Refuses numbers of another kind than the model's."""
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
        fix = "quantised weights have to be dequantised, or saved before they are quantised"
    raise UsageError(f"weights: {what} has {kinds[0]} ({theirs}) where the model has {kinds[1]} ({ours}); {fix}")


def _is_known(leaf: Any) -> bool:
    return not isinstance(leaf, jax.ShapeDtypeStruct)


def _usual_normalisation(
    model: nnx.Module, wanted: list[Entry], found: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """What torchvision and timm train with on ImageNet; nothing for weights for other channels or classes."""
    kernels = [entry for entry in wanted if entry.path.endswith("/kernel")]
    first, last = kernels[0], kernels[-1]
    classes = found.get(last.name, last.shape)[adaptation.class_axis(last)]
    if first.own_shape[-2] != 3 or classes != 1000:
        return None, None
    if any(isinstance(getattr(model, name), nn.Parallel) for name in getattr(model, "names", ())):
        return (0.5,) * 3, (0.5,) * 3
    return IMAGENET_MEAN, IMAGENET_STD
