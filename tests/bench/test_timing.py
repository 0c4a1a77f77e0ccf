from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from onnxtool.bench import timing
from onnxtool.bench.timing import SETTLED, clock, gc_disabled, time_runs, warm_up


def test_a_run_longer_than_the_duration_is_made_once():
    samples = time_runs(lambda *_: time.sleep(0.03), [{}], 1_000_000)
    assert len(samples) == 1
    assert samples[0] >= 30_000_000


@pytest.mark.alone
def test_runs_last_for_the_duration_and_are_handed_the_inputs():
    seen = []
    start = time.perf_counter()
    inputs = {"x": np.zeros(1)}
    samples = time_runs(lambda names, tensors: seen.append((names, tensors)), [inputs], 200_000_000)
    assert 0.2 <= time.perf_counter() - start < 2
    assert len(seen) == len(samples) > 100
    assert 0 < samples.sum() <= 0.2e9 + samples[-1]
    assert seen[0] == (None, inputs)
    assert (samples >= 0).all()


@pytest.fixture
def sleep(monkeypatch):
    """Let time pass on a clock of our own: how busy the machine is does not count."""
    now = 0

    def pass_by(seconds):
        nonlocal now
        now += round(seconds * 1e9)

    monkeypatch.setattr(timing, "perf_counter_ns", lambda: now)
    pass_by.seconds = lambda: now / 1e9
    return pass_by


def test_warm_up_ends_when_nothing_changes(sleep):
    runs, settled = warm_up(lambda *_: sleep(0.005), [{}], 60_000_000_000)
    assert settled and runs >= SETTLED
    assert sleep.seconds() < 30


def test_warm_up_goes_on_over_a_change(sleep):
    pause = iter([*[0.009] * 20, *[0.003] * 100_000])
    runs, settled = warm_up(lambda *_: sleep(next(pause)), [{}], 60_000_000_000)
    assert settled and runs >= 20 + SETTLED


def test_warm_up_that_never_settles_ends_at_its_limit(sleep):
    pause = iter(0.002 * 1.015**i for i in range(1000))
    runs, settled = warm_up(lambda *_: sleep(next(pause)), [{}], 500_000_000)
    assert runs > 2 and not settled
    assert 0.5 <= sleep.seconds() < 1


def test_garbage_collector_is_as_before_also_after_an_error():
    with pytest.raises(KeyError), gc_disabled():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_clock():
    resolution, overhead = clock()
    assert 0 < resolution <= 1e-3
    assert 0 < overhead < 1e-4
