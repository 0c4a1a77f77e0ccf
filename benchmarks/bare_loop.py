"""The reference of `onnxtool bench`: python bare_loop.py MODEL WIDTH SECONDS prints the median run in ns."""

from __future__ import annotations

import gc
import statistics
import sys
import time

import numpy as np
import onnxruntime


def bare_loop(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], seconds: float) -> float:
    """Median of `session.run` in ns.

    Names are bound before the loop: looking them up between the two readings costs 1 % of 10 us.
    """
    now, run = time.perf_counter, session.run
    latencies = []
    end = now()
    deadline = end + seconds
    while end < deadline:
        start = now()
        run(None, inputs)
        end = now()
        latencies.append(end - start)
    return statistics.median(latencies) * 1e9


if __name__ == "__main__":
    model, width, duration = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    loaded = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    row = {"x": np.ones((1, width), dtype=np.float32)}
    gc.disable()
    bare_loop(loaded, row, duration / 2)  # warm-up
    print(bare_loop(loaded, row, duration))  # noqa: T201
