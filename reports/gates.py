"""Gates: what makes a run pass or fail, each with a sentence that carries the numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnxtool.reports import findings, refinement, units
from onnxtool.reports.findings import bound_line, cell_name, comparison_line, coverage, ran_on
from onnxtool.reports.model import (
    Bench,
    Cell,
    Check,
    Comparison,
    LabelDrift,
    Lowering,
    Metric,
    Parity,
    SavedBy,
    Search,
)

USUAL = 0.99
"""The percentile that a bound is of where none is named."""


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
            if not output.mismatched_elements
            else f"{output.name}: {output.mismatched_rows} of {output.rows} rows are out of tolerance"
            + (f", {output.label_flips} labels flip." if output.label_flips else ".")
            for output in off
        )
    message = " ".join([message, *(findings.failing_sizes(found) for found in parity.sizes if found.failures)])
    if parity.usual_rows is not None:
        message += (
            f" Only {findings.few_rows(parity)}: give more rows, or leave out --data, and as many are made up."
        )
    for half in findings.half_precisions([parity]):
        message += (
            f" The graph computes in {half}, though its outputs are finer: the tolerances are those of {half}."
        )
    rounding, ties = parity.input_rounding, parity.ties
    tied = ties is not None and ties.rows >= max((output.mismatched_rows for output in off), default=0)
    if rounding is not None and rounding.rows and (off or rounding.accepted) and not tied:
        message += f" {findings.input_rounding(rounding)}"
        if not rounding.accepted:
            message += (
                " Convert with --input-dtype auto, give rows in the dtype of the model's inputs, or take the loss: "
                "--accept-input-rounding."
            )
    if ties is not None:
        message += f" {findings.ties(ties)}"
    found = parity.inconsistency
    if found is not None:
        sentence = findings.inconsistency(found)
        # A difference from a source that contradicts itself is none of the conversion.
        message = f"{message} {sentence}" if found.kind == "batch-dependent" else sentence
    return Check(id="parity", passed=parity.passed, message=message)


def version_gates(
    saved_by: Sequence[SavedBy], accepted: Collection[str], parity: Parity | None = None
) -> list[Check]:
    """The release that saved the source means the same by the file as the one that read it.

    Args:
        saved_by: The releases that saved the file; one that is also running needs no check.
        accepted: Versions whose files the user takes to mean the same.
        parity: Outputs that were compared with the owner's own answers need no source that means the same.
    """
    checks = []
    for saved in saved_by:
        if saved.version == saved.running:
            continue
        read = f"Saved by {saved.library} {saved.version}, read by {saved.running}"
        unproven = [output.name for output in parity.outputs if output.truth == "source"] if parity else []
        proven = parity is not None and parity.expected is not None and not unproven
        if saved.same_meaning:
            message = f"{read}: {saved.promise}."
        elif proven and parity:
            message = f"{read}: compared with the answers in {parity.expected}."
        elif saved.version in accepted:
            message = f"{read}: accepted by --accept-version."
        else:
            without = (
                f", which {parity.expected} has not for {', '.join(unproven)}"
                if parity and parity.expected
                else ""
            )
            message = (
                f"{read}, which may give other answers: {saved.promise}. Convert in an environment with "
                f"{saved.library} {saved.version}; or give that version's answers with --expected FILE{without}; "
                f"or pass --accept-version {saved.version}."
            )
        passed = saved.same_meaning or proven or saved.version in accepted
        checks.append(Check(id="saved-version", passed=passed, message=message))
    return checks


def precision_gate(lowering: Lowering) -> Check:
    """The loss of a lower precision is within its limit, by every measure."""
    off = [loss for loss in lowering.losses if not loss.passed]
    message = "; ".join(refinement.loss_line(loss) for loss in off or lowering.losses)
    return Check(id="precision", passed=lowering.passed, message=f"{lowering.precision}: {message}.")


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


def search_gate(search: Search) -> Check:
    """No row was found on which the models diverge."""
    off = [category for category in search.categories if category.mismatches]
    message = (
        " ".join(
            f"{category.name}: {category.mismatches} of {category.rows} rows are out of tolerance"
            f" (by up to {category.worst:.3g} times what is allowed)."
            for category in off
        )
        or f"{search.rows} rows tried, and none is out of tolerance."
    )
    return Check(id="adversarial", passed=search.passed, message=message)


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


def finished_gates(bench: Bench) -> list[Check]:
    """A sweep that was interrupted is no success."""
    if not bench.unfinished:
        return []
    left = f"{bench.unfinished} of {bench.unfinished + len(bench.cells)} cells are not measured yet"
    return [Check(id="finished", passed=False, message=f"{left}: the run was interrupted. Go on with --resume.")]


def coverage_gates(cells: Sequence[Cell], required: Mapping[str, float]) -> list[Check]:
    """Each cell of a provider has at least a share of its nodes, and of their time, on that provider.

    Args:
        cells: All cells.
        required: Full name of a provider to the share, from 0 to 1.
    """
    checks = []
    for cell in cells:
        if cell.provider not in required:
            continue
        share = required[cell.provider]
        found = coverage(cell)
        if found is None:
            passed, message = False, f"Not known: {cell.reason or 'ONNX Runtime recorded no placement.'}"
        else:
            passed = all(part is None or part >= share for part in found)
            time = "" if found[1] is None else f" and {units.share(found[1])} of the time"
            message = (
                f"{units.share(found[0])} of the nodes{time} on {units.provider(cell.provider)}; required are "
                f"{units.share(share)}." + ("" if passed else f" Nodes: {ran_on(cell)}.")
            )
        checks.append(Check(id=f"coverage:{cell_name(cell)}", passed=passed, message=message))
    return checks


def latency_gates(bench: Bench, pass_undecided: bool) -> list[Check]:
    """Percentiles within their bounds, in each cell that has some."""
    return [
        Check(
            id=f"latency:{cell_name(cell)}" + (f", {units.quantile(bound.q)}" if bound.q != USUAL else ""),
            passed=bound.outcome == "within" or (bound.outcome == "undecided" and pass_undecided),
            undecided=bound.outcome == "undecided",
            message=bound_line(cell, bound),
        )
        for cell in bench.cells
        if cell.status == "measured"
        for bound in cell.bounds
    ]


def comparison_gates(comparisons: Sequence[Comparison], pass_undecided: bool) -> list[Check]:
    """A model that is slower, or could not be measured, fails the run."""
    return [
        Check(
            id=f"{'against' if comparison.method == 'paired' else 'baseline'}:{cell_name(comparison)}",
            passed=comparison.outcome == "pass" or (comparison.outcome == "undecided" and pass_undecided),
            undecided=comparison.outcome == "undecided",
            message=comparison_line(comparison),
        )
        for comparison in comparisons
    ]
