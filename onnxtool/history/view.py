"""A history for people: a table on a terminal, or one page of all models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxtool.history.runs import Series
from onnxtool.history.trends import Change, changes
from onnxtool.reports import charts, units
from onnxtool.reports.html import template

_SHORT = 10
"""Characters of a commit's hash that are shown."""


@dataclass(frozen=True, slots=True)
class Trend:
    """One number over commits, as it is shown.

    Attributes:
        kind: What it is: Latency, Throughput, Memory, Size, Drift or Quality.
        title: Which one of its kind.
        text: How a value is written.
        series: The number over commits.
        changes: Its lasting changes.
    """

    kind: str
    title: str
    text: Callable[[float], str]
    series: Series
    changes: Sequence[Change]


_KINDS: Sequence[tuple[str, str, str, Callable[[float], str]]] = (
    ("bench/", "/p50_s", "Latency", units.seconds),
    ("bench/", "/median_s", "Latency", units.seconds),
    ("bench", "/median_s", "Latency", units.seconds),
    ("bench/", "/rows_per_s", "Throughput", units.rate),
    ("bench/", "/peak_memory_bytes", "Memory", lambda value: units.size(round(value))),
    ("model", "/size_bytes", "Size", lambda value: units.size(round(value))),
    ("parity/", "/max_absolute", "Drift", lambda value: units.number(value, 2)),
    ("parity/", "/mismatched_rows", "Drift", lambda value: units.count(round(value))),
    ("drift/", "/onnx", "Quality", lambda value: units.number(value, 4)),
)
"""Beginning and end of a number's name, its kind, and how it is written."""

_WORSE = {"Latency": True, "Throughput": False, "Memory": True, "Size": True, "Drift": True, "Quality": False}
"""Whether more of a kind is worse."""


def trends(series: Iterable[Series]) -> list[Trend]:
    """The numbers that are shown, by kind."""
    found = []
    for one in series:
        for start, end, kind, text in _KINDS:
            if one.name.startswith(start) and one.name.endswith(end):
                what = "" if kind != "Drift" else end.removeprefix("/").replace("_", " ")
                title = ", ".join(part for part in (one.name[len(start) : -len(end)], what) if part)
                found.append(Trend(kind, title, text, one, changes(one)))
                break
    order = list(_WORSE)
    return sorted(found, key=lambda trend: (order.index(trend.kind), trend.title))


def is_worse(trend: Trend, change: Change) -> bool:
    """Whether a change is for the worse."""
    return (change.after > change.before) == _WORSE[trend.kind]


def change_line(trend: Trend, change: Change) -> str:
    """A change in words: from what to what, by how much, between which commits."""
    span = f"{change.first[:_SHORT] or '?'}..{change.last[:_SHORT] or '?'}"
    size = f"{trend.text(change.before)} to {trend.text(change.after)}"
    if change.ratio is None or change.low is None or change.high is None:
        return f"{size} in {span}"
    if change.low == change.high:
        return f"{size}, {_percent(change.ratio)}, in {span}"
    interval = f"{_percent(change.low)} to {_percent(change.high)}"
    if not change.low > 0:
        interval = "too few runs for an interval"
    return f"{size}, {_percent(change.ratio)} ({interval}), in {span}"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.3g} %"


def view(model: str, branch: str, series: Sequence[Series]) -> RenderableType:
    """A model's history as a renderable of rich, a table for each machine."""
    parts: list[RenderableType] = [
        Text.assemble((units.visible(model), "bold"), f"  branch {branch or 'unknown'}")
    ]
    for machine in dict.fromkeys(one.machine for one in series):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for title in ("Number", "Runs", "Now", "Changes"):
            table.add_column(title, justify="right" if title in ("Runs", "Now") else "left", overflow="fold")
        for trend in trends(one for one in series if one.machine == machine):
            lines = Text("\n").join(
                Text(change_line(trend, change), "red" if is_worse(trend, change) else "green")
                for change in trend.changes
            )
            name = f"{trend.kind}: {units.visible(trend.title)}" if trend.title else trend.kind
            table.add_row(name, str(len(trend.series.values)), trend.text(trend.series.values[-1]), lines)
        parts += [Padding(Text(units.visible(machine), "dim"), (1, 0, 0, 2)), Padding(table, (0, 0, 0, 2))]
    return Group(*parts)


def page(models: Sequence[tuple[str, str, Sequence[Series]]], name: str) -> str:
    """One HTML page of all models: no network, no script, no font, no other file.

    Args:
        models: Name, branch and series of each model.
        name: Name of the history.
    """
    shown = []
    for model, branch, series in models:
        machines = dict.fromkeys(one.machine for one in series)
        parts = [(machine, trends(one for one in series if one.machine == machine)) for machine in machines]
        shown.append((model, branch, parts))
    filled = template("history.html.j2").render(
        name=name, models=shown, units=units, change_line=change_line, is_worse=is_worse, chart=_chart
    )
    return filled.strip() + "\n"


def _chart(trend: Trend) -> Markup:
    title = f"{trend.kind} {trend.title} over {units.plural(len(trend.series.values), 'run')}"
    places = [change.at for change in trend.changes]
    return charts.timeline(trend.series.values, places, title=units.visible(title), text=trend.text)
