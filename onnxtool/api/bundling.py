"""`bundle`: a folder with which a target's software scores a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxtool.api.arguments import (
    PathLike,
    Progress,
    fit_rows,
    isolating,
    load_options,
    open_counterpart,
    read_groups,
    silent,
    split_arguments,
)
from onnxtool.api.benching import cell_progress
from onnxtool.api.records import report_of, source_summary
from onnxtool.bench.runner import run_bench
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.data import Data
from onnxtool.models.rows.inputs import combinations
from onnxtool.models.signature import Tensors
from onnxtool.reports.gates import (
    bench_gates,
    parity_gate,
    version_gates,
)
from onnxtool.reports.model import (
    Report,
    Subject,
)
from onnxtool.targets.bundle import Proof, check_replaceable, write_bundle
from onnxtool.targets.golden import golden_rows
from onnxtool.targets.target import choose
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.pairs import check_parity, made_up_rows
from onnxtool.validators.parity.sizes import prove_sizes


@isolating
def bundle(
    model: PathLike,
    source: Any,
    output: PathLike,
    *,
    target: str = "mlnet",
    format: str | None = None,  # noqa: A002 - the option's name
    data: Data | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: Sequence[int | None] = (None,),
    duration: float = 1.0,
    force: bool = False,
    accept: bool = False,
    accept_version: Sequence[str] = (),
    accept_input_rounding: bool = False,
    accept_ties: bool = False,
    rtol: Limit = None,
    atol: Limit = None,
    shapes: Mapping[str, Sequence[int]] = MappingProxyType({}),
    seed: int = 0,
    on_progress: Progress | None = None,
    **more: Any,
) -> Report:
    """Write a folder for a target's software: the model, verified, linted and measured, and code to use it.

    Args:
        model: The ONNX file, made with the same `target`.
        source: As for `verify`.
        output: The folder. A bundle that is there already is replaced.
        target: Name of the deployment target.
        format: The same, under its older name.
        data: As for `convert`.
        providers: As for `bench`. They are measured with the target's batch sizes: of 1 for ML.NET, which runs one
            row at a time.
        threads: As for `bench`.
        duration: As for `bench`.
        force: Whether to replace a folder that is no bundle, with all that is in it.
        accept: Whether the target's own software, installed here, runs the bundle before it is written.
        accept_version: As for `convert`.
        accept_input_rounding: As for `convert`.
        accept_ties: As for `convert`.
        rtol: Relative tolerance, for all outputs or by name; None derives it from the model's own rounding.
        atol: Absolute tolerance, likewise.
        shapes: As for `verify`. A dimension with one size has no other in the target's code.
        seed: Seed of made-up rows.
        on_progress: See `Progress`.
        more: See `LoadArguments`; and the target's own options: of `mlnet`, `mlnet_version` and `name`.

    Returns:
        The report. It is falsy, and no bundle is written, when the model drifts, breaks a rule of the target's,
        cannot be measured, or is not accepted.

    Raises:
        OnnxtoolError: a file or an option is at fault; no bundle is written.

    >>> report = onnxtool.convert(model, "flower.onnx", data=x, target="mlnet")
    >>> report = onnxtool.bundle("flower.onnx", model, "bundle", data=x, duration=0.1)
    >>> sorted(path.name for path in Path("bundle").iterdir())  # doctest: +ELLIPSIS
    [...'README.md'...]
    """
    progress = on_progress or silent
    load, options = split_arguments(more)
    deployed = choose(format or target, "bundle", options)
    acceptance = deployed.acceptance() if accept else None
    folder = Path(os.path.abspath(output))  # noqa: PTH100 - resolve() would follow a link and replace what it leads to
    onnx_model = OnnxModel.read(model)
    deployed.check_model(onnx_model.path)
    given = [Path(path) for path in (model, source, data) if isinstance(path, str | os.PathLike)]
    check_replaceable(folder, deployed.name, force, kept=[path for path in given if path.exists()])
    groups, origin = read_groups(data, {})
    raw = groups[0]
    progress("Loading the source", 0, 0)
    opened = open_counterpart(onnx_model, source, load_options(raw, load))
    unread = [(group, Tensors()) for group in groups]
    if raw:
        combinations(shapes, opened.inputs, raw)
        rows = fit_rows(unread, opened, origin)
    else:
        rows = made_up_rows(opened.inputs, opened, onnx_model, seed, shapes)
    parity = check_parity(
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        accept_rounding=accept_input_rounding,
        accept_ties=accept_ties,
        on_progress=lambda done, total: progress("Comparing rows", done, total),
    )
    parity = prove_sizes(
        parity,
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        accept_rounding=accept_input_rounding,
        given=shapes,
    )
    rules = deployed.rules(onnx_model.path.parent)
    linted, broken = rules.lint(onnx_model, deployed.name) if rules else (None, [])
    checks = [parity_gate(parity), *version_gates(opened.saved_by, accept_version, parity), *broken]
    measured = None
    if all(check.passed for check in checks):
        measured = run_bench(
            onnx_model,
            inputs=match_inputs(opened.inputs, onnx_model.inputs, [])(rows.tensors),
            providers=providers,
            batches=deployed.batches,
            threads=threads,
            duration_s=duration,
            data=rows.origin,
            seed=rows.seed,
            on_progress=partial(cell_progress, progress, onnx_model.path.name),
        )
        checks += bench_gates(measured.cells, strict=False)
    subject = Subject(
        name=onnx_model.path.name,
        model=onnx_model.summary(),
        source=source_summary(opened),
        parity=parity,
        lint=linted,
        bench=measured,
        checks=checks,
    )
    report = report_of("bundle", [subject])
    if report:
        progress("Writing the bundle", 0, 0)
        golden = golden_rows(opened, onnx_model, rows, parity)
        fixed = {name for name, sizes in shapes.items() if len(sizes) == 1}
        proof = Proof(onnx_model, opened, golden, report, fixed)
        accepted = write_bundle(folder, partial(deployed.bundle, proof=proof), acceptance)
        if accepted:
            subject.checks.append(accepted)
    return report
