from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtool.bench.changes import FEWEST, SIGNIFICANCE, change_point, last_change
from onnxtool.bench.statistics import change


def noise(n: int, seed: int) -> np.ndarray:
    """Medians of windows with now and then a wild one."""
    rng = np.random.default_rng(seed)
    return 100 * rng.lognormal(0, 0.02, n) * np.where(rng.random(n) < 0.05, 3, 1)


def test_the_statistic_by_hand():
    # Ranks 1 2 3 4 5 6 of a series that steps up once: U = 2 * (1 + 2 + 3) - 3 * 7 = -9 at the third.
    at, p_value = change_point([1, 2, 3, 11, 12, 13])
    assert at == 3
    assert p_value == pytest.approx(2 * np.exp(-6 * 81 / (216 + 36)))


def test_all_equal_is_no_change():
    assert change_point([5.0] * 40)[1] == 1.0
    assert last_change([5.0] * 40, 0.02) == 0


@given(st.integers(0, 10_000))
def test_only_the_order_counts(seed):
    values = noise(50, seed)
    assert change_point(values) == change_point(np.exp(values / 50))


def test_chance_is_rarely_taken_for_a_change():
    found = sum(change_point(noise(60, seed))[1] <= SIGNIFICANCE for seed in range(2000))
    assert found <= 8  # 2 are expected at most; 8 have a probability below 0.001


@pytest.mark.parametrize(("at", "share"), [(15, 0.85), (30, 0.99), (45, 0.85)])
def test_a_step_is_found_where_it_is(at, share):
    places = []
    for seed in range(100):
        values = noise(60, seed)
        values[at:] *= 1.2
        places.append(last_change(values, 0.02))
    assert np.mean(np.abs(np.array(places) - at) <= 8) >= share


def test_the_last_of_several_counts():
    values = noise(120, 0)
    values[:40] *= 2
    values[40:80] *= 1.5
    assert abs(last_change(values, 0.02) - 80) <= 2


def test_what_is_too_small_or_too_short_is_none():
    values = np.concatenate([np.linspace(1, 1.001, 40), np.linspace(1.01, 1.011, 40)])
    assert last_change(values, 0.02) == 0
    assert last_change(values, 0.005) > 0
    assert last_change([1.0] * 9 + [2.0] * (FEWEST - 10), 0.02) == 0


def test_throttling_in_a_run_is_reported():
    rng = np.random.default_rng(0)
    samples = (10_000 * rng.lognormal(0, 0.05, 6000)).astype(np.int64)
    assert change(samples) is None
    samples[4000:] += 3000
    found = change(samples)
    assert found.at == pytest.approx(2 / 3, abs=0.02)
    assert found.before_s == pytest.approx(10e-6, rel=0.02)
    assert found.after_s == pytest.approx(13e-6, rel=0.02)
    assert change(samples[: FEWEST - 1]) is None


def test_a_slow_drift_is_reported():
    rng = np.random.default_rng(0)
    samples = np.linspace(10_000, 12_000, 3000) * rng.lognormal(0, 0.05, 3000)
    assert change(samples.astype(np.int64)).after_s > 1.05 * 10e-6
