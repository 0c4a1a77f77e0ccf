"""The verbs of the command line as functions: convert, verify, bench, lint, bundle."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

import numpy as np
import onnx

from onnxtool import clock
from onnxtool.bench.against import run_against
from onnxtool.bench.baseline import compare_with_baseline
from onnxtool.bench.plan import check_effect
from onnxtool.bench.providers import full_name
from onnxtool.bench.resume import check_same_place, earlier_bench
from onnxtool.bench.runner import SourceTask, run_bench
from onnxtool.converters.finish import Optimize, default_opset, finish, optimize_graph, write
from onnxtool.converters.framework import ConvertOptions, Framework, Target, frameworks, open_source
from onnxtool.converters.mlnet import Columns, adapt
from onnxtool.errors import UsageError
from onnxtool.files import check_writable, staged_path
from onnxtool.models.artifact import OnnxModel
from onnxtool.models.data import Data, count_rows, fit_data, text_columns, to_arrays
from onnxtool.models.inputs import graph_domains, make_inputs
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel, sha256
from onnxtool.models.stream import stream_data
from onnxtool.reports.bundle import check_replaceable, pinned_versions, write_bundle
from onnxtool.reports.environment import environment
from onnxtool.reports.gates import (
    bench_gates,
    comparison_gates,
    coverage_gates,
    drift_gate,
    finished_gates,
    hunt_gate,
    latency_gates,
    parity_gate,
)
from onnxtool.reports.json import read as read_report
from onnxtool.reports.model import (
    Bench,
    Check,
    ConversionRecord,
    Environment,
    Lint,
    ModelSummary,
    Report,
    Scenario,
    SourceSummary,
    Subject,
)
from onnxtool.validators.adversarial import DEFAULT_BUDGET, hunt
from onnxtool.validators.explain import explain as find_cause
from onnxtool.validators.feeds import match_inputs
from onnxtool.validators.golden import golden_rows
from onnxtool.validators.labels import Aside, Quality
from onnxtool.validators.lint import described, find, lint_gates, repair
from onnxtool.validators.mlnet import rules_of
from onnxtool.validators.mlnet_releases import Deployment, Release, find_release
from onnxtool.validators.onnx_source import OnnxSource
from onnxtool.validators.parity import Block, Pair, Rows, check_parity, made_up_rows
from onnxtool.validators.tolerance import Limit

PathLike: TypeAlias = str | os.PathLike[str]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0 where that is not known)."""

# Two rows: an exporter that traces a single row takes the batch dimension for a constant 1.
_EXAMPLE_ROWS = 2


class LoadArguments(TypedDict, total=False):
    """How the source model is opened, the same for every verb.

    Attributes:
        inputs: `NAME:DTYPE[DIMS]`, one an input, for models that carry no signature.
        trust: Full names, `package.Class`, that a pickle may use besides those known to be safe.
        weights: Weights (safetensors, or a state dict) for a module built by a callable.
        signature: Name of a SavedModel's signature.
    """

    inputs: Sequence[str | TensorSpec]
    trust: Sequence[str]
    weights: PathLike | None
    signature: str | None


