"""The scenarios, with a model that sleeps: its time is known, and it leaves the processors to the callers."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scipy.stats import kstest

from onnxtool.bench.load import arrivals, closed_loop, multi_stream, serve, server
from onnxtool.bench.plan import CellPlan

pytestmark = pytest.mark.alone

SECOND = 1_000_000_000
PAUSE = 0.01


def sleeper(pause: float = PAUSE):
    return lambda _, __: time.sleep(pause)


def test_callers_of_a_closed_loop_run_side_by_side():
    alone = closed_loop([sleeper()], [{}], SECOND // 4)
    four = closed_loop([sleeper()] * 4, [{}], SECOND // 4)
    assert 10 <= alone.batches == len(alone.samples_ns) <= 25
    assert alone.wall_ns == alone.samples_ns.sum()
    assert four.batches == len(four.samples_ns) > 2.5 * alone.batches
    assert 0.2 * SECOND < four.wall_ns < SECOND
    assert (four.samples_ns >= PAUSE * SECOND).all()
    assert four.unanswered == 0


def test_samples_of_several_callers_are_in_the_order_of_time():
    def slow_then_fast(_, __, counts={}):  # noqa: B006 - each caller counts for itself
        number = counts[threading.get_ident()] = counts.get(threading.get_ident(), 0) + 1
        time.sleep(0.02 if number <= 5 else 0.005)

    samples = closed_loop([slow_then_fast] * 3, [{}], SECOND // 4).samples_ns / SECOND
    assert (samples[:12] >= 0.02).all()
    assert np.median(samples[18:]) < 0.015


def test_a_query_of_several_streams_ends_with_the_slowest():
    served = multi_stream([sleeper(0.002), sleeper(0.002), sleeper(0.03)], [{}], SECOND // 4)
    assert (served.samples_ns >= 0.03 * SECOND).all()
    assert 4 <= len(served.samples_ns) <= 9
    assert served.batches == 3 * len(served.samples_ns)
    assert served.wall_ns >= served.samples_ns.sum()


def test_at_least_one_query_is_made():
    assert len(multi_stream([sleeper()] * 2, [{}], 1).samples_ns) == 1
    assert len(closed_loop([sleeper()] * 2, [{}], 1).samples_ns) == 2
    assert len(arrivals(0.001, 1, seed=0)) == 1


def test_arrivals_are_a_poisson_process():
    times = arrivals(1000, 60 * SECOND, seed=1)
    assert (np.diff(times) >= 0).all() and times[-1] < 60 * SECOND
    assert abs(len(times) - 60_000) < 5 * 60_000**0.5
    assert kstest(np.diff(times) / 1e6, "expon").pvalue > 0.001
    assert arrivals(1000, SECOND, seed=1).tolist() == arrivals(1000, SECOND, seed=1).tolist()
    assert arrivals(1000, SECOND, seed=2).tolist() != arrivals(1000, SECOND, seed=1).tolist()


def test_latency_counts_from_the_arrival():
    """Five queries at once and one caller: each waits for those before it."""
    times = np.full(5, SECOND // 100)
    served = server([sleeper()], [{}], times, SECOND)
    waits = served.samples_ns / SECOND / PAUSE
    assert (waits >= [1, 2, 3, 4, 5]).all() and waits[4] < 10
    assert served.unanswered == 0 and served.batches == 5


def test_a_server_that_is_in_time_shows_the_models_own_latency():
    served = server([sleeper(0.002)] * 2, [{}], np.arange(1, 20) * SECOND // 50, SECOND // 2)
    assert 0.002 * SECOND <= np.median(served.samples_ns) < 0.004 * SECOND
    assert len(served.samples_ns) == served.batches == 19


def test_an_overload_ends_and_its_queue_is_reported():
    times = arrivals(1000, SECOND // 4, seed=0)
    start = time.perf_counter()
    served = server([sleeper()], [{}], times, SECOND // 4)
    assert time.perf_counter() - start < 2
    assert served.batches + served.unanswered == len(times)
    assert served.unanswered > 150
    assert served.samples_ns[-1] >= 0.2 * SECOND  # what it had waited when it was given up


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "server", "offline"])
def test_an_error_of_one_caller_ends_all(scenario):
    def fail(_, __):
        raise ValueError("no more")

    plan = CellPlan("p", 1, None, 3, scenario, 100.0)
    with pytest.raises(ValueError, match="no more"):
        serve(plan, [sleeper(), sleeper(), fail], [{}], SECOND // 10, 0)


def test_each_scenario_has_its_generator():
    for scenario, batches in (("single-stream", None), ("offline", None), ("multi-stream", 2), ("server", None)):
        served = serve(CellPlan("p", 1, None, 2, scenario, 200.0), [sleeper(0.002)] * 2, [{}], SECOND // 10, 0)
        assert served.batches == len(served.samples_ns) * (batches or 1)
