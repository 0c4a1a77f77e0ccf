"""The timed loop, and the clock it reads."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.models.signature import Tensors

Run: TypeAlias = Callable[[None, Tensors], object]
"""The shape of `InferenceSession.run`, which is called as it stands: a wrapper would cost 1 % of 10 us."""

WINDOW_NS = 100_000_000
STABLE = 0.02


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


def time_runs(run: Run, inputs: Tensors, duration_ns: int) -> NDArray[np.int64]:
    """Run the model again and again, and time each run.

    Args:
        run: Called with None and `inputs`.
        inputs: One batch.
        duration_ns: The loop ends with the first run that ends after this time; at least one is made.

    Returns:
        Latency of each run in ns, shape [runs].
    """
    now = perf_counter_ns
    samples = array("q")
    keep = samples.append  # nearer to a bare loop than storing into a NumPy array: 0.2 % of 10 us, not 0.7 %
    end = now()
    deadline = end + duration_ns
    while end < deadline or not samples:
        start = now()
        run(None, inputs)
        end = now()
        keep(end - start)
    return np.frombuffer(samples, dtype=np.int64)


def warm_up(run: Run, inputs: Tensors, limit_ns: int) -> int:
    """Run the model until the medians of two consecutive windows of 0.1 s agree within 2 %.

    Args:
        run: Called with None and `inputs`.
        inputs: One batch.
        limit_ns: Ends it, stable or not, at the end of a window.

    Returns:
        The number of runs made.
    """
    runs = 0
    previous = 0.0
    deadline = perf_counter_ns() + limit_ns
    while perf_counter_ns() < deadline:
        window = time_runs(run, inputs, min(WINDOW_NS, limit_ns))
        runs += len(window)
        median = float(np.median(window))
        if abs(median - previous) <= STABLE * previous:
            break
        previous = median
    return runs


def clock() -> tuple[float, float]:
    """What the clock can tell apart, and what reading it costs.

    Returns:
        Resolution: the smallest step above 0 between two consecutive readings, in s. Overhead: their
        median step, which is what the loop would report for a model that takes no time, in s.
    """
    readings = np.array([perf_counter_ns() for _ in range(10_001)])
    steps = np.diff(readings)
    return float(steps[steps > 0].min()) / 1e9, float(np.median(steps)) / 1e9
