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

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]

LOOKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the budget after which the data are evaluated."""

ERROR = 0.01
"""Probability that any of the looks decides wrongly. Each gets an equal part of it (Bonferroni), which holds
however the looks depend on each other. A wrong alarm is one tail of it: half."""

CONFIDENCE = 1 - ERROR / len(LOOKS)
"""Of the interval at each look."""

FEWEST = 40
"""Quads below which nothing is decided: a bootstrap of a small sample is too narrow in its far tails."""

BATCHES = 200
RESAMPLES = 10_000
TRIMMED = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """What the data say at one look: the ratio of the latencies, A's over B's, its interval, and the outcome."""

    ratio: float
    low: float
    high: float
    outcome: Outcome


def decide(log_ratios: NDArray[np.float64], effect: float, rng: np.random.Generator) -> Decision:
    """Compare the ratio with the smallest effect that matters.

    The location is the mean trimmed by 20 % at each end: bursts of other processes make single quads wild, in
    either direction. Its interval is that of the percentile bootstrap (Efron and Tibshirani, "An Introduction to
    the Bootstrap", 1993, chapter 13), with the trimming that Wilcox advises for it ("Introduction to Robust
    Estimation and Hypothesis Testing", 4th edition 2017, chapter 4). Of more than 200 quads, medians of
    consecutive ones are resampled, so that what is left of serial dependence stays within them (batch means).

    Args:
        log_ratios: One datum of each quad, in their order, shape [quads], at least one.
        effect: The smallest slowdown that matters: 0.05 is 5 %.
        rng: Of the bootstrap.

    Returns:
        `fail` where the whole interval lies above 1 + effect, `pass` where it lies below, `inconclusive` otherwise
        and below `FEWEST` quads.
    """
    data = log_ratios
    if len(data) > BATCHES:
        data = np.array([np.median(part) for part in np.array_split(data, BATCHES)])
    resampled = data[rng.integers(len(data), size=(RESAMPLES, len(data)))]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(_trimmed_mean(resampled), (tail, 1 - tail)))
    ratio = float(np.exp(_trimmed_mean(data)))
    return Decision(
        ratio, float(low), float(high), outcome_of(low, high, effect, enough=len(log_ratios) >= FEWEST)
    )


def outcome_of(low: float, high: float, effect: float, *, enough: bool = True) -> Outcome:
    """What an interval of the ratio says of a slowdown by `effect`."""
    if enough and low > 1 + effect:
        return "fail"
    if enough and high < 1 + effect:
        return "pass"
    return "inconclusive"


def _trimmed_mean(data: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis."""
    cut = int(TRIMMED * data.shape[-1])
    return np.asarray(np.sort(data, axis=-1)[..., cut : data.shape[-1] - cut].mean(axis=-1))
