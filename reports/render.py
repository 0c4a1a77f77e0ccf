"""The formats that a report can be rendered in.

To add one, write a module beside this one with a function `render(report: Report) -> str`, and name it below.
Nothing heavy is imported here: the command line reads the names for its help.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxtool.errors import UsageError

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
        "mlnet": "onnxtool.targets.mlnet.report",
        "pytest-benchmark": "onnxtool.reports.pytest_benchmark",
        "text": "onnxtool.reports.terminal",
    }
)
"""Name of a format to the module that renders it."""


def render(report: Report, format: str) -> str:  # noqa: A002 - the option's name
    """Render a report as text.

    Raises:
        UsageError: there is no such format.
    """
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r}. Formats: {', '.join(FORMATS)}.")
    text: str = importlib.import_module(FORMATS[format]).render(report)
    return text
