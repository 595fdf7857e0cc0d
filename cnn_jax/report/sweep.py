"""The page of a sweep: the best trial, plots of each parameter against the score, importance, learning curves."""

import dataclasses
import functools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cnn_jax.metrics import Metric
from cnn_jax.report.figures.comparison import heat_map
from cnn_jax.report.formatting import format_duration, format_value, is_number, short_names
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.report.trials import TrialLike, are_logarithmic, are_numbers, best_first, importances
from cnn_jax.typed import typed

NAME = "sweep.html"
_MOST_CURVES = 300  # the maximum number of learning curves
_MOST_DOTS = 100  # the maximum number of points of a curve
_MOST_LISTED = 30  # the maximum number of points in the table of points
_MOST_CELLS = 12  # the maximum number of cells along each side of a heat map

Curve = Sequence[tuple[float | int, float]]
"""Epochs and scores."""


@typed
def write_sweep(
    workdir: Path,
    rows: Sequence[TrialLike],
    *,
    title: str,
    metric: Metric,
    best: int | None = None,
    seeds: int = 1,
    curve: Callable[[int], Curve] = lambda number: (),
    best_commands: str = "",
    how_to_continue: str = "",
) -> Path:
    """Writes ``sweep.html``, a self-contained page that can be opened offline.

    A point is one combination of values. With several seeds it has several trials.

    Args:
      workdir: The sweep's folder. The runs are in ``trials/<number>``.
      rows: The trials.
      title: The title of the page.
      metric: The metric by which trials are compared, named ``'split/metric'``.
      best: The number of the best trial. By default it is the complete trial with the best score.
      seeds: The number of runs of each point.
      curve: Returns a trial's scores over the epochs, given its number. It is called for the best few hundred trials.
      best_commands: The commands that train the best trial again and write its report, shown with the best trial.
      how_to_continue: The command that continues the sweep, shown at the end.

    Returns:
      The path of the page.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> fields = {"state": "complete", "mean": None, "std": None, "seconds": 1.0, "reason": ""}
    >>> rows = [SimpleNamespace(number=0, point=0, score=0.9, overrides={"rate": 0.1}, **fields)]
    >>> metric = Metric("validation/accuracy", "higher", "%")
    >>> write_sweep(Path(tempfile.mkdtemp()), rows, title="A sweep", metric=metric).name
    'sweep.html'
    """
    sweep = _Sweep(workdir, rows, metric, seeds, best, best_commands, how_to_continue)
    swept = ", ".join(sweep.keys) or "nothing"
    page = Page(
        title=title,
        subtitle=f"{len(rows):,} trials over {swept}; score: {metric.name}, {metric.better} is better",
        headlines=_headlines(sweep),
        sections=_sections(sweep),
        footer=f"Written by cnn_jax. Each trial is a run with its own folder in {workdir.name}/trials.",
        script=_file("sweep.js"),
        style=_file("sweep.css"),
        data={
            "metric": metric.name,
            "percent": metric.is_fraction,
            "minimize": metric.minimize,
            "best": sweep.best.number if sweep.best else None,
            "parameters": [
                {"name": key, "short": short, **_axis(rows, key)}
                for key, short in short_names(sweep.parameters).items()
            ],
            "trials": _trials(sweep, curve),
            "points": _spreads(sweep),
        },
    )
    return page.write(workdir, NAME)


@dataclasses.dataclass(frozen=True)
class _Sweep:
    """The arguments of :func:`write_sweep`, and values derived from them."""

    workdir: Path
    rows: Sequence[TrialLike]
    metric: Metric
    seeds: int
    best_number: int | None
    best_commands: str
    how_to_continue: str

    @functools.cached_property
    def scored(self) -> list[TrialLike]:
        """The trials that have a finite score, best first."""
        return [row for row in self.ranked if row.score is not None and math.isfinite(row.score)]

    @functools.cached_property
    def ranked(self) -> list[TrialLike]:
        """All trials, sorted by :func:`~cnn_jax.report.trials.best_first`."""
        return best_first(self.rows, self.metric)

    @functools.cached_property
    def points(self) -> list[list[TrialLike]]:
        """The trials grouped by point, best point first. The trials of a point differ only in their seed."""
        found: dict[int, list[TrialLike]] = {}
        for row in self.ranked:
            found.setdefault(row.point, []).append(row)
        return list(found.values())

    @functools.cached_property
    def best(self) -> TrialLike | None:
        """The best trial, which is highlighted in all plots."""
        if self.best_number is None:
            return next((row for row in self.scored if row.state == "complete"), None)
        return next(row for row in self.rows if row.number == self.best_number)

    @functools.cached_property
    def keys(self) -> list[str]:
        """The config keys that any trial sets."""
        return list(dict.fromkeys(key for row in self.rows for key in row.overrides))

    @functools.cached_property
    def parameters(self) -> list[str]:
        """The keys that are plotted. The seed is left out, unless it is the only key."""
        return [key for key in self.keys if key != "seed" or len(self.keys) == 1]

    @functools.cached_property
    def numeric(self) -> set[str]:
        """The keys whose values are all numbers."""
        return {key for key in self.keys if are_numbers(_values(self.rows, key))}

    @functools.cached_property
    def importance(self) -> dict[str, float]:
        """The importance of each parameter, from :func:`~cnn_jax.report.trials.importances`."""
        return importances(self.rows, self.parameters, minimize=self.metric.minimize)


