"""Reports as Markdown, for comments on pull requests and job summaries: the verdict and the tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from onnxtool.reports import columns, findings, refinement, units
from onnxtool.reports.columns import Column
from onnxtool.reports.model import Bench, ConversionRecord, Explanation, Parity, Report, Subject
from onnxtool.reports.sanitize import sanitized

T = TypeVar("T")

ROWS = 60
"""A table longer than this is cut: comments on GitHub end at 65,536 characters."""

_SPECIAL = re.compile(r"[\\`*_{}\[\]|~$]|:(?=//)|^[#+=-]")


def render(report: Report) -> str:
    """GitHub-flavoured Markdown."""
    report = sanitized(report)
    verdict = findings.verdict(report)
    emoji = {"passed": "✅", "failed": "❌", "undecided": "❔", "unchecked": "⚪"}[verdict.outcome]
    lines = [f"## {emoji} {verdict.word}", "", escape(verdict.reason), ""]
    for subject in report.subjects:
        lines += _subject(subject)
    machine = report.environment
    lines.append(
        f"<sub>onnxtool {escape(report.tool_version)} · {escape(machine.cpu.name)}, "
        f"{units.plural(machine.cpu.usable_cores, 'core')} · {escape(machine.os)} · "
        f"{escape(machine.python)}</sub>"
    )
    return "\n".join(lines) + "\n"


def _subject(subject: Subject) -> Iterator[str]:
    verdict = findings.subject_verdict(subject)
    yield f"### {verdict.symbol} {escape(subject.name)}"
    yield ""
    yield escape(findings.model_line(subject))
    yield ""
    for check in subject.checks:
        if not check.passed or check.undecided:
            yield f"- **{escape(check.id)}**: {escape(check.message)}"
    if any(not check.passed or check.undecided for check in subject.checks):
        yield ""
    if subject.conversion:
        yield from _list(subject.conversion.choices)
        yield from _refined(subject.conversion)
    if subject.lint:
        yield f"**Rules** {escape(findings.lint_line(subject.lint))}"
        yield ""
        yield from _list([f"Repaired: {repair}" for repair in subject.lint.repairs])
        yield from _table(columns.LINT, findings.breaches(subject.lint))
    if subject.parity:
        yield from _parity(subject.parity)
    if subject.search:
        yield f"**Search for drift** over {escape(findings.search_effort(subject.search))}"
        yield ""
        yield from _table(columns.SEARCH, subject.search.categories)
        if search_notes := findings.search_notes(subject.search):
            yield from _list(search_notes)
    if subject.drift:
        rows = units.plural(subject.drift.rows, "row")
        yield f"**Quality** on {rows} labelled by {escape(subject.drift.labels)}"
        yield ""
        yield from _table(columns.metric_columns(subject.drift.metrics), subject.drift.metrics)
        if drift_notes := findings.drift_notes(subject.drift):
            yield from _list(drift_notes)
        if subject.drift.groups:
            yield f"**Groups** by {escape(units.name(subject.drift.grouped_by or ''))}"
            yield ""
            groups = findings.most_notable(subject.drift.groups, ROWS, findings.failed)
            yield from _table(columns.GROUPS, groups)
            yield from _cut(len(subject.drift.groups), "group")
    if subject.bench:
        yield from _bench(subject.bench)
    if subject.comparisons:
        yield "**Comparison** of the latency, interval of the ratio against the smallest effect"
        yield ""
        yield from _table(
            columns.COMPARISONS, findings.most_notable(subject.comparisons, ROWS, findings.undecided)
        )
        yield from _cut(len(subject.comparisons), "comparison")
        yield from _list(findings.comparison_notes(subject.comparisons))


def _refined(conversion: ConversionRecord) -> Iterator[str]:
    if candidates := conversion.candidates:
        yield "**Optimisation**"
        yield ""
        yield from _table(columns.CANDIDATES, candidates)
        yield from _list(refinement.candidate_notes(candidates))
    if lowering := conversion.lowering:
        yield f"**Precision** {escape(refinement.lowering_line(lowering))}"
        yield ""
        yield from _table(columns.ATTEMPTS, lowering.attempts)
        yield from _list(refinement.lowering_notes(lowering))


def _parity(parity: Parity) -> Iterator[str]:
    yield f"**Parity** over {escape(findings.rows_line(parity))}"
    yield ""
    outputs = findings.most_notable(parity.outputs, ROWS, findings.failed)
    yield from _table((*columns.PARITY, columns.TOLERANCE), outputs)
    yield from _cut(len(parity.outputs), "output")
    yield from _list(findings.parity_notes(parity))
    for output in outputs:
        if not output.passed and output.worst:
            name = html.escape(units.name(output.name))  # Markdown is not read within an HTML block
            yield f"<details><summary>Worst rows of {name}</summary>"
            yield ""
            yield from _table(columns.WORST, output.worst)
            yield "</details>"
            yield ""
    if parity.explanation:
        yield from _explanation(parity.explanation)


def _explanation(explanation: Explanation) -> Iterator[str]:
    yield f"**Where they diverge**, on {escape(findings.explained_by(explanation))}"
    yield ""
    yield escape(explanation.cause)
    yield ""
    if explanation.details:
        yield from _list(explanation.details)
    if stages := findings.notable_stages(explanation, 3):
        yield from _table(columns.STAGES, stages)
    if explanation.error_components:
        yield from _table(columns.ERROR_COMPONENTS, explanation.error_components)


def _bench(bench: Bench) -> Iterator[str]:
    yield f"**Latency**, {units.seconds(bench.duration_s)} a cell on {escape(bench.data)}"
    yield ""
    cells = findings.most_notable(bench.cells, ROWS, findings.unmeasured)
    yield from _table((*columns.bench_columns(bench), columns.RAN_ON), cells)
    yield from _cut(len(bench.cells), "cell")
    yield from _list(findings.bench_notes(bench))


def _table(header: Sequence[Column[T]], records: Sequence[T]) -> Iterator[str]:
    yield f"| {' | '.join(column.title for column in header)} |"
    yield f"|{'|'.join('--:' if column.numeric else ':--' for column in header)}|"
    for record in records:
        yield f"| {' | '.join(escape(column.text(record)) for column in header)} |"
    yield ""


def _cut(total: int, noun: str) -> Iterator[str]:
    if total > ROWS:
        yield f"*{ROWS} of {units.plural(total, noun)} shown.*"
        yield ""


def _list(notes: Sequence[str]) -> Iterator[str]:
    yield from (f"- {escape(note)}" for note in notes)
    yield ""


def escape(text: str) -> str:
    """Text that stays text: no HTML, table cell, emphasis, link or mention comes of it."""
    plain = _SPECIAL.sub(r"\\\g<0>", html.escape(text, quote=False))
    return plain.replace("@", "@<!-- -->")  # GitHub looks for mentions after it has undone the backslashes
