"""Reports of earlier schemas, brought to the schema of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtool.reports.model import SCHEMA_VERSION

_RENAMED_IN_2: Mapping[str, Mapping[str, str]] = {
    "subjects": {"hunt": "search"},
    "candidates": {"rows_off": "mismatched_rows"},
    "lowering": {"harm": "sensitivity"},
    "outputs": {
        "rows_off": "mismatched_rows",
        "elements_off": "mismatched_elements",
        "nonfinite_off": "mismatched_nonfinite",
    },
    "tolerance": {"why": "reason"},
    "explanation": {"parts": "error_components", "starts": "first_difference", "breaks": "first_failure"},
    "categories": {"tried": "rows", "off": "mismatches"},
    "percentiles": {"refused": "reason"},
    "rules": {"sentence": "requirement"},
    "findings": {"place": "location"},
}
"""Field that holds a record, or a list of them, to the record's fields that schema 2.0 renamed."""

_VALUES_IN_2: Mapping[tuple[str, str, str], str] = {("comparisons", "outcome", "inconclusive"): "undecided"}
"""Field that holds records, a field of theirs, and a value of it that schema 2.0 renamed."""


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Bring a report's JSON to the current schema.

    Schema 1.0 had other names for some fields. A later minor version only adds optional fields.

    Args:
        content: The report as parsed, with a `schema_version` that is a string. It is not changed.

    Returns:
        The report under today's names. A report of a version that was never written is returned as it is.
    """
    version = content["schema_version"]
    major, _, minor = version.partition(".")
    if version == "1.0":
        content = _renamed(content, "", _RENAMED_IN_2)
    elif major != SCHEMA_VERSION.partition(".")[0] or not minor.isdecimal():
        return content
    return {**content, "schema_version": SCHEMA_VERSION}


def _renamed(content: Any, field: str, names: Mapping[str, Mapping[str, str]]) -> Any:
    """Rename the fields and values of the records below a field, and of those below them."""
    if isinstance(content, list):
        return [_renamed(item, field, names) for item in content]
    if not isinstance(content, dict):
        return content
    new = names.get(field, {})
    return {
        new.get(name, name): _VALUES_IN_2.get((field, name, str(value)), _renamed(value, name, names))
        for name, value in content.items()
    }
