"""The gate's errors, on recorded latencies of a busy machine and on synthetic ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, wilcoxon

from onnxtool.bench.gate import (
    CONFIDENCE,
    FEWEST,
    LOOKS,
    decide,
    outcome_of,
    quads_for_an_interval,
    signed_rank_interval,
)
from onnxtool.bench.paired import log_ratios_of

Floats = NDArray[np.float64]
RECORDED = np.load(Path(__file__).parent / "data" / "busy_blocks.npz")
QUADS = 320


def recorded(name: str, rng: np.random.Generator) -> Floats:
    """A stretch of one model's blocks on busy cores, begun anywhere."""
    blocks = RECORDED[name].astype(np.float64)
    return np.roll(blocks, -4 * int(rng.integers(len(blocks) // 4)))[: 4 * QUADS]


def drifting(rng: np.random.Generator) -> Floats:
    """A clock that loses a third of its speed within the run, in a line and then in steps."""
    slope = np.linspace(1, 1.3, 4 * QUADS)
    steps = np.repeat(rng.choice([1.0, 1.2], 4 * QUADS // 32), 32)
    return 100 * slope * steps * rng.lognormal(0, 0.02, 4 * QUADS)


def bursting(rng: np.random.Generator) -> Floats:
    """Every tenth stretch of five blocks takes up to ten times as long."""
    bursts = np.repeat(np.where(rng.random(4 * QUADS // 5) < 0.1, rng.uniform(2, 10, 4 * QUADS // 5), 1), 5)
    return 100 * bursts * rng.lognormal(0, 0.03, 4 * QUADS)


SERIES = {
    "small": lambda rng: recorded("small", rng),
    "large": lambda rng: recorded("large", rng),
    "drift": drifting,
    "bursts": bursting,
}


def simulate(series: Floats, slowdown: float, rng: np.random.Generator) -> str:
    """Give the blocks to two models as a run does, A slower by a factor, and decide at each look."""
    blocks = series.reshape(-1, 4)
    mirrored = rng.integers(2, size=(len(blocks), 1)).astype(bool)
    dealt = np.where(mirrored, blocks[:, [1, 2, 0, 3]], blocks[:, [0, 3, 1, 2]]) * [slowdown, slowdown, 1, 1]
    log_ratios = log_ratios_of(dealt)
    for share in LOOKS:
        seen = log_ratios[: max(1, int(share * len(log_ratios)))]
        if (len(seen) >= quads_for_an_interval() or share == 1) and (
            found := decide(seen, 0.05, rng).outcome
        ) != "undecided":
            return found
    return "undecided"


def count(name: str, slowdown: float, outcome: str, runs: int) -> int:
    rng = np.random.default_rng(5)
    return sum(simulate(SERIES[name](rng), slowdown, rng) == outcome for _ in range(runs))


@pytest.mark.parametrize("name", SERIES)
def test_identical_models_raise_no_alarm(name: str) -> None:
    alarms = count(name, 1.0, "fail", 300)
    # 300 runs without an alarm bound the rate by 1 % at a confidence of 95 %
    assert binomtest(alarms, 300, alternative="less").proportion_ci(0.95).high <= 0.01


@pytest.mark.parametrize("name", SERIES)
def test_a_slowdown_of_10_percent_is_found(name: str) -> None:
    found = count(name, 1.1, "fail", 100)
    # 99 of 100 bound the rate from below by 95 % at a confidence of 95 %
    assert binomtest(found, 100, alternative="greater").proportion_ci(0.95).low >= 0.95


def test_at_the_smallest_effect_itself_alarms_stay_rare() -> None:
    """The hardest case: a slowdown of exactly the effect lets each look err as often as it may."""
    alarms = count("drift", 1.05, "fail", 300)
    assert binomtest(alarms, 300, 0.01, alternative="greater").pvalue > 0.001


def test_few_quads_decide_by_an_exact_test() -> None:
    """A model twice as slow: of 11 quads all above, the probability is 2**-11 a side, less than a look's error."""
    rng = np.random.default_rng(0)
    fewest = quads_for_an_interval()
    assert fewest == 11 and 2.0**-11 <= (1 - CONFIDENCE) / 2 < 2.0**-10
    twice = np.log(2) + rng.normal(0, 0.05, FEWEST)
    assert decide(twice[:fewest], 0.05, rng).outcome == decide(twice, 0.05, rng).outcome == "fail"
    assert decide(-twice[:fewest], 0.05, rng).outcome == "pass"
    before = decide(twice[: fewest - 1], 0.05, rng)
    assert (before.outcome, before.low, before.high) == ("undecided", None, None)
    assert before.needed == pytest.approx(1.1) and before.ratio == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("quads", [11, 20, 39])
def test_few_quads_of_equal_models_raise_no_alarm(quads: int) -> None:
    """At the smallest effect itself, with the wild tails of Student's t of 2 degrees."""
    rng = np.random.default_rng(quads)
    data = np.log(1.05) + 0.02 * rng.standard_t(2, (2000, quads))
    alarms = sum(decide(row, 0.05, rng).outcome == "fail" for row in data)
    assert binomtest(alarms, len(data), (1 - CONFIDENCE) / 2, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize("n", [8, 9, 10])
def test_the_exact_interval_is_that_of_scipys_test(n: int, confidence: float) -> None:
    """A shift lies within it where scipy's exact signed-rank test does not refuse it."""
    data = np.random.default_rng(n).normal(0.3, 1, n)
    centre, ends = signed_rank_interval(data, confidence)
    assert ends is not None and ends[0] <= centre <= ends[1]
    for shift in np.linspace(-3, 3, 211):
        refused = wilcoxon(data - shift, method="exact").pvalue <= 1 - confidence
        assert refused == (not ends[0] < shift < ends[1]) or min(abs(np.array(ends) - shift)) < 1e-9


def test_what_is_missing_to_a_decision_is_estimated() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(np.log(1.05) + 0.004, 0.02, 4000)
    few = decide(data[:200], 0.05, rng)
    assert few.outcome == "undecided" and few.needed is not None
    assert decide(data[: int(3 * 200 * few.needed)], 0.05, rng).outcome == "fail"
    assert decide(np.full(50, np.log(1.05)) + np.tile([-0.1, 0.1], 25), 0.05, rng).needed is None


def test_wild_quads_do_not_move_the_ratio() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(np.log(1.1), 0.01, 100)
    data[::10] = 3.0
    assert decide(data, 0.05, rng).ratio == pytest.approx(1.1, rel=0.01)


def test_a_linear_drift_cancels_within_a_quad() -> None:
    time = np.exp(np.arange(4) * 0.01)  # linear in the logarithm
    assert log_ratios_of(time[None, [0, 3, 1, 2]])[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (1.06, 1.1, "fail"),
        (0.9, 1.04, "pass"),
        (1.01, 1.06, "undecided"),
        (1.05, 1.1, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, outcome: str) -> None:
    assert outcome_of(low, high, 0.05) == outcome
