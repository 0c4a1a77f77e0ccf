"""The time that others took from a measurement: processes, quotas of control groups, other virtual machines.

Linux counts for each thread how long it ran and how long it was ready and waited for a core (schedstat, see
Documentation/scheduler/sched-stats.rst in its source), and for the machine how long some process did (PSI, see
Documentation/accounting/psi.rst).
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from onnxtool.reports import units
from onnxtool.reports.findings import CONTENDED
from onnxtool.reports.model import Contention

STOLEN = 0.01
"""Share of the processors' time from which it is reported."""

SLOWED = 0.1
"""Share of its frequency that a processor loses, from which it is reported."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Counters of the system at a moment.

    Attributes:
        throttled: Periods in which the control group had used up its quota.
        stolen_s: Time in s that the host gave to others while a processor of this machine was ready to run.
        total_s: Time of all processors.
        cpu_s: Time that the threads of this process ran.
        waited_s: Time that they were ready and had no core.
        voluntary: Context switches where a thread had to wait for something.
        involuntary: Context switches where a core was taken from a thread.
        pressure_s: Time in which some process of the machine waited for a core.
        frequency_hz: Of the processors, on average.
        at_s: The moment, by a clock that only goes forward.
    """

    throttled: int
    stolen_s: float
    total_s: float
    cpu_s: float = 0.0
    waited_s: float | None = None
    voluntary: int = 0
    involuntary: int = 0
    pressure_s: float | None = None
    frequency_hz: float | None = None
    at_s: float = 0.0


def taken(cgroup: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> Taken:
    """Read the counters; what a system does not count is 0 or None.

    Args:
        cgroup: Where control groups are, in version 2 or with `cpu` below it in version 1.
        proc: Where Linux describes processes.
    """
    times = psutil.cpu_times()
    counts = [_throttled(path) for path in (cgroup / "cpu.stat", cgroup / "cpu" / "cpu.stat")]
    switches = psutil.Process().num_ctx_switches()
    return Taken(
        throttled=max(counts),
        stolen_s=getattr(times, "steal", 0.0),
        total_s=sum(times),
        cpu_s=time.process_time(),
        waited_s=_waited(proc / "self" / "task"),
        voluntary=switches.voluntary,
        involuntary=switches.involuntary,
        pressure_s=_pressure(proc / "pressure" / "cpu"),
        frequency_hz=_frequency(),
        at_s=time.monotonic(),
    )


def contention(before: Taken, after: Taken) -> Contention:
    """What the process got in between, and what others took."""
    elapsed = after.at_s - before.at_s
    waited = (
        None if before.waited_s is None or after.waited_s is None else max(0.0, after.waited_s - before.waited_s)
    )
    pressed = (
        None if before.pressure_s is None or after.pressure_s is None else after.pressure_s - before.pressure_s
    )
    return Contention(
        cpu_s=max(0.0, after.cpu_s - before.cpu_s),
        waited_s=waited,
        voluntary_switches=max(0, after.voluntary - before.voluntary),
        involuntary_switches=max(0, after.involuntary - before.involuntary),
        pressure=None if pressed is None or elapsed <= 0 else min(1.0, pressed / elapsed),
        frequency_hz=after.frequency_hz,
        frequency_before_hz=before.frequency_hz,
    )


def warnings(before: Taken, after: Taken) -> list[str]:
    """The time taken since the start, one sentence for each cause."""
    found = []
    if (periods := after.throttled - before.throttled) > 0:
        found.append(f"The quota of its control group stopped the processors in {periods} periods.")
    share = (after.stolen_s - before.stolen_s) / max(after.total_s - before.total_s, 1e-9)
    if share >= STOLEN:
        found.append(f"The host of this virtual machine gave {share:.0%} of the processors' time to others.")
    had = contention(before, after)
    if had.waited_s is not None and had.waited_share >= CONTENDED:
        found.append(
            f"The processors were busy: its threads ran for {units.seconds(had.cpu_s)} and waited "
            f"{units.seconds(had.waited_s)} for a core ({had.waited_share:.0%} of the time that they were ready). "
            "The latencies hold that wait. Measure on an idle machine, with no more threads than cores."
        )
    begin, end = had.frequency_before_hz, had.frequency_hz
    if begin and end and end < (1 - SLOWED) * begin:
        found.append(f"The processors slowed down from {begin / 1e9:.2f} to {end / 1e9:.2f} GHz.")
    return found


def _waited(tasks: Path) -> float | None:
    """Seconds that the threads of this process were ready and had no core; None where the system does not count."""
    waits = []
    for thread in tasks.glob("*/schedstat"):
        with suppress(OSError):  # the thread has ended
            waits.append(int(thread.read_text().split()[1]))
    return sum(waits) / 1e9 if waits else None


def _pressure(file: Path) -> float | None:
    """Seconds in which some process waited for a core; None where the system does not count."""
    try:
        return int(re.findall(r"^some .*total=(\d+)", file.read_text(), re.MULTILINE)[0]) / 1e6
    except (OSError, IndexError):
        return None


def _frequency(cpus: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """Hz, on average over the processors; None where the system does not measure it, as in most virtual machines."""
    found = []
    for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        with suppress(OSError, ValueError):
            found.append(int(file.read_text()) * 1e3)
    return sum(found) / len(found) if found else None


def _throttled(path: Path) -> int:
    try:
        lines = dict(line.split() for line in path.read_text().splitlines())
    except OSError:
        return 0
    return int(lines.get("nr_throttled", 0))
