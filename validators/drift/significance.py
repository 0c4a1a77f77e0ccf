"""Statistics of two models on the same rows: how sure a difference is. Nothing here knows of models.

All intervals are two-sided at `CONFIDENCE`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An interval, and how it was found."""

    low: float
    high: float
    method: str


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a proportion; its coverage is never below `confidence`.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934).
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return Interval(low, high, "exact (Clopper-Pearson)")


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test: whether two classifiers err equally often.

    Under the hypothesis each row that one of them alone gets right is as likely the first's as the second's.
    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12
    (1947).

    Args:
        first_only: Rows that only the first classifier gets right.
        second_only: Rows that only the second one gets right.
    """
    from scipy.stats import binomtest

    discordant = first_only + second_only
    return float(binomtest(first_only, discordant, 0.5).pvalue) if discordant else 1.0


def paired_accuracy(first_only: int, second_only: int, total: int) -> Interval:
    """Interval of the second classifier's accuracy less the first's, from Clopper-Pearson bounds of both parts.

    Each part's interval has half the error (Bonferroni), so that coverage is at least `CONFIDENCE`. Other than
    the bootstrap's, it does not shrink to nothing when no row was lost.
    """
    confidence = (1 + CONFIDENCE) / 2
    lost = clopper_pearson(first_only, total, confidence)
    won = clopper_pearson(second_only, total, confidence)
    return Interval(won.low - lost.high, won.high - lost.low, "exact (Clopper-Pearson)")


def bootstrap(
    counts: NDArray[np.int64], statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], draws: int = 2000
) -> Interval:
    """Percentile interval of a statistic of groups of rows, drawn with replacement.

    Groups of equal rows, or of one row each, make it the bootstrap over rows: how often each group is drawn is
    multinomial. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        counts: Number of rows in each group, [groups].
        statistic: From counts, [draws, groups], to one number a draw, [draws].
        draws: Number of draws.
    """
    total = int(counts.sum())
    rng = np.random.default_rng(0)
    share = counts / total
    size = max(1, 2**22 // len(counts))  # so many draws at a time, in memory that is bounded
    values = np.concatenate(
        [statistic(rng.multinomial(total, share, size=min(size, draws - done))) for done in range(0, draws, size)]
    )
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high), "paired bootstrap")


def paired_mean(differences: NDArray[np.float64], center: float, method: str) -> Interval:
    """Interval around `center` of a mean over independent rows, by the central limit theorem.

    Args:
        differences: The contribution of each row to the mean, [rows].
        center: The mean, or the statistic of which the rows are the influence.
        method: Name of the method, for the report.
    """
    from scipy.stats import t

    rows = len(differences)
    if rows < 2:
        return Interval(float("-inf"), float("inf"), method)
    half = float(t.ppf((1 + CONFIDENCE) / 2, rows - 1)) * float(differences.std(ddof=1)) / rows**0.5
    return Interval(center - half, center + half, method)


def auc_influence(truth: NDArray[np.intp], scores: NDArray[Any]) -> NDArray[np.float64]:
    """The contribution of each row to the area under the ROC curve, averaged over classes one against the rest.

    Influences average to 0. Their standard deviation over the root of the number of rows is the area's standard
    error, and so for the difference of two models' influences. Structural components after DeLong, DeLong and
    Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating characteristic curves",
    Biometrics 44 (1988), by ranks as in Sun and Xu, IEEE Signal Processing Letters 21 (2014).

    Args:
        truth: Class of each row, [rows]; every class must occur and none may be alone.
        scores: Score of each class, [rows, classes].

    Returns:
        Influence of each row, [rows].
    """
    from scipy.stats import rankdata

    rows, classes = scores.shape
    influence = np.zeros(rows)
    columns = range(classes) if classes > 2 else (1,)
    for column in columns:
        mine = truth == column
        positives = int(mine.sum())
        everywhere = rankdata(scores[:, column])
        within = np.empty(rows)
        within[mine] = rankdata(scores[mine, column])
        within[~mine] = rankdata(scores[~mine, column])
        beaten = everywhere - within  # of the other side: how many score less, ties by half
        component = np.where(mine, beaten / (rows - positives), 1 - beaten / positives)
        share = np.where(mine, positives / rows, 1 - positives / rows)
        influence += (component - component[mine].mean()) / share
    return influence / len(columns)
