"""Text out of model files, made safe to show.

Names and metadata are untrusted: they may have terminal sequences, marks that turn text around, and
characters that no XML or UTF-8 file can hold. Escaping for HTML, XML, Markdown or spreadsheets comes on top,
in each renderer.
"""

from __future__ import annotations

from typing import Any

from onnxtool.reports.model import Report
from onnxtool.reports.units import visible


def sanitized(report: Report) -> Report:
    """The report with `visible` text throughout. Every renderer but JSON starts with this."""
    return Report.model_validate(_visible(report.model_dump()))


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_visible(key): _visible(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_visible(entry) for entry in value]
    return value
