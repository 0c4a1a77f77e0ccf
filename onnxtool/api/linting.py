"""`lint`: an ONNX model is compared with the rules of the software that will load it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

from onnxtool.api.arguments import PathLike, isolating
from onnxtool.api.records import report_of
from onnxtool.converters.graph.finish import write
from onnxtool.errors import UsageError
from onnxtool.files import check_writable, staged_path
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.source import OnnxSource
from onnxtool.reports.gates import (
    parity_gate,
)
from onnxtool.reports.model import (
    Report,
    Subject,
)
from onnxtool.targets.lint import RuleSet
from onnxtool.targets.target import Target, choose
from onnxtool.validators.parity.pairs import check_parity, made_up_rows


@isolating
def lint(
    model: PathLike,
    *,
    target: str = "mlnet",
    fix: bool = False,
    output: PathLike | None = None,
    seed: int = 0,
    **options: Any,
) -> Report:
    """Compare an ONNX model with the rules of the software that will load it.

    Args:
        model: The ONNX file.
        target: Name of the deployment target, whose rules these are.
        fix: Whether to repair what can be repaired. The repaired model is compared with the old one on made-up
            rows, and written only where the two agree.
        output: Where the repaired model is written; by default in the old one's place.
        seed: Seed of made-up rows.
        options: The target's own: of `mlnet`, `mlnet_version`.

    Returns:
        The report. It is falsy when a rule of level `error` is broken, after the repair if there is one, or when
        the repaired model differs.

    Raises:
        OnnxtoolError: the file or an option is at fault.

    >>> report = onnxtool.lint("model.onnx")
    >>> [finding.rule for finding in report[0].lint.findings]
    []
    """
    deployed, opened = choose(target, "lint", options), OnnxModel.read(model)
    parity, repairs = None, list[str]()
    if fix:
        path = Path(output if output is not None else model)
        check_writable(path)
        proto = onnx.ModelProto()
        proto.CopyFrom(opened.proto)
        repairs = _rules(deployed, opened).repair(proto)
        with tempfile.TemporaryDirectory() as folder:
            repaired = OnnxModel(Path(folder) / path.name, proto)
            write(proto, repaired.path)
            source = OnnxSource(opened)
            parity = check_parity(source, repaired, made_up_rows(source.inputs, source, repaired, seed))
        if parity.passed:
            with staged_path(path) as staged:
                write(proto, staged)
            opened = OnnxModel.read(path)
    elif output is not None:
        raise UsageError("-o names the repaired model: give --fix too.")
    linted, checks = _rules(deployed, opened).lint(opened, target, repairs)
    subject = Subject(
        name=opened.path.name,
        model=opened.summary(),
        parity=parity,
        lint=linted,
        checks=[*checks, *([parity_gate(parity)] if parity else [])],
    )
    return report_of("lint", [subject])


def _rules(target: Target, model: OnnxModel) -> RuleSet[Any]:
    rules = target.rules(model.path.parent)
    assert rules is not None  # noqa: S101 - `choose` refuses targets without
    return rules