def convert(
    source: Any,
    output: PathLike | None = None,
    *,
    data: Data | None = None,
    opset: int | None = None,
    target: Target = "ort",
    columns: Columns | None = None,
    mlnet_version: str | None = None,
    optimize: Optimize = "none",
    verify: bool = True,
    rtol: Limit = None,
    atol: Limit = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    **load: Unpack[LoadArguments],
) -> Report:
    """Convert a model to ONNX and prove that it still says the same.

    Args:
        source: A path, a `package.module:callable`, or a live estimator, module or Keras model.
        output: The ONNX file to write; by default the source's name with `.onnx`, in the current folder.
        data: Real rows to verify with: a file, arrays by input name, an array or a data frame. Without them
            rows are made up from the model's signature.
        opset: Version of the default operator set, or None for the framework's default.
        target: The runtime that will load the model; `mlnet` keeps ML.NET's rules.
        columns: For ML.NET, how the columns of a table go in: `separate`, an input of shape [batch, 1] each, or
            `vector`, one input for all of a dtype. None keeps the source's way.
        mlnet_version: Release of ML.NET whose limits are kept; the newest known by default.
        optimize: `none`, `basic` (onnxsim) or `full` (ONNX Runtime's own graph as well).
        verify: Whether to compare the result with the source.
        rtol: Relative tolerance, for all outputs or by name; None derives it from the model's own rounding.
        atol: Absolute tolerance, likewise.
        seed: Seed of made-up rows.
        on_progress: See `Progress`.
        load: See `LoadArguments`.

    Returns:
        The report. It is falsy when the ONNX model drifts; the file is kept.

    Raises:
        OnnxtoolError: the source, the data or the options are at fault; no file is left.
    """
    tell = on_progress or _silent
    path = Path(output) if output is not None else Path(f"{_source_name(source)}.onnx")
    check_writable(path)
    tell("Loading the source", 0, 0)
    raw, origin = to_arrays(data) if data is not None else ({}, "")
    model = open_source(source, _load_options(raw, load))
    framework = frameworks()[model.framework]
    if target != "mlnet" and (columns or mlnet_version):
        raise UsageError("--columns and --mlnet-version go with --target mlnet.")
    release = find_release(mlnet_version)
    _check_opset(opset, framework, release if target == "mlnet" else None)
    if target == "mlnet" and opset is None:
        opset = min(framework.default_opset, release.opset)
    rows = _fit(raw, model, origin) if raw else None

    tell(f"Converting from {framework.name}", 0, 0)
    began = time.perf_counter()
    conversion = framework.convert(model, _example(model, rows, seed), ConvertOptions(opset=opset, target=target))
    converted = time.perf_counter()
    proto, optimized = optimize_graph(conversion.model, optimize)
    adapted = adapt(proto, model, columns, release) if target == "mlnet" else []
    finish(proto, model.inputs, _provenance(model))
    with staged_path(path) as staged:
        write(proto, staged)
        finished = time.perf_counter()
        parity = None
        if verify:
            written = OnnxModel(staged, proto)
            parity = check_parity(
                model,
                written,
                rows or made_up_rows(model.inputs, model, written, seed),
                rtol=rtol,
                atol=atol,
                on_progress=lambda done, total: tell("Comparing rows", done, total),
            )
    subject = Subject(
        name=path.name,
        model=OnnxModel.read(path).summary(),
        source=_summary(model),
        conversion=ConversionRecord(
            opset=default_opset(proto),
            target=target,
            optimize=optimize,
            convert_s=converted - began,
            finish_s=finished - converted,
            choices=[*conversion.choices, *optimized, *adapted],
        ),
        parity=parity,
        checks=[parity_gate(parity)] if parity else [],
    )
    return _report("convert", [subject])


