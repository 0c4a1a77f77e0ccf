"""The timed loop, and the clock it reads."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from time import perf_counter_ns
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.bench.changes import last_change
from onnxtool.models.signature import Tensors

Run: TypeAlias = Callable[[None, Tensors], object]
"""The shape of `InferenceSession.run`, which is called as it stands: a wrapper would cost 1 % of 10 us."""

WINDOW_NS = 5_000_000
SETTLED = 30
"""Windows without a change that end a warm-up: Pettitt's test finds one from the eleventh to the twentieth."""

SMALLEST = 0.02
"""Smallest change of the median, as a share, that counts while warming up."""


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Collect garbage now, and not again within the block."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def time_runs(run: Run, batches: Sequence[Tensors], duration_ns: int) -> NDArray[np.int64]:
    """Run the model again and again, and time each run.

    Args:
        run: Called with None and a batch.
        batches: What is run in turn, from the first one on.
        duration_ns: The loop ends with the first run that ends after this time; at least one is made.

    Returns:
        Latency of each run in ns, shape [runs].
    """
    now = perf_counter_ns
    samples = array("q")
    keep = samples.append  # nearer to a bare loop than storing into a NumPy array: 0.2 % of 10 us, not 0.7 %
    end = now()
    deadline = end + duration_ns
    for batch in cycle(batches):
        start = now()
        run(None, batch)
        end = now()
        keep(end - start)
        if end >= deadline:
            break
    return np.frombuffer(samples, dtype=np.int64)


def warm_up(run: Run, batches: Sequence[Tensors], limit_ns: int) -> tuple[int, bool]:
    """Run the model until the medians of `SETTLED` windows in a row hold no change; see `changes`.

    Args:
        run: Called with None and a batch.
        batches: What is run in turn, in each window from the first one on.
        limit_ns: Ends it, settled or not, at the end of a window.

    Returns:
        The number of runs made, and whether it settled: no change was found since which there were too few
        windows. Of a model so slow that the limit holds only a few windows nothing is found.
    """
    runs, settled = 0, 0
    medians: list[float] = []
    window_ns = min(WINDOW_NS, limit_ns // (2 * SETTLED))
    deadline = perf_counter_ns() + limit_ns
    while perf_counter_ns() < deadline:
        window = time_runs(run, batches, window_ns)
        runs += len(window)
        medians.append(float(np.median(window)))
        if len(medians) - settled >= SETTLED:
            settled += last_change(medians[settled:], SMALLEST)
            if len(medians) - settled >= SETTLED:
                return runs, True
    settled += last_change(medians[settled:], SMALLEST)
    return runs, settled == 0


def clock() -> tuple[float, float]:
    """The resolution of the clock, and the cost of reading it.

    Returns:
        Resolution: the smallest step above 0 between two consecutive readings, in s. Overhead: their
        median step, which is what the loop would report for a model that takes no time, in s.
    """
    readings = np.array([perf_counter_ns() for _ in range(10_001)])
    steps = np.diff(readings)
    return float(steps[steps > 0].min()) / 1e9, float(np.median(steps)) / 1e9
