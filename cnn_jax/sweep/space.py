"""Search spaces. This module is the argument ``hyper`` of a config file's ``get_hyper(hyper)``.

::

    def get_hyper(hyper):
        return hyper.product(
            hyper.log_uniform("optimizer.learning_rate", 1e-3, 1.0),
            hyper.sweep("optimizer.name", ["sgd", "adam"]),
            hyper.when("optimizer.name", "sgd", hyper.uniform("optimizer.momentum", 0.0, 0.99)),
        )

These functions return parts, which are plain values. :func:`grid` lists all points of a part with finitely many points.
:func:`suggest` draws a point from a part with one of Optuna's samplers.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import schema
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

if TYPE_CHECKING:
    import optuna

FUNCTIONS = ("sweep", "choice", "uniform", "log_uniform", "integers", "product", "zipit", "when")
"""The functions of ``hyper``."""

_MOST_POINTS = 100_000  # the maximum size of a grid


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values of a key."""

    name: str
    values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Range:
    """A number of a closed interval; ``log``: with a uniform logarithm; ``whole``: only integers."""

    name: str
    low: float | int
    high: float | int
    log: bool = False
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class Rows:
    """One of several sets of values for several keys."""

    rows: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Product:
    """Every combination of its parts."""

    parts: tuple["Part", ...]


@dataclasses.dataclass(frozen=True)
class When:
    """A part that applies only if a key has one of some values."""

    name: str
    values: tuple[Any, ...]
    part: "Part"


Part = Choice | Range | Rows | Product | When


@typed
def sweep(name: str | Sequence[Mapping[str, Any]], values: Iterable[Any] | None = None) -> Part:
    """One key with a list of values, or several keys with a list of sets of values.

    >>> grid(sweep("epochs", [1, 2]))
    [{'epochs': 1}, {'epochs': 2}]
    >>> grid(sweep([{"model.name": "mlp", "epochs": 9}, {"model.name": "lenet_5"}]))
    [{'model.name': 'mlp', 'epochs': 9}, {'model.name': 'lenet_5'}]
    """
    if isinstance(name, str):
        if values is None:
            raise UsageError(f"sweep({name!r}) needs a list of values")
        return Choice(_key(name), _some(name, values))
    rows = _some("sweep", name)
    if not all(isinstance(row, Mapping) and row for row in rows):
        raise UsageError("sweep: a list without a key must be one of dicts, such as {'optimizer.learning_rate': 0.1}")
    return Rows(tuple({_key(key): value for key, value in row.items()} for row in rows))


@typed
def choice(name: str, values: Iterable[Any]) -> Part:
    """The same as :func:`sweep` of one key."""
    return sweep(name, values)


@typed
def uniform(name: str, low: float | int, high: float | int) -> Part:
    """A number between two others."""
    return _range(name, low, high)


@typed
def log_uniform(name: str, low: float | int, high: float | int) -> Part:
    """A positive number between two others with a uniform logarithm.

    >>> log_uniform("optimizer.learning_rate", 0.0, 1.0)
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: optimizer.learning_rate: a logarithmic range must begin above 0, not at 0.0
    """
    return _range(name, low, high, log=True)


@typed
def integers(name: str, low: int, high: int, *, log: bool = False) -> Part:
    """A whole number from ``low`` to ``high``, both included.

    >>> grid(integers("seed", 0, 2))
    [{'seed': 0}, {'seed': 1}, {'seed': 2}]
    """
    return _range(name, low, high, log=log, whole=True)


@typed
def product(*parts: Part | Sequence[Part]) -> Part:
    """Every combination of some parts, given separately or as a list; the last part varies fastest.

    >>> grid(product(sweep("epochs", [1, 2]), sweep("seed", [0, 1])))[:2]
    [{'epochs': 1, 'seed': 0}, {'epochs': 1, 'seed': 1}]
    """
    return Product(_parts(parts))