def verify(
    model: PathLike,
    source: Any,
    *,
    data: Data | None = None,
    labels: str | None = None,
    group: str | None = None,
    rtol: Limit = None,
    atol: Limit = None,
    provider: str = "cpu",
    against_provider: str = "cpu",
    explain: bool = False,
    adversarial: bool = False,
    budget: str | float = DEFAULT_BUDGET,
    save_worst: PathLike | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    **load: Unpack[LoadArguments],
) -> Report:
    """Hold an ONNX model against its source: every output of every row.

    Args:
        model: The ONNX file.
        source: A path, a `package.module:callable`, or a live estimator, module or Keras model; or another ONNX
            file, or the same one on another provider.
        data: As for `convert`.
        labels: A column of the data, or a file, with the true label of each row: quality is compared too.
        group: A column of the data by which quality is compared as well, so that no group pays for the average.
        rtol: Relative tolerance, for all outputs or by name; None derives it from the model's own rounding.
        atol: Absolute tolerance, likewise.
        provider: Execution provider that runs the model: `cpu`, `cuda`, `tensorrt`, or its full name.
        against_provider: Execution provider that runs the source, if that is an ONNX model.
        explain: Whether to find the first layer, node or step after which the two are apart, and why.
        adversarial: Whether to search for rows on which the two part, from these rows on.
        budget: What the search may take: seconds, as in `30s`, or rows, as in `20000`.
        save_worst: File for the worst rows that the search finds; by default `<model>.worst.npz` in the current
            folder, if they drift.
        seed: Seed of made-up rows.
        on_progress: See `Progress`.
        load: See `LoadArguments`.

    Returns:
        The report. It is falsy when the models differ by more than the tolerance, or quality is lost.

    Raises:
        OnnxtoolError: a file or an option is at fault.
    """
    tell = on_progress or _silent
    if save_worst is not None:
        check_writable(Path(save_worst))
    onnx_model = OnnxModel.read(model)
    if group is not None and labels is None:
        raise UsageError(f"--group {group} goes with --labels.")
    later = stream_data(Path(data)) if isinstance(data, str | os.PathLike) else None
    raw, origin = (next(later), str(data)) if later else to_arrays(data) if data is not None else ({}, "")
    aside = Aside(labels, group, raw, origin) if labels is not None else None
    tell("Loading the source", 0, 0)
    known = {name: array for name, array in raw.items() if name != labels}
    opened = _open_beside(onnx_model, source, _load_options(known, load, against_provider))
    if against_provider != "cpu" and opened.framework != "onnx":
        raise UsageError(f"--against-provider is for a source that is an ONNX model; {opened.kind} is none.")
    if later and (text := text_columns(raw, opened.inputs)):
        later = stream_data(Path(origin), text)
        raw = next(later)
    if raw:
        rows = _stream(raw, later, opened, origin, aside)
    else:
        rows = made_up_rows(opened.inputs, opened, onnx_model, seed)
        rows = replace(rows, aside=aside.take({}, count_rows(rows.tensors, opened.inputs), ())[1] if aside else {})
    quality = Quality(aside.origin, opened.roles, group) if aside else None
    worst: dict[int, Tensors] | None = {} if explain else None
    parity = check_parity(
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        provider=provider,
        on_progress=lambda done, total: tell("Comparing rows", done, total),
        worst=worst,
        on_outputs=quality.update if quality else None,
    )
    if worst is not None:
        tell("Explaining the difference", 0, 0)
        found = find_cause(Pair(opened, onnx_model, provider), worst, rows.tensors)
        parity = parity.model_copy(update={"explanation": found})
    checks = [parity_gate(parity)]
    hunted = None
    if adversarial:
        hunted = hunt(
            Pair(opened, onnx_model, provider),
            rows.tensors,
            rtol=rtol,
            atol=atol,
            budget=budget,
            seed=seed,
            save=Path(save_worst or f"{onnx_model.path.stem}.worst.npz"),
            always_save=save_worst is not None,
            on_progress=partial(tell, "Hunting for drift"),
        )
        checks.append(hunt_gate(hunted))
    drift = None
    if aside and quality:
        aside.finish()
        drift = quality.result()
        checks.append(drift_gate(drift))
    subject = Subject(
        name=onnx_model.path.name,
        model=onnx_model.summary(),
        source=_summary(opened),
        parity=parity,
        hunt=hunted,
        drift=drift,
        checks=checks,
    )
    return _report("verify", [subject])


