"""The process that measures one cell: `python -m onnxtool.bench.worker PARENT_PID < TASK`.

The answer goes to what was standard output, so that nothing that a library prints can garble it.
"""

from __future__ import annotations

import faulthandler
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxtool.bench import bounds, load, memory, throttling, timing
from onnxtool.bench.feeds import turned, unstacked
from onnxtool.bench.plan import CUDA_GRAPHS, CellPlan
from onnxtool.bench.session import open_session, profiled_placement_of, replays, runs_of, with_engine
from onnxtool.bench.task import SourceTask, Task, read_task, write_answer
from onnxtool.errors import MissingExtraError, OnnxtoolError, require
from onnxtool.models.onnx import providers
from onnxtool.models.onnx.log import tidy
from onnxtool.models.onnx.providers import UnavailableError
from onnxtool.models.signature import Tensors
from onnxtool.process import answering
from onnxtool.reports.model import Cell
from onnxtool.sandbox import confine
from onnxtool.sandbox.limits import Limits
from onnxtool.system import die_with, limit

GRACE_S = 5

BOUND_BATCHES = 64
"""Each has inputs and outputs of its own on the device."""


def main() -> None:
    """Read the task from standard input, measure, answer."""
    die_with(int(sys.argv[1]))
    answer = answering()
    task = read_task(sys.stdin.buffer)
    cell, samples = measure(task)
    with answer:
        write_answer(answer, cell, samples)
    faulthandler.dump_traceback_later(GRACE_S, exit=True)  # some libraries hang when they are torn down


def measure(task: Task) -> tuple[Cell, NDArray[np.int64]]:
    """Measure one cell.

    Except for the plan's options and the placement record, the session has ONNX Runtime's defaults. Python's garbage
    collector is off while runs are timed. Loading a source model includes importing its framework.

    Returns:
        The cell without its latency, and the latency of each query in ns: shape [queries], empty unless the
        cell's status is `measured`. Peak memory is that of the process since it began to load the model,
        less the samples; memory on a graphics card is not in it.
    """
    cell = task.plan.cell("measured")
    try:
        return cell, _measure(task, cell)
    except (UnavailableError, MissingExtraError) as error:
        cell = _unmeasured(task.plan, cell, "unavailable", str(error))
    except OnnxtoolError as error:
        cell = _unmeasured(task.plan, cell, "failed", " ".join(str(error).splitlines()))
    except Exception as error:
        cell = _unmeasured(task.plan, cell, "failed", f"{type(error).__name__}: {tidy(str(error))}")
    return cell, np.empty(0, dtype=np.int64)


def _unmeasured(plan: CellPlan, cell: Cell, status: Literal["unavailable", "failed"], reason: str) -> Cell:
    """Forget what was measured until something went wrong: it is no measurement of this cell."""
    return plan.cell(status, reason).model_copy(update={"providers": cell.providers, "placement": cell.placement})


def _measure(task: Task, cell: Cell) -> NDArray[np.int64]:
    """Fill in the cell, and return the latency of each query."""
    plan = task.plan
    batches = _batches(task)
    cell.batches = len(batches)
    cell.shapes = {name: list(array.shape) for name, array in batches[0].items()}
    if isinstance(task.model, str):
        if plan.provider == providers.CPU:  # others map memory that is not theirs to hold
            own = Limits()
            limit(own.memory, own.files)
        require("onnxruntime", "cpu")  # imported here, so that the import does not count as loading
        plan, cell.build_s = with_engine(task.model, plan, batches[0])
    memory.reset_peak()
    before = memory.resident()
    start = perf_counter_ns()
    if isinstance(task.model, str):
        session = open_session(task.model, plan)
        cell.session_s = _seconds_since(start)
        cell.providers = session.get_providers()
        if recorded := providers.recorded_placement(session):
            cell.placement = recorded
            providers.require_nodes(plan.provider, recorded)
        runs = runs_of(session, task.model, plan, batches)
    else:
        runs = [_source_run(task.model, plan.threads)] * plan.concurrency
        cell.session_s = _seconds_since(start)

    start = perf_counter_ns()
    runs[0](None, batches[0])
    cell.first_run_s = _seconds_since(start)
    duration_ns = int(task.duration_s * 1e9)
    with timing.gc_disabled():
        cell.warmup_runs, cell.warmup_settled = timing.warm_up(runs[0], batches, duration_ns)
        loaded_peak = memory.peak()
        quota = throttling.taken()
        cell.peak_memory_bytes = loaded_peak
        served = _serve(task, plan, runs, batches, cell)
        afterwards = throttling.taken()
        cell.warnings = throttling.warnings(quota, afterwards)
        cell.contention = throttling.contention(quota, afterwards)
    cell.rows_per_s = served.batches * plan.batch / (served.wall_ns / 1e9)
    cell.unanswered = served.unanswered
    cell.model_memory_bytes = max(0, cell.peak_memory_bytes - before)
    cell.timer_resolution_s, cell.timer_overhead_s = timing.clock()
    if isinstance(task.model, str):
        del session, runs  # or the model would lie in memory twice
        _check_placement(task.model, plan, batches[0], cell)
    return served.samples_ns


