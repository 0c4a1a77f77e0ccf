"""Reports as CSV: a row for each output compared and for each cell measured, numbers unrounded."""

from __future__ import annotations

import csv
import io

from onnxtool.reports import tables
from onnxtool.reports.model import Report
from onnxtool.reports.sanitize import sanitized


def render(report: Report) -> str:
    """One table: first the outputs, then the cells, of each model."""
    file = io.StringIO()
    writer = csv.DictWriter(file, ("record", *tables.COLUMNS), restval="", lineterminator="\n")
    writer.writeheader()
    for subject in sanitized(report).subjects:
        for record, rows in (("parity", tables.parity(subject)), ("bench", tables.cells(subject))):
            for row in rows:
                writer.writerow({"record": record} | {name: _safe(value) for name, value in row.items()})
    return file.getvalue()


def _safe(value: tables.Value) -> tables.Value:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it (OWASP, CSV injection)."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip()[:1] in tuple("=+-@＝＋－＠") else value  # noqa: RUF001 - spreadsheets know them