def bench(
    models: PathLike | Sequence[PathLike],
    *,
    providers: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int | None] = (None,),
    concurrency: Sequence[int] = (1,),
    scenario: Scenario = "single-stream",
    rate: float | None = None,
    latency_bound: float | None = None,
    io_binding: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    require_coverage: Mapping[str, float] = MappingProxyType({}),
    data: Data | None = None,
    duration: float = 2.0,
    source: str | None = None,
    against: PathLike | None = None,
    baseline: PathLike | None = None,
    effect: float = 0.05,
    budget: float = 60.0,
    strict: bool = False,
    resume: PathLike | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_report: Callable[[Report], None] | None = None,
    **load: Unpack[LoadArguments],
) -> Report:
    """Measure latency and throughput, each combination in a process of its own.

    Args:
        models: One ONNX file or several.
        providers: `cpu`, `cuda`, `tensorrt`, or an execution provider's full name.
        batches: Batch sizes.
        threads: Threads within an operator; None leaves it to ONNX Runtime.
        concurrency: Numbers of threads that call one session at the same time.
        scenario: How queries come, after MLPerf's loadgen: `single-stream`, `multi-stream`, `server`, `offline`.
        rate: Queries a second that arrive in the server scenario.
        latency_bound: Seconds within which p99 must be.
        io_binding: Whether inputs and outputs stay on the device.
        options: Options of the providers, or, with a dot in the name, entries of the session's configuration.
        require_coverage: Provider to the share, from 0 to 1, of its cells' nodes and time that must be its own.
        data: As for `convert`.
        duration: Seconds of measuring in each cell, warm-up aside.
        source: Path, or `package.module:callable`, of a source model to measure beside.
        against: Another ONNX file. Each model is held against it, both in turn in one process, and
            nothing else is measured.
        baseline: The saved JSON report of an earlier run, which each cell is held against.
        effect: The smallest slowdown that matters to `against` and `baseline`: 0.05 is 5 %.
        budget: Longest time in seconds of sampling for each comparison with `against`.
        strict: Whether a provider that is not usable, or what is not decided, fails the run.
        resume: The saved JSON report of a sweep that was interrupted: what it measured is not measured again.
        seed: Seed of made-up rows, of arrivals, and of the order of the runs with `against`.
        on_progress: See `Progress`.
        on_report: Called after each cell with the report of what there is, which fails as unfinished.
        load: See `LoadArguments`.

    Returns:
        The report. It is falsy when a cell failed, nothing could be measured, a model is slower than what it is
        held against, a latency is out of bounds, a provider had less of the model than required, or, with
        `strict`, a provider was not usable or something was not decided.

    Raises:
        OnnxtoolError: a file or an option is at fault.
    """
    if against is not None and (baseline is not None or source is not None):
        raise UsageError("A model is held against another one alone: leave out the baseline and the source.")
    if against is not None and (
        resume is not None
        or require_coverage
        or latency_bound
        or scenario != "single-stream"
        or max(concurrency) > 1
    ):
        raise UsageError("Two models are compared one query at a time: leave out what is asked of a sweep.")
    required = {full_name(name): share for name, share in require_coverage.items()}
    if strange := required.keys() - {full_name(name) for name in providers}:
        raise UsageError(f"Coverage of {sorted(strange)[0]} is required, which is not among the providers.")
    check_effect(effect)
    tell = on_progress or _silent
    opened_models = [OnnxModel.read(path) for path in _as_list(models)]
    other = OnnxModel.read(against) if against is not None else None
    saved = read_report(Path(baseline)) if baseline is not None else None
    earlier = read_report(Path(resume)) if resume is not None else None
    here = environment()
    if earlier is not None:
        check_same_place(str(resume), earlier, here)
    raw, origin = to_arrays(data) if data is not None else ({}, "")
    load_options = _load_options(raw, load)
    opened = open_source(source, load_options) if source is not None else None
    task = SourceTask(source=str(source), options=load_options) if source is not None else None
    source_summary = _summary(opened) if opened else None
    subjects: list[Subject] = []
    for model in opened_models:
        if raw:
            rows = Rows(fit_data(raw, model.inputs, origin)[0], origin)
        else:
            domains = {**graph_domains(model.proto), **(opened.domains() if opened else {})}
            tensors = make_inputs(model.inputs, max(batches), seed, domains)
            rows = Rows(tensors, "made up from the model's signature", seed)
        on_cell = partial(_tell_cell, tell, model.path.name)
        if other is not None:
            comparisons = run_against(
                model,
                other,
                inputs=rows.tensors,
                providers=providers,
                batches=batches,
                threads=threads,
                effect=effect,
                budget_s=budget,
                seed=seed,
                io_binding=io_binding,
                options=options,
                on_progress=on_cell,
            )
            subjects.append(
                Subject(
                    name=model.path.name,
                    model=model.summary(),
                    comparisons=comparisons,
                    checks=comparison_gates(comparisons, strict),
                )
            )
            continue
        summary = model.summary()

        def subject_of(result: Bench, summary: ModelSummary = summary) -> Subject:
            result.latency_bound_s = latency_bound
            comparisons = []
            if saved is not None and not result.unfinished:
                name = Path(str(baseline)).name
                comparisons = compare_with_baseline(
                    Path(summary.path).name, result, saved, here, against=name, effect=effect
                )
            return Subject(
                name=Path(summary.path).name,
                model=summary,
                source=source_summary,
                bench=result,
                comparisons=comparisons,
                checks=[
                    *finished_gates(result),
                    *bench_gates(result.cells, strict),
                    *coverage_gates(result.cells, required),
                    *latency_gates(result, strict),
                    *comparison_gates(comparisons, strict),
                ],
            )

        def tell_report(result: Bench, of: Callable[[Bench], Subject] = subject_of) -> None:
            if on_report:
                on_report(_report("bench", [*subjects, of(result)], here))

        result = run_bench(
            model,
            inputs=rows.tensors,
            providers=providers,
            batches=batches,
            threads=threads,
            duration_s=duration,
            data=rows.origin,
            seed=seed if scenario == "server" else rows.seed,
            concurrency=concurrency,
            scenario=scenario,
            rate=rate,
            io_binding=io_binding,
            options=options,
            source=task,
            earlier=earlier_bench(earlier, summary, source_summary) if earlier is not None else None,
            on_progress=on_cell,
            on_cell=tell_report,
        )
        subjects.append(subject_of(result))
    return _report("bench", subjects, here)


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
    tell = on_progress or _silent
    versions = pinned_versions(mlnet_version)
    folder = Path(os.path.abspath(output))  # noqa: PTH100 - resolve() would follow a link and replace what it leads to
    onnx_model = OnnxModel.read(model)
    given = [Path(path) for path in (model, source, data) if isinstance(path, str | os.PathLike)]
    check_replaceable(folder, force, kept=[path for path in given if path.exists()])
    raw, origin = to_arrays(data) if data is not None else ({}, "")
    tell("Loading the source", 0, 0)
    opened = _open_beside(onnx_model, source, _load_options(raw, load))
    rows = _fit(raw, opened, origin) if raw else made_up_rows(opened.inputs, opened, onnx_model, seed)
    parity = check_parity(
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        on_progress=lambda done, total: tell("Comparing rows", done, total),
    )
    linted, checks = _lint(onnx_model, find_release(mlnet_version))
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
            on_progress=partial(_tell_cell, tell, onnx_model.path.name),
        )
        checks += bench_gates(measured.cells, strict=False)
    subject = Subject(
        name=onnx_model.path.name,
        model=onnx_model.summary(),
        source=_summary(opened),
        parity=parity,
        lint=linted,
        bench=measured,
        checks=checks,
    )
    report = _report("bundle", [subject])
    if report:
        tell("Writing the bundle", 0, 0)
        golden = golden_rows(opened, onnx_model, rows, parity)
        write_bundle(folder, onnx_model, opened, report=report, golden=golden, versions=versions)
    return report


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
    linted, checks = _lint(opened, release, repairs)
    subject = Subject(
        name=opened.path.name,
        model=opened.summary(),
        parity=parity,
        lint=linted,
        checks=[*checks, *([parity_gate(parity)] if parity else [])],
    )
    return _report("lint", [subject])


