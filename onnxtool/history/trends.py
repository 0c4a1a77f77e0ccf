"""Changes of a number over commits, and its recent level.

Change points are those of `bench.changes`, Pettitt's, in the whole and in windows of it, found one after the other
(seeded binary segmentation: Kovacs and others, Biometrika 110, 2023): alone, the test overlooks what goes up and
comes down again. A change is placed by least absolute deviations. Its size is Hodges and Lehmann's estimate with its
interval (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition, 4.2 and 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxtool.bench.changes import change_point
from onnxtool.bench.gate import outcome_of
from onnxtool.history.runs import Series
from onnxtool.reports.findings import SOURCE, cell_name, percentile
from onnxtool.reports.model import Bench, Cell, Comparison

SIGNIFICANCE = 0.02
"""Of a change point, half of it for the whole series. Runs are few: 16 in which the last 8 are slower reach it."""

_FEWEST = 8

EFFECT = 0.05
"""Smallest change of a noisy number that is shown, as a share."""

CONFIDENCE = 0.95

LEVEL_RUNS = 20
"""Runs, the last ones, that make the recent level."""

FEWEST_LEVEL = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A lasting change of a number.

    Attributes:
        at: Number of runs before it.
        before: Median of the runs before it, since the last change.
        after: Median of the runs after it, until the next change.
        ratio: After over before; None where numbers are not all above 0.
        low: Lower end of the ratio's 95 % interval; the ratio itself where the number has no noise.
        high: Upper end.
        first: The last commit before the change.
        last: The first commit after it: what changed is in `first..last`.
    """

    at: int
    before: float
    after: float
    ratio: float | None
    low: float | None
    high: float | None
    first: str
    last: str


