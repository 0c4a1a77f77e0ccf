"""Summaries of optimisation and of lower precision, for all renderers."""

from __future__ import annotations

from collections.abc import Sequence

from onnxtool.reports import units
from onnxtool.reports.model import Candidate, Comparison, Loss, Lowering, LoweringAttempt


def ratios(comparisons: Sequence[Comparison]) -> str:
    """The ratio of the latencies at each batch size, with its interval."""
    return "; ".join(
        f"batch {found.batch}: {units.number(found.ratio)} ({units.interval(found.low, found.high)})"
        for found in comparisons
    )


def candidate_notes(candidates: Sequence[Candidate]) -> list[str]:
    """The reason why each graph was kept or not."""
    return [f"{candidate.name}: {candidate.outcome}. {candidate.reason}" for candidate in candidates]


def loss_line(loss: Loss) -> str:
    """The loss by one measure, and its limit."""
    high = "" if loss.high is None else f", up to {units.number(loss.high)} at 95 %"
    allowed = "no limit" if loss.allowed is None else f"allowed {units.number(loss.allowed)}"
    return f"{loss.measure} {units.number(loss.value)}{high} ({allowed})"


def largest_loss(attempt: LoweringAttempt) -> str:
    """The loss that is the largest in units of what is allowed."""
    gated = [loss for loss in attempt.losses if loss.allowed is not None]
    if not gated:
        return units.NONE
    worst = max(gated, key=lambda loss: (not loss.passed, (loss.high or loss.value) - (loss.allowed or 0)))
    return loss_line(worst)


def lowering_line(lowering: Lowering) -> str:
    """The result of the lowering, in one line."""
    size = units.number(lowering.size_bytes / max(lowering.full_size_bytes, 1))
    nodes = f"{len(lowering.kept)} of {units.plural(lowering.nodes, 'node')} stay in float32"
    return f"{lowering.precision}, {lowering.recipe}; {nodes}; {size} times the size"


def lowering_notes(lowering: Lowering) -> list[str]:
    """The notes below the table of attempts."""
    notes = [f"{loss_line(loss)}." for loss in lowering.losses]
    notes += [
        f"Latency at batch {found.batch}: {units.number(found.ratio)} times that of float32 "
        f"({units.interval(found.low, found.high)})."
        for found in lowering.comparisons
        if found.ratio is not None
    ]
    if lowering.kept:
        notes.append(f"In float32: {', '.join(lowering.kept)}.")
    if lowering.sensitivity:
        worst = sorted(lowering.sensitivity, key=lambda name: -lowering.sensitivity[name])[:5]
        each = ", ".join(f"{name} {units.number(lowering.sensitivity[name], 2)}" for name in worst)
        notes.append(f"Relative error of a node alone, the worst first: {each}.")
    return notes + lowering.notes