def _lint(model: OnnxModel, release: Release, repairs: Sequence[str] = ()) -> tuple[Lint, list[Check]]:
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


def _check_opset(opset: int | None, framework: Framework, release: Release | None) -> None:
    if opset is None:
        return
    if not 1 <= opset <= framework.max_opset:
        raise UsageError(
            f"--opset {opset} is out of range: {framework.name} models convert up to opset {framework.max_opset}."
        )
    if release and opset > release.opset:
        raise UsageError(
            f"--opset {opset} is out of range: ML.NET {release.version} has ONNX Runtime {release.runtime}, which "
            f"takes up to opset {release.opset}."
        )


def _tell_cell(tell: Progress, model: str, done: int, total: int, cell: str) -> None:
    tell(f"{model}: {cell}", done, total)


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _as_list(models: PathLike | Sequence[PathLike]) -> list[PathLike]:
    found = [models] if isinstance(models, str | os.PathLike) else list(models)
    if not found:
        raise UsageError("Name at least one ONNX model to measure.")
    return found


def _source_name(source: Any) -> str:
    if not isinstance(source, str | os.PathLike):
        return type(source).__name__
    path = Path(source)
    return path.stem if path.exists() else path.name.rpartition(":")[2]


def _load_options(raw: Tensors, load: LoadArguments, provider: str = "cpu") -> LoadOptions:
    weights = load.get("weights")
    return LoadOptions(
        trust=tuple(load.get("trust", ())),
        inputs=tuple(TensorSpec.parse(spec) if isinstance(spec, str) else spec for spec in load.get("inputs", ())),
        weights=Path(weights) if weights is not None else None,
        signature=load.get("signature"),
        data=raw,
        provider=provider,
    )


