"""The process that measures one cell: `python -m onnxtool.bench.worker ANSWER_FD PARENT_PID < TASK`.

The answer goes to a file descriptor of its own, so that nothing that a library prints can garble it.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from time import perf_counter_ns
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxtool.bench import memory, providers, timing
from onnxtool.bench.log import tidy
from onnxtool.bench.providers import UnavailableError
from onnxtool.bench.task import SourceTask, Task, read_task, write_answer
from onnxtool.errors import MissingExtraError, OnnxtoolError, require
from onnxtool.reports.model import Cell, Placement

GRACE_S = 5


def main() -> None:
    """Read the task from standard input, measure, answer."""
    answer_fd, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent)
    os.set_inheritable(answer_fd, False)  # it is no business of a process that the model starts
    task = read_task(sys.stdin.buffer)
    cell, samples = measure(task)
    with os.fdopen(answer_fd, "wb") as answer:
        write_answer(answer, cell, samples)
    faulthandler.dump_traceback_later(GRACE_S, exit=True)  # some libraries hang when they are torn down


def measure(task: Task) -> tuple[Cell, NDArray[np.int64]]:
    """Measure one cell.

    Besides the threads and the placement record, the session has ONNX Runtime's defaults. Python's garbage
    collector is off while runs are timed. Loading a source model includes importing its framework.

    Returns:
        The cell without its latency, and the latency of each run in ns: shape [runs], empty unless the
        cell's status is `measured`. Peak memory is that of the process since it began to load the model,
        less the samples; memory on a graphics card is not in it.
    """
    cell = Cell(provider=task.provider, batch=task.batch, threads=task.threads, status="measured")
    try:
        return cell, _measure(task, cell)
    except (UnavailableError, MissingExtraError) as error:
        cell = _unmeasured(cell, "unavailable", str(error))
    except OnnxtoolError as error:
        cell = _unmeasured(cell, "failed", " ".join(str(error).splitlines()))
    except Exception as error:
        cell = _unmeasured(cell, "failed", f"{type(error).__name__}: {tidy(str(error))}")
    return cell, np.empty(0, dtype=np.int64)


def _unmeasured(cell: Cell, status: Literal["unavailable", "failed"], reason: str) -> Cell:
    """Forget what was measured until something went wrong: it is no measurement of this cell."""
    kept = cell.model_dump(include={"provider", "batch", "threads", "providers", "placement"})
    return Cell(**kept, status=status, reason=reason)


def _measure(task: Task, cell: Cell) -> NDArray[np.int64]:
    """Fill in the cell, and return the latency of each run."""
    placement: list[Placement] | None = []
    if not isinstance(task.model, SourceTask):
        require("onnxruntime", "cpu")  # imported here, so that the import does not count as loading
    memory.reset_peak()
    before = memory.resident()
    start = perf_counter_ns()
    if isinstance(task.model, SourceTask):
        run = _source_run(task.model, task.threads)
        cell.session_s = _seconds_since(start)
    else:
        session = _session(task.model, task)
        cell.session_s = _seconds_since(start)
        run = session.run
        cell.providers = session.get_providers()
        placement = providers.recorded_placement(session)
        if placement is not None:
            cell.placement = placement
            providers.require_nodes(task.provider, placement)

    start = perf_counter_ns()
    run(None, task.inputs)
    cell.first_run_s = _seconds_since(start)
    duration_ns = int(task.duration_s * 1e9)
    with timing.gc_disabled():
        cell.warmup_runs = timing.warm_up(run, task.inputs, duration_ns)
        loaded_peak = memory.peak()
        samples = timing.time_runs(run, task.inputs, duration_ns)
        cell.peak_memory_bytes = max(loaded_peak, memory.peak() - samples.nbytes)
    cell.model_memory_bytes = max(0, cell.peak_memory_bytes - before)
    cell.timer_resolution_s, cell.timer_overhead_s = timing.clock()

    if placement is None:
        placement = providers.profiled_placement(str(task.model), task.provider, task.inputs)
        cell.placement = placement
        providers.require_nodes(task.provider, placement)
    return samples


def _session(model: str, task: Task) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    providers.record_placement(options)
    if task.threads is not None:
        options.intra_op_num_threads = task.threads
    return providers.make_session(model, task.provider, options)


def _source_run(source_task: SourceTask, threads: int | None) -> timing.Run:
    from onnxtool.converters.framework import open_source

    source = open_source(source_task.source, source_task.options)
    torch = sys.modules.get("torch")
    if torch is not None and threads is not None:
        torch.set_num_threads(threads)  # it takes OMP_NUM_THREADS only up to the number of cores
    return lambda _, tensors: source.predict(tensors)


def _seconds_since(start_ns: int) -> float:
    return (perf_counter_ns() - start_ns) / 1e9


def die_with(parent: int) -> None:
    """Have the kernel end this process with the one that started it, however that one ends (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
