"""The gate's errors, on recorded latencies of a busy machine and on synthetic ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from onnxtool.bench.gate import FEWEST, LOOKS, decide, outcome_of
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
    """Deal the blocks to two models as a run does, A slower by a factor, and judge at each look."""
    blocks = series.reshape(-1, 4)
    mirrored = rng.integers(2, size=(len(blocks), 1)).astype(bool)
    dealt = np.where(mirrored, blocks[:, [1, 2, 0, 3]], blocks[:, [0, 3, 1, 2]]) * [slowdown, slowdown, 1, 1]
    log_ratios = log_ratios_of(dealt)
    for share in LOOKS:
        seen = log_ratios[: max(1, int(share * len(log_ratios)))]
        if (len(seen) >= FEWEST or share == 1) and (found := decide(seen, 0.05, rng).outcome) != "inconclusive":
            return found
    return "inconclusive"


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


def test_few_quads_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    assert decide(np.full(FEWEST - 1, np.log(2)), 0.05, rng).outcome == "inconclusive"
    assert decide(np.full(FEWEST, np.log(2)), 0.05, rng).outcome == "fail"


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
    [(1.06, 1.1, "fail"), (0.9, 1.04, "pass"), (1.01, 1.06, "inconclusive"), (1.05, 1.1, "inconclusive")],
)
def test_the_whole_interval_decides(low: float, high: float, outcome: str) -> None:
    assert outcome_of(low, high, 0.05) == outcome
