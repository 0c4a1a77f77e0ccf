"""Reports in GitHub Actions: annotations, which are workflow commands in the log, and the summary of the job.

Commands are escaped as actions/toolkit does (`packages/core/src/command.ts`), so that no name out of a model file
starts a new one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from onnxtool.reports import findings, markdown
from onnxtool.reports.model import Report, Subject
from onnxtool.reports.sanitize import sanitized

SUMMARY_BYTES = 1024 * 1024
"""What GitHub takes as the summary of a step; a longer one is refused whole."""


def render(report: Report) -> str:
    """Annotations: an error for each gate that fails the run, a warning for what was not decided, and the verdict."""
    report = sanitized(report)
    title = f"onnxtool {report.command}"
    lines = []
    for subject in report.subjects:
        where = {"title": f"{title}: {subject.name}", "file": subject.model.path}
        lines += [_command("error", check.message, where) for check in subject.checks if not check.passed]
        lines += [_command("warning", text, where) for text in _warnings(subject)]
    verdict = findings.verdict(report)
    lines.append(_command("notice", f"{verdict.word}: {verdict.reason}", {"title": title}))
    return "\n".join(lines) + "\n"


def error(message: str) -> str:
    """The annotation of a run that ended before there was a report."""
    return _command("error", message, {"title": "onnxtool"})


def _warnings(subject: Subject) -> Iterator[str]:
    """Warnings for the reader that fail no gate."""
    if subject.bench:
        for cell in subject.bench.cells:
            if cell.status != "measured":
                yield f"{findings.cell_name(cell)} is {cell.status}: {cell.reason or 'no reason given'}"
    for check in subject.checks:
        if check.undecided and check.passed:  # one that fails the run is an error already
            yield check.message
    for finding, rule in findings.breaches(subject.lint):
        if rule.level != "error":
            yield f"{rule.id}, {finding.location}: {finding.message}"


def _command(kind: str, message: str, properties: Mapping[str, str]) -> str:
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{kind} {listed}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


@contextmanager
def commands_stopped(environment: Mapping[str, str], log: TextIO) -> Iterator[None]:
    """Make the runner take the lines printed within the block as text, whatever names in a model file look like.

    Args:
        environment: The process's. Outside of GitHub Actions nothing happens.
        log: Standard output.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        yield
        return
    token = secrets.token_hex(16)  # nothing in a file can know it
    print(f"::stop-commands::{token}", file=log, flush=True)
    try:
        yield
    finally:
        print(f"::{token}::", file=log, flush=True)


def publish(report: Report, environment: Mapping[str, str], log: TextIO) -> None:
    """Annotate the run, and add the report to the job's summary. Outside of GitHub Actions nothing happens.

    Args:
        report: The report.
        environment: The process's.
        log: Where annotations go: standard error, since standard output may be JSON.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        return
    log.write(render(report))
    if path := environment.get("GITHUB_STEP_SUMMARY"):
        text = markdown.render(report)
        if len(text.encode()) > SUMMARY_BYTES:
            text = f"## {findings.verdict(report).word}\n\nThe report is too long to be shown here.\n"
        with Path(path).open("a", encoding="utf-8") as summary:  # steps before this one have written to it too
            summary.write(text + "\n")
