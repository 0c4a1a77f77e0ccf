"""Run a sweep: each cell in a separate worker process, so that a failure affects that cell only."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.bench.feeds import batches_of, stacked
from onnxtool.bench.plan import SOURCE, CellPlan, check_duration, plan_cells
from onnxtool.bench.resume import kept_cells
from onnxtool.bench.statistics import summarise
from onnxtool.bench.task import SourceTask, Task, read_answer, write_task
from onnxtool.errors import DataError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.log import runtime_messages
from onnxtool.models.onnx.settings import full_name
from onnxtool.models.rows.batches import Batching
from onnxtool.models.rows.inputs import Sizes, sizes_of
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import files_of
from onnxtool.process import Outcome, last_line, run_worker
from onnxtool.reports.model import Bench, Cell, Environment, Scenario
from onnxtool.sandbox import launch
from onnxtool.system import ran_out_of_memory, signal_name

__all__ = ["SourceTask", "run_bench"]

WORKER = "onnxtool.bench.worker"

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
"""Where the locks of joblib's threads lie; without them a forest would run, and be measured, in one."""

Execute: TypeAlias = Callable[
    [Sequence[CellPlan], Callable[[CellPlan], Task], float, Callable[[CellPlan], None]],
    Iterator[tuple[CellPlan, Cell]],
]
"""Measures cells in any order, given how a cell's task is made, the time limit, and what to call before each."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # PyTorch, XGBoost, LightGBM, scikit-learn
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
"""What frameworks read when they are imported; an estimator's own n_jobs goes before them."""


