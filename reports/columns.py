"""The columns of the report's tables, once for all renderers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from onnxtool.reports import findings, refinement, units
from onnxtool.reports.model import (
    Bench,
    Candidate,
    Cell,
    Comparison,
    Difference,
    ErrorComponents,
    Finding,
    GroupQuality,
    LintRule,
    LoweringAttempt,
    Metric,
    OutputParity,
    SearchCategory,
    Stage,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column.

    Attributes:
        title: Its heading.
        text: Function from a record to its text.
        numeric: Whether it is aligned to the right.
    """

    title: str
    text: Callable[[T], str]
    numeric: bool = True

    def texts(self, records: Iterable[T]) -> str:
        """The texts of several records, each text once."""
        return ", ".join(dict.fromkeys(map(self.text, records)))


PARITY: Sequence[Column[OutputParity]] = (
    Column("", lambda output: "✓" if output.passed else "✗", numeric=False),
    Column("Output", lambda output: units.name(output.name), numeric=False),
    Column("Max abs", lambda output: units.number(output.max_absolute, 2)),
    Column("Mean", lambda output: units.number(output.mean_absolute, 2)),
    Column("p99", lambda output: units.number(output.p99_absolute, 2)),
    Column("Max rel", lambda output: units.number(output.max_relative, 2)),
    Column("ULPs", lambda output: units.number(output.max_ulps, 2)),
    Column("Mismatch", lambda output: f"{output.mismatched_rows:,}"),
    Column("Flips", lambda output: units.count(output.label_flips)),
)
TOLERANCE: Column[OutputParity] = Column("Tolerance", findings.tolerance, numeric=False)
"""A separate column: where there is no room for it, it becomes a note below the table."""

WORST: Sequence[Column[Difference]] = (
    Column("Row", lambda difference: units.count(difference.row)),
    Column("Index", lambda difference: units.shape(difference.index)),
    Column("Source", lambda difference: units.element(difference.source)),
    Column("ONNX", lambda difference: units.element(difference.onnx)),
    Column("Abs", lambda difference: units.number(difference.absolute)),
    Column("Rel", lambda difference: units.number(difference.relative)),
    Column("ULPs", lambda difference: units.number(difference.ulps)),
)

LINT: Sequence[Column[tuple[Finding, LintRule]]] = (
    Column("", lambda pair: {"error": "✗", "warning": "!", "note": "·"}[pair[1].level], numeric=False),
    Column("Rule", lambda pair: pair[1].id, numeric=False),
    Column("Place", lambda pair: pair[0].location, numeric=False),
    Column("Finding", lambda pair: f"{pair[0].message} {pair[1].reason}", numeric=False),
    Column("Remedy", lambda pair: f"{'--fix. ' if pair[0].fixable else ''}{pair[1].remedy}", numeric=False),
)

METRICS: Sequence[Column[Metric]] = (
    Column("", lambda metric: "✓" if metric.passed else "✗", numeric=False),
    Column("Metric", lambda metric: metric.name, numeric=False),
    Column("Source", lambda metric: units.number(metric.source, 5)),
    Column("ONNX", lambda metric: units.number(metric.onnx, 5)),
    Column("Difference", lambda metric: units.number(metric.difference)),
    Column("Allowed", lambda metric: units.number(metric.allowed)),
)
_INTERVAL: Column[Metric] = Column("95 % interval", lambda metric: units.interval(metric.low, metric.high))

GROUPS: Sequence[Column[GroupQuality]] = (
    Column("", lambda group: "✓" if group.passed else "✗", numeric=False),
    Column("Group", lambda group: units.name(group.group), numeric=False),
    Column("Rows", lambda group: units.count(group.rows)),
    Column("Metric", lambda group: ", ".join(metric.name for metric in group.metrics), numeric=False),
    Column("Source", lambda group: ", ".join(units.number(metric.source, 5) for metric in group.metrics)),
    Column("ONNX", lambda group: ", ".join(units.number(metric.onnx, 5) for metric in group.metrics)),
    Column("Allowed", lambda group: ", ".join(units.number(metric.allowed) for metric in group.metrics)),
)


STAGES: Sequence[Column[Stage]] = (
    Column("Stage", lambda stage: units.name(stage.name), numeric=False),
    Column("Kind", lambda stage: stage.kind, numeric=False),
    Column("ONNX tensor", lambda stage: stage.tensor or units.NONE, numeric=False),
    Column("Found by", lambda stage: stage.matched_by or units.NONE, numeric=False),
    Column("Difference", lambda stage: units.number(stage.difference, 2)),
)

ERROR_COMPONENTS: Sequence[Column[ErrorComponents]] = (
    Column("Error of", lambda components: units.name(components.output), numeric=False),
    Column("Total", lambda components: units.number(components.total, 2)),
    Column("Input's rounding", lambda components: units.number(components.input, 2)),
    Column("Source's rounding", lambda components: units.number(components.source, 2)),
    Column("Conversion", lambda components: units.number(components.conversion, 2)),
    Column("Provider's rounding", lambda components: units.number(components.provider, 2)),
)


