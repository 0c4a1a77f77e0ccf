"""Whether one model is slower than another: the statistics of paired blocks.

A quad is four short blocks of runs, A B B A or B A A B by the toss of a coin; its datum is the mean of log(A)
less that of log(B), each block by its median run. The mirror cancels a drift that is linear over the quad, which
is what a clock that slows down amounts to over some milliseconds. The coin makes the data of two equal models
symmetric about 0 whatever the machine does in the meantime: swapping the names is the toss itself (the
randomisation argument of R. A. Fisher, "The Design of Experiments", 1935, sections 20 and 21). Ratios of means,
which the field prefers (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013), move with
every run that the system interrupts; here the question is the model, not its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Outcome: TypeAlias = Literal["pass", "fail", "undecided"]

LOOKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the budget after which the data are evaluated."""

ERROR = 0.01
"""Probability that any of the looks decides wrongly. Each gets an equal part of it (Bonferroni), which holds
however the looks depend on each other. A wrong alarm is one tail of it: half."""

CONFIDENCE = 1 - ERROR / len(LOOKS)
"""Of the interval at each look."""

FEWEST = 40
"""Quads below which the interval is an exact one: a bootstrap of a small sample is too narrow in its far tails."""

FURTHEST = 1000
"""A decision that takes more than so many times the quads measured is not worth naming."""

BATCHES = 200
RESAMPLES = 10_000
TRIMMED = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """The result at one look at the data.

    Attributes:
        ratio: Ratio of the latencies, A's over B's.
        low: Lower end of its interval; None where the quads are too few for one.
        high: Upper end.
        outcome: The outcome for the smallest effect, by the interval.
        needed: How many times as many quads would decide, were the ratio to stay what it is; None where it is
            decided, or `FURTHEST` times as many would not.
    """

    ratio: float
    low: float | None
    high: float | None
    outcome: Outcome
    needed: float | None = None


def decide(log_ratios: NDArray[np.float64], effect: float, rng: np.random.Generator) -> Decision:
    """Compare the ratio with the smallest effect that matters.

    The location is the mean trimmed by 20 % at each end: bursts of other processes make single quads wild, in
    either direction. Its interval is that of the percentile bootstrap (Efron and Tibshirani, "An Introduction to
    the Bootstrap", 1993, chapter 13), with the trimming that Wilcox advises for it ("Introduction to Robust
    Estimation and Hypothesis Testing", 4th edition 2017, chapter 4). Of more than 200 quads, medians of
    consecutive ones are resampled, so that what is left of serial dependence stays within them (batch means).

    Fewer than `FEWEST` quads have the exact interval of `signed_rank_interval` about their Hodges-Lehmann estimate.

    Args:
        log_ratios: One datum of each quad, in their order, shape [quads], at least one.
        effect: The smallest slowdown that matters: 0.05 is 5 %.
        rng: Random generator of the bootstrap.

    Returns:
        `fail` where the whole interval lies above 1 + effect, `pass` where it lies below, `undecided` otherwise.
    """
    if len(log_ratios) < FEWEST:
        centre, ends = signed_rank_interval(log_ratios, CONFIDENCE)
    else:
        centre, ends = _bootstrap_interval(log_ratios, rng)
    low, high = np.exp(ends).tolist() if ends else (None, None)
    outcome = outcome_of(low, high, effect)
    needed = _needed(centre, ends, effect, len(log_ratios)) if outcome == "undecided" else None
    return Decision(float(np.exp(centre)), low, high, outcome, needed)


def signed_rank_interval(data: NDArray[np.float64], confidence: float) -> tuple[float, tuple[float, float] | None]:
    """The centre of a symmetric distribution, with its exact interval by Wilcoxon's signed-rank test.

    The estimate is the median of the means of all pairs, the interval a pair of their order statistics (Hollander,
    Wolfe and Chicken, "Nonparametric Statistical Methods", 3rd edition 2014, sections 3.2 and 3.3). The test is one
    of permutations: of the signs, which a coin has dealt.

    Args:
        data: Shape [n], at least one.
        confidence: Confidence of the interval.

    Returns:
        The estimate, and the interval; None where n is too small for one: 2**-n is the smallest error of a side.
    """
    rows, columns = np.triu_indices(len(data))
    means = np.sort((data[rows] + data[columns]) / 2)
    place = int(np.searchsorted(_rank_sums(len(data)), (1 - confidence) / 2, side="right"))
    centre = float(np.median(means))
    return centre, (float(means[place - 1]), float(means[-place])) if place else None


@cache
def _rank_sums(n: int) -> NDArray[np.float64]:
    """Distribution function of the sum of the ranks from 1 to n that a fair coin picks, at 0, 1, 2 and so on."""
    ways = np.ones(1)  # of each sum to come about, as the coin is tossed for one rank after the other
    for rank in range(1, n + 1):
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways
        longer[rank:] += ways
        ways = longer
    return np.cumsum(ways) / 2.0**n


def quads_for_an_interval() -> int:
    """The fewest quads that have an interval at `CONFIDENCE`."""
    return math.ceil(math.log2(2 / (1 - CONFIDENCE)))


def _needed(centre: float, ends: tuple[float, float] | None, effect: float, quads: int) -> float | None:
    """The factor by which more quads decide: intervals shrink with the root of the number."""
    fewest = quads_for_an_interval() / quads
    if ends is None:
        return fewest
    limit = math.log1p(effect)
    width = centre - ends[0] if centre > limit else ends[1] - centre
    distance = abs(centre - limit)
    needed = (width / distance) ** 2 if distance else math.inf
    return max(1.0, needed) if needed <= FURTHEST else None


def _bootstrap_interval(
    log_ratios: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """The trimmed mean with its interval, from at least `FEWEST` quads."""
    data = log_ratios
    if len(data) > BATCHES:
        data = np.array([np.median(part) for part in np.array_split(data, BATCHES)])
    ordered = np.sort(data)
    cut = int(TRIMMED * len(data))
    kept = slice(cut, len(data) - cut)
    ranks = np.argsort(np.argsort(data)).astype(np.int16)  # at most BATCHES; they sort faster than the data
    resampled = np.sort(ranks[rng.integers(len(data), size=(RESAMPLES, len(data)))], axis=-1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ordered[resampled[:, kept]].mean(axis=-1), (tail, 1 - tail))
    return float(ordered[kept].mean()), (float(low), float(high))


def outcome_of(low: float | None, high: float | None, effect: float) -> Outcome:
    """The outcome for a slowdown by `effect`, from an interval of the ratio, if there is one."""
    if low is not None and low > 1 + effect:
        return "fail"
    if high is not None and high < 1 + effect:
        return "pass"
    return "undecided"