def _open_beside(model: OnnxModel, source: Any, options: LoadOptions) -> SourceModel:
    """Open a source; one that carries no signature of its own takes the ONNX model's."""
    try:
        return open_source(source, options)
    except UsageError:
        if options.inputs:
            raise
        return open_source(source, replace(options, inputs=model.inputs, data={}))


def _fit(raw: Tensors, model: SourceModel, origin: str) -> Rows:
    tensors, notes = fit_data(raw, model.inputs, origin)
    return Rows(tensors, origin, notes=notes)


def _stream(
    raw: Tensors, later: Iterator[Tensors] | None, model: SourceModel, origin: str, aside: Aside | None
) -> Rows:
    """Rows that are fitted to the model as they are read; what no model reads is set aside."""
    notes: list[str] = []
    read = {name for spec in model.inputs for name in (spec.name, *spec.columns)}

    def fit(block: Tensors) -> Block:
        rest, columns = aside.take(block, max(map(len, block.values())), read) if aside else (block, {})
        tensors, said = fit_data(rest, model.inputs, origin)
        notes.extend(note for note in said if note not in notes)
        return Block(tensors, columns)

    first = fit(raw)
    return Rows(first.tensors, origin, notes=notes, aside=first.aside, later=map(fit, later) if later else None)


def _example(model: SourceModel, rows: Rows | None, seed: int) -> Tensors:
    if rows is None:
        return make_inputs(model.inputs, _EXAMPLE_ROWS, seed, model.domains())
    if count_rows(rows.tensors, model.inputs) < _EXAMPLE_ROWS:
        return {name: np.repeat(tensor, _EXAMPLE_ROWS, axis=0) for name, tensor in rows.tensors.items()}
    return {name: tensor[:_EXAMPLE_ROWS] for name, tensor in rows.tensors.items()}


def _provenance(model: SourceModel) -> dict[str, str]:
    summary = _summary(model)
    known = {
        "onnxtool.source.framework": f"{summary.framework} {summary.framework_version}",
        "onnxtool.source.kind": summary.kind,
        "onnxtool.source.sha256": summary.sha256,
    }
    return {key: value for key, value in known.items() if value}


def _summary(model: SourceModel) -> SourceSummary:
    return SourceSummary(
        framework=model.framework,
        framework_version=model.framework_version,
        kind=model.kind,
        path=str(model.path) if model.path else None,
        sha256=sha256(model.path) if model.path else None,
    )


def _report(command: str, subjects: list[Subject], here: Environment | None = None) -> Report:
    return Report.model_validate(
        {
            "command": command,
            "created": clock.now(),
            "environment": here or environment(),
            "subjects": subjects,
        }
    )
