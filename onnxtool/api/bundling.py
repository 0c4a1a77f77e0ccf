"""`bundle`: a folder with which a .NET developer scores a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

from onnxtool.api.arguments import LoadArguments, PathLike, Progress, fit_rows, load_options, open_beside, silent
from onnxtool.api.benching import tell_cell
from onnxtool.api.linting import lint_model
from onnxtool.api.records import report_of, source_summary
from onnxtool.bench.runner import run_bench
from onnxtool.errors import UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.data import Data, to_arrays
from onnxtool.reports.gates import (
    bench_gates,
    parity_gate,
)
from onnxtool.reports.model import (
    Report,
    Subject,
)
from onnxtool.targets.golden import golden_rows
from onnxtool.targets.mlnet.bundle import check_replaceable, pinned_versions, write_bundle
from onnxtool.targets.mlnet.releases import find_release
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.pairs import check_parity, made_up_rows


def bundle(
    model: PathLike,
    source: Any,
    output: PathLike,
    *,
    format: Literal["mlnet"] = "mlnet",  # noqa: A002 - the option's name
    mlnet_version: str | None = None,
    data: Data | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: Sequence[int | None] = (None,),
    duration: float = 1.0,
    force: bool = False,
    rtol: Limit = None,
    atol: Limit = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    **load: Unpack[LoadArguments],
) -> Report:
    """Write a folder with which a .NET developer can use a model through ML.NET: verified, linted, measured.

    Args:
        model: The ONNX file, made with `target="mlnet"`.
        source: As for `verify`.
        output: The folder. A bundle that is there already is replaced.
        format: The runtime that it is for.
        mlnet_version: The release of ML.NET to be pinned; by default the newest that is known.
        data: As for `convert`.
        providers: As for `bench`. They are measured with batches of 1, since ML.NET runs one row at a time.
        threads: As for `bench`.
        duration: As for `bench`.
        force: Whether to replace a folder that is no bundle, with all that is in it.
        rtol: Relative tolerance, for all outputs or by name; None derives it from the model's own rounding.
        atol: Absolute tolerance, likewise.
        seed: Seed of made-up rows.
        on_progress: See `Progress`.
        load: See `LoadArguments`.

    Returns:
        The report. It is falsy, and no bundle is written, when the model drifts, breaks a rule of ML.NET's, or
        cannot be measured.

    Raises:
        OnnxtoolError: a file or an option is at fault; no bundle is written.
    """
    if format != "mlnet":
        raise UsageError(f"There is no format {format!r} of bundles. Known is mlnet.")
    tell = on_progress or silent
    versions = pinned_versions(mlnet_version)
    folder = Path(os.path.abspath(output))  # noqa: PTH100 - resolve() would follow a link and replace what it leads to
    onnx_model = OnnxModel.read(model)
    given = [Path(path) for path in (model, source, data) if isinstance(path, str | os.PathLike)]
    check_replaceable(folder, force, kept=[path for path in given if path.exists()])
    raw, origin = to_arrays(data) if data is not None else ({}, "")
    tell("Loading the source", 0, 0)
    opened = open_beside(onnx_model, source, load_options(raw, load))
    rows = fit_rows(raw, opened, origin) if raw else made_up_rows(opened.inputs, opened, onnx_model, seed)
    parity = check_parity(
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        on_progress=lambda done, total: tell("Comparing rows", done, total),
    )
    linted, checks = lint_model(onnx_model, find_release(mlnet_version))
    checks.insert(0, parity_gate(parity))
    measured = None
    if all(check.passed for check in checks):
        measured = run_bench(
            onnx_model,
            inputs=match_inputs(opened.inputs, onnx_model.inputs, [])(rows.tensors),
            providers=providers,
            batches=(1,),
            threads=threads,
            duration_s=duration,
            data=rows.origin,
            seed=rows.seed,
            on_progress=partial(tell_cell, tell, onnx_model.path.name),
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
        tell("Writing the bundle", 0, 0)
        golden = golden_rows(opened, onnx_model, rows, parity)
        write_bundle(folder, onnx_model, opened, report=report, golden=golden, versions=versions)
    return report
