"""The cells of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from onnxtool.errors import UsageError

SOURCE = "source"
"""Stands in the place of a provider where the source model's own framework is measured."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """One measurement to be made.

    Attributes:
        provider: Full name of an execution provider, or `SOURCE`.
        batch: Rows in a run.
        threads: Threads within an operator; None leaves it to the runtime.
    """

    provider: str
    batch: int
    threads: int | None

    def __str__(self) -> str:
        """For a progress display."""
        threads = "default threads" if self.threads is None else f"{self.threads} thread{'s'[: self.threads != 1]}"
        return f"{self.provider.removesuffix('ExecutionProvider')}, batch {self.batch}, {threads}"


def plan_cells(providers: Sequence[str], batches: Sequence[int], threads: Sequence[int | None]) -> list[CellPlan]:
    """Every combination once, in the order given.

    Raises:
        UsageError: a list is empty, or a number is below 1.
    """
    for name, values in (("provider", providers), ("batch", batches), ("number of threads", threads)):
        if not values:
            raise UsageError(f"Nothing to measure: give at least one {name}.")
    for name, numbers in (("batch", batches), ("number of threads", threads)):
        if any(number is not None and number < 1 for number in numbers):
            raise UsageError(f"A {name} is at least 1, not {min(n for n in numbers if n is not None)}.")
    return [CellPlan(*cell) for cell in dict.fromkeys(product(providers, batches, threads))]


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
