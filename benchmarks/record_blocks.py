"""Record the block medians that the tests of the gate resample: python record_blocks.py OUTPUT.npz.

One model on busy cores, small on one thread and larger on all of them: medians of consecutive blocks in
microseconds, as `onnxtool bench --against` takes them.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from false_alarms import WIDTH, busy_cores, write_layers

from onnxtool.bench import timing
from onnxtool.bench.paired import BLOCK_NS, quads_of

QUADS = 1000


def record(model: Path, batch: int, threads: int) -> np.ndarray:
    """Shape [blocks], in the order of time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    run = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run
    inputs = {"x": np.ones((batch, WIDTH), dtype=np.float32)}
    timing.warm_up(run, [inputs], 1_000_000_000)
    count = math.ceil(BLOCK_NS / np.median(timing.time_runs(run, [inputs], BLOCK_NS)))
    with timing.gc_disabled():
        quad = quads_of(run, run, [inputs], count)
        quads = [quad(False)[[0, 2, 3, 1]] for _ in range(QUADS)]
    return (np.concatenate(quads) * 1e6).astype(np.float32)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, busy_cores():
        layers = write_layers(Path(folder, "model.onnx"), 20)
        np.savez_compressed(sys.argv[1], small=record(layers, 1, 1), large=record(layers, 16, 0))
