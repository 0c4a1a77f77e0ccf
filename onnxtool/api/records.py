"""Results of the public functions: the report, and its summary of the source."""

from __future__ import annotations

from onnxtool import clock
from onnxtool.models.source import SourceModel, sha256
from onnxtool.reports.environment import environment
from onnxtool.reports.model import (
    Environment,
    Report,
    SourceSummary,
    Subject,
)


def report_of(command: str, subjects: list[Subject], here: Environment | None = None) -> Report:
    """The report of a command; by default for this machine."""
    return Report.model_validate(
        {
            "command": command,
            "created": clock.now(),
            "environment": here or environment(),
            "subjects": subjects,
        }
    )


def source_summary(model: SourceModel) -> SourceSummary:
    """The summary of a source, with the hash of its file."""
    return SourceSummary(
        framework=model.framework,
        framework_version=model.framework_version,
        kind=model.kind,
        path=str(model.path) if model.path else None,
        sha256=sha256(model.path) if model.path else None,
        saved_by=list(model.saved_by),
    )
