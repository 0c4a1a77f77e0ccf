"""A sweep of 500 cells: `python -m benchmarks.reliability.load --cells 500`. The parent's memory must stay flat."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.reliability.record import keep

SETTLED = 50
"""Cells after which what a sweep needs is there."""

GROWTH_BYTES = 8 * 2**20
"""Most that memory may grow by from then on. The report itself grows with its cells, by about 10 kB each."""


def sweep(cells: int) -> dict[str, Any]:
    """Run a sweep, and watch the process that runs it.

    Args:
        cells: How many.

    Returns:
        Resident memory in bytes after `SETTLED` cells, at its most and at the end, the open files at both ends, the
        processes left, and how many cells were `measured`.
    """
    from sklearn.linear_model import LogisticRegression

    import onnxtool

    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    here = psutil.Process()
    memory: list[int] = []
    files: list[int] = []

    def watch(stage: str, done: int, total: int) -> None:
        memory.append(here.memory_info().rss)
        files.append(here.num_fds())

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        onnxtool.convert(LogisticRegression().fit(x, x[:, 0] > 0), model, data=x)
        report = onnxtool.bench(
            model, batches=range(1, cells // 2 + 1), threads=[1, 2], duration=0.02, on_progress=watch
        )
    statuses = [cell.status for cell in report.subjects[0].bench.cells]
    settled = memory[min(SETTLED, len(memory) - 1)]
    return {
        "cells": len(statuses),
        "measured": statuses.count("measured"),
        "settled_bytes": settled,
        "peak_bytes": max(memory),
        "end_bytes": memory[-1],
        "growth_bytes": max(memory[SETTLED:]) - settled,
        "files": [files[0], files[-1]],
        "children": len(here.children(recursive=True)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.load", description=__doc__)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--record", type=Path, help="where the result is kept")
    options = parser.parse_args(arguments)
    found = sweep(options.cells)
    sys.stdout.write(f"{found}\n")
    keep(options.record, f"load --cells {options.cells}", **found)
    flat = found["growth_bytes"] <= GROWTH_BYTES and found["files"][0] == found["files"][1]
    return 0 if flat and found["measured"] == found["cells"] and not found["children"] else 1


if __name__ == "__main__":
    os.environ["CI"] = "true"
    raise SystemExit(main())
