"""Reports as CSV: a row for each output compared and for each cell measured, numbers unrounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from onnxtool.reports import findings
from onnxtool.reports.model import Cell, OutputParity, Report, Subject
from onnxtool.reports.sanitize import sanitized

Value = str | int | float | bool | None

COLUMNS = (
    "record", "subject", "framework", "passed", "output", "role", "source_dtype", "onnx_dtype", "rows", "elements",
    "rtol", "atol", "max_absolute", "mean_absolute", "p99_absolute", "max_relative", "max_ulps",
    "mismatched_elements", "mismatched_rows", "mismatched_nonfinite", "label_flips", "problem",
    "provider", "batch", "threads", "concurrency", "scenario", "rate", "io_binding", "settings",
    "status", "reason", "samples", "p50_s", "p50_low_s", "p50_high_s", "p90_s",
    "p99_s", "mean_s", "std_s", "min_s", "max_s", "rows_per_s", "speedup", "session_s", "first_run_s",
    "build_s", "peak_memory_bytes", "model_memory_bytes", "ran_on", "node_share", "time_share",
    "sizes", "waited_share",
)  # fmt: skip
"""`record` is `parity` or `bench`; the columns of the other kind are empty. Times are in seconds."""


def render(report: Report) -> str:
    """One table: first the outputs, then the cells, of each model."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for subject in sanitized(report).subjects:
        for row in (*_parity(subject), *_bench(subject)):
            writer.writerow({name: _safe(value) for name, value in row.items()})
    return file.getvalue()


def _parity(subject: Subject) -> Iterator[dict[str, Value]]:
    for output in subject.parity.outputs if subject.parity else ():
        same = {name: getattr(output, name) for name in COLUMNS if name in OutputParity.model_fields}
        yield {
            **_subject("parity", subject),
            **same,
            "output": output.name,
            "rtol": output.tolerance.rtol,
            "atol": output.tolerance.atol,
        }


def _bench(subject: Subject) -> Iterator[dict[str, Value]]:
    if subject.bench is None:
        return
    for cell in subject.bench.cells:
        same = {name: getattr(cell, name) for name in COLUMNS if name in Cell.model_fields}
        speedup = findings.speedup(subject.bench, cell)
        ran_on = findings.ran_on(cell) if cell.status == "measured" else None
        nodes, time = (findings.coverage(cell) if cell.status == "measured" else None) or (None, None)
        yield {
            **_subject("bench", subject), **same, **_latency(cell), "speedup": speedup, "ran_on": ran_on,
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


def _subject(record: str, subject: Subject) -> dict[str, Value]:
    framework = subject.source.framework if subject.source else None
    return {"record": record, "subject": subject.name, "framework": framework}


def _safe(value: Value) -> Value:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it (OWASP, CSV injection)."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip()[:1] in tuple("=+-@＝＋－＠") else value  # noqa: RUF001 - spreadsheets know them