# --- sections of the page ---------------------------------------------------------------------------------------------


def _headlines(sweep: _Sweep) -> list[Headline]:
    counts = Counter(row.state for row in sweep.rows)
    others = ", ".join(f"{counts[state]:,} {state}" for state in ("pruned", "failed", "running") if counts[state])
    headlines, best, metric = [], sweep.best, sweep.metric
    if best is not None and best.score is not None:
        value, note = best.score, f"trial {best.number}"
        if sweep.seeds > 1 and best.mean is not None:
            value, note = best.mean, f"{metric.format_deviation(best.std or 0.0)} over {sweep.seeds} seeds"
        headlines.append(Headline(f"best {metric.name}", metric.format(value), note=note))
    headlines.append(Headline("complete trials", f"{counts['complete']:,}", note=others or None))
    if sweep.scored:
        median = statistics.median(row.score for row in sweep.scored if row.score is not None)
        headlines.append(Headline("median", metric.format(median)))
    headlines.append(Headline("time of all trials", format_duration(sum(row.seconds for row in sweep.rows))))
    if sweep.importance:
        key, share = next(iter(sweep.importance.items()))
        headlines.append(
            Headline(f"due to {short_names(sweep.parameters)[key]}", f"{share:.0%}", note="of the differences in score")
        )
    return headlines


def _sections(sweep: _Sweep) -> list[Section]:
    sections = [_best(sweep, sweep.best)] if sweep.best is not None else []
    sections += _heat_map(sweep)
    if sweep.scored and sweep.parameters:
        sections += [_parallel(sweep), _each_parameter(sweep)]
    if sweep.importance:
        sections.append(_importance(sweep))
    if sweep.scored:
        sections.append(_curves(sweep))
    if sweep.seeds > 1:
        sections.append(_points(sweep))
    sections.append(Section("Trials", widget=_table(sweep)))
    return [*sections, *([Section("How to continue", code=sweep.how_to_continue)] if sweep.how_to_continue else [])]


def _best(sweep: _Sweep, row: TrialLike) -> Section:
    report = _report(sweep, row)
    link = '<p><a href="{{ report }}">The report of trial {{ number }}</a></p>'
    return Section(
        "Best trial",
        table=Table(["parameter", "value"], [[key, format_value(value)] for key, value in row.overrides.items()]),
        widget=_render(link, report=report, number=row.number) if report else None,
        code=sweep.best_commands or None,
    )


def _heat_map(sweep: _Sweep) -> list[Section]:
    grid, metric = _grid(sweep.rows, sweep.parameters), sweep.metric
    if grid is None:
        return []
    across, down, cells, pruned = grid
    averaged = ", averaged over its trials" if sweep.seeds > 1 else ""
    bracketed = " In brackets: pruned, the last score before." if pruned else ""
    return [
        Section(
            "Heat map",
            figure=heat_map(cells, x_label=across, y_label=down, metric=metric, bracketed=pruned),
            alt=f"{metric.name} for every pair of {across} and {down}",
            caption=f"{metric.name} of each pair of values{averaged}; the best is framed.{bracketed}",
        )
    ]


def _parallel(sweep: _Sweep) -> Section:
    how = "Each line is a trial. Drag along an axis to select the trials in that range, and click on it to select all. "
    how += _HOLLOW
    plot = _plot("parallel", f"Every trial as a line through its values, and its {sweep.metric.name}")
    return Section("Parallel coordinates", widget=plot + _COLOURS + _note(how))


def _each_parameter(sweep: _Sweep) -> Section:
    how = f"Each dot is a trial. {_HOLLOW}"
    if sweep.seeds > 1:
        how += " Bars show the mean over the seeds and one standard deviation."
    plots = [
        _plot("scatter", f"{sweep.metric.name} over {key}", index=index) for index, key in enumerate(sweep.parameters)
    ]
    together = Markup('<div class="plots">') + Markup("").join(plots) + Markup("</div>")
    return Section("Each parameter", widget=together + _COLOURS + _note(how))