SEARCH: Sequence[Column[SearchCategory]] = (
    Column("", lambda category: "✗" if category.mismatches else "✓", numeric=False),
    Column("Rows", lambda category: category.name, numeric=False),
    Column("Tried", lambda category: units.count(category.rows)),
    Column("Mismatch", lambda category: units.count(category.mismatches)),
    Column("Worst / allowed", lambda category: units.number(category.worst, 2)),
    Column("Both refuse", lambda category: units.count(category.both_refused)),
    Column("Ties", lambda category: units.count(category.ties)),
)


def metric_columns(metrics: Sequence[Metric]) -> Sequence[Column[Metric]]:
    """The columns of a table of metrics, with the interval where there is one."""
    if all(metric.low is None for metric in metrics):
        return METRICS
    return (*METRICS[:-1], _INTERVAL, METRICS[-1])


def bench_columns(bench: Bench) -> Sequence[Column[Cell]]:
    """The columns of the table of cells, the ones that hold nothing left out."""

    def quantile(q: float) -> Callable[[Cell], str]:
        def text(cell: Cell) -> str:
            entry = findings.percentile(cell, q)
            if entry is None:
                return units.NONE
            return "refused" if entry.reason else units.seconds(entry.value_s)

        return text

    columns: list[Column[Cell]] = [
        Column("Provider", lambda cell: units.provider(cell.provider), numeric=False),
        Column("Batch", lambda cell: units.count(cell.batch)),
        Column("Threads", lambda cell: str(cell.threads) if cell.threads else "auto"),
        Column("p50", lambda cell: cell.status if cell.status != "measured" else quantile(0.5)(cell)),
        Column("p90", quantile(0.9)),
        Column("p99", quantile(0.99)),
        Column("Rows/s", lambda cell: units.rate(cell.rows_per_s)),
        Column("Memory", lambda cell: units.size(cell.peak_memory_bytes)),
    ]
    if any(cell.dims for cell in bench.cells):
        columns.insert(2, Column("Sizes", lambda cell: ", ".join(findings.sizes(cell)), numeric=False))
    if any(findings.settings(cell) for cell in bench.cells):
        columns.insert(3, Column("With", lambda cell: ", ".join(findings.settings(cell)), numeric=False))
    if any(map(findings.contended, bench.cells)):
        columns.append(Column("Waited", _waited, numeric=False))
    if front := findings.pareto(bench):
        columns.append(Column("Best", lambda cell: "★" if cell in front else "", numeric=False))
    if any(cell.provider == findings.SOURCE for cell in bench.cells):
        columns.append(Column("Speed-up", lambda cell: units.ratio(findings.speedup(bench, cell))))
    return columns


def _waited(cell: Cell) -> str:
    """The mark of a cell whose threads had to wait for a core, and for how much of the time."""
    return f"! {units.share(cell.contention.waited_share)}" if cell.contention and findings.contended(cell) else ""


RAN_ON: Column[Cell] = Column("Ran on", findings.ran_on, numeric=False)
"""A separate column: where there is no room for it, it becomes a note below the table."""


def _ratio_interval(comparison: Comparison) -> str:
    if comparison.low is None or comparison.high is None:
        return units.NONE
    return f"{comparison.low:.3f} to {comparison.high:.3f}"


_OUTCOMES = {"pass": "✓ pass", "fail": "✗ fail", "undecided": "? undecided"}

COMPARISONS: Sequence[Column[Comparison]] = (
    Column("Outcome", lambda comparison: _OUTCOMES[comparison.outcome], numeric=False),
    Column("Against", lambda comparison: units.shortened(comparison.against), numeric=False),
    Column("Cell", findings.cell_name, numeric=False),
    Column("p50", lambda comparison: units.seconds(comparison.median_s)),
    Column("Other p50", lambda comparison: units.seconds(comparison.against_median_s)),
    Column("Ratio", lambda comparison: units.number(comparison.ratio, 4)),
    Column("Interval", _ratio_interval),
    Column("Effect", lambda comparison: f"{100 * comparison.effect:.3g} %"),
)

CANDIDATES: Sequence[Column[Candidate]] = (
    Column("", lambda candidate: {"kept": "✓", "accepted": "·", "refused": "✗"}[candidate.outcome], numeric=False),
    Column("Graph", lambda candidate: candidate.name, numeric=False),
    Column("Nodes", lambda candidate: units.count(candidate.nodes)),
    Column("Size", lambda candidate: units.size(candidate.size_bytes)),
    Column("Max abs", lambda candidate: units.number(candidate.max_absolute, 2)),
    Column("Mismatch", lambda candidate: units.count(candidate.mismatched_rows)),
    Column("Flips", lambda candidate: units.count(candidate.label_flips)),
    Column("Latency ratio", lambda candidate: refinement.ratios(candidate.comparisons), numeric=False),
)

ATTEMPTS: Sequence[Column[LoweringAttempt]] = (
    Column("", lambda attempt: "✓" if attempt.passed else "✗", numeric=False),
    Column("Precision", lambda attempt: attempt.recipe, numeric=False),
    Column("In float32", lambda attempt: units.count(attempt.kept)),
    Column("Error", lambda attempt: units.number(attempt.error, 2)),
    Column("Largest loss", refinement.largest_loss, numeric=False),
)
