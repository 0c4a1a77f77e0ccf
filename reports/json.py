"""Reports as JSON: the format that keeps everything, and the only one that is read back."""

from __future__ import annotations

from pathlib import Path

import pydantic_core
from pydantic import ValidationError

from onnxtool.errors import DataError
from onnxtool.files import write_text
from onnxtool.reports.migration import migrated
from onnxtool.reports.model import SCHEMA_VERSION, Report
from onnxtool.reports.units import visible


def render(report: Report) -> str:
    """The whole report; what is not finite stands as "NaN", "Infinity" or "-Infinity"."""
    return report.model_dump_json(indent=2) + "\n"


def write(report: Report, path: Path) -> None:
    """Write a report; an interrupted run leaves the old file or none.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, render(report))


def read(path: Path) -> Report:
    """Read a report back; one of an earlier schema is brought to the current one.

    Raises:
        DataError: there is no such file, it is no report, or a newer onnxtool wrote it.
    """
    try:
        content = pydantic_core.from_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no report: it is not JSON, or is cut short ({error}).") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, str):
        raise DataError(f"{path} is no report of onnxtool's: it has no schema_version.")
    if _number(version) > _number(SCHEMA_VERSION):
        raise DataError(
            f"{path} was written by a newer onnxtool: its schema is {visible(version)}, this one reads "
            f"{SCHEMA_VERSION}. Upgrade onnxtool."
        )
    try:
        return Report.model_validate(migrated(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError(f"{path} is no valid report: {visible(where)}: {first['msg']}{more}.") from error


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))
