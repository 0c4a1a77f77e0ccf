"""`bench`: models are measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Unpack

from onnxtool.api.arguments import LoadArguments, PathLike, Progress, isolating, load_options, read_groups, silent
from onnxtool.api.records import report_of, source_summary
from onnxtool.bench.against import run_against
from onnxtool.bench.baseline import compare_with_baseline
from onnxtool.bench.plan import check_duration, check_effect
from onnxtool.bench.ray_executor import ray_cluster
from onnxtool.bench.resume import check_same_place, earlier_bench
from onnxtool.bench.runner import SourceTask, run_bench
from onnxtool.errors import UsageError
from onnxtool.history.runs import commit_here, machine_of
from onnxtool.history.store import History
from onnxtool.history.trends import compare_with_level
from onnxtool.models.onnx import settings
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.settings import full_name
from onnxtool.models.rows.data import Data, fit_data
from onnxtool.models.rows.inputs import Sizes, combinations, graph_domains, make_inputs, sizes_of
from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.opening import open_source
from onnxtool.reports.environment import environment
from onnxtool.reports.gates import (
    USUAL,
    bench_gates,
    comparison_gates,
    coverage_gates,
    finished_gates,
    latency_gates,
)
from onnxtool.reports.json import read as read_report
from onnxtool.reports.model import Bench, Comparison, Environment, ModelSummary, Report, Scenario, Subject
from onnxtool.validators.parity.pairs import Rows

MADE_UP_ROWS, MADE_UP_BYTES = 64, 2**26
"""What is made up to measure with, unless the largest batch is larger."""


@isolating
def bench(
    models: PathLike | Sequence[PathLike],
    *,
    providers: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int | None] = (None,),
    concurrency: Sequence[int] = (1,),
    scenario: Scenario = "single-stream",
    rate: float | None = None,
    latency_bound: float | Mapping[float, float] | None = None,
    io_binding: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    require_coverage: Mapping[str, float] = MappingProxyType({}),
    shapes: Mapping[str, Sequence[int]] = MappingProxyType({}),
    data: Data | None = None,
    duration: float = 2.0,
    timeout: float | None = None,
    source: str | None = None,
    against: PathLike | None = None,
    baseline: PathLike | None = None,
    against_history: PathLike | None = None,
    effect: float = 0.05,
    budget: float = 60.0,
    undecided: Literal["fail", "pass"] = "fail",
    strict: bool = False,
    resume: PathLike | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_report: Callable[[Report], None] | None = None,
    **load: Unpack[LoadArguments],
) -> Report:
    """Measure latency and throughput, each combination in a separate process.

    Args:
        models: One ONNX file or several.
        providers: `cpu`, `cuda`, `tensorrt`, or an execution provider's full name.
        batches: Batch sizes.
        threads: Threads within an operator; None leaves it to ONNX Runtime.
        concurrency: Numbers of threads that call one session at the same time.
        scenario: Arrival of queries, after MLPerf's loadgen: `single-stream`, `multi-stream`, `server`, `offline`.
        rate: Queries a second that arrive in the server scenario.
        latency_bound: Seconds within which p99 must be; or percentiles, as 0.5 and 0.99, each with its bound.
        io_binding: Whether inputs and outputs stay on the device.
        options: Options by name. `device_id` is of every provider, `cuda:device_id` of one. With a dot, as
            `session.intra_op.allow_spinning`, an entry of the session's configuration. Of the session itself:
            `graph_optimization_level` (disable, basic, extended, layout, all), `execution_mode` (sequential,
            parallel), `enable_cpu_mem_arena` and `enable_mem_pattern` (0, 1), `inter_op_num_threads`, and
            `free_dimension:NAME`, the size of a dynamic dimension that holds for the whole session.
        require_coverage: Provider to the share, from 0 to 1, of its cells' nodes and time that must be its own.
        shapes: Sizes of dynamic dimensions by name, every combination of which is measured. For made-up rows.
        data: As for `convert`. Batches are drawn from all rows.
        duration: Seconds of measuring in each cell, without the warm-up.
        timeout: Seconds after which a cell, or a comparison with `against`, has failed: with loading, and building an
            engine, which may take many minutes. By default 300 s (600 s with `against`) and 10 times the longer of
            `duration` and `budget`.
        source: Path, or `package.module:callable`, of a source model to measure too.
        against: Another ONNX file. Each model is compared with it, both alternately in one process, and
            nothing else is measured.
        baseline: The saved JSON report of an earlier run, which each cell is compared with.
        against_history: A history of `onnxtool history`, or a folder of reports: each cell is compared with its level
            of the last runs on this machine, 20 at most and 5 at least, since its last change.
        effect: The smallest slowdown that matters to `against`, `baseline` and `against_history`: 0.05 is 5 %.
        budget: Longest time in seconds of sampling to decide a comparison with `against`, or the bounds of a cell.
        undecided: Whether a gate that the data do not decide within the budget fails the run.
        strict: Whether a provider that is not usable fails the run.
        resume: The saved JSON report of a sweep that was interrupted: its measurements are not repeated.
        executor: Where cells are measured: one after the other here, or on all machines of a Ray cluster.
        ray_address: Address of the cluster; by default the one that runs on this machine, or this machine alone.
        seed: Seed of made-up rows, of arrivals, and of the order of the runs with `against`.
        on_progress: See `Progress`.
        on_report: Called after each cell with the report so far, which fails as unfinished.
        load: See `LoadArguments`.

    Returns:
        The report. It is falsy when a cell failed, nothing could be measured, a model is slower than what it is
        compared with, a latency is out of bounds, a gate is undecided (unless that is to pass), a provider had less
        of the model than required, or, with `strict`, a provider was not usable.

    Raises:
        OnnxtoolError: a file or an option is at fault.

    >>> speed = onnxtool.bench("model.onnx", batches=[1, 10], duration=0.1)
    >>> faster = speed["model.onnx"].latency(batch=1).p50 < speed["model.onnx"].latency(batch=10).p50
    """
    _check_together(
        against=against,
        earlier=baseline or against_history or resume,
        source=source,
        sweep=bool(require_coverage or latency_bound or scenario != "single-stream" or max(concurrency) > 1),
        resume=resume,
        ray=executor == "ray",
        ray_address=ray_address,
    )
    required = _required(require_coverage, providers)
    if undecided not in ("fail", "pass"):
        raise UsageError(f"What is undecided is to fail or to pass, not to {undecided!r}.")
    pass_undecided = undecided == "pass"
    bounds = {USUAL: latency_bound} if isinstance(latency_bound, int | float) else latency_bound or {}
    check_effect(effect)
    check_duration(budget)
    progress = on_progress or silent
    opened_models = [_read(path, options, providers) for path in _as_list(models)]
    other = _read(against, options, providers) if against is not None else None
    saved = read_report(Path(baseline)) if baseline is not None else None
    past = History(Path(against_history)) if against_history is not None else None
    earlier = read_report(Path(resume)) if resume is not None else None
    here = environment()
    if earlier is not None:
        check_same_place(str(resume), earlier, here)
    groups, origin = read_groups(data, {})
    opening = load_options(groups[0], load)
    opened = open_source(source, opening) if source is not None else None
    task = SourceTask(source=str(source), options=opening) if source is not None else None
    measured_source = source_summary(opened) if opened else None
    subjects: list[Subject] = []
    with ray_cluster(ray_address) if executor == "ray" else nullcontext() as cluster:
        for model in opened_models:
            rows = rows_of(model, opened, groups[0], origin, largest=max(batches), seed=seed)
            shaped = shaped_rows(model, opened, groups, origin, shapes=shapes, largest=max(batches), seed=seed)
            on_cell = partial(cell_progress, progress, model.path.name)
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
                    timeout_s=timeout,
                    seed=seed,
                    io_binding=io_binding,
                    options=options,
                    shaped=shaped,
                    on_progress=on_cell,
                )
                subjects.append(
                    Subject(
                        name=model.path.name,
                        model=model.summary(),
                        comparisons=comparisons,
                        checks=comparison_gates(comparisons, pass_undecided),
                    )
                )
                continue
            summary = model.summary()

            def subject_of(result: Bench, summary: ModelSummary = summary) -> Subject:
                result.latency_bound_s = bounds.get(USUAL)
                comparisons = []
                if saved is not None and not result.unfinished:
                    name = Path(str(baseline)).name
                    comparisons = compare_with_baseline(
                        Path(summary.path).name, result, saved, here, against=name, effect=effect
                    )
                if past is not None and not result.unfinished:
                    comparisons += _against_history(past, Path(summary.path).name, result, here, effect)
                return Subject(
                    name=Path(summary.path).name,
                    model=summary,
                    source=measured_source,
                    bench=result,
                    comparisons=comparisons,
                    checks=[
                        *finished_gates(result),
                        *bench_gates(result.cells, strict),
                        *coverage_gates(result.cells, required),
                        *latency_gates(result, pass_undecided),
                        *comparison_gates(comparisons, pass_undecided),
                    ],
                )

            def report_progress(result: Bench, of: Callable[[Bench], Subject] = subject_of) -> None:
                if on_report:
                    on_report(report_of("bench", [*subjects, of(result)], here))

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
                shaped=shaped,
                bounds=bounds,
                limit_s=budget,
                timeout_s=timeout,
                source=task,
                earlier=earlier_bench(earlier, summary, measured_source) if earlier is not None else None,
                on_progress=on_cell,
                on_cell=report_progress,
                execute=cluster.execute if cluster else None,
                machines=cluster.machines if cluster else (),
            )
            subjects.append(subject_of(result))
    return report_of("bench", subjects, here)


def _check_together(
    *,
    against: PathLike | None,
    earlier: PathLike | None,
    source: str | None,
    sweep: bool,
    resume: PathLike | None,
    ray: bool,
    ray_address: str | None,
) -> None:
    """Refuse options that contradict each other."""
    if against is not None and resume is None and (earlier is not None or source is not None):
        raise UsageError(
            "--against compares two models only: leave out --baseline, --against-history and --source."
        )
    if against is not None and (resume is not None or sweep):
        raise UsageError("Two models are compared one query at a time: leave out the options of a sweep.")
    if ray_address is not None and not ray:
        raise UsageError("An address of a Ray cluster is given, but the executor is not Ray.")
    if ray and (against is not None or earlier is not None):
        raise UsageError("What is compared or resumed is measured on one machine: leave out the executor.")


def _against_history(
    past: History, model: str, result: Bench, here: Environment, effect: float
) -> list[Comparison]:
    found = past.series(model, commit_here(Path()).branch) if model in past.models() else []
    if not found and model in past.models():  # the branch is new: the one with most runs is what it came from
        found = past.series(model)
    machine = machine_of(here)
    series = [one for one in found if one.machine == machine]
    return compare_with_level(result, series, against=f"history {past.path.name}", effect=effect)


def shaped_rows(
    model: OnnxModel,
    source: SourceModel | None,
    groups: Sequence[Tensors],
    origin: str,
    *,
    shapes: Mapping[str, Sequence[int]],
    largest: int,
    seed: int,
) -> dict[Sizes, Tensors]:
    """Rows of each combination of sizes that is measured on its own; empty where there is one only.

    Args:
        model: The model.
        source: Its source, if it is measured too.
        groups: The user's rows, in groups of equal lengths.
        origin: Where those came from.
        shapes: Sizes of dynamic dimensions of made-up rows, by name.
        largest: Rows of the largest batch.
        seed: Of made-up rows.
    """
    combined = combinations(shapes, model.inputs, groups[0])
    if len(groups) == 1:
        return {
            sizes: rows_of(model, source, {}, origin, largest=largest, seed=seed, sizes=dict(sizes)).tensors
            for sizes in combined
        }
    fitted = [fit_data(group, model.inputs, origin)[0] for group in groups]
    return {sizes_of(model.inputs, tensors): tensors for tensors in fitted}


def rows_of(
    model: OnnxModel,
    source: SourceModel | None,
    raw: Tensors,
    origin: str,
    *,
    largest: int,
    seed: int,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> Rows:
    """The rows to measure with: the user's, else made up as the model, or its source, says.

    Args:
        model: The model.
        source: Its source, if it is measured too.
        raw: The user's rows, empty where there are none.
        origin: Where those came from.
        largest: Rows of the largest batch.
        seed: Of made-up rows.
        sizes: Of dynamic dimensions of made-up rows, by name.
    """
    if raw:
        return Rows(fit_data(raw, model.inputs, origin)[0], origin)
    domains = {**graph_domains(model.proto), **(source.domains() if source else {})}
    tensors = make_inputs(model.inputs, largest, seed, domains, sizes)
    row_bytes = sum(array.nbytes for array in tensors.values()) / largest
    # several, since the latency may depend on the row
    if (several := int(min(MADE_UP_ROWS, MADE_UP_BYTES // max(row_bytes, 1)))) > largest:
        tensors = make_inputs(model.inputs, several, seed, domains, sizes)
    return Rows(tensors, "made up from the model's signature", seed)


def _read(path: PathLike, options: Mapping[str, str], providers: Sequence[str]) -> OnnxModel:
    """A model, which the options fit."""
    model = OnnxModel.read(path)
    settings.check(options, [full_name(name) for name in providers], model.proto.graph)
    return model


def _required(coverage: Mapping[str, float], providers: Sequence[str]) -> dict[str, float]:
    """Full names of providers to the coverage that is required of them."""
    required = {full_name(name): share for name, share in coverage.items()}
    if strange := required.keys() - {full_name(name) for name in providers}:
        raise UsageError(f"Coverage of {sorted(strange)[0]} is required, which is not among the providers.")
    return required


def _as_list(models: PathLike | Sequence[PathLike]) -> list[PathLike]:
    found = [models] if isinstance(models, str | os.PathLike) else list(models)
    if not found:
        raise UsageError("Name at least one ONNX model to measure.")
    return found


def cell_progress(progress: Progress, model: str, done: int, total: int, cell: str) -> None:
    """Progress of a cell under the name of its model."""
    progress(f"{model}: {cell}", done, total)
