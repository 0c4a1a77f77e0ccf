"""The process that measures two models in turn: `python -m onnxtool.bench.paired PARENT_PID < TASK`."""

from __future__ import annotations

import faulthandler
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter_ns
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from onnxtool.bench import gate, timing
from onnxtool.bench.feeds import unstacked
from onnxtool.bench.gate import Decision
from onnxtool.bench.plan import CellPlan
from onnxtool.bench.session import open_session, replays, runs_of, with_engine
from onnxtool.bench.worker import BOUND_BATCHES, GRACE_S
from onnxtool.errors import OnnxtoolError, require
from onnxtool.models.onnx import providers
from onnxtool.models.onnx.log import tidy
from onnxtool.models.onnx.providers import UnavailableError
from onnxtool.models.rows.channel import receive, send
from onnxtool.models.signature import Tensors
from onnxtool.process import answering
from onnxtool.system import die_with

BLOCK_NS = 1_000_000
"""Runs of a block are to take this time: below the slices in which a scheduler deals out a core."""

LONG_NS = 50_000_000
"""Of runs from this time on each is a block: what it takes to fill the caches again is little of it, and the same for
both models."""

WARMUP_S = 0.25
"""Longest warm-up of each model: what is left of it is a drift, which a quad cancels."""

Quad = Callable[[bool], NDArray[np.float64]]
"""Runs A B B A, or B A A B where the argument is true: medians of A in s, of A, of B and of B."""


@dataclass(frozen=True, slots=True)
class PairTask:
    """Two models to be compared.

    Attributes:
        models: Paths of the ONNX files: the candidate and the model that it is compared with.
        plan: The cell.
        effect: See `gate.decide`.
        budget_s: Longest time of sampling, without the warm-up.
        seed: Seed of the order of the blocks and of the bootstrap.
    """

    models: tuple[str, str]
    plan: CellPlan
    effect: float
    budget_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class PairAnswer:
    """The result of a comparison, or the reason why there is none.

    Attributes:
        decision: At the last look.
        medians_s: Median over the blocks of each model.
        looks: How often the data were evaluated.
        runs: Runs of a block that are counted.
        measured_s: How long was sampled.
        problem: Why nothing could be measured.
        unavailable: Whether that is the provider's doing.
    """

    decision: Decision | None = None
    medians_s: tuple[float, float] | None = None
    looks: int = 0
    runs: int = 0
    measured_s: float = 0.0
    problem: str | None = None
    unavailable: bool = False


TASK, ANSWER = TypeAdapter(PairTask), TypeAdapter(PairAnswer)


def main() -> None:
    """Read the task from standard input, measure, answer."""
    die_with(int(sys.argv[1]))
    file = answering()
    content, inputs = receive(sys.stdin.buffer)
    task = TASK.validate_python(content)
    log_ratios = np.empty(0)
    try:
        answer, log_ratios = measure(task, unstacked(inputs))
    except UnavailableError as error:
        answer = PairAnswer(problem=str(error), unavailable=True)
    except OnnxtoolError as error:
        answer = PairAnswer(problem=" ".join(str(error).splitlines()))
    except Exception as error:
        answer = PairAnswer(problem=f"{type(error).__name__}: {tidy(str(error))}")
    with file:
        write_answer(file, answer, log_ratios)
    faulthandler.dump_traceback_later(GRACE_S, exit=True)


def write_answer(file: BinaryIO, answer: PairAnswer, log_ratios: NDArray[np.float64]) -> None:
    """Write what `read_answer` reads."""
    send(file, ANSWER.dump_python(answer, mode="json"), {"log_ratios": log_ratios})


def read_answer(file: BinaryIO) -> tuple[PairAnswer, NDArray[np.float64]]:
    """Read the answer and the datum of each quad.

    Raises:
        ValueError: it is cut short or garbled.
    """
    content, tensors = receive(file)
    return ANSWER.validate_python(content), tensors["log_ratios"]


