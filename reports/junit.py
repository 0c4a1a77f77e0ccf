"""Reports as JUnit XML: a suite for each model, a test case for each gate.

There is no one schema. This keeps to what both the Ant schema (windyroad/JUnit-Schema) and Jenkins' xUnit
plug-in (junit-10.xsd) accept: their required attributes, and the elements in Ant's order.
"""

from __future__ import annotations

import datetime
from xml.etree import ElementTree as ET

from onnxtool.reports import findings, units
from onnxtool.reports.model import Check, Report, Subject
from onnxtool.reports.sanitize import sanitized


def render(report: Report) -> str:
    """An XML document."""
    report = sanitized(report)
    root = ET.Element("testsuites")
    for number, subject in enumerate(report.subjects):
        root.append(_suite(report, subject, number))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(report: Report, subject: Subject, number: int) -> ET.Element:
    suite = ET.Element(
        "testsuite",
        id=str(number),
        package="onnxtool",
        name=subject.name or "model",
        timestamp=report.created.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname="localhost",  # required by the schema; a report names no machine
        tests=str(len(subject.checks)),
        failures=str(sum(not check.passed for check in subject.checks)),
        errors="0",
        time=_seconds(subject),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report, subject).items():
        ET.SubElement(properties, "property", name=name, value=value)
    for check in subject.checks:
        suite.append(_case(report, subject, check))
    ET.SubElement(suite, "system-out")
    ET.SubElement(suite, "system-err")
    return suite


def _case(report: Report, subject: Subject, check: Check) -> ET.Element:
    classname = f"onnxtool.{report.command}.{subject.name}"
    case = ET.Element("testcase", name=check.id, classname=classname, time="0")
    if check.undecided and check.passed:
        ET.SubElement(case, "skipped")
    if not check.passed:
        kind = check.id.partition(":")[0]
        failure = ET.SubElement(case, "failure", type=kind, message=check.message)
        failure.text = "\n".join(_worst_rows(subject) if check.id == "parity" else _places(subject, check.id))
    return case


def _places(subject: Subject, rule_id: str) -> list[str]:
    """The places where a rule of the linter is broken, and the remedy."""
    broken = [(finding, rule) for finding, rule in findings.breaches(subject.lint) if rule.id == rule_id]
    return [f"{finding.location}: {finding.message} {rule.remedy}" for finding, rule in broken]


def _worst_rows(subject: Subject) -> list[str]:
    """The worst rows, for whoever reads the log of a failed build."""
    lines = []
    for output in subject.parity.outputs if subject.parity else ():
        if output.passed:
            continue
        problem = output.problem or f"{output.mismatched_rows:,} of {output.rows:,} rows off"
        lines.append(f"{units.name(output.name)}: {problem}")
        lines += [
            f"  row {worst.row} {units.shape(worst.index)}: source {units.element(worst.source)}, "
            f"ONNX {units.element(worst.onnx)}"
            for worst in output.worst
        ]
    return lines


def _properties(report: Report, subject: Subject) -> dict[str, str]:
    found = {
        "command": report.command,
        "tool_version": report.tool_version,
        "model": subject.model.path,
        "sha256": subject.model.sha256,
        "os": report.environment.os,
        "cpu": report.environment.cpu.name,
    }
    if subject.bench and (cell := findings.headline_cell(subject.bench)):
        found["p50_s"] = f"{findings.median(cell):.9f}"
    if subject.parity and subject.parity.usual_rows is not None:
        found["rows"] = findings.few_rows(subject.parity)
    return found


def _seconds(subject: Subject) -> str:
    parity, conversion = subject.parity, subject.conversion
    spent = (conversion.convert_s + conversion.finish_s) if conversion else 0.0
    spent += (parity.source_s + parity.onnx_s) if parity else 0.0
    return f"{spent:.3f}"
