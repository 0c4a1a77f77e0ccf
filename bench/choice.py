"""Choose one of several graphs of a model: the fastest, and among equals the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from onnxtool.reports import units
from onnxtool.reports.model import Candidate, Comparison


def choose(plain: Candidate, others: Sequence[Candidate]) -> list[Candidate]:
    """Keep one, and give the reason for each.

    A candidate that is slower than the plain graph at any batch, or not shown not to be, is refused. Of the rest and
    the plain graph the fastest is looked for, by the geometric mean of the ratios over the batches (the mean of
    ratios to one reference that does not depend on the reference: Fleming and Wallace, "How not to lie with
    statistics", CACM 29, 1986). Those whose interval reaches that of the fastest are as fast; the one with the
    fewest nodes is kept, the plain graph before others.

    Args:
        plain: The graph as it was converted.
        others: Candidates; those that are not refused yet have a comparison with the plain one for each batch.

    Returns:
        All of them, the plain one first, exactly one of them kept.
    """
    assessed = [plain.model_copy(update={"reason": "The one that is kept is better."}), *map(_assessed, others)]
    means = {place: _mean(candidate) for place, candidate in enumerate(assessed) if candidate.outcome != "refused"}
    fastest = min(means, key=lambda place: means[place][0])
    equal = [place for place, (_, low, _) in means.items() if low <= means[fastest][2]]
    kept = min(equal, key=lambda place: assessed[place].nodes or 0)
    return [
        candidate.model_copy(update={"outcome": "kept", "reason": _praise(candidate, plain, means[place])})
        if place == kept
        else candidate
        for place, candidate in enumerate(assessed)
    ]


def _assessed(candidate: Candidate) -> Candidate:
    if candidate.outcome == "refused":
        return candidate
    for found in candidate.comparisons:
        if found.outcome != "pass":
            return candidate.model_copy(update={"outcome": "refused", "reason": _complaint(found)})
    return candidate.model_copy(update={"reason": "It is no faster than the one that is kept."})


def _complaint(found: Comparison) -> str:
    if found.ratio is None:
        return f"Not measured at batch {found.batch}: {found.reason}"
    word = "Slower" if found.outcome == "fail" else "Not shown to be no slower"
    times = f"{units.number(found.ratio)} times as long ({units.interval(found.low, found.high)})"
    return f"{word}: at batch {found.batch} it takes {times}."


def _mean(candidate: Candidate) -> tuple[float, float, float]:
    """Geometric mean of the ratios over the batches, and of the ends of their intervals."""
    found = [(c.ratio or 1.0, c.low or 1.0, c.high or 1.0) for c in candidate.comparisons] or [(1.0, 1.0, 1.0)]
    ratio, low, high = (exp(sum(map(log, column)) / len(column)) for column in zip(*found, strict=True))
    return ratio, low, high


def _praise(candidate: Candidate, plain: Candidate, mean: tuple[float, float, float]) -> str:
    if not candidate.comparisons:
        return "Nothing that was tried is better."
    nodes = f"{units.plural(candidate.nodes or 0, 'node')} for {plain.nodes}"
    return f"{'Faster' if mean[2] < 1 else 'As fast'}, with {nodes}."
