"""`lint`: an ONNX model is held against the rules of the runtime that will load it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnx

from onnxtool.api.arguments import PathLike
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
    Check,
    Lint,
    Report,
    Subject,
)
from onnxtool.targets.lint import described, find, lint_gates, repair
from onnxtool.targets.mlnet.releases import Deployment, Release, find_release
from onnxtool.targets.mlnet.rules import rules_of
from onnxtool.validators.parity.pairs import check_parity, made_up_rows


def lint(
    model: PathLike,
    *,
    target: Literal["mlnet"] = "mlnet",
    mlnet_version: str | None = None,
    fix: bool = False,
    output: PathLike | None = None,
    seed: int = 0,
) -> Report:
    """Hold an ONNX model against the rules of the runtime that will load it.

    Args:
        model: The ONNX file.
        target: The runtime.
        mlnet_version: Release of ML.NET whose limits are kept; the newest known by default.
        fix: Whether to repair what can be repaired. The repaired model is compared with the old one on made-up
            rows, and written only where the two agree.
        output: Where the repaired model is written; by default in the old one's place.
        seed: Seed of made-up rows.

    Returns:
        The report. It is falsy when a rule of level `error` is broken, after the repair if there is one, or when
        the repaired model differs.

    Raises:
        OnnxtoolError: the file or an option is at fault.
    """
    release = find_release(mlnet_version)
    rules, opened = rules_of(release), OnnxModel.read(model)
    parity, repairs = None, list[str]()
    if fix:
        path = Path(output if output is not None else model)
        check_writable(path)
        deployment = Deployment(release, opened.path.parent)
        proto = onnx.ModelProto()
        proto.CopyFrom(opened.proto)
        repairs = repair(proto, rules, deployment)
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
    linted, checks = lint_model(opened, release, repairs)
    subject = Subject(
        name=opened.path.name,
        model=opened.summary(),
        parity=parity,
        lint=linted,
        checks=[*checks, *([parity_gate(parity)] if parity else [])],
    )
    return report_of("lint", [subject])


def lint_model(model: OnnxModel, release: Release, repairs: Sequence[str] = ()) -> tuple[Lint, list[Check]]:
    """What breaks ML.NET's rules, and the gates of it."""
    rules = rules_of(release)
    findings = list(find(model.proto, rules, Deployment(release, model.path.parent)))
    linted = Lint(
        target="mlnet",
        release=release.version,
        rules=[described(rule) for rule in rules],
        findings=findings,
        repairs=list(repairs),
    )
    return linted, lint_gates(rules, findings)
