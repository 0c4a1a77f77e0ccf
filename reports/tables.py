"""The report's tables as rows of plain values, numbers unrounded and times in seconds: for CSV and for pandas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxtool.errors import UsageError, require
from onnxtool.reports import findings
from onnxtool.reports.model import Cell, OutputParity, Report, Subject

if TYPE_CHECKING:
    import pandas as pd

Value = str | int | float | bool | None

_SUBJECT = ("subject", "framework")
PARITY = (
    *_SUBJECT, "passed", "output", "role", "source_dtype", "onnx_dtype", "rows", "elements",
    "rtol", "atol", "max_absolute", "mean_absolute", "p99_absolute", "max_relative", "max_ulps",
    "mismatched_elements", "mismatched_rows", "mismatched_nonfinite", "label_flips", "problem",
)  # fmt: skip
CELLS = (
    *_SUBJECT, "provider", "batch", "threads", "concurrency", "scenario", "rate", "io_binding", "settings",
    "status", "reason", "samples", "p50_s", "p50_low_s", "p50_high_s", "p90_s",
    "p99_s", "mean_s", "std_s", "min_s", "max_s", "rows_per_s", "speedup", "session_s", "first_run_s",
    "build_s", "peak_memory_bytes", "model_memory_bytes", "ran_on", "node_share", "time_share",
    "sizes", "waited_share",
)  # fmt: skip
CHECKS = (*_SUBJECT, "id", "passed", "undecided", "message")

COLUMNS = tuple(dict.fromkeys((*PARITY, *CELLS)))
"""Of one table that holds outputs and cells; those of the other kind are empty in a row."""


def parity(subject: Subject) -> Iterator[dict[str, Value]]:
    """A row for each output that was compared."""
    for output in subject.parity.outputs if subject.parity else ():
        same = {name: getattr(output, name) for name in PARITY if name in OutputParity.model_fields}
        yield {
            **_subject(subject),
            **same,
            "output": output.name,
            "rtol": output.tolerance.rtol,
            "atol": output.tolerance.atol,
        }


def cells(subject: Subject) -> Iterator[dict[str, Value]]:
    """A row for each cell that was measured or could not be."""
    if subject.bench is None:
        return
    for cell in subject.bench.cells:
        same = {name: getattr(cell, name) for name in CELLS if name in Cell.model_fields}
        speedup = findings.speedup(subject.bench, cell)
        ran_on = findings.ran_on(cell) if cell.status == "measured" else None
        nodes, time = (findings.coverage(cell) if cell.status == "measured" else None) or (None, None)
        yield {
            **_subject(subject), **same, **_latency(cell), "speedup": speedup, "ran_on": ran_on,
            "settings": " ".join(f"{name}={value}" for name, value in cell.options.items()),
            "waited_share": cell.contention.waited_share if cell.contention else None,
            "sizes": " ".join(findings.sizes(cell)),
            "node_share": nodes, "time_share": time,
        }  # fmt: skip


def _latency(cell: Cell) -> dict[str, Value]:
    if cell.latency is None:
        return {}
    row: dict[str, Value] = {
        name: getattr(cell.latency, name) for name in ("samples", "mean_s", "std_s", "min_s", "max_s")
    }
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        if entry := findings.percentile(cell, q):
            row[f"{name}_s"] = entry.value_s
    if median := findings.percentile(cell, 0.5):
        row |= {"p50_low_s": median.low_s, "p50_high_s": median.high_s}
    return row


def checks(subject: Subject) -> Iterator[dict[str, Value]]:
    """A row for each gate."""
    for check in subject.checks:
        yield {**_subject(subject), **check.model_dump()}


def _subject(subject: Subject) -> dict[str, Value]:
    return {"subject": subject.name, "framework": subject.source.framework if subject.source else None}


def frame(report: Report, table: str) -> pd.DataFrame:
    """One table of a report; see `Report.to_frame`."""
    rows = {"parity": (parity, PARITY), "cells": (cells, CELLS), "checks": (checks, CHECKS)}
    if table not in rows:
        raise UsageError(f"There is no table {table!r}. Tables: {', '.join(rows)}.")
    pandas = require("pandas", "data")
    make, columns = rows[table]
    made: pd.DataFrame = pandas.DataFrame(
        [row for subject in report.subjects for row in make(subject)], columns=columns
    )
    return made