def measure(task: PairTask, batches: Sequence[Tensors]) -> tuple[PairAnswer, NDArray[np.float64]]:
    """Make both sessions, warm them up, and sample until the ratio is decided or the budget ends."""
    require("onnxruntime", "cpu")
    batches = batches[: 1 if replays(task.plan) else BOUND_BATCHES if task.plan.io_binding else None]
    rng = np.random.default_rng(task.seed)
    order = rng.permutation(2)  # the session that is made first has the better place in memory, or the worse
    sessions = {index: _session(task.models[index], task, batches[0]) for index in order}
    runs = [runs_of(sessions[index], task.models[index], task.plan, batches)[0] for index in (0, 1)]
    with timing.gc_disabled():
        for run in runs:
            timing.warm_up(run, batches, int(min(task.budget_s, WARMUP_S) * 1e9))
        pilot = np.mean([np.median(timing.time_runs(run, batches, BLOCK_NS)) for run in runs])
        count = max(1, math.ceil(BLOCK_NS / pilot))
        quad = quads_of(runs[0], runs[1], batches, count, refill=bool(pilot < LONG_NS))
        start = perf_counter_ns()
        decision, blocks, looks = sample(quad, task.effect, int(task.budget_s * 1e9), rng)
        measured_s = (perf_counter_ns() - start) / 1e9
    medians = float(np.median(blocks[:, :2])), float(np.median(blocks[:, 2:]))
    return PairAnswer(decision, medians, looks, count, measured_s), log_ratios_of(blocks)


def quads_of(a: timing.Run, b: timing.Run, batches: Sequence[Tensors], count: int, *, refill: bool = True) -> Quad:
    """The four blocks of two models.

    Args:
        a: A model.
        b: The other.
        batches: One for each quad, in turn.
        count: Runs of a block that are counted.
        refill: Whether a run comes before them that is not: it finds the other model in the caches.
    """

    feeds = cycle(batches)

    def block(run: timing.Run, inputs: Tensors) -> float:
        if refill:
            run(None, inputs)
        latencies = []
        for _ in range(count):
            start = perf_counter_ns()
            run(None, inputs)
            latencies.append(perf_counter_ns() - start)
        return float(np.median(latencies)) / 1e9

    def quad(mirrored: bool) -> NDArray[np.float64]:
        outer, inner = (b, a) if mirrored else (a, b)
        inputs = next(feeds)
        first, second, third, fourth = (block(run, inputs) for run in (outer, inner, inner, outer))
        return np.array((second, third, first, fourth) if mirrored else (first, fourth, second, third))

    return quad


def sample(
    quad: Quad, effect: float, budget_ns: int, rng: np.random.Generator
) -> tuple[Decision, NDArray[np.float64], int]:
    """Measure quads, and evaluate them at each of `gate.LOOKS`, until one decides.

    Returns:
        The last decision, the block medians in s, shape [quads, 4], and the number of looks. A quad is begun
        within the budget or not at all, but for the first.
    """
    start = perf_counter_ns()
    blocks: list[NDArray[np.float64]] = []
    for look, share in enumerate(gate.LOOKS, 1):
        while not blocks or perf_counter_ns() - start < share * budget_ns:
            blocks.append(quad(bool(rng.integers(2))))
        if len(blocks) < gate.quads_for_an_interval() and share < 1:
            continue
        decision = gate.decide(log_ratios_of(np.array(blocks)), effect, rng)
        if decision.outcome != "undecided" or share == 1:
            return decision, np.array(blocks), look
    raise AssertionError("the last look returns")


def log_ratios_of(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The datum of each quad. Shape [quads, 4] to [quads]."""
    return np.asarray(np.log(blocks) @ np.array([0.5, 0.5, -0.5, -0.5]))


def _session(model: str, task: PairTask, inputs: Tensors) -> Any:
    plan, _ = with_engine(model, task.plan, inputs)
    # Or the threads of one session would still spin, on a core of their own, while the other is measured.
    session = open_session(model, plan, {"session.force_spinning_stop": "1"})
    placement = providers.recorded_placement(session)
    if placement is not None:
        providers.require_nodes(plan.provider, placement)
    return session


if __name__ == "__main__":
    main()