def run_bench(
    model: OnnxModel | str | Path,
    *,
    inputs: Tensors,
    providers: Sequence[str],
    batches: Sequence[int],
    threads: Sequence[int | None],
    duration_s: float,
    data: str,
    seed: int | None,
    concurrency: Sequence[int] = (1,),
    scenario: Scenario = "single-stream",
    rate: float | None = None,
    io_binding: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    shaped: Mapping[Sizes, Tensors] = MappingProxyType({}),
    bounds: Mapping[float, float] = MappingProxyType({}),
    limit_s: float = 0.0,
    source: SourceTask | None = None,
    timeout_s: float | None = None,
    earlier: Bench | None = None,
    execute: Execute | None = None,
    machines: Sequence[Environment] = (),
    on_progress: Callable[[int, int, str], None] | None = None,
    on_cell: Callable[[Bench], None] | None = None,
) -> Bench:
    """Measure a model on every combination of provider, batch, threads and concurrency.

    Args:
        model: The ONNX model.
        inputs: At least one row of each input. Cells draw their batches from all of them.
        providers: `cpu`, `cuda`, `tensorrt` and their like, or full names.
        batches: Rows in a run. A model whose batch is fixed fails the cells of other batches.
        threads: Threads within an operator; None leaves it to the runtime.
        duration_s: How long the runs of a cell are timed, after a warm-up of that time at most.
        data: Where the rows came from, for the report.
        seed: Seed of made-up rows, and of the arrivals in the server scenario.
        concurrency: Threads that call the one session.
        scenario: How queries come; see `load`.
        rate: Queries a second in the server scenario.
        io_binding: Whether inputs and outputs stay on the device.
        options: Options of the providers and of the session, as `settings` has them.
        shaped: Rows in place of `inputs`, for each of several sizes of the dynamic dimensions: all are measured.
        bounds: Percentiles of the latency, as 0.99, and what each must be within, in s; not of the source.
        limit_s: How long a cell may be measured to decide its bounds, where that is longer than the duration.
        source: The source model, to be measured in its own framework with the same rows, batches and threads.
        timeout_s: A cell that takes longer has failed. By default 5 minutes and 10 times the duration or the limit:
            building a TensorRT engine takes minutes.
        earlier: A part of the same sweep that is measured already.
        execute: Where cells are measured; by default here, one after the other.
        machines: The machines that the cells of a spread sweep name.
        on_progress: Called with the number of cells done, the number of all cells, and a description of the
            cell that is measured next (at the end, of the last one).
        on_cell: Called with what there is after each cell.

    Raises:
        UsageError: the options name no cell, or no provider that ONNX Runtime knows, or not what `earlier` has.
        DataError: an input has no rows.
        ModelError: `model` is no ONNX file.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if not isinstance(model, OnnxModel):
        model = OnnxModel.read(model)
    check_duration(duration_s)
    names = [full_name(name) for name in providers]
    shaped = shaped or {sizes_of(model.inputs, inputs): inputs}
    plans = plan_cells(
        names,
        batches,
        threads,
        concurrency,
        scenario=scenario,
        rate=rate,
        io_binding=io_binding,
        options=options,
        bounds=bounds,
        dims=list(shaped),
    )
    if source is not None:
        plans += plan_cells(
            [SOURCE], batches, threads, concurrency, scenario=scenario, rate=rate, dims=list(shaped)
        )
    for rows in shaped.values():
        check_rows(model.inputs, rows)
    if timeout_s is not None:
        check_duration(timeout_s)
    else:
        timeout_s = 300 + 10 * max(duration_s, limit_s)
    bench = Bench(
        data=data,
        seed=seed,
        duration_s=duration_s,
        rows_sha256=digest(_together(shaped)),
        machines=list(machines),
        cells=[],
    )
    cells = {plan: cell for plan, cell in kept_cells(bench, earlier).items() if plan in plans}
    fixed = fixed_batch(model.inputs)
    cells |= {plan: _refused(plan, fixed) for plan in plans if fixed is not None and fixed != plan.batch}

    def task_of(plan: CellPlan) -> Task:
        return Task(
            plan=plan,
            duration_s=duration_s,
            limit_s=limit_s,
            seed=seed or 0,
            model=source if source is not None and plan.provider == SOURCE else str(model.path),
            inputs=stacked(batches_of(shaped[plan.dims], model.inputs, plan.batch, seed or 0)),
        )

    def begin(plan: CellPlan) -> None:
        if on_progress:
            on_progress(len(cells), len(plans), str(plan))

    left = [plan for plan in plans if plan not in cells]
    for plan, cell in (execute or one_by_one)(left, task_of, timeout_s, begin):
        cells[plan] = cell
        bench.cells = [cells[plan] for plan in plans if plan in cells]
        bench.unfinished = len(plans) - len(cells)
        if on_cell:
            on_cell(bench)
    bench.cells = [cells[plan] for plan in plans]
    begin(plans[-1])
    return bench


def _together(shaped: Mapping[Sizes, Tensors]) -> Tensors:
    """All rows, under names that differ."""
    if len(shaped) == 1:
        return next(iter(shaped.values()))
    return {f"{name} {dims}": array for dims, rows in shaped.items() for name, array in rows.items()}


def one_by_one(
    plans: Sequence[CellPlan],
    task_of: Callable[[CellPlan], Task],
    timeout_s: float,
    begin: Callable[[CellPlan], None],
) -> Iterator[tuple[CellPlan, Cell]]:
    """Measure cells here, one after the other, so that none disturbs another."""
    for plan in plans:
        begin(plan)
        yield plan, run_task(task_of(plan), timeout_s)


def digest(tensors: Tensors) -> str:
    """SHA-256 of arrays with their names, dtypes and shapes, in hexadecimal."""
    found = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        found.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        text = array.dtype.kind in "OU"
        found.update(json.dumps([str(value) for value in array.ravel()]).encode() if text else array.tobytes())
    return found.hexdigest()


def run_task(task: Task, timeout_s: float) -> Cell:
    """Measure one cell in a worker."""
    # Files without a name: nothing is left of them, however this process ends.
    with (
        tempfile.TemporaryFile() as task_file,
        tempfile.TemporaryFile() as answer_file,
        _confined(task) as confined,
    ):
        module, variables = confined
        try:
            write_task(task_file, task)
            task_file.seek(0)
            outcome = run_worker([*module, WORKER], task_file, answer_file, variables, timeout_s)
        except OSError as error:
            return task.plan.cell("failed", f"Its worker could not be started: {error.strerror or error}.")
        answer_file.seek(0)
        try:
            cell, samples = read_answer(answer_file)
        except ValueError:
            return task.plan.cell("failed", f"Its worker {end_of(outcome, timeout_s)}")
    return complete(cell, samples, outcome, timeout_s)


@contextmanager
def _confined(task: Task) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """The arguments before the worker's module, and its environment; sandboxed for a source that has limits."""
    if (
        not isinstance(task.model, SourceTask)
        or (limits := task.model.options.limits) is None
        or not Path(task.model.source).exists()  # a package.module:callable is the user's own
    ):
        yield [], worker_environment(task)
        return
    with tempfile.TemporaryDirectory(prefix="onnxtool-source-") as name:
        readable = files_of(task.model.source, task.model.options)
        module = launch.confinement(limits, [Path(name), SHARED_MEMORY], readable)
        yield module, worker_environment(task, launch.environment(Path(name)))


