"""Gates: what makes a run pass or fail, each with a sentence that carries the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from onnxtool.reports import findings
from onnxtool.reports.findings import cell_name, comparison_line
from onnxtool.reports.model import Cell, Check, Comparison, LabelDrift, Metric, Parity


def parity_gate(parity: Parity) -> Check:
    """Every row of every output within tolerance."""
    off = [output for output in parity.outputs if not output.passed]
    if not off:
        largest = max((output.max_absolute or 0.0 for output in parity.outputs), default=0.0)
        message = f"{parity.rows} rows agree; the largest absolute difference is {largest:.3g}."
    else:
        message = " ".join(
            f"{output.name}: {output.problem}"
            if output.problem
            else f"{output.name}: {findings.systematic(output)}"
            if not output.elements_off
            else f"{output.name}: {output.rows_off} of {output.rows} rows are out of tolerance"
            + (f", {output.label_flips} labels flip." if output.label_flips else ".")
            for output in off
        )
    return Check(id="parity", passed=parity.passed, message=message)


def drift_gate(drift: LabelDrift) -> Check:
    """No quality lost on labelled rows, on the whole or in a group, beyond the allowance."""
    shown = [metric for metric in drift.metrics if not metric.passed] or drift.metrics
    message = f"{_changes(shown)} on {drift.rows} labelled rows."
    for group in drift.groups:
        if not group.passed:
            off = [metric for metric in group.metrics if not metric.passed]
            message += f" {drift.grouped_by} {group.group}: {_changes(off)} on {group.rows} rows."
    return Check(id="drift", passed=drift.passed, message=message)


def _changes(metrics: Sequence[Metric]) -> str:
    return "; ".join(f"{metric.name} {metric.source:.6g} -> {metric.onnx:.6g}" for metric in metrics)


def bench_gates(cells: Sequence[Cell], strict: bool) -> list[Check]:
    """A cell that failed fails the run; a provider that is not usable does so when `strict`."""
    checks = [
        Check(id=f"bench:{cell_name(cell)}", passed=cell.status == "measured", message=cell.reason or "Measured.")
        for cell in cells
        if cell.status != "unavailable" or strict
    ]
    if not checks:
        reasons = "; ".join(sorted({f"{cell.provider}: {cell.reason}" for cell in cells}))
        checks.append(Check(id="bench", passed=False, message=f"Nothing could be measured. {reasons}"))
    return checks


def comparison_gates(comparisons: Sequence[Comparison], strict: bool) -> list[Check]:
    """A model that is slower, or could not be measured, fails the run; what is not decided does so when `strict`."""
    return [
        Check(
            id=f"{'against' if comparison.method == 'paired' else 'baseline'}:{cell_name(comparison)}",
            passed=comparison.outcome == "pass" or (comparison.outcome == "inconclusive" and not strict),
            message=comparison_line(comparison),
        )
        for comparison in comparisons
    ]
