"""Rules of the software that will load an ONNX model: finding what breaks them, and repairing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import onnx

from onnxtool.errors import ConversionError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.reports.model import Check, Finding, Lint, LintRule
from onnxtool.targets.loading import refusal

Level: TypeAlias = Literal["error", "warning", "note"]

Limits = TypeVar("Limits")
"""What a rule needs to know of the runtime's release."""

Place: TypeAlias = tuple[str, str]
"""Where a rule is broken, as in `input 'x'`, and how."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[Limits]):
    """One rule.

    Attributes:
        id: Stable, as in `MLNET001`.
        level: `error` when the runtime refuses the model or answers wrongly, `warning` when it takes more than
            the model to make it work, `note` for what is good to know.
        requirement: What must hold.
        reason: What happens otherwise.
        remedy: What the model's owner can do.
        check: Yields every place where the rule is broken.
        fix: Repairs, in place, every place that it can, and says what it did; None where nobody can.
            What the model computes stays the same.
        since: First release that has the rule, or the empty string.
        before: First release that does not have it any more, or the empty string.
        measured: Whether the tests run the runtime itself; else the rule comes from its source.
    """

    id: str
    level: Level
    requirement: str
    reason: str
    remedy: str
    check: Callable[[onnx.ModelProto, Limits], Iterable[Place]]
    fix: Callable[[onnx.ModelProto, Limits], Iterable[str]] | None = None
    since: str = ""
    before: str = ""
    measured: bool = True


LOADS: Rule[Any] = Rule(
    "LOAD",
    "error",
    "ONNX Runtime loads the model.",
    "No software that is built on it does.",
    "Export the model again; see what ONNX Runtime says.",
    lambda model, limits: (),
)
"""A rule of every target, checked by `RuleSet.lint`, which has the file."""


@dataclass(frozen=True, slots=True)
class RuleSet(Generic[Limits]):
    """The rules of a release.

    Attributes:
        rules: In an order in which a later one may rely on an earlier one's repair.
        limits: The limits of the release that the rules check.
        release: Its version, for the report.
    """

    rules: Sequence[Rule[Limits]]
    limits: Limits
    release: str

    def find(self, model: onnx.ModelProto) -> Iterator[Finding]:
        """Find every place where a rule is broken, in the rules' order."""
        for rule in self.rules:
            for place, message in rule.check(model, self.limits):
                yield Finding(rule=rule.id, location=place, message=message, fixable=rule.fix is not None)

    def repair(self, model: onnx.ModelProto) -> list[str]:
        """Repair, in place, what the rules can repair; return what was done, a sentence each.

        Args:
            model: With its weights: external data must have been loaded.
        """
        done: list[str] = []
        for rule in self.rules:
            if rule.fix is not None and any(True for _ in rule.check(model, self.limits)):
                done += rule.fix(model, self.limits)
        return done

    def require(self, model: onnx.ModelProto, target: str) -> list[str]:
        """Refuse a model that breaks a rule of level `error`; return the findings of other rules, one sentence each.

        Raises:
            ConversionError: such a rule is broken.
        """
        by_id = {rule.id: rule for rule in self.rules}
        left = []
        for finding in self.find(model):
            rule = by_id[finding.rule]
            if rule.level == "error":
                raise ConversionError(
                    f"--target {target}: {finding.location}: {finding.message} {rule.reason} {rule.remedy} "
                    f"({rule.id})"
                )
            left.append(f"{rule.id} ({rule.level}), {finding.location}: {finding.message} {rule.reason}")
        return left

    def lint(self, model: OnnxModel, target: str, repairs: Sequence[str] = ()) -> tuple[Lint, list[Check]]:
        """The findings, for the report, and a gate for each rule, which fails where an error is broken.

        The last rule is of every target: ONNX Runtime loads the file. It is tried where no other rule is broken that
        is an error.

        Args:
            model: The model, in its file.
            target: The target's name.
            repairs: What was repaired before, a sentence each.
        """
        findings = list(self.find(model.proto))
        rules: list[Rule[Any]] = list(self.rules)
        errors = {rule.id for rule in rules if rule.level == "error"}
        if not any(finding.rule in errors for finding in findings):
            rules.append(LOADS)
            if why := refusal(model):
                findings.append(Finding(rule=LOADS.id, location="file", message=why, fixable=False))
        linted = Lint(
            target=target,
            release=self.release,
            rules=[_described(rule) for rule in rules],
            findings=findings,
            repairs=list(repairs),
        )
        return linted, [_gate(rule, [one for one in findings if one.rule == rule.id]) for rule in rules]


def _gate(rule: Rule[Limits], broken: Sequence[Finding]) -> Check:
    message = rule.requirement
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        message += f" Not so for {broken[0].location}{more}."
    return Check(id=rule.id, passed=rule.level != "error" or not broken, message=message)


def _described(rule: Rule[Limits]) -> LintRule:
    """A rule as the report has it."""
    return LintRule(
        id=rule.id, level=rule.level, requirement=rule.requirement, reason=rule.reason, remedy=rule.remedy
    )
