"""Reports as the JSON of pytest-benchmark, a benchmark for each measured cell: for its `compare` and histograms.

What pytest-benchmark has no field for is in `extra_info`. Left out are cells that were not measured, and those of too
few samples for a median, since it must have numbers; a test that fails is missing from its own files likewise.
"""

from __future__ import annotations

import json
from typing import Any

from onnxtool.reports import findings
from onnxtool.reports.model import Cell, Report, Subject
from onnxtool.reports.sanitize import sanitized

FORMAT = "5.3.1"
"""Version of pytest-benchmark whose format it is."""


def render(report: Report) -> str:
    """The report in the format of `pytest --benchmark-json`."""
    report = sanitized(report)
    here = report.environment
    content = {
        "machine_info": {
            "node": "localhost",  # required by the format; a report names no machine
            "machine": here.cpu.architecture,
            "system": here.os,
            "python_version": here.python,
            "cpu": {"brand_raw": here.cpu.name, "count": here.cpu.usable_cores},
        },
        "commit_info": {"id": "unversioned", "time": None, "dirty": None, "project": "onnxtool", "branch": None},
        "benchmarks": [
            _benchmark(subject, cell, stats)
            for subject in report.subjects
            for cell in (subject.bench.cells if subject.bench else ())
            if (stats := _stats(cell)) is not None
        ],
        "datetime": report.created.isoformat(),
        "version": FORMAT,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _benchmark(subject: Subject, cell: Cell, stats: dict[str, float | str]) -> dict[str, Any]:
    called = f"{subject.name}[{findings.cell_name(cell)}]"
    parameters = {"provider": cell.provider, "batch": cell.batch, "threads": cell.threads}
    return {
        "group": None,
        "name": called,
        "fullname": called,
        "params": parameters,
        "param": findings.cell_name(cell),
        "extra_info": {
            "sha256": subject.model.sha256,
            "settings": findings.settings(cell),
            "nodes": {part.provider: part.nodes for part in cell.placement},
            "rows_per_s": cell.rows_per_s,
            "percentiles_s": {
                f"p{100 * entry.q:g}": entry.value_s
                for entry in (cell.latency.percentiles if cell.latency else ())
            },
        },
        "options": {"timer": "perf_counter_ns", "warmup": cell.warmup_runs, "disable_gc": True},
        "stats": stats,
    }


def _stats(cell: Cell) -> dict[str, float | str] | None:
    """Times in s, as pytest-benchmark's `Stats` has them."""
    latency, median = cell.latency, findings.median(cell)
    if latency is None or latency.box is None or median is None:
        return None
    box = latency.box
    return {
        "min": latency.min_s,
        "max": latency.max_s,
        "mean": latency.mean_s,
        "stddev": latency.std_s,
        "rounds": latency.samples,
        "median": median,
        "q1": box.q1_s,
        "q3": box.q3_s,
        "iqr": box.q3_s - box.q1_s,
        "ld15iqr": box.low_s,
        "hd15iqr": box.high_s,
        "iqr_outliers": box.outliers,
        "stddev_outliers": box.beyond_std,
        "outliers": f"{box.beyond_std};{box.outliers}",
        "ops": 1 / latency.mean_s,
        "total": latency.mean_s * latency.samples,
        "iterations": 1,
    }
