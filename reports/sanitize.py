"""Text out of model files, made safe to show.

Names and metadata are a stranger's: they may hold terminal sequences, marks that turn text around, and
characters that no XML or UTF-8 file can hold. Escaping for HTML, XML, Markdown or spreadsheets comes on top,
in each renderer.
"""

from __future__ import annotations

import re
from typing import Any

from onnxtool.reports.model import Report

# C0 and C1 controls, line separators, marks that reorder text, lone surrogates, noncharacters.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


def visible(text: str) -> str:
    r"""Text in which nothing hides: each character of the kinds above is replaced by its escape, as `\x1b`."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


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
