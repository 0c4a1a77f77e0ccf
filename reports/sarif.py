"""Reports as SARIF 2.1.0 (OASIS standard), for code scanning: a result for each finding and each gate that failed.

A finding's rule carries its reason and its remedy. Gates other than the linter's have no rule of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from onnxtool.reports.model import LintRule, Report, Subject
from onnxtool.reports.sanitize import sanitized

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(report: Report) -> str:
    """A log with one run."""
    report = sanitized(report)
    rules = {rule.id: rule for subject in report.subjects if subject.lint for rule in subject.lint.rules}
    driver = {
        "name": "onnxtool",
        "version": report.tool_version,
        "rules": [_rule(rule) for rule in rules.values()],
    }
    run = {
        "tool": {"driver": driver},
        "artifacts": [{"location": _uri(subject)} for subject in report.subjects],
        "results": [result for subject in report.subjects for result in _results(subject, rules)],
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2) + "\n"


def _rule(rule: LintRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.requirement},
        "fullDescription": {"text": f"{rule.requirement} Otherwise: {rule.reason}"},
        "help": {"text": f"{rule.reason} {rule.remedy}"},
        "defaultConfiguration": {"level": rule.level},
    }


def _results(subject: Subject, rules: dict[str, LintRule]) -> list[dict[str, Any]]:
    order = list(rules)
    found = [
        {
            "ruleId": finding.rule,
            "ruleIndex": order.index(finding.rule),
            "level": rules[finding.rule].level,
            "message": {"text": f"{finding.location}: {finding.message} {rules[finding.rule].remedy}"},
            "locations": [_location(subject, finding.location)],
        }
        for finding in (subject.lint.findings if subject.lint else ())
    ]
    found += [
        {
            "ruleId": check.id,
            "level": "error",
            "message": {"text": check.message},
            "locations": [_location(subject, subject.name)],
        }
        for check in subject.checks
        if not check.passed and check.id not in rules
    ]
    return found


def _uri(subject: Subject) -> dict[str, str]:
    return {"uri": quote(Path(subject.model.path).as_posix())}


def _location(subject: Subject, place: str) -> dict[str, Any]:
    # The line is for GitHub, which shows no result without one.
    file = {"artifactLocation": _uri(subject), "region": {"startLine": 1}}
    return {"physicalLocation": file, "logicalLocations": [{"fullyQualifiedName": place}]}
