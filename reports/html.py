"""Reports as one self-contained HTML page: no network, no script, no font, no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from onnxtool.reports import charts, columns, findings, refinement, units
from onnxtool.reports.model import Bench, Cell, Comparison, Latency, OutputParity, Percentile, Report
from onnxtool.reports.sanitize import sanitized

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """The page. Everything that came out of a model file is escaped."""
    return _filled(report, whole=True)


def fragment(report: Report) -> str:
    """The models' part of the page, for the output of a notebook's cell: its styles reach nothing else there."""
    return _filled(report, whole=False)


def template(name: str, **names: object) -> Template:
    """A template of a page, in which everything is escaped.

    Args:
        name: Its file.
        **names: What it may use besides what it is rendered with.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name, globals=names)


def _filled(report: Report, *, whole: bool) -> str:
    filled = template(
        "report.html.j2",
        findings=findings,
        refinement=refinement,
        columns=columns,
        units=units,
        swatch=charts.swatch,
        drift_histogram=drift_histogram,
        latency_histogram=latency_histogram,
        latency_series=latency_series,
        spread=spread,
        spread_axis=lambda bench: charts.spread_axis(_spread_scale(bench)),
        ratio_picture=ratio_picture,
        throughput=throughput,
        speedups=speedups,
        pareto=pareto,
        lines=charts.lines,
    )
    page = filled.render(report=sanitized(report), whole=whole)
    return page.strip() + "\n"


def drift_histogram(output: OutputParity) -> Markup:
    """Absolute differences of an output, with the absolute tolerance marked."""
    atol = output.tolerance.atol
    return charts.histogram(
        output.histogram,
        title=f"Absolute differences of {units.name(output.name)}: number of elements by size, logarithmic",
        label="absolute difference, both axes logarithmic",
        text=lambda value: units.number(value, 2),
        marks=[(f"atol {units.number(atol)}", atol)] if atol else [],
        zeros=output.zero_differences,
        log_counts=True,
    )


def latency_histogram(cell: Cell, latency: Latency) -> Markup:
    """Latencies of a cell."""
    return charts.histogram(
        latency.histogram,
        title=f"Latencies of {findings.cell_name(cell)}: number of runs by duration",
        label="runs by duration",
        text=units.seconds,
        marks=[(f"p{entry.q * 100:g}", entry.value_s) for entry in latency.percentiles if entry.value_s],
    )


def latency_series(cell: Cell, latency: Latency) -> Markup:
    """Latencies of a cell in the order of the runs."""
    return charts.trace(
        latency.series_s,
        title=f"Latency of {findings.cell_name(cell)} over time",
        label="latency over time, median of consecutive runs",
        text=units.seconds,
    )


def spread(bench: Bench, cell: Cell) -> Markup:
    """A cell's percentiles, on the scale of its table."""
    entries = _entries([cell])
    labels = ", ".join(f"p{entry.q * 100:g} {units.seconds(entry.value_s)}" for entry in entries)
    return charts.spread(entries, _spread_scale(bench), title=f"{findings.cell_name(cell)}: {labels}")


def ratio_picture(comparisons: Sequence[Comparison], comparison: Comparison) -> Markup:
    """A comparison's interval against the band of the smallest effect, on the scale of its table."""
    return charts.ratio(comparison, charts.ratio_scale(comparisons), title=findings.comparison_line(comparison))


def throughput(bench: Bench) -> Sequence[charts.Series]:
    """Rows a second over the batch size, a series for each provider and number of threads."""
    return _series(bench, lambda cell: cell.rows_per_s)


def pareto(bench: Bench) -> Markup | None:
    """Latency against throughput of all cells, and the front that none of them beats."""
    best = findings.pareto(bench)
    if not best:
        return None
    return charts.front(
        [
            charts.Dot(findings.cell_name(cell), value, cell.rows_per_s, cell in best)
            for cell in bench.cells
            if cell.provider != findings.SOURCE and cell.rows_per_s and (value := findings.median(cell))
        ],
        title="Latency against throughput, and the cells that none beats in both",
        label="median latency; up: rows a second",
        x_text=units.seconds,
        y_text=units.rate,
    )


def speedups(bench: Bench) -> Sequence[charts.Series]:
    """The source's median over each cell's, over the batch size."""
    return _series(bench, lambda cell: findings.speedup(bench, cell))


def _series(bench: Bench, value: Callable[[Cell], float | None]) -> Sequence[charts.Series]:
    """A value over the batch size; nothing where only one batch size was measured.

    The fastest series are kept where a chart cannot distinguish all. The order, and so the colours, are the
    same for every value.
    """
    best: dict[str, float] = {}
    found: dict[str, list[tuple[float, float]]] = {}
    # The source comes last: it has no speed-up, and must not shift the colours of those that do.
    for cell in sorted(bench.cells, key=lambda cell: cell.provider == findings.SOURCE):
        threads = f", {units.plural(cell.threads, 'thread')}" if cell.threads else ""
        name = ", ".join([f"{units.provider(cell.provider)}{threads}", *findings.sizes(cell)])
        best[name] = max(best.get(name, 0.0), cell.rows_per_s or 0.0)
        if (y := value(cell)) is not None:
            found.setdefault(name, []).append((cell.batch, y))
    if len({x for points in found.values() for x, _ in points}) < 2:
        return []
    kept = sorted(best, key=lambda name: -best[name])[: charts.COLOURS]
    return [(name, sorted(points)) for name, points in found.items() if name in kept]


def _entries(cells: Sequence[Cell]) -> list[Percentile]:
    return [entry for cell in cells if cell.latency for entry in cell.latency.percentiles if entry.value_s]


def _spread_scale(bench: Bench) -> charts.Scale:
    return charts.spread_scale(_entries(bench.cells))
