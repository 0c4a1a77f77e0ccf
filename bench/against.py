"""Compare a model with another one: both in one process, alternately."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from onnxtool.bench import gate, paired
from onnxtool.bench.feeds import batches_of, stacked
from onnxtool.bench.paired import PairAnswer, PairTask
from onnxtool.bench.plan import CellPlan, check_duration, check_effect, plan_cells
from onnxtool.bench.runner import check_rows, end_of, fixed_batch, worker_environment
from onnxtool.errors import ModelError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.settings import full_name
from onnxtool.models.rows.channel import send
from onnxtool.models.rows.inputs import Sizes, sizes_of
from onnxtool.models.signature import Tensors
from onnxtool.process import run_worker
from onnxtool.reports.model import Comparison

WORKER = "onnxtool.bench.paired"
SERIES_POINTS = 120


def run_against(
    model: OnnxModel,
    other: OnnxModel,
    *,
    inputs: Tensors,
    providers: Sequence[str],
    batches: Sequence[int],
    threads: Sequence[int | None],
    effect: float,
    budget_s: float,
    timeout_s: float | None = None,
    seed: int = 0,
    io_binding: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    shaped: Mapping[Sizes, Tensors] = MappingProxyType({}),
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Comparison]:
    """Compare two models on every combination of provider, batch and threads.

    Args:
        model: The candidate.
        other: The model that it is compared with.
        inputs: At least one row of each input, repeated or cut to each batch.
        providers: As for `run_bench`.
        batches: Rows in a run.
        threads: Threads within an operator; None leaves it to the runtime.
        effect: The smallest slowdown that matters: 0.05 is 5 %.
        budget_s: Longest time of sampling of a combination.
        timeout_s: A combination that takes longer has failed. By default 10 minutes and 10 times the budget.
        seed: Seed of the order of the blocks and of the bootstrap.
        io_binding: As for `run_bench`.
        options: As for `run_bench`.
        shaped: As for `run_bench`.
        on_progress: As for `run_bench`.

    Raises:
        UsageError: an option is out of range.
        ModelError: the two do not take the same inputs.
        DataError: an input has no rows.
    """
    check_duration(budget_s)
    if timeout_s is not None:
        check_duration(timeout_s)
    check_effect(effect)
    plans = plan_cells(
        [full_name(name) for name in providers],
        batches,
        threads,
        io_binding=io_binding,
        options=options,
        dims=list(shaped := shaped or {sizes_of(model.inputs, inputs): inputs}),
    )
    if {spec.name: spec.dtype for spec in model.inputs} != {spec.name: spec.dtype for spec in other.inputs}:
        raise ModelError(
            f"{model.path.name} and {other.path.name} cannot be compared: their inputs differ "
            f"({', '.join(map(str, model.inputs))} and {', '.join(map(str, other.inputs))})."
        )
    for rows in shaped.values():
        check_rows(model.inputs, rows)
    fixed = {batch for opened in (model, other) if (batch := fixed_batch(opened.inputs)) is not None}
    comparisons: list[Comparison] = []
    for plan in plans:
        if on_progress:
            on_progress(len(comparisons), len(plans), str(plan))
        if fixed - {plan.batch}:
            answer = PairAnswer(problem=f"A model's batch is fixed at {min(fixed - {plan.batch})}.")
            comparison = _comparison(plan, other, answer, effect)
        else:
            task = PairTask((str(model.path), str(other.path)), plan, effect, budget_s, seed)
            batches_now = stacked(batches_of(shaped[plan.dims], model.inputs, plan.batch, seed))
            answer, log_ratios = _run(task, batches_now, timeout_s or 600 + 10 * budget_s)
            comparison = _comparison(plan, other, answer, effect)
            parts = np.array_split(log_ratios, min(SERIES_POINTS, len(log_ratios))) if len(log_ratios) else []
            comparison.series = [float(np.exp(np.median(part))) for part in parts]
            comparison.quads = len(log_ratios)
        comparisons.append(comparison)
    return comparisons


def _run(task: PairTask, inputs: Tensors, timeout_s: float) -> tuple[PairAnswer, np.typing.NDArray[np.float64]]:
    """Run a comparison in a worker. Loading and, for TensorRT, building two engines may take minutes."""
    with tempfile.TemporaryFile() as task_file, tempfile.TemporaryFile() as answer_file:
        try:
            send(task_file, paired.TASK.dump_python(task, mode="json"), inputs)
            task_file.seek(0)
            outcome = run_worker([WORKER], task_file, answer_file, worker_environment(), timeout_s)
        except OSError as error:
            return PairAnswer(problem=f"Its worker could not be started: {error.strerror or error}."), np.empty(0)
        answer_file.seek(0)
        try:
            return paired.read_answer(answer_file)
        except ValueError:
            return PairAnswer(problem=f"Its worker {end_of(outcome, timeout_s)}"), np.empty(0)


def _comparison(plan: CellPlan, other: OnnxModel, answer: PairAnswer, effect: float) -> Comparison:
    comparison = Comparison(
        against=other.path.name,
        method="paired",
        provider=plan.provider,
        batch=plan.batch,
        threads=plan.threads,
        dims=dict(plan.dims),
        effect=effect,
        outcome="undecided" if answer.problem is None or answer.unavailable else "fail",
        reason=answer.problem,
    )
    if answer.decision is None or answer.medians_s is None:
        return comparison
    found = answer.decision
    comparison.outcome = found.outcome
    comparison.ratio, comparison.low, comparison.high = found.ratio, found.low, found.high
    comparison.confidence = gate.CONFIDENCE
    comparison.median_s, comparison.against_median_s = answer.medians_s
    comparison.looks = answer.looks
    comparison.runs_per_block = answer.runs
    if found.outcome == "undecided":
        comparison.reason = "The budget ended before the interval left the smallest effect on one side."
        if found.low is None:
            comparison.reason = f"The budget is too short: {gate.quads_for_an_interval()} quads of four decide."
        comparison.needed_s = answer.measured_s * found.needed if found.needed else None
    return comparison
