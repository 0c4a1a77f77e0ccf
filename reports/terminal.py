"""Reports for a terminal: the verdict first, then what it rests on."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxtool.reports import columns, findings, refinement, units
from onnxtool.reports.columns import Column
from onnxtool.reports.findings import Verdict
from onnxtool.reports.model import (
    Bench,
    Candidate,
    Cell,
    Comparison,
    Explanation,
    LabelDrift,
    Lint,
    Lowering,
    OutputParity,
    Parity,
    Report,
    Search,
    Subject,
)
from onnxtool.reports.sanitize import sanitized

T = TypeVar("T")

WIDE = 110
"""Terminal width in columns from which tables have more columns."""

ROWS = 40
"""A table longer than this is cut; the JSON has all of it."""

_LEVELS = {"error": "red", "warning": "yellow", "note": "dim"}
STAGES_AROUND = 3
"""Stages shown before and after the first failure."""

_STYLES = {"passed": "bold green", "failed": "bold red", "undecided": "bold yellow", "unchecked": "bold yellow"}


def render(report: Report) -> str:
    """Plain text, 100 columns wide, without colour."""
    file = io.StringIO()
    Console(file=file, width=100, color_system=None, force_jupyter=False).print(view(report, 100))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def view(report: Report, width: int) -> RenderableType:
    """The report as a renderable of rich.

    Args:
        report: The report.
        width: Columns of the console.
    """
    report = sanitized(report)
    parts: list[RenderableType] = [_headline(findings.verdict(report))]
    for subject in report.subjects:
        parts.append(Text())
        parts += _subject(subject, width)
    return Group(*parts)


def _headline(verdict: Verdict) -> Text:
    return Text.assemble(
        (f"{verdict.symbol} {verdict.word.upper()}", _STYLES[verdict.outcome]), "  ", verdict.reason
    )


def _subject(subject: Subject, width: int) -> Iterator[RenderableType]:
    verdict = findings.subject_verdict(subject)
    symbol = (verdict.symbol, _STYLES[verdict.outcome])
    yield Text.assemble(symbol, " ", (subject.name, "bold"))
    yield _indented(Text(findings.model_line(subject), "dim"))
    for check in subject.checks:
        if check.undecided:
            yield _indented(Text.assemble(("? ", "yellow"), f"{check.id}: {check.message}"))
        elif not check.passed:
            yield _indented(Text.assemble(("✗ ", "red"), f"{check.id}: {check.message}"))
    if subject.conversion:
        yield from _notes(subject.conversion.choices)
        yield from _candidates(subject.conversion.candidates)
        if subject.conversion.lowering:
            yield from _lowering(subject.conversion.lowering)
    if subject.lint:
        yield from _lint(subject.lint)
    if subject.parity:
        yield from _parity(subject.parity, width)
    if subject.search:
        yield from _search(subject.search)
    if subject.drift:
        yield from _drift(subject.drift)
    if subject.bench:
        yield from _bench(subject.bench, width)
    if subject.comparisons:
        yield from _comparisons(subject.comparisons)


def _candidates(candidates: Sequence[Candidate]) -> Iterator[RenderableType]:
    if candidates:
        yield _title("Optimisation", f"of {units.plural(len(candidates), 'graph')} one is kept")
        styles = {"kept": "green", "refused": "dim"}
        yield _table(columns.CANDIDATES, candidates, lambda candidate: styles.get(candidate.outcome))
        yield from _notes(refinement.candidate_notes(candidates))


def _lowering(lowering: Lowering) -> Iterator[RenderableType]:
    yield _title("Precision", refinement.lowering_line(lowering))
    yield _table(columns.ATTEMPTS, lowering.attempts, lambda attempt: None if attempt.passed else "dim")
    yield from _notes(refinement.lowering_notes(lowering))


def _lint(lint: Lint) -> Iterator[RenderableType]:
    yield _title("Rules", findings.lint_line(lint))
    yield from _notes([f"Repaired: {repair}" for repair in lint.repairs])
    if lint.findings:
        yield _table(columns.LINT, findings.breaches(lint), lambda pair: _LEVELS[pair[1].level])


def _parity(parity: Parity, width: int) -> Iterator[RenderableType]:
    yield _title("Parity", f"over {findings.rows_line(parity)}")
    wide = (columns.TOLERANCE,) if width >= WIDE else ()
    outputs = findings.most_notable(parity.outputs, ROWS, findings.failed)
    yield _table((*columns.PARITY, *wide), outputs, lambda output: None if output.passed else "red")
    yield from _cut(len(parity.outputs), "output")
    yield from _notes(findings.parity_notes(parity))
    for output in outputs:
        if not output.passed and output.worst:
            yield from _worst(output)
    if parity.explanation:
        yield from _explanation(parity.explanation)


def _explanation(explanation: Explanation) -> Iterator[RenderableType]:
    yield _title("Where they diverge", f"on {findings.explained_by(explanation)}")
    yield _indented(Text(explanation.cause, "bold"))
    yield from _notes(explanation.details)
    stages = findings.notable_stages(explanation, STAGES_AROUND)
    if stages:
        differs = findings.first_failure(explanation)
        yield _table(columns.STAGES, stages, lambda stage: "red" if differs(stage) else None)
    if explanation.error_components:
        yield _table(columns.ERROR_COMPONENTS, explanation.error_components)


def _worst(output: OutputParity) -> Iterator[RenderableType]:
    yield _title("Worst rows", f"of {units.name(output.name)}")
    yield _table(columns.WORST, output.worst)


def _search(search: Search) -> Iterator[RenderableType]:
    yield _title("Search for drift", f"over {findings.search_effort(search)}")
    yield _table(columns.SEARCH, search.categories, lambda category: "red" if category.mismatches else None)
    yield from _notes(findings.search_notes(search))


def _drift(drift: LabelDrift) -> Iterator[RenderableType]:
    yield _title("Quality", f"on {units.plural(drift.rows, 'row')} labelled by {drift.labels}")
    yield _table(
        columns.metric_columns(drift.metrics), drift.metrics, lambda metric: None if metric.passed else "red"
    )
    yield from _notes(findings.drift_notes(drift))
    if drift.groups:
        yield _title("Groups", f"by {units.name(drift.grouped_by or '')}")
        groups = findings.most_notable(drift.groups, ROWS, findings.failed)
        yield _table(columns.GROUPS, groups, lambda group: None if group.passed else "red")
        yield from _cut(len(drift.groups), "group")


def _bench(bench: Bench, width: int) -> Iterator[RenderableType]:
    yield _title("Latency", f"of {units.plural(len(bench.cells), 'cell')} on {bench.data}")
    wide = (columns.RAN_ON,) if width >= WIDE else ()
    cells = findings.most_notable(bench.cells, ROWS, findings.unmeasured)
    yield _table((*columns.bench_columns(bench), *wide), cells, _cell_style)
    yield from _cut(len(bench.cells), "cell")
    yield from _notes([*findings.placement_notes(bench), *findings.bench_notes(bench)])


def _comparisons(comparisons: Sequence[Comparison]) -> Iterator[RenderableType]:
    yield _title("Comparison", "of the latency, interval of the ratio against the smallest effect")
    shown = findings.most_notable(comparisons, ROWS, findings.undecided)
    yield _table(
        columns.COMPARISONS, shown, lambda found: {"fail": "red", "undecided": "yellow"}.get(found.outcome)
    )
    yield from _cut(len(comparisons), "comparison")
    yield from _notes(findings.comparison_notes(comparisons))


def _cell_style(cell: Cell) -> str | None:
    return {"measured": "dim" if cell.provider == findings.SOURCE else None, "unavailable": "yellow"}.get(
        cell.status, "red"
    )


def _table(
    header: Sequence[Column[T]], records: Sequence[T], style: Callable[[T], str | None] | None = None
) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold")
    for column in header:
        table.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=column.numeric,
        )
    for record in records:
        table.add_row(*(Text(column.text(record)) for column in header), style=style(record) if style else None)
    return _indented(table)


def _title(name: str, rest: str) -> RenderableType:
    return Padding(Text.assemble((name, "bold"), " ", rest), (1, 0, 0, 2))


def _notes(notes: Sequence[str]) -> Iterator[RenderableType]:
    for note in notes:
        line = Table.grid(padding=(0, 1))
        line.add_row(Text("·", "dim"), Text(note, "dim"))
        yield _indented(line)


def _cut(total: int, noun: str) -> Iterator[RenderableType]:
    if total > ROWS:
        yield _indented(Text(f"{ROWS} of {units.plural(total, noun)} shown; --json has all of them.", "italic"))


def _indented(part: RenderableType) -> RenderableType:
    return Padding(part, (0, 0, 0, 2))
