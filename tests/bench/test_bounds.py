"""Bounds of a percentile: exact tests of counts."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from onnxtool.bench.bounds import ERROR, decide, look_times, samples_to_decide
from onnxtool.bench.plan import plan_cells
from onnxtool.bench.statistics import percentile
from onnxtool.cli import cli
from onnxtool.errors import UsageError
from onnxtool.reports.model import LatencyBound

BOUND = LatencyBound(q=0.99, bound_s=1e-3)


def decided(
    samples: int, above: int, q: float = 0.99, *, looks: int = 1, unanswered: bool = False
) -> LatencyBound:
    bound = LatencyBound(q=q, bound_s=1e-3)
    return decide(bound, samples, above, unanswered=unanswered, measured_s=2.0, look=1, looks=looks)


@pytest.mark.parametrize(
    ("samples", "above", "q", "outcome"),
    [
        (1, 1, 0.99, "undecided"),
        (2, 2, 0.99, "above"),  # 1e-4
        (3, 3, 0.9, "above"),
        (2, 2, 0.9, "undecided"),
        (7, 7, 0.5, "undecided"),
        (8, 8, 0.5, "above"),
        (100, 50, 0.99, "above"),  # half of the queries decide p99 long before p50
        (100, 50, 0.5, "undecided"),
        (527, 0, 0.99, "undecided"),
        (528, 0, 0.99, "within"),
        (8, 0, 0.5, "within"),
        (100_000, 1000, 0.99, "undecided"),
    ],
)
def test_counts_decide(samples: int, above: int, q: float, outcome: str) -> None:
    found = decided(samples, above, q)
    assert found.outcome == outcome
    sides = [binomtest(above, samples, 1 - q, side).pvalue for side in ("greater", "less")]
    assert found.p_value == pytest.approx(min(sides), rel=1e-6)


def test_queries_without_an_answer_are_above_any_bound() -> None:
    assert decided(1000, 0, unanswered=True).outcome == "above"


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_interval_of_the_percentile_says_the_same(seed: int, q: float) -> None:
    """Both are the same binomial, read in two ways."""
    rng = np.random.default_rng(seed)
    ordered = np.sort(rng.lognormal(13, 0.3, 2000).astype(np.int64))
    bound_ns = int(np.exp(rng.normal(13, 1)))
    entry = percentile(ordered, q, 0.99)
    found = decided(len(ordered), int((ordered > bound_ns).sum()), q).outcome
    assert entry.low_s is not None and entry.high_s is not None
    if entry.low_s > bound_ns / 1e9:
        assert found == "above"
    if entry.high_s <= bound_ns / 1e9:
        assert found == "within"
    if found == "above":
        assert entry.high_s > bound_ns / 1e9
    if found == "within":
        assert entry.low_s <= bound_ns / 1e9


@pytest.mark.parametrize("share", [0.01, 0.009, 0.011])
def test_looking_again_and_again_errs_no_more_often(share: float) -> None:
    """The percentile at its bound, or next to it: wrong decisions over all looks together."""
    rng = np.random.default_rng(7)
    times = look_times(1.0, 64.0, [BOUND])
    wrong, runs = 0, 1000
    for _ in range(runs):
        above = samples = 0
        for look, (begin, end) in enumerate(zip([0.0, *times[:-1]], times, strict=True), 1):
            more = int(200 * (end - begin))
            above, samples = above + int(rng.binomial(more, share)), samples + more
            found = decide(
                BOUND, samples, above, unanswered=False, measured_s=end, look=look, looks=len(times)
            ).outcome
            if found != "undecided":
                wrong += found == ("above" if share <= 0.01 else "within")
                break
    assert binomtest(wrong, runs, ERROR / 2, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize(
    ("samples", "above", "q", "needed"),
    [(1, 1, 0.99, 2), (10, 0, 0.99, 528), (10, 5, 0.5, None), (1000, 10, 0.99, None)],
)
def test_what_would_decide_is_estimated(samples: int, above: int, q: float, needed: int | None) -> None:
    assert samples_to_decide(samples, above, q, ERROR / 2) == needed


@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.99]))
def test_an_estimate_decides_when_it_comes_true(samples: int, share: float, q: float) -> None:
    above = int(share * samples)
    found = samples_to_decide(samples, above, q, ERROR / 2)
    if found is not None and found > samples:
        assert decided(2 * found, round(2 * found * above / samples), q).outcome != "undecided"


def test_looks_come_as_the_time_doubles() -> None:
    assert look_times(2.0, 60.0, [BOUND]) == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert look_times(2.0, 1.0, [BOUND]) == look_times(2.0, 60.0, []) == [2.0]


@pytest.mark.parametrize("bounds", [{1.0: 1e-3}, {0.0: 1e-3}, {0.99: 0.0}, {0.99: float("nan")}])
def test_what_is_no_bound_is_refused(bounds: dict[float, float]) -> None:
    with pytest.raises(UsageError, match="bound of the latency"):
        plan_cells(["CPUExecutionProvider"], [1], [None], bounds=bounds)


@pytest.mark.parametrize("text", ["p0=1ms", "p100=1ms", "x=1ms", "p95=5", "soon"])
def test_what_is_no_bound_on_the_command_line_is_refused(text: str, tmp_path) -> None:
    with pytest.raises(UsageError, match="--latency-bound"):
        CliRunner().invoke(
            cli, ["bench", str(tmp_path), "--latency-bound", text], standalone_mode=False, catch_exceptions=False
        )