def _batches(task: Task) -> list[Tensors]:
    """What is run in turn: one batch where a CUDA graph is replayed, some where all lie on a device, else all."""
    batches = unstacked(task.inputs)
    return batches[: 1 if replays(task.plan) else BOUND_BATCHES if task.plan.io_binding else None]


def _serve(
    task: Task, plan: CellPlan, runs: Sequence[timing.Run], batches: Sequence[Tensors], cell: Cell
) -> load.Served:
    """Serve queries for the duration of the cell, and longer while its bounds are undecided and the limit allows."""
    times = bounds.look_times(task.duration_s, task.limit_s, cell.bounds)
    parts: list[load.Served] = []
    above = [0] * len(cell.bounds)
    for look, (begin, end) in enumerate(itertools.pairwise([0.0, *times]), 1):
        following = turned(batches, sum(part.batches for part in parts) // len(runs))
        parts.append(load.serve(plan, runs, following, int((end - begin) * 1e9), task.seed + look - 1))
        sampled_bytes = sum(part.samples_ns.nbytes for part in parts)
        cell.peak_memory_bytes = max(cell.peak_memory_bytes or 0, memory.peak() - sampled_bytes)
        for place, bound in enumerate(cell.bounds):
            above[place] += int(np.count_nonzero(parts[-1].samples_ns > bound.bound_s * 1e9))
            if bound.outcome == "undecided":
                cell.bounds[place] = bounds.decide(
                    bound,
                    sum(len(part.samples_ns) for part in parts),
                    above[place],
                    unanswered=any(part.unanswered for part in parts),
                    measured_s=sum(part.wall_ns for part in parts) / 1e9,
                    look=look,
                    looks=len(times),
                )
        if all(bound.outcome != "undecided" for bound in cell.bounds):
            break
        memory.reset_peak()  # what it takes to count does not count
    return load.joined(parts)


def _check_placement(model: str, plan: CellPlan, inputs: Tensors, cell: Cell) -> None:
    """Check the placement by a profile; where there is a record of it, a profile that fails costs a warning alone."""
    try:
        _prove_placement(model, plan, inputs, cell)
    except UnavailableError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if not cell.placement:
            raise
        why = tidy(str(error)) if str(error) else type(error).__name__
        cell.warnings.append(f"The placement is ONNX Runtime's record alone; a profile to check it failed: {why}")


def _prove_placement(model: str, plan: CellPlan, inputs: Tensors, cell: Cell) -> None:
    """Compare the record of the placement with a profile, taken in a separate session so that it disturbs nothing.

    Versions of ONNX Runtime before 1.24.1 keep no record: there the profile is all.
    """
    plain = tuple(pair for pair in plan.options if pair[0] not in CUDA_GRAPHS)  # a replayed graph shows no kernels
    with tempfile.TemporaryDirectory() as folder:
        profiled = profiled_placement_of(model, replace(plan, options=plain), inputs, Path(folder))
    if cell.placement:
        cell.placement, doubts = providers.cross_check(cell.placement, profiled)
        cell.warnings += doubts
    else:
        cell.placement = profiled
        providers.require_nodes(plan.provider, profiled)


def _source_run(source_task: SourceTask, threads: int | None) -> timing.Run:
    from onnxtool.opening import open_source

    if confine.confined and find_spec("joblib"):  # which would start processes, and nothing can be run in here
        from joblib import parallel

        parallel.register_parallel_backend("threading", parallel.BACKENDS["threading"], make_default=True)
    source = open_source(source_task.source, replace(source_task.options, limits=None))  # this process has them
    torch = sys.modules.get("torch")
    if torch is not None and threads is not None:
        torch.set_num_threads(threads)  # it takes OMP_NUM_THREADS only up to the number of cores
    return lambda _, tensors: source.predict(tensors)


def _seconds_since(start_ns: int) -> float:
    return (perf_counter_ns() - start_ns) / 1e9


if __name__ == "__main__":
    main()
