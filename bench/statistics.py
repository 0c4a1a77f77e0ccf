"""Statistics of a series of latencies, and whether the samples support them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxtool.bench import changes
from onnxtool.reports.model import BatchSpread, Bin, Box, Change, Latency, Percentile

NS = 1e9
"""Nanoseconds in a second."""

CONFIDENCE = 0.99
PERCENTILES = (0.5, 0.9, 0.99)
HISTOGRAM_BINS = 40
SERIES_POINTS = 120
CHANGE_STRETCHES = 60
FEWEST_ROUNDS = 8
"""Rounds of all batches from which it is tested whether they differ."""

DRIFT = 0.05
"""Smallest change of the median, as a share, that is reported."""


def summarise(samples_ns: NDArray[np.int64], confidence: float = CONFIDENCE, batches: int = 1) -> Latency:
    """Summarise the latencies of one cell.

    Args:
        samples_ns: Latency of each run in ns, in the order of the runs, shape [runs], at least one.
        confidence: Confidence of each percentile's interval.
        batches: How many different batches were run in turn, from the first sample on.

    Returns:
        All times in seconds. The standard deviation is the sample's (n - 1), and 0 for a single run.
    """
    ordered = np.sort(samples_ns)
    return Latency(
        samples=len(ordered),
        mean_s=float(ordered.mean()) / NS,
        std_s=float(ordered.std(ddof=1)) / NS if len(ordered) > 1 else 0.0,
        min_s=int(ordered[0]) / NS,
        max_s=int(ordered[-1]) / NS,
        confidence=confidence,
        percentiles=[percentile(ordered, q, confidence) for q in PERCENTILES],
        histogram=histogram(ordered),
        series_s=series(samples_ns),
        box=box(ordered),
        change=change(samples_ns),
        between=between(samples_ns, batches),
    )


def between(samples_ns: NDArray[np.int64], batches: int) -> BatchSpread | None:
    """How the batches differ by their medians; None for a single one.

    Whether they differ at all is Friedman's test ("The use of ranks to avoid the assumption of normality implicit in
    the analysis of variance", JASA 32, 1937): each round ranks its batches, so that a slow round does
    not count. A batch that ran once does not show whether its row was slow, or the machine.

    Args:
        samples_ns: Latencies in ns, in the order of the runs.
        batches: How many were run in turn.
    """
    from scipy.stats import chi2, rankdata

    ran = min(batches, len(samples_ns))
    if ran < 2:
        return None
    low, high = np.quantile([np.median(samples_ns[place::batches]) for place in range(ran)], (0.05, 0.95))
    rounds = len(samples_ns) // batches
    p_value = None
    if rounds >= FEWEST_ROUNDS:
        ranks = rankdata(samples_ns[: rounds * batches].reshape(rounds, batches), axis=1)
        spread = ranks.var(axis=1, ddof=1).sum() / rounds  # of the ranks of a round; less than without ties
        statistic = (
            rounds * float(((ranks.mean(axis=0) - (batches + 1) / 2) ** 2).sum()) / spread if spread else 0.0
        )
        p_value = float(chi2.sf(statistic, batches - 1))
    return BatchSpread(batches=ran, low_s=float(low) / NS, high_s=float(high) / NS, p_value=p_value)


def percentile(ordered_ns: NDArray[np.int64], q: float, confidence: float) -> Percentile:
    """A percentile with its interval, or the reason why the samples do not support it.

    The value is the order statistic at rank ceil(n q) (the inverse of the empirical distribution function,
    definition 1 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996).

    Args:
        ordered_ns: Latencies in ns, ascending.
        q: The quantile, above 0 and below 1.
        confidence: Confidence of the interval.
    """
    n = len(ordered_ns)
    ranks = interval_ranks(n, q, confidence)
    needed = samples_needed(q, confidence)
    if ranks is None or n < needed:
        return Percentile(
            q=q,
            value_s=None,
            reason=f"p{q * 100:g} needs {needed} runs at {confidence:.0%} confidence; there were {n}. "
            "Measure for longer.",
        )
    low, high = ranks
    return Percentile(
        q=q,
        value_s=int(ordered_ns[math.ceil(n * q) - 1]) / NS,
        low_s=int(ordered_ns[low - 1]) / NS,
        high_s=int(ordered_ns[high - 1]) / NS,
    )


def interval_ranks(n: int, q: float, confidence: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the two order statistics that enclose a quantile, or None where one does not exist.

    The number of samples below the quantile is binomial whatever the distribution of the latencies, so
    P(X(low) <= quantile <= X(high)) >= P(low <= B <= high - 1) >= confidence with B ~ Binomial(n, q); each
    tail gets half of the error. Source: David and Nagaraja, "Order Statistics", 3rd edition 2003, section
    7.1; Hahn and Meeker, "Statistical Intervals", 1991, section 5.2. MLPerf's loadgen bounds its latency
    percentiles by the same binomial, at the same confidence of 0.99 ("Early Stopping" in its
    documentation). It assumes independent runs of one distribution: drift within the series makes the
    interval too narrow.

    Args:
        n: Number of samples.
        q: The quantile, above 0 and below 1.
        confidence: Least probability that the interval holds the quantile.
    """
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    low = int(binom.ppf(tail, n, q))
    high = int(binom.ppf(1 - tail, n, q)) + 1
    return (low, high) if low >= 1 and high <= n else None


