"""The cells of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from types import MappingProxyType
from typing import Literal, get_args

from onnxtool.errors import UsageError
from onnxtool.models.onnx import settings
from onnxtool.models.rows.inputs import Sizes
from onnxtool.reports.model import Cell, LatencyBound, Scenario

SOURCE = "source"
"""Stands in the place of a provider where the source model's own framework is measured."""

CUDA_GRAPHS = ("enable_cuda_graph", "trt_cuda_graph_enable")
"""Options of the CUDA and the TensorRT provider that record a run and replay it."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """One measurement to be made.

    Attributes:
        provider: Full name of an execution provider, or `SOURCE`.
        batch: Rows in a run.
        threads: Threads within an operator; None leaves it to the runtime.
        concurrency: Threads that call the one session.
        scenario: How queries come; see `load`.
        rate: Queries a second that arrive in the server scenario.
        io_binding: Whether inputs and outputs stay on the device.
        options: Names and values, as `settings` has them, of the provider and of the session.
        dims: Sizes of the model's dynamic dimensions other than the batch, by name.
        bounds: Percentiles of the latency (0.99 for p99), and what each must be within, in s.
    """

    provider: str
    batch: int
    threads: int | None
    concurrency: int = 1
    scenario: Scenario = "single-stream"
    rate: float | None = None
    io_binding: bool = False
    options: tuple[tuple[str, str], ...] = ()
    bounds: tuple[tuple[float, float], ...] = ()
    dims: Sizes = ()

    def __str__(self) -> str:
        """The text for a progress display."""
        threads = "default threads" if self.threads is None else f"{self.threads} thread{'s'[: self.threads != 1]}"
        callers = f", {self.concurrency} callers" if self.concurrency > 1 else ""
        sizes = "".join(f", {name} {size}" for name, size in self.dims)
        return f"{self.provider.removesuffix('ExecutionProvider')}, batch {self.batch}{sizes}, {threads}{callers}"

    def cell(self, status: Literal["measured", "unavailable", "failed"], reason: str | None = None) -> Cell:
        """The report's record of it, with nothing measured yet."""
        bounds = [LatencyBound(q=q, bound_s=bound) for q, bound in self.bounds]
        settings = {**asdict(self), "options": dict(self.options), "bounds": bounds, "dims": dict(self.dims)}
        return Cell(**settings, status=status, reason=reason)


def plan_cells(
    providers: Sequence[str],
    batches: Sequence[int],
    threads: Sequence[int | None],
    concurrency: Sequence[int] = (1,),
    *,
    scenario: Scenario = "single-stream",
    rate: float | None = None,
    io_binding: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    bounds: Mapping[float, float] = MappingProxyType({}),
    dims: Sequence[Sizes] = ((),),
) -> list[CellPlan]:
    """Every combination once, in the order given.

    Raises:
        UsageError: a list is empty, a number is below 1, or the options do not fit each other.
    """
    numbers = {"batch": batches, "number of threads": threads, "concurrency": concurrency}
    for name, values in {"provider": providers, **numbers}.items():
        if not values:
            raise UsageError(f"Nothing to measure: give at least one {name}.")
    for name, given in numbers.items():
        if any(number is not None and number < 1 for number in given):
            raise UsageError(f"A {name} is at least 1, not {min(n for n in given if n is not None)}.")
    if scenario not in get_args(Scenario):
        raise UsageError(f"There is no scenario {scenario!r}. Known are {', '.join(get_args(Scenario))}.")
    if (scenario == "server") != (rate is not None):
        raise UsageError("The server scenario, and it alone, needs a rate at which queries arrive.")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise UsageError(f"A rate is a number of queries a second above 0, not {rate}.")
    settings.check(options, providers)
    chosen = {provider: settings.options_for(options, provider) for provider in providers}
    graph = any(own.get(name, "0").lower() in ("1", "true") for own in chosen.values() for name in CUDA_GRAPHS)
    if graph and not io_binding:
        raise UsageError("A CUDA graph reads and writes fixed places of the device's memory: add --io-binding.")
    if graph and max(concurrency) > 1:
        raise UsageError("A session with a CUDA graph runs one query at a time: leave out the concurrency.")
    if any(not 0 < q < 1 or not (math.isfinite(bound) and bound > 0) for q, bound in bounds.items()):
        raise UsageError("A bound of the latency is a time above 0 for a percentile between p0 and p100.")
    return [
        CellPlan(
            *cell,
            scenario,
            rate,
            io_binding,
            tuple(sorted(chosen[cell[0]].items())),
            tuple(sorted(bounds.items())),
            sizes,
        )
        for cell in dict.fromkeys(product(providers, batches, threads, concurrency))
        for sizes in dims
    ]


def check_duration(duration_s: float) -> None:
    """Check the time given to a cell.

    Raises:
        UsageError: it is no time above 0.
    """
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise UsageError(f"The duration of a cell is a number of seconds above 0, not {duration_s}.")


def check_effect(effect: float) -> None:
    """Check the smallest effect that matters.

    Raises:
        UsageError: it is no share above 0.
    """
    if not (math.isfinite(effect) and effect > 0):
        raise UsageError(f"The smallest effect is a share above 0, as 0.05 for 5 %, not {effect}.")
