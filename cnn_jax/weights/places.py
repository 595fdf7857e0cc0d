"""Finds a network's tensors in a file where state dicts are nested and names have prefixes.

Training scripts write files such as ``{"epoch": 3, "state_dict": {"module.model.conv1.weight": ...}, ...}`` for a
network whose first tensor is ``conv1.weight``. There is no list of known keys and prefixes. Instead, whatever comes
before one of the network's names is a possible place, and the place that fits best by names and shapes is used.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from cnn_jax.errors import UsageError, nearest
from cnn_jax.weights.layouts import BATCHES

Shapes = Mapping[str, tuple[int, ...]]

# Prefixes that wrappers add to a layer inside the network: DataParallel ("features.module.0.weight"), torch.compile,
# FSDP and activation checkpointing.
_WRAPPERS = re.compile(r"(?<=[./])(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
_AVERAGES = {"ema", "swa", "average", "averaged", "shadow"}  # moving averages, preferred to other weights as in timm
_SHOWN = 3  # the number of tensor names in a note


@dataclasses.dataclass(frozen=True)
class FoundTensors:
    """A network's tensors in a file.

    Attributes:
      shapes: The shape of each tensor, by the network's names.
      read: Returns a tensor, given the network's name for it.
      notes: Remarks for a log message: where the network was found, which prefixes were stripped, what was left out.
        Empty if the file contains only the network.
    """

    shapes: Shapes
    read: Callable[[str], np.ndarray]
    notes: tuple[str, ...]


def find(
    source: str, shapes: Shapes, read: Callable[[str], np.ndarray], wanted: Shapes, key: str | None
) -> FoundTensors:
    """Finds the tensors of a network in a file.

    Args:
      source: The file, for messages.
      shapes: The shapes of all tensors in the file, by name.
      read: Returns a tensor, given its name in the file.
      wanted: The shapes of the network's tensors, by the network's names.
      key: Where to look, such as ``'state_dict_ema'``. None takes the place that fits best, and prefers a moving
        average.

    Raises:
      UsageError: There is nothing at that key, or the file contains several networks that fit equally well.

    >>> shapes = {"state_dict/module.fc.bias": (2,), "optimizer/step": ()}
    >>> found = find("last.ckpt", shapes, lambda name: np.zeros(shapes[name]), {"fc.bias": (2,)}, None)
    >>> found.shapes, found.notes
    ({'fc.bias': (2,)}, ("found under 'state_dict'", "stripped from the names: 'module.'"))
    """
    fits = _fits(shapes, wanted)
    if key is not None:
        known = [place for place in fits if place]
        fits = {place: fit for place, fit in fits.items() if f"{place[:-1]}/".startswith((f"{key}/", f"{key}."))}
        if not fits:
            raise UsageError(f"weights: {source} has no tensors of the network under key={key!r}; {_known(key, known)}")
    best = max(fits.values(), default=None)
    places = [place for place, fit in fits.items() if fit == best]
    place = _choice(source, places) if places else _fullest(shapes)
    inside = _inside(place, shapes)
    notes = _notes(place, [other for other in places if other != place], shapes, inside)
    return FoundTensors({name: shapes[own] for name, own in inside.items()}, lambda name: read(inside[name]), notes)


def _inside(place: str, shapes: Shapes) -> dict[str, str]:
    """Maps the names at a place, without the wrappers' prefixes, to the names in the file."""
    names = [name for name in shapes if name.startswith(place)]
    inside = {_WRAPPERS.sub("", name[len(place) :]): name for name in names}
    return inside if len(inside) == len(names) else {name[len(place) :]: name for name in names}


def _fits(shapes: Shapes, wanted: Shapes) -> dict[str, tuple[int, int]]:
    """For each place, the number of tensors that match by name and shape, and the number that match by name."""
    fits: dict[str, tuple[int, int]] = {}
    for name, shape in shapes.items():
        for start in (0, *(match.end() for match in re.finditer(r"[./]", name))):
            place, rest = name[:start], _WRAPPERS.sub("", name[start:])
            if rest in wanted:
                fitting, named = fits.get(place, (0, 0))
                fits[place] = (fitting + (shape == wanted[rest]), named + 1)
    return fits


def _choice(source: str, places: list[str]) -> str:
    averages = [place for place in places if _AVERAGES & set(re.split(r"[^a-z]+", place.lower()))]
    if len(places) == 1 or len(averages) == 1:
        return (averages or places)[0]
    raise UsageError(
        f"weights: {source} contains the network {len(places)} times: {_listed(places)}; choose one with key="
    )


def _listed(places: list[str]) -> str:
    return ", ".join(repr(place[:-1]) if place else "the top level" for place in places)


def _fullest(names: Iterable[str]) -> str:
    """The place with the most tensors, for a file in which no tensor has one of the network's names."""
    if not any("." in name for name in names):
        return ""
    counts = collections.Counter(name[: name.rfind("/") + 1] for name in names)
    return max(counts, key=lambda place: counts[place], default="")


def _known(key: str, places: list[str]) -> str:
    return nearest(str(key), [place[:-1] for place in places]) if places else "the file is not nested, so leave out key"


def _notes(place: str, others: list[str], names: Iterable[str], inside: Mapping[str, str]) -> tuple[str, ...]:
    where, slash, prefix = place.rpartition("/")
    level = where + slash
    wrappers = {match for name, own in inside.items() if not own.endswith(name) for match in _WRAPPERS.findall(own)}
    stripped = dict.fromkeys([prefix] * bool(prefix) + sorted(wrappers))
    ignored = [
        name.removeprefix(level)
        for name in names
        if name.startswith(level) and not name.startswith((place, *others)) and name.rpartition(".")[-1] != BATCHES
    ]
    also = f" (also there: {_listed(others)}; choose with key=)" if others else ""
    more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
    notes = {
        f"found under {(where or prefix[:-1])!r}{also}": where or others,
        f"stripped from the names: {', '.join(map(repr, stripped))}": stripped,
        f"other tensors ignored: {', '.join(map(repr, ignored[:_SHOWN]))}{more}": ignored,
    }
    return tuple(note for note, holds in notes.items() if holds)
