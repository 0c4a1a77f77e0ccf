"""Arrival of queries, after MLPerf's loadgen (Reddi and others, "MLPerf Inference Benchmark", ISCA 2020, section V).

single-stream: each caller sends its next query when the last one is answered.
multi-stream: all callers send a query at the same time; together they are one, which ends with the slowest.
server: queries arrive at random (Poisson), whether or not earlier ones are answered. Latency counts from the
    arrival, not from when a caller gets to it: otherwise a queue would hide itself ("coordinated omission").
offline: all queries are there from the start; only throughput matters. It runs as single-stream does.

A caller is a thread of this process, and a query one run with one batch.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxtool.bench.feeds import turned
from onnxtool.bench.plan import CellPlan
from onnxtool.bench.timing import Run, time_runs
from onnxtool.models.signature import Tensors

T = TypeVar("T")

SPIN_NS = 200_000
"""Before an arrival a caller stays awake for so long: a sleep ends up to 0.1 ms late."""

OVERTIME = 1.0
"""Share of the duration for which queries that are still waiting are served after the last arrival."""


@dataclass(frozen=True, slots=True)
class Served:
    """The result of a run.

    Attributes:
        samples_ns: Latency of each query in ns, in the order in which they ended (in the server scenario, came).
        batches: Runs of the model that were made.
        wall_ns: Time that they took, from the first to the last.
        unanswered: Queries that were given up. Their samples are how long they had waited by then.
    """

    samples_ns: NDArray[np.int64]
    batches: int
    wall_ns: int
    unanswered: int = 0


def joined(parts: Sequence[Served]) -> Served:
    """One after the other."""
    return Served(
        np.concatenate([part.samples_ns for part in parts]),
        sum(part.batches for part in parts),
        sum(part.wall_ns for part in parts),
        sum(part.unanswered for part in parts),
    )


def serve(plan: CellPlan, runs: Sequence[Run], batches: Sequence[Tensors], duration_ns: int, seed: int) -> Served:
    """Measure a cell.

    Args:
        plan: Its scenario, and its rate in the server scenario.
        runs: One for each caller.
        batches: What each caller runs in turn; callers begin at different ones.
        duration_ns: Queries begin, or arrive, for so long; at least one does.
        seed: Seed of the arrivals.
    """
    if plan.scenario == "multi-stream" and len(runs) > 1:
        return multi_stream(runs, batches, duration_ns)
    if plan.scenario == "server":
        return server(runs, batches, arrivals(plan.rate or 1.0, duration_ns, seed), duration_ns)
    return closed_loop(runs, batches, duration_ns)


def closed_loop(runs: Sequence[Run], batches: Sequence[Tensors], duration_ns: int) -> Served:
    """Each caller sends its next query when the last one is answered."""
    if len(runs) == 1:
        samples = time_runs(runs[0], batches, duration_ns)
        return Served(samples, len(samples), int(samples.sum()))
    start = threading.Barrier(len(runs))

    def call(caller: int) -> NDArray[np.int64]:
        start.wait()
        return time_runs(runs[caller], _own(batches, caller, len(runs)), duration_ns)

    series = _together(call, len(runs))
    ends = [np.cumsum(samples) for samples in series]
    order = np.argsort(np.concatenate(ends), kind="stable")
    samples = np.concatenate(series)[order]
    return Served(samples, len(samples), max(int(end[-1]) for end in ends))


def multi_stream(runs: Sequence[Run], batches: Sequence[Tensors], duration_ns: int) -> Served:
    """All callers send at the same time, and wait for each other."""
    starts: list[int] = []
    ends: list[list[int]] = [[] for _ in runs]
    deadline = perf_counter_ns() + duration_ns

    def mark() -> None:
        """Called by one of the callers, when all have come and none has left."""
        now = perf_counter_ns()
        if now < deadline or not starts:
            starts.append(now)

    meeting = threading.Barrier(len(runs), action=mark)

    def call(caller: int) -> None:
        own = _own(batches, caller, len(runs))
        try:
            while True:
                meeting.wait()
                if len(starts) == len(ends[caller]):
                    return
                runs[caller](None, own[len(ends[caller]) % len(own)])
                ends[caller].append(perf_counter_ns())
        except BaseException:
            meeting.abort()  # or the others would wait for ever
            raise

    _together(call, len(runs))
    last = np.array(ends, dtype=np.int64).max(axis=0)
    return Served(last - np.array(starts, dtype=np.int64), len(last) * len(runs), int(last[-1]) - starts[0])


def arrivals(rate: float, duration_ns: int, seed: int) -> NDArray[np.int64]:
    """Times in ns at which queries arrive at a mean rate a second, the gaps exponential; at least one query."""
    rng = np.random.default_rng(seed)
    expected = rate * duration_ns / 1e9
    gaps = rng.exponential(1e9 / rate, size=int(expected + 10 * expected**0.5 + 10))
    times = np.cumsum(gaps).astype(np.int64)
    return times[: max(1, int(np.searchsorted(times, duration_ns)))]


def server(
    runs: Sequence[Run], batches: Sequence[Tensors], times_ns: NDArray[np.int64], duration_ns: int
) -> Served:
    """Callers take queries in the order of their arrival, as they get free."""
    schedule = times_ns.tolist()
    latencies = np.zeros(len(schedule), dtype=np.int64)
    answered = np.zeros(len(schedule), dtype=bool)
    queue = itertools.count()  # one step of it is atomic
    meeting = threading.Barrier(len(runs) + 1)
    begin = perf_counter_ns()
    give_up = begin

    def call(caller: int) -> None:
        run = runs[caller]
        meeting.wait()
        while (index := next(queue)) < len(schedule):
            arrival = begin + schedule[index]
            _wait_until(arrival)
            if perf_counter_ns() > give_up:
                return
            run(None, batches[index % len(batches)])
            latencies[index] = perf_counter_ns() - arrival
            answered[index] = True

    def open_doors() -> None:
        nonlocal begin, give_up
        begin = perf_counter_ns() + SPIN_NS
        give_up = begin + int((1 + OVERTIME) * duration_ns)
        meeting.wait()

    _together(call, len(runs), open_doors)
    end = perf_counter_ns() - begin
    latencies[~answered] = end - times_ns[~answered]
    return Served(latencies, int(answered.sum()), end, int((~answered).sum()))


def _own(batches: Sequence[Tensors], caller: int, callers: int) -> list[Tensors]:
    """The batches from the one on at which a caller begins."""
    return turned(batches, caller * len(batches) // callers)


def _wait_until(moment: int) -> None:
    while (left := moment - perf_counter_ns()) > 0:
        time.sleep(max(0, left - SPIN_NS) / 1e9)


def _together(call: Callable[[int], T], callers: int, meanwhile: Callable[[], None] | None = None) -> list[T]:
    """Call from several threads at once; the first error of any of them is raised."""
    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(call, caller) for caller in range(callers)]
        if meanwhile:
            meanwhile()
        failed = [error for future in futures if (error := future.exception())]
        broken = [error for error in failed if not isinstance(error, threading.BrokenBarrierError)]
        if failed:
            raise (broken or failed)[0]
        return [future.result() for future in futures]
