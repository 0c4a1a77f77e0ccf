"""The time that the system took from a measurement: quotas of control groups, and other virtual machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

STOLEN = 0.01
"""Share of the processors' time from which it is reported."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Counters of the system at a moment.

    Attributes:
        throttled: Periods in which the control group had used up its quota.
        stolen_s: Time in s that the host gave to others while a processor of this machine was ready to run.
        total_s: Time of all processors.
    """

    throttled: int
    stolen_s: float
    total_s: float


def taken(cgroup: Path = Path("/sys/fs/cgroup")) -> Taken:
    """Read the counters; what a system does not count is 0.

    Args:
        cgroup: Where control groups are, in version 2 or with `cpu` below it in version 1.
    """
    times = psutil.cpu_times()
    counts = [_throttled(path) for path in (cgroup / "cpu.stat", cgroup / "cpu" / "cpu.stat")]
    return Taken(max(counts), getattr(times, "steal", 0.0), sum(times))


def warnings(before: Taken, after: Taken) -> list[str]:
    """The time taken since the start, one sentence for each cause."""
    found = []
    if (periods := after.throttled - before.throttled) > 0:
        found.append(f"The quota of its control group stopped the processors in {periods} periods.")
    share = (after.stolen_s - before.stolen_s) / max(after.total_s - before.total_s, 1e-9)
    if share >= STOLEN:
        found.append(f"The host of this virtual machine gave {share:.0%} of the processors' time to others.")
    return found


def _throttled(path: Path) -> int:
    try:
        lines = dict(line.split() for line in path.read_text().splitlines())
    except OSError:
        return 0
    return int(lines.get("nr_throttled", 0))