def _importance(sweep: _Sweep) -> Section:
    text = (
        "The share of the variation of the score that each parameter accounts for, computed by functional ANOVA over "
        "a random forest or, for more than 300 trials, by PED-ANOVA. It depends on the values that were tried: a wider "
        "range makes a parameter more important."
    )
    varied = [key for key in sweep.parameters if len(set(map(repr, _values(sweep.rows, key)))) > 1]
    if missing := [key for key in varied if key not in sweep.importance]:
        text += f" Not included: {' and '.join(missing)}, because not every trial has a value."
    return Section("Importance", text=text, widget=_bars(sweep.importance))


def _curves(sweep: _Sweep) -> Section:
    how = f"{sweep.metric.name} after each evaluation. {_HOLLOW}"
    if len(sweep.scored) > _MOST_CURVES:
        how += f" The best {_MOST_CURVES} of {len(sweep.scored):,}."
    plot = _plot("curves", f"{sweep.metric.name} of the trials over the epochs")
    return Section("Learning curves", widget=plot + _COLOURS + _note(how))


_HOLLOW = "Hollow dots have scores far worse than the rest, outside the range of the axis."
_COLOURS = Markup(
    '<p class="note colours">worst <span class="ranks"></span> best by rank <span class="first"></span> best trial</p>'
)


def _plot(name: str, description: str, *, index: int = 0) -> Markup:
    return _render(
        '<div class="plot-scroll"><div data-plot="{{ name }}" data-index="{{ index }}" role="img" '
        'aria-label="{{ description }}"></div></div>',
        name=name,
        index=index,
        description=description,
    )


def _note(text: str) -> Markup:
    return _render('<p class="note">{{ text }}</p>', text=text)


def _bars(shares: Mapping[str, float]) -> Markup:
    return _render(
        """<dl class="bars">
{% for key, share in shares.items() %}
<dt>{{ key }}</dt>
<dd class="track"><div style="width: {{ '%.1f' % (100 * share) }}%"></div></dd>
<dd class="number">{{ '%.0f' % (100 * share) }}%</dd>
{% endfor %}
</dl>""",
        shares=shares,
    )


def _points(sweep: _Sweep) -> Section:
    """The best points with the mean and standard deviation of their runs."""
    keys = [key for key in sweep.keys if key != "seed"]
    rows = []
    for runs in sweep.points[:_MOST_LISTED]:
        first, states = runs[0], Counter(row.state for row in runs)
        spread = "" if first.mean is None else sweep.metric.format_spread(first.mean, first.std or 0.0)
        found = ", ".join(f"{count} {state}" for state, count in states.items())
        rows.append([spread, *(format_value(first.overrides.get(key, "")) for key in keys), found])
    more = len(sweep.points) > _MOST_LISTED
    return Section(
        "Points",
        text=f"Each point has {sweep.seeds} runs with different seeds. The mean and standard deviation are over the "
        "complete runs or, if none is complete, over the last scores of the pruned ones."
        + (f" The best {_MOST_LISTED} of {len(sweep.points):,}." if more else ""),
        table=Table([f"{sweep.metric.name}, mean ± std", *keys, "runs"], rows),
    )


def _table(sweep: _Sweep) -> Markup:
    """The table of all trials, best first. Each cell has its text and the value that its column is sorted by."""
    metric, keys, any_reason = sweep.metric, sweep.keys, any(row.reason for row in sweep.rows)

    def cells(row: TrialLike) -> Iterable[tuple[str, Any, str]]:
        yield f"{row.number}", row.number, "number"
        yield row.state, row.state, ""
        yield ("", "", "number") if row.score is None else (metric.format(row.score), row.score, "number")
        if sweep.seeds > 1:
            yield (
                ("", "", "number")
                if row.mean is None
                else (metric.format_spread(row.mean, row.std or 0.0), row.mean, "number")
            )
        for key in keys:
            value = row.overrides.get(key, "")
            number = is_number(value)
            yield format_value(value), value if number else format_value(value), "number" if number else ""
        yield format_duration(row.seconds), row.seconds, "number"
        if any_reason:
            yield row.reason, row.reason, "reason"

    return _render(
        """<div class="scroll trials" role="region" aria-label="All trials" tabindex="0">
<table>
<thead>
<tr>
{% for column, numeric in columns %}
<th scope="col"{% if numeric %} class="number"{% endif %}><button type="button">{{ column }}</button></th>
{% endfor %}
</tr>
</thead>
<tbody>
{% for row, report, cells in rows %}
<tr data-number="{{ row.number }}"{% if row.number == best %} class="best"{% endif %}>
{% for text, value, kind in cells %}
<td data-value="{{ value }}"{% if kind %} class="{{ kind }}"{% endif %}
{%- if kind == "reason" %} title="{{ value }}"{% endif %}>
{%- if loop.first and report %}<a href="{{ report }}">{{ text }}</a>
{%- else %}{{ text }}{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>""",
        columns=[
            ("trial", True),
            ("state", False),
            (metric.name, True),
            *([("mean ± std", True)] if sweep.seeds > 1 else []),
            *((key, key in sweep.numeric) for key in keys),
            ("time", True),
            *([("reason", False)] if any_reason else []),
        ],
        rows=[(row, _report(sweep, row), list(cells(row))) for row in sweep.ranked],
        best=sweep.best.number if sweep.best else None,
    )


