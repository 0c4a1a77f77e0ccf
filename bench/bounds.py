"""Whether a percentile of the latency lies within a bound.

A percentile need not be known for that. If p99 is within a bound, the queries above it are at most Binomial(n, 1 %):
two of two runs above it have a probability of 1e-4 then, and decide. The test is exact for independent queries,
whatever the distribution of the latencies (the sign test of a quantile: Conover, "Practical Nonparametric
Statistics", 3rd edition 1999, section 3.2), and stronger than an interval of a lower percentile. Where the
percentile's interval exists (see `statistics.interval_ranks`), the two are equivalent.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from onnxtool.reports.model import LatencyBound

ERROR = 0.01
"""Probability that any of the looks at a bound decides wrongly: half of it for each side, an equal part for each look
(Bonferroni)."""

FURTHEST = 1000
"""A decision that takes more than so many times the queries made is not worth naming."""


MORE_LOOKS = 3
"""Looks that a longer limit adds, each of which makes the error of one smaller."""


def look_times(duration_s: float, limit_s: float, bounds: Sequence[LatencyBound]) -> list[float]:
    """When the queries are looked at: after the duration of a cell, then as often as it doubles, and at the limit.

    Args:
        duration_s: How long a cell is measured in any case.
        limit_s: How long it may be measured to decide its bounds.
        bounds: Bounds of the cell; without one, or with a limit no longer than the duration, there is one look.

    Returns:
        Seconds since the first query, ascending.
    """
    times = [duration_s]
    while bounds and times[-1] < limit_s:
        times.append(min(2 * times[-1], limit_s))
    return times


def decide(
    bound: LatencyBound, samples: int, above: int, *, unanswered: bool, measured_s: float, look: int, looks: int
) -> LatencyBound:
    """Decide a bound, if the queries do.

    Args:
        bound: The percentile and its bound.
        samples: Queries so far.
        above: Those of them that took longer.
        unanswered: Whether queries got no answer: they come faster than the model answers.
        measured_s: How long they were measured.
        look: Number of this look, from 1.
        looks: Number of looks planned.
    """
    from scipy.special import bdtr, bdtrc

    error = ERROR / 2 / looks
    beyond = 1 - bound.q
    p_above = float(bdtrc(above - 1, samples, beyond))
    p_within = float(bdtr(above, samples, beyond))
    decided = "above" if unanswered or p_above <= error else "within" if p_within <= error else "undecided"
    needed = (
        samples_to_decide(samples, above, bound.q, ERROR / 2 / (looks + MORE_LOOKS))
        if decided == "undecided"
        else None
    )
    return bound.model_copy(
        update={
            "outcome": decided,
            "samples": samples,
            "above": above,
            "p_value": min(p_above, p_within),
            "error": error,
            "looks": look,
            "measured_s": measured_s,
            "needed_s": measured_s * needed / samples if needed else None,
        }
    )


def samples_to_decide(samples: int, above: int, q: float, error: float) -> int | None:
    """The number of queries that decide, if the share above the bound stays the same.

    Args:
        samples: Queries so far, at least one.
        above: Those of them above the bound.
        q: The percentile.
        error: Probability from which a side is decided.

    Returns:
        None where it is more than `FURTHEST` times the queries so far: the percentile lies at the bound.
    """
    from scipy.special import bdtr, bdtrc

    share, beyond = above / samples, 1 - q

    def decides(number: int) -> bool:
        if share > beyond:
            return bool(bdtrc(math.ceil(share * number) - 1, number, beyond) <= error)
        return bool(bdtr(math.floor(share * number), number, beyond) <= error)

    numbers = range(samples, FURTHEST * samples + 1)
    found = bisect_left(numbers, True, key=decides)  # not quite monotonous, since counts are whole: an estimate
    return numbers[found] if found < len(numbers) else None