@typed
def zipit(*parts: Part | Sequence[Part]) -> Part:
    """Combines parts with equal numbers of points: the first point of each, the second of each, and so on.

    >>> grid(zipit(sweep("batch_size", [32, 64]), sweep("optimizer.learning_rate", [0.1, 0.2])))
    [{'batch_size': 32, 'optimizer.learning_rate': 0.1}, {'batch_size': 64, 'optimizer.learning_rate': 0.2}]
    """
    columns = [grid(part) for part in _parts(parts)]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise UsageError(f"zipit needs parts of one length, not of {' and '.join(map(str, lengths))}")
    return Rows(tuple({k: v for point in row for k, v in point.items()} for row in zip(*columns, strict=True)))


@typed
def when(name: str, value: Any, *parts: Part | Sequence[Part]) -> Part:
    """Parts that apply only if a key has a value, or one of a list of values, in the config or by the sweep.

    A key that is swept over must come before the parts that depend on it.

    >>> name, momentum = sweep("optimizer.name", ["adam", "sgd"]), sweep("optimizer.momentum", [0.0, 0.9])
    >>> grid(product(name, when("optimizer.name", "sgd", momentum)))[:2]
    [{'optimizer.name': 'adam'}, {'optimizer.name': 'sgd', 'optimizer.momentum': 0.0}]
    """
    values = tuple(value) if isinstance(value, list) else (value,)
    return When(_key(name), values, Product(_parts(parts)))


def is_finite(part: Part) -> bool:
    """Whether a part has finitely many points."""
    match part:
        case Range():
            return part.whole
        case Product():
            return all(map(is_finite, part.parts))
        case When():
            return is_finite(part.part)
    return True