# --- data for the script ----------------------------------------------------------------------------------------------


def _trials(sweep: _Sweep, curve: Callable[[int], Curve]) -> list[dict[str, Any]]:
    place = {row.number: place for place, row in enumerate(sweep.scored)}

    def drawn(row: TrialLike) -> dict[str, Any]:
        at = place.get(row.number)
        points = _thinned(curve(row.number)) if at is not None and at < _MOST_CURVES else []
        return {
            "number": row.number,
            "state": row.state,
            "score": row.score if at is not None else None,
            "rank": 0.0 if at is None else 1 - at / max(len(sweep.scored) - 1, 1),
            "values": _placed(sweep, row),
            "curve": [[epoch, value if math.isfinite(value) else None] for epoch, value in points],
        }

    return [drawn(row) for row in sweep.rows]


def _spreads(sweep: _Sweep) -> list[dict[str, Any]]:
    """The mean and standard deviation of each point, if there are several seeds."""
    if sweep.seeds == 1:
        return []
    firsts = [runs[0] for runs in sweep.points if runs[0].mean is not None]
    return [{"values": _placed(sweep, row), "mean": row.mean, "std": row.std or 0.0} for row in firsts]


def _placed(sweep: _Sweep, row: TrialLike) -> list[Any]:
    """A trial's values of the plotted keys: numbers, strings if not all trials have numbers, or None if missing."""

    def value(key: str) -> Any:
        if key not in row.overrides:
            return None
        return row.overrides[key] if key in sweep.numeric else format_value(row.overrides[key])

    return [value(key) for key in sweep.parameters]


def _axis(rows: Sequence[TrialLike], key: str) -> dict[str, Any]:
    values = _values(rows, key)
    if are_numbers(values):
        tried = sorted(set(values))
        ends = {"low": tried[0], "high": tried[-1], "log": are_logarithmic(values)}
        return {**ends, "tried": tried if len(tried) <= _MOST_CELLS else None}
    return {"values": list(dict.fromkeys(map(format_value, values)))}


def _thinned(curve: Curve) -> list[tuple[float | int, float]]:
    every = -(-len(curve) // _MOST_DOTS) or 1
    return [point for index, point in enumerate(curve) if (len(curve) - 1 - index) % every == 0]


def _grid(
    rows: Sequence[TrialLike], keys: Sequence[str]
) -> tuple[str, str, dict[Any, dict[Any, float]], set[tuple[Any, Any]]] | None:
    """The scores of a heat map, if there are two keys with few values that were tried in most combinations.

    Returns:
      The keys across and down, the mean scores as value down -> value across -> score, and the pairs (value down, value
      across) whose trials were all pruned; or None.
    """
    if len(keys) != 2:
        return None
    found: dict[str, dict[tuple[Any, Any], list[float]]] = {"complete": {}, "pruned": {}}
    for row in rows:
        if row.state not in found or row.score is None or not math.isfinite(row.score):
            continue
        if all(key in row.overrides for key in keys):
            across, down = (row.overrides[key] for key in keys)
            found[row.state].setdefault((down, across), []).append(row.score)
    pruned = found["pruned"].keys() - found["complete"].keys()
    cells: dict[Any, dict[Any, float]] = {}
    for (down, across), scores in (found["pruned"] | found["complete"]).items():
        cells.setdefault(down, {})[across] = statistics.fmean(scores)
    columns = {value for of_row in cells.values() for value in of_row}
    filled = sum(map(len, cells.values()))
    sides = (len(cells), len(columns))
    if min(sides) < 2 or max(sides) > _MOST_CELLS or filled < 0.7 * sides[0] * sides[1]:
        return None
    return keys[0], keys[1], cells, pruned


# --- helpers ----------------------------------------------------------------------------------------------------------


def _report(sweep: _Sweep, row: TrialLike) -> str | None:
    """The path of a trial's report, relative to the page, if there is one."""
    path = f"trials/{row.number:04d}/report.html"
    return path if (sweep.workdir / path).is_file() else None


def _values(rows: Sequence[TrialLike], key: str) -> list[Any]:
    return [row.overrides[key] for row in rows if key in row.overrides]


def _render(template: str, **values: Any) -> Markup:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return Markup(environment.from_string(template).render(**values))


def _file(name: str) -> str:
    return resources.files("cnn_jax.report").joinpath(name).read_text(encoding="utf-8")