def changes(series: Series) -> list[Change]:
    """The lasting changes of a number over commits."""
    values = np.asarray(series.values, dtype=np.float64)
    steps = [place for place in range(1, len(values)) if values[place] != values[place - 1]]
    exact = len(steps) <= max(1, len(values) // 10)  # a size, a count: it has no noise, and any step is a change
    places = steps if exact else _placed(values, sorted(_split(values, 0)))
    edges = [0, *places, len(values)]
    return [
        _change(series, edges[index - 1], edges[index], edges[index + 1], exact=exact)
        for index in range(1, len(edges) - 1)
    ]


def _split(values: NDArray[np.float64], start: int) -> list[int]:
    """Places of changes: the clearest of all windows first, then those in the parts to its sides."""
    windows = [(low, high) for low, high in _windows(len(values)) if high - low >= _FEWEST]
    found = []
    for low, high in windows:
        at, p_value = change_point(values[low:high])
        before, after = float(np.median(values[low : low + at])), float(np.median(values[low + at : high]))
        # Half of what may err is for the whole: it finds a single change in fewest runs.
        allowed = SIGNIFICANCE / 2 / (1 if high - low == len(values) else len(windows) - 1)
        if p_value <= allowed and abs(after - before) > EFFECT * min(abs(before), abs(after)):
            found.append((p_value, low + at))
    if not found:
        return []
    at = min(found)[1]
    return [start + at, *_split(values[:at], start), *_split(values[at:], start + at)]


def _placed(values: NDArray[np.float64], places: list[int]) -> list[int]:
    """The same changes, each where the two medians fit best: ranks say that there is one, and place it inwards."""
    for index, _ in enumerate(places):
        low, _, high = [0, *places, len(values)][index : index + 3]

        def misfit(at: int, low: int = low, high: int = high) -> float:
            parts = (values[low:at], values[at:high])
            return float(sum(np.abs(part - np.median(part)).sum() for part in parts))

        places[index] = min(range(low + 1, high), key=misfit)
    return places


def _windows(length: int) -> list[tuple[int, int]]:
    """The whole, and windows of it, each size smaller than the last by the root of 2, that overlap by half."""
    found = [(0, length)]
    size = length / math.sqrt(2)
    while size >= 2 * _FEWEST:
        count = 2 * math.ceil(length / size) - 1
        found += [(round(place), round(place + size)) for place in np.linspace(0, length - size, count)]
        size /= math.sqrt(2)
    return found


def _change(series: Series, start: int, at: int, stop: int, *, exact: bool) -> Change:
    before, after = np.array(series.values[start:at]), np.array(series.values[at:stop])
    ratio = low = high = None
    if min(before.min(), after.min()) > 0:
        if exact:
            ratio = low = high = float(after[0] / before[-1])
        else:
            ratio, low, high = ratio_interval(before, after)
    first, last = series.commits[at - 1], series.commits[at]
    return Change(at, float(np.median(before)), float(np.median(after)), ratio, low, high, first, last)


def ratio_interval(before: ArrayLike, after: ArrayLike) -> tuple[float, float, float]:
    """How many times larger the one sample is than the other: Hodges and Lehmann's estimate on logarithms.

    Args:
        before: Above 0, shape [m].
        after: Above 0, shape [n].

    Returns:
        The ratio, and its 95 % interval by the large-sample approximation. Where the samples are too small for the
        interval, it is from 0 to infinity.
    """
    from scipy.special import ndtri  # not scipy.stats, whose import takes longer than all of ours

    ratios = np.sort(np.subtract.outer(np.log(after), np.log(before)), axis=None)
    m, n = len(np.asarray(before)), len(np.asarray(after))
    spread = float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt(m * n * (m + n + 1) / 12)
    rank = math.floor(m * n / 2 - spread)
    low, high = (ratios[rank - 1], ratios[m * n - rank]) if rank >= 1 else (-math.inf, math.inf)
    return float(np.exp(np.median(ratios))), float(np.exp(low)), float(np.exp(high))


def level(series: Series) -> list[float]:
    """The recent values: those since the last change, 20 at most."""
    found = changes(series)
    return series.values[found[-1].at if found else 0 :][-LEVEL_RUNS:]


def compare_with_level(
    bench: Bench, history: Sequence[Series], *, against: str, effect: float
) -> list[Comparison]:
    """Compare the median of each cell with its recent level.

    The ratio's interval is the 99 % prediction interval of one more run (Student's, on logarithms, with the median
    and the median absolute deviation for mean and deviation), so that the noise between runs is in it.

    Args:
        bench: The measurements of this run.
        history: The series of this model on this machine.
        against: Name of the history.
        effect: The smallest slowdown that matters: 0.05 is 5 %.
    """
    by_name = {series.name: series for series in history}
    cells = [cell for cell in bench.cells if cell.provider != SOURCE]
    return [_against_level(cell, by_name.get(f"bench/{cell_name(cell)}/p50_s"), against, effect) for cell in cells]


def _against_level(cell: Cell, series: Series | None, against: str, effect: float) -> Comparison:
    comparison = Comparison(
        against=against,
        method="baseline",
        provider=cell.provider,
        batch=cell.batch,
        threads=cell.threads,
        dims=cell.dims,
        effect=effect,
        outcome="undecided",
    )
    recent = level(series) if series else []
    now = percentile(cell, 0.5)
    if len(recent) < FEWEST_LEVEL:
        comparison.reason = (
            f"The history has {len(recent)} runs of this cell on this machine and branch since its last change, and "
            f"needs {FEWEST_LEVEL}. Add reports with: onnxtool history add"
        )
    elif now is None or not now.value_s:
        comparison.reason = "The median is not known: the cell was not measured, or had too few runs."
    else:
        from scipy.special import stdtrit

        logs = np.log(recent)
        middle = float(np.median(logs))
        deviation = 1.4826 * float(np.median(np.abs(logs - middle)))
        width = float(stdtrit(len(recent) - 1, 0.995)) * deviation * math.sqrt(1 + 1 / len(recent))
        comparison.median_s, comparison.against_median_s = now.value_s, math.exp(middle)
        comparison.ratio = now.value_s / math.exp(middle)
        comparison.low, comparison.high = (comparison.ratio * math.exp(side * width) for side in (-1, 1))
        comparison.confidence = 0.99
        comparison.outcome = outcome_of(comparison.low, comparison.high, effect)
        if comparison.outcome == "undecided":
            comparison.reason = "Runs of the history differ by as much. Measure for longer, or use --against."
    return comparison
