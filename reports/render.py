"""The formats that a report can be rendered in.

To add one, write a module in this package with a function `render(report: Report) -> str`, and name it below.
Nothing heavy is imported here: the command line reads the names for its help.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxtool.errors import UsageError
from onnxtool.files import write_text

if TYPE_CHECKING:
    from onnxtool.reports.model import Report

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "csv": "onnxtool.reports.csv",
        "github": "onnxtool.reports.github",
        "html": "onnxtool.reports.html",
        "json": "onnxtool.reports.json",
        "junit": "onnxtool.reports.junit",
        "md": "onnxtool.reports.markdown",
        "sarif": "onnxtool.reports.sarif",
        "pytest-benchmark": "onnxtool.reports.pytest_benchmark",
        "text": "onnxtool.reports.terminal",
    }
)
"""Name of a format to the module that renders it."""

ENDINGS: Mapping[str, str] = MappingProxyType(
    {
        ".csv": "csv",
        ".htm": "html",
        ".html": "html",
        ".json": "json",
        ".markdown": "md",
        ".md": "md",
        ".sarif": "sarif",
        ".txt": "text",
        ".xml": "junit",
    }
)
"""Ending of a file's name to the format that it stands for."""


def render(
    report: Report,
    format: str,  # noqa: A002 - the option's name
    formats: Mapping[str, str] = FORMATS,
) -> str:
    """Render a report as text.

    Args:
        report: The report.
        format: Name of the format.
        formats: All formats; deployment targets bring further ones.

    Raises:
        UsageError: there is no such format.
    """
    if format not in formats:
        raise UsageError(f"There is no format {format!r}. Formats: {', '.join(formats)}.")
    text: str = importlib.import_module(formats[format]).render(report)
    return text


def format_of(path: Path) -> str:
    """The format that a file's name stands for.

    Raises:
        UsageError: its ending stands for none.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"The ending of {path.name} names no format of reports. Endings: {', '.join(ENDINGS)}; or name a format."
        )
    return ENDINGS[path.suffix.lower()]


def save(report: Report, path: Path, format: str | None = None) -> Path:  # noqa: A002 - the option's name
    """Write a report; see `Report.save`."""
    write_text(path, render(report, format or format_of(path)))
    return path
