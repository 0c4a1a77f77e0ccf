from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from onnxtool.bench.statistics import (
    HISTOGRAM_BINS,
    SERIES_POINTS,
    histogram,
    interval_ranks,
    percentile,
    samples_needed,
    summarise,
)

latencies = st.lists(st.integers(0, 10**10), min_size=1, max_size=400).map(lambda v: np.array(v, dtype=np.int64))


@given(st.integers(1, 20_000), st.sampled_from([0.01, 0.5, 0.9, 0.99, 0.999]), st.sampled_from([0.9, 0.99]))
def test_interval_covers_by_the_exact_binomial_and_is_no_wider_than_needed(n, q, confidence):
    ranks = interval_ranks(n, q, confidence)
    if ranks is None:
        return
    low, high = ranks
    assert 1 <= low < high <= n
    assert binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q) >= confidence - 1e-12
    # A rank nearer to the middle would leave more than half of the error in that tail.
    assert binom.cdf(low, n, q) >= (1 - confidence) / 2
    assert binom.cdf(high - 2, n, q) < 1 - (1 - confidence) / 2


@pytest.mark.parametrize(("q", "needed"), [(0.5, 11), (0.9, 64), (0.99, 662), (0.999, 6636)])
def test_samples_needed(q, needed):
    # 64 and 662 are what MLPerf's loadgen requires of single-stream (p90) and multi-stream (p99)
    assert samples_needed(q, 0.99) == needed
    assert interval_ranks(needed, q, 0.99) is not None
    assert q**needed + needed * (1 - q) * q ** (needed - 1) <= 0.01
    assert q ** (needed - 1) + (needed - 1) * (1 - q) * q ** (needed - 2) > 0.01


@given(st.floats(0.001, 0.999), st.floats(0.5, 0.9999))
def test_a_reported_percentile_has_an_interval(q, confidence):
    assert interval_ranks(samples_needed(q, confidence), q, confidence) is not None


@pytest.mark.parametrize(("q", "n"), [(0.5, 8), (0.5, 1000), (0.9, 51), (0.9, 300), (0.99, 528), (0.99, 2000)])
def test_interval_covers_the_true_percentile_in_simulation(q, n):
    """Latencies with a heavy tail: 99 % of the intervals contain the true percentile, whatever the distribution."""
    trials = 4000
    rng = np.random.default_rng(n)
    samples = np.sort(rng.pareto(1.1, size=(trials, n)), axis=1)
    truth = (1 - q) ** (-1 / 1.1) - 1
    low, high = interval_ranks(n, q, 0.99)
    covered = ((samples[:, low - 1] <= truth) & (truth <= samples[:, high - 1])).mean()
    standard_error = np.sqrt(0.99 * 0.01 / trials)
    assert covered >= 0.99 - 4 * standard_error


def test_unsupported_percentile_is_refused_with_the_reason():
    latency = summarise(np.arange(1, 662, dtype=np.int64) * 1000)
    p50, p90, p99 = latency.percentiles
    assert p99.value_s is None
    assert p99.low_s is None
    assert p99.reason == ("p99 needs 662 runs at 99% confidence; there were 661. Measure for longer.")
    assert p50.value_s == pytest.approx(331e-6)
    assert p90.reason is None


def test_values_in_seconds():
    latency = summarise(np.array([3000, 1000, 2000, 10_000], dtype=np.int64))
    assert (latency.samples, latency.min_s, latency.max_s, latency.mean_s) == (4, 1e-6, 1e-5, 4e-6)
    assert latency.std_s == pytest.approx(np.std([1, 2, 3, 10], ddof=1) * 1e-6)
    assert latency.series_s == [3e-6, 1e-6, 2e-6, 1e-5]
    assert [p.value_s for p in latency.percentiles] == [None, None, None]


def test_one_run_has_no_deviation():
    assert summarise(np.array([7], dtype=np.int64)).std_s == 0


@given(latencies, st.sampled_from([0.5, 0.9]))
def test_percentile_lies_in_its_interval(samples, q):
    result = percentile(np.sort(samples), q, 0.9)
    if result.value_s is not None:
        assert samples.min() / 1e9 <= result.low_s <= result.value_s <= result.high_s <= samples.max() / 1e9


@given(latencies)
def test_histogram_holds_every_sample_in_its_bin(samples):
    bins = histogram(np.sort(samples))
    assert len(bins) <= HISTOGRAM_BINS + 2
    assert sum(b.count for b in bins) == len(samples)
    assert all(a.high == b.low for a, b in pairwise(bins))
    values = samples / 1e9
    for b in bins:
        assert b.low < b.high
        assert ((b.low <= values) & (values < b.high)).sum() == b.count


def test_histogram_separates_the_bulk_from_a_long_tail():
    bulk = np.random.default_rng(0).normal(10_000, 300, 10_000).astype(np.int64)
    samples = np.sort(np.append(bulk, [5_000_000] * 20))
    bins = histogram(samples)
    assert sum(b.count > 50 for b in bins) > 20
    assert bins[-1].high > 5e-3


@settings(max_examples=50)
@given(st.integers(1, 2000))
def test_series_is_short_and_in_order(n):
    series = summarise(np.arange(n, dtype=np.int64)).series_s
    assert len(series) == min(n, SERIES_POINTS)
    assert series == sorted(series)
