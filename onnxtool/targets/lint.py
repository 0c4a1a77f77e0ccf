"""Holding an ONNX model against the rules of the runtime that will load it, and repairing it by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import onnx

from onnxtool.reports.model import Check, Finding, LintRule

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
        sentence: What must hold.
        reason: What happens otherwise.
        remedy: What the model's owner can do.
        check: Yields every place where the rule is broken.
        fix: Mends, in place, every place that can be mended, and says what it did; None where nobody can.
            What the model computes stays the same.
        since: First release that has the rule, or the empty string.
        before: First release that does not have it any more, or the empty string.
        measured: Whether the runtime itself was asked, in the tests; else its source was read.
    """

    id: str
    level: Level
    sentence: str
    reason: str
    remedy: str
    check: Callable[[onnx.ModelProto, Limits], Iterable[Place]]
    fix: Callable[[onnx.ModelProto, Limits], Iterable[str]] | None = None
    since: str = ""
    before: str = ""
    measured: bool = True


def find(model: onnx.ModelProto, rules: Iterable[Rule[Limits]], limits: Limits) -> Iterator[Finding]:
    """Find every place where a rule is broken, in the rules' order."""
    for rule in rules:
        for place, message in rule.check(model, limits):
            yield Finding(rule=rule.id, place=place, message=message, fixable=rule.fix is not None)


def repair(model: onnx.ModelProto, rules: Iterable[Rule[Limits]], limits: Limits) -> list[str]:
    """Mend, in place, what the rules can mend; return what was done, a sentence each.

    Args:
        model: With its weights: external data must have been loaded.
        rules: In an order in which a later one may rely on an earlier one's work.
        limits: As for `find`.
    """
    done: list[str] = []
    for rule in rules:
        if rule.fix is not None and any(True for _ in rule.check(model, limits)):
            done += rule.fix(model, limits)
    return done


def lint_gates(rules: Sequence[Rule[Limits]], findings: Sequence[Finding]) -> list[Check]:
    """A gate for each rule: it fails where the rule is an error and broken."""
    checks = []
    for rule in rules:
        broken = [finding for finding in findings if finding.rule == rule.id]
        message = rule.sentence
        if broken:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            message += f" Not so for {broken[0].place}{more}."
        checks.append(Check(id=rule.id, passed=rule.level != "error" or not broken, message=message))
    return checks


def described(rule: Rule[Limits]) -> LintRule:
    """A rule as the report tells it."""
    return LintRule(id=rule.id, level=rule.level, sentence=rule.sentence, reason=rule.reason, remedy=rule.remedy)