def _refused(plan: CellPlan, fixed: int) -> Cell:
    """A cell that its model cannot run. The other cells of the sweep are none the worse for it."""
    return plan.cell(
        "failed",
        f"The model's batch is fixed at {fixed}: it cannot run {plan.batch} rows at once. "
        f"Use batch {fixed}, or convert it with a dynamic batch.",
    )


def complete(cell: Cell, samples_ns: NDArray[np.int64], outcome: Outcome, timeout_s: float) -> Cell:
    """Add to a worker's answer what its samples and its log say."""
    messages = runtime_messages(outcome.log)
    if cell.status == "unavailable":
        # The log names the library that is missing; the exception, if there was one, rarely does.
        cell.reason = "; ".join(text.rstrip(".") for text in (cell.reason or "", *messages)) + "."
        return cell
    cell.warnings += [text for text in messages if text not in (cell.reason or "")]
    if cell.status == "measured":
        if outcome.exit_code != 0:
            cell.warnings.append(f"After the measurement its worker {end_of(outcome, timeout_s)}")
        cell.latency = summarise(samples_ns, batches=cell.batches if cell.concurrency == 1 else 1)
    return cell


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """The only batch that a model takes, or None where it takes any number of rows."""
    return Batching.of(specs).size if any(spec.shape for spec in specs) else None


def check_rows(specs: Sequence[TensorSpec], inputs: Tensors) -> None:
    """Check that each input has at least one row.

    Raises:
        DataError: one has none.
    """
    for spec in specs:
        if spec.name not in inputs:
            raise DataError(f"There are no values for the input {spec}.")
        if spec.shape and not len(inputs[spec.name]):
            raise DataError(f"There are no rows for the input {spec}: give at least one.")


def worker_environment(task: Task | None = None, variables: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """The environment of a worker, with the threads that a source's framework reads there."""
    # Its uploader would be a thread next to the measured ones, and would send data of the user's model.
    environment = {"ORT_DISABLE_TELEMETRY": "1", **variables}
    if task is not None and task.plan.threads is not None and isinstance(task.model, SourceTask):
        environment |= dict.fromkeys(_THREAD_VARIABLES, str(task.plan.threads))
    return environment


def end_of(outcome: Outcome, timeout_s: float) -> str:
    """The way in which a worker without an answer ended, as text after "its worker"."""
    if outcome.exit_code is None:
        how = f"did not end within {timeout_s:g} s (--timeout)"
    elif outcome.exit_code < 0:
        how = f"was ended by {signal_name(-outcome.exit_code)}"
        if ran_out_of_memory(outcome.exit_code):
            how += " (the system does so when memory runs out)"
    else:
        how = f"ended with exit code {outcome.exit_code}"
    words = last_line(outcome.log)
    return how + (f"; its last words: {words}" if words else ".")
