"""Change points of a series: the end of a warm-up, a processor that slows down, a load that comes or goes.

Pettitt's test ("A non-parametric approach to the change-point problem", Applied Statistics 28, 1979) looks at
ranks alone, so neither the heavy tail of latencies nor single interruptions count for more than their place in
the order. That a warm-up is over is a matter of change points, not of a coefficient of variation: Barrett and
others, "Virtual Machine Warmup Blows Hot and Cold", OOPSLA 2017; Traini and others, "Towards effective
assessment of steady state performance in Java software", Empirical Software Engineering 28, 2023. They segment
with PELT, which needs a model of the noise and a penalty; one change at a time is enough here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGNIFICANCE = 0.001
"""Of each test. Medians of neighbouring windows depend on each other a little, hence less than the usual 0.01."""

FEWEST = 20
"""Fewest values for a change to be searched: with fewer, even a clean step hardly differs from chance."""


def change_point(values: ArrayLike) -> tuple[int, float]:
    """The likeliest place of a single change.

    Args:
        values: In their order, shape [n], n at least 2.

    Returns:
        The number of values before it, and the probability of a change as marked in a series without one
        (Pettitt's approximation, at most 1).
    """
    series = np.asarray(values, dtype=np.float64)
    n = len(series)
    # U of the first t values: twice their rank sum, less what it is on average. Ties share their ranks.
    _, inverse, counts = np.unique(series, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    statistic = np.abs(2 * np.cumsum(ranks) - np.arange(1, n + 1) * (n + 1))[:-1]
    at = int(np.argmax(statistic))
    return at + 1, min(1.0, 2 * math.exp(-6 * float(statistic[at]) ** 2 / (n**3 + n**2)))


def last_change(values: ArrayLike, smallest: float) -> int:
    """The number of values before the last change that is significant and larger than a share of the median.

    Args:
        values: Above 0, in their order, shape [n].
        smallest: Share by which the medians on both sides must differ.

    Returns:
        0 where there is none.
    """
    series = np.asarray(values, dtype=np.float64)
    start = 0
    while len(rest := series[start:]) >= FEWEST:
        at, p_value = change_point(rest)
        if p_value > SIGNIFICANCE or not differs(rest, at, smallest):
            break
        start += at
    return start


def differs(series: NDArray[np.float64], at: int, smallest: float) -> bool:
    """Whether the medians before and after a place differ by more than a share of the smaller one."""
    before, after = sorted((float(np.median(series[:at])), float(np.median(series[at:]))))
    return after > (1 + smallest) * before