def samples_needed(q: float, confidence: float) -> int:
    """The least number of samples from which a percentile is reported: the rule of MLPerf's loadgen.

    Its early stopping (`loadgen/early_stopping.cc` of mlcommons/inference) gives the sample above which t lie as
    an estimate if, were the percentile any higher, t or fewer above it would have a probability of at most
    1 - confidence. It begins with t = 1, so that the greatest sample, which may be anything, is no estimate: n is
    the least for which P(Binomial(n, 1 - q) <= 1) <= 1 - confidence, and at 0.99 it is 64 for p90, 662 for p99. From
    there on `interval_ranks`, which halves the error between two ends but needs no sample to spare (51 and 528),
    has an interval as well.
    """
    from scipy.stats import binom

    beyond = min(q, 1 - q)
    fewest = max(2, math.ceil(math.log(1 - confidence) / math.log(1 - beyond)))  # were t = 0 enough
    candidates = range(fewest, 8 * fewest)
    return candidates[bisect_left(candidates, True, key=lambda n: binom.cdf(1, n, beyond) <= 1 - confidence)]


def box(ordered_ns: NDArray[np.int64]) -> Box:
    """The box plot of latencies in ns, ascending (Tukey, "Exploratory Data Analysis", 1977, chapter 2)."""
    q1, q3 = np.quantile(ordered_ns, (0.25, 0.75))
    reach = 1.5 * (q3 - q1)
    within = ordered_ns[(ordered_ns >= q1 - reach) & (ordered_ns <= q3 + reach)]
    deviation = ordered_ns.std(ddof=1) if len(ordered_ns) > 1 else 0.0
    return Box(
        q1_s=float(q1) / NS,
        q3_s=float(q3) / NS,
        low_s=int(within[0]) / NS,
        high_s=int(within[-1]) / NS,
        outliers=len(ordered_ns) - len(within),
        beyond_std=int((abs(ordered_ns - ordered_ns.mean()) > deviation).sum()),
    )


def change(samples_ns: NDArray[np.int64]) -> Change | None:
    """The lasting change of the latency by more than `DRIFT`, if any, from medians of up to 60 stretches.

    Args:
        samples_ns: Latencies in ns, in the order of the runs.
    """
    stretches = min(CHANGE_STRETCHES, len(samples_ns))
    if stretches < changes.FEWEST:
        return None
    medians = np.array([np.median(part) for part in np.array_split(samples_ns, stretches)])
    at, p_value = changes.change_point(medians)
    if p_value > changes.SIGNIFICANCE or not changes.differs(medians, at, DRIFT):
        return None
    return Change(
        at=at / stretches,
        before_s=float(np.median(medians[:at])) / NS,
        after_s=float(np.median(medians[at:])) / NS,
        p_value=p_value,
    )


def histogram(ordered_ns: NDArray[np.int64]) -> list[Bin]:
    """Bins for the plot: equal widths up to the 99th percentile, and one bin for the tail behind it.

    A few runs that the system interrupted take a thousand times as long as the others; equal bins up to
    the maximum would put all the rest into one. Edges are whole nanoseconds, so that no bin catches more
    of the clock's ticks than its neighbour.

    Args:
        ordered_ns: Latencies in ns, ascending.

    Returns:
        Bins in seconds, without gaps, that together contain every sample.
    """
    low, end = int(ordered_ns[0]), int(ordered_ns[-1]) + 1
    bulk = int(ordered_ns[math.ceil(len(ordered_ns) * 0.99) - 1]) + 1
    width = math.ceil((bulk - low) / HISTOGRAM_BINS)
    edges = [*range(low, bulk, width), bulk]
    if end > bulk:
        edges.append(end)
    ranks: Sequence[int] = np.searchsorted(ordered_ns, edges).tolist()
    return [
        Bin(low=edges[i] / NS, high=edges[i + 1] / NS, count=ranks[i + 1] - ranks[i])
        for i in range(len(edges) - 1)
    ]


def series(samples_ns: NDArray[np.int64]) -> list[float]:
    """Medians in seconds of consecutive runs of nearly equal number, at most `SERIES_POINTS` of them."""
    parts = np.array_split(samples_ns, min(SERIES_POINTS, len(samples_ns)))
    return [float(np.median(part)) / NS for part in parts]