@typed
def grid(part: Part, base: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every point of a part, as overrides.

    Args:
      part: A finite part.
      base: The config's own values, by dotted key, on which conditions may depend.

    Raises:
      UsageError: The part has infinitely many points, or more than 100,000.
    """
    if not is_finite(part):
        ranges = ", ".join(repr(leaf.name) for leaf, _ in leaves(part) if isinstance(leaf, Range) and not leaf.whole)
        raise UsageError(
            f"a grid needs a list of values for {ranges}: key=0.1,0.2 or hyper.sweep(key, values); or another --sampler"
        )
    points = list(itertools.islice(_points(part, dict(base or {}), {}), _MOST_POINTS + 1))
    if len(points) > _MOST_POINTS:
        raise UsageError(f"the grid has more than {_MOST_POINTS:,} points; leave values out, or use another sampler")
    return points


def _points(part: Part, base: Mapping[str, Any], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The points of a part, given the values ``chosen`` by the parts before it."""
    match part:
        case Choice():
            yield from ({part.name: value} for value in part.values)
        case Range():
            yield from ({part.name: value} for value in range(int(part.low), int(part.high) + 1))
        case Rows():
            yield from map(dict, part.rows)
        case When():
            yield from _points(part.part, base, chosen) if _holds(part, base, chosen) else ({},)
        case Product(()):
            yield {}
        case Product((first, *others)):
            for point in _points(first, base, chosen):
                for rest in _points(Product(tuple(others)), base, {**chosen, **point}):
                    yield {**point, **rest}


def suggest(part: Part, trial: "optuna.Trial", base: Mapping[str, Any], *, everything: bool = False) -> dict[str, Any]:
    """One point of a part, drawn by the sampler of an Optuna trial.

    Args:
      part: The part to draw from.
      trial: The Optuna trial. The names of its parameters are keys, followed by the condition if there is one.
      base: The config's own values, on which conditions may depend.
      everything: Also draw, and discard, values of parts whose condition is false, for samplers that need the same
        parameters in every trial.
    """
    chosen: dict[str, Any] = {}

    def draw(part: Part, condition: str, holds: bool) -> None:
        if not holds and not everything:
            return
        found: dict[str, Any] = {}
        match part:
            case Choice():
                found = {part.name: part.values[_index(trial, part.name + condition, part.values)]}
            case Range():
                ask = trial.suggest_int if part.whole else trial.suggest_float
                found = {part.name: ask(part.name + condition, part.low, part.high, log=part.log)}  # type: ignore[arg-type]
            case Rows():
                label = " and ".join(names(part)) + condition
                found = part.rows[_index(trial, label, [tuple(row.values()) for row in part.rows])]
            case Product():
                for inner in part.parts:
                    draw(inner, condition, holds)
            case When():
                values = " or ".join(map(str, part.values))
                draw(part.part, f"{condition} if {part.name}={values}", holds and _holds(part, base, chosen))
        if holds:
            chosen.update(found)

    draw(part, "", True)
    return chosen


@typed
def check(part: Part, config: ConfigDict, known_types: schema.Schema | None = None) -> None:
    """Checks every name and value against a config, before anything starts.

    Args:
      part: The search space.
      config: The config that trials share.
      known_types: The keys and types of their configs; by default those of the config.

    Raises:
      UsageError: A key is not in the config or is swept over twice, a value has another type, or a condition comes
        before the key on which it depends, or is never true.
    """
    known, seen = schema.flatten(config), list[tuple[str, str]]()
    for leaf, condition in leaves(part):
        match leaf:
            case Choice():
                rows = [{leaf.name: value} for value in leaf.values]
            case Range():
                if not leaf.whole and type(known.get(leaf.name)) is int:
                    ends = f"{leaf.low:g},{leaf.high:g}"
                    raise UsageError(
                        f"sweep: {leaf.name}={ends}: expected a whole number; write int({ends}) or hyper.integers"
                    )
                rows = [{leaf.name: leaf.low}, {leaf.name: leaf.high}]
            case Rows():
                rows = list(leaf.rows)
            case When():
                rows = [{leaf.name: value} for value in leaf.values]
        for row in rows:
            changed = schema.override(config, row, where="sweep: ")
            if known_types is not None:
                known_types.check(changed, where="sweep: ")
        if isinstance(leaf, When):
            continue
        for name in names(leaf):
            for other, its_condition in seen:
                # Two branches may sweep over the same key in different ways.
                if name == other and (condition == its_condition or not condition or not its_condition):
                    raise UsageError(f"sweep: {name} is swept over twice")
            seen.append((name, condition))
    _check_order(part, {name for name, _ in seen}, set())
    _check_conditions(part, known)


def leaves(part: Part, condition: str = "") -> Iterator[tuple[Choice | Range | Rows | When, str]]:
    """The parts without products, each with its conditions; conditions come before the parts that depend on them."""
    match part:
        case Product():
            for inner in part.parts:
                yield from leaves(inner, condition)
        case When():
            yield part, condition
            yield from leaves(part.part, f"{condition} if {part.name} in {part.values}")
        case _:
            yield part, condition


def names(leaf: Choice | Range | Rows) -> list[str]:
    """The keys of a part that contains no other parts."""
    return list(dict.fromkeys(name for row in leaf.rows for name in row)) if isinstance(leaf, Rows) else [leaf.name]


def to_json(part: Part) -> Any:
    """A part as JSON values.

    >>> part = product(sweep("model.kernel", [(3, 3), (5, 5)]), when("epochs", 3, uniform("rate", 0.0, 1.0)))
    >>> import json
    >>> from_json(json.loads(json.dumps(to_json(part)))) == part
    True
    """
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    if isinstance(part, Product):
        fields["parts"] = [to_json(inner) for inner in part.parts]
    if isinstance(part, When):
        fields["part"] = to_json(part.part)
    return {"kind": type(part).__name__, **fields}


def from_json(value: Any) -> Part:
    """The inverse of :func:`to_json`."""
    fields = {key: inner for key, inner in configs.with_tuples(value).items() if key != "kind"}
    match value["kind"]:
        case "Choice":
            return Choice(**fields)
        case "Range":
            return Range(**fields)
        case "Rows":
            return Rows(fields["rows"])
        case "Product":
            return Product(tuple(map(from_json, value["parts"])))
        case "When":
            return When(fields["name"], fields["values"], from_json(value["part"]))
    raise ValueError(f"unknown kind {value['kind']!r}")


def _holds(condition: When, base: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    return chosen.get(condition.name, base.get(condition.name)) in condition.values


def _check_order(part: Part, swept: set[str], before: set[str]) -> None:
    match part:
        case Product():
            for inner in part.parts:
                _check_order(inner, swept, before)
        case When():
            if part.name in swept - before:
                raise UsageError(f"sweep: what depends on {part.name} must come behind it; put {part.name} first")
            _check_order(part.part, swept, before)
        case Rows():
            before.update(name for row in part.rows for name in row)
        case _:
            before.add(part.name)


def _check_conditions(part: Part, known: Mapping[str, Any]) -> None:
    """Raises an error for a condition on a value that its key never has, in the config or by the sweep."""
    possible, ranges = {name: [value] for name, value in known.items()}, set()
    for leaf, _ in leaves(part):
        match leaf:
            case Choice():
                possible[leaf.name] += leaf.values
            case Range():
                ranges.add(leaf.name)
            case Rows():
                for name, value in (item for row in leaf.rows for item in row.items()):
                    possible[name].append(value)
    for leaf, _ in leaves(part):
        if isinstance(leaf, When) and leaf.name not in ranges:
            own = possible[leaf.name]
            if not any(value in own for value in leaf.values):
                values, others = (" or ".join(map(repr, dict.fromkeys(some))) for some in (leaf.values, own))
                raise UsageError(f"sweep: {leaf.name} is never {values}, on which a part depends, but {others}")


def _index(trial: "optuna.Trial", name: str, values: Sequence[Any]) -> int:
    """The index of the value that a sampler chooses. Values that are not scalars are given to it as text."""
    single = all(isinstance(value, bool | int | float | str) for value in values)
    labels = list(values) if single and len(set(values)) == len(values) else [repr(value) for value in values]
    return labels.index(trial.suggest_categorical(name, labels))


def _range(name: str, low: float | int, high: float | int, *, log: bool = False, whole: bool = False) -> Range:
    if not (isinstance(low, Real) and isinstance(high, Real)):
        raise UsageError(f"{name}: {low!r} to {high!r} is no range; give two numbers")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"{name}: {low} to {high} is no range; give the lower end first")
    if log and low <= 0:
        raise UsageError(f"{name}: a logarithmic range must begin above 0, not at {low}")
    if whole and (low != int(low) or high != int(high)):
        raise UsageError(f"{name}: {low} to {high} must be whole numbers")
    return Range(_key(name), int(low) if whole else float(low), int(high) if whole else float(high), log, whole)


def _key(name: str) -> str:
    return name.removeprefix("config.")


def _some(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    listed = np.asarray(values).tolist() if isinstance(values, np.ndarray | np.generic) else values
    if isinstance(listed, str) or not isinstance(listed, Iterable) or not (found := tuple(listed)):
        raise UsageError(f"{name}: {values!r} is not a list of values; write [0.1, 0.2]")
    plain = (value.item() if isinstance(value, np.generic) else value for value in found)
    return tuple(tuple(value) if isinstance(value, list) else value for value in plain)


def _parts(parts: Sequence[Any]) -> tuple[Part, ...]:
    """Parts that were given separately or as a list."""
    flat = [inner for part in parts for inner in (part if isinstance(part, list | tuple) else [part])]
    for part in flat:
        if not isinstance(part, Part):
            raise UsageError(
                f"{part!r} is not a part of a space; make it by sweep, uniform, log_uniform, integers or product"
            )
    return tuple(flat)
