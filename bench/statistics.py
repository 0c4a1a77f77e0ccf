"""What a series of latencies says, and what it does not support."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxtool.reports.model import Bin, Latency, Percentile

NS = 1e9
"""Nanoseconds in a second."""

CONFIDENCE = 0.99
PERCENTILES = (0.5, 0.9, 0.99)
HISTOGRAM_BINS = 40
SERIES_POINTS = 120


def summarise(samples_ns: NDArray[np.int64], confidence: float = CONFIDENCE) -> Latency:
    """Summarise the latencies of one cell.

    Args:
        samples_ns: Latency of each run in ns, in the order of the runs, shape [runs], at least one.
        confidence: Of each percentile's interval.

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
    )


def percentile(ordered_ns: NDArray[np.int64], q: float, confidence: float) -> Percentile:
    """A percentile with its interval, or the reason why the samples do not support it.

    The value is the order statistic at rank ceil(n q) (the inverse of the empirical distribution function,
    definition 1 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996).

    Args:
        ordered_ns: Latencies in ns, ascending.
        q: The quantile, above 0 and below 1.
        confidence: Of the interval.
    """
    n = len(ordered_ns)
    ranks = interval_ranks(n, q, confidence)
    if ranks is None:
        needed = samples_needed(q, confidence)
        return Percentile(
            q=q,
            value_s=None,
            refused=f"p{q * 100:g} needs {needed} runs for an interval at {confidence:.0%} confidence; "
            f"there were {n}. Measure for longer.",
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
    """The least number of samples for which `interval_ranks` gives an interval.

    The greatest sample lies below the quantile with probability q**n, the least one above it with
    probability (1 - q)**n; each must be at most half of the error.
    """
    tail = (1 - confidence) / 2
    n = max(1, math.ceil(math.log(tail) / math.log(max(q, 1 - q))) - 1)
    while interval_ranks(n, q, confidence) is None:
        n += 1
    return n


def histogram(ordered_ns: NDArray[np.int64]) -> list[Bin]:
    """Bins for the plot: equal widths up to the 99th percentile, and one bin for the tail behind it.

    A few runs that the system interrupted take a thousand times as long as the others; equal bins up to
    the maximum would put all the rest into one. Edges are whole nanoseconds, so that no bin catches more
    of the clock's ticks than its neighbour.

    Args:
        ordered_ns: Latencies in ns, ascending.

    Returns:
        Bins in seconds, without gaps, that together hold every sample.
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
