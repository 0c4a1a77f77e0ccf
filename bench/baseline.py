"""Compare a measurement with a saved report of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

from onnxtool.bench.gate import outcome_of
from onnxtool.bench.plan import check_effect
from onnxtool.reports import units
from onnxtool.reports.findings import cell_name, percentile
from onnxtool.reports.model import Bench, Cell, Comparison, Environment, Report, Subject

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")

SAME_MEMORY = 0.01
"""Kernels reserve a little more or less: sizes that differ by less are the same memory."""


def compare_with_baseline(
    name: str, bench: Bench, baseline: Report, here: Environment, *, against: str, effect: float
) -> list[Comparison]:
    """Compare the medians cell by cell, if both were measured on the same machine.

    The ratio's interval goes from the low end of the one median's interval over the high end of the other's to
    the contrary: at least 98 % for two intervals of 99 % (Bonferroni). It covers the noise within the two runs; what
    changed on the machine between them is not in it, which only measuring in turn can cancel.

    Args:
        name: Name of the model, by which its measurement is found in the baseline; where that holds one model, it is
            the one.
        bench: The measurements of this run.
        baseline: The saved report.
        here: The machine now.
        against: Name of the baseline.
        effect: The smallest slowdown that matters: 0.05 is 5 %.

    Raises:
        UsageError: the effect is out of range.
    """
    check_effect(effect)
    differences = machine_differences(baseline.environment, here)
    before = _bench_of(name, baseline.subjects)
    comparisons = []
    for cell in bench.cells:
        comparison = Comparison(
            against=against,
            method="baseline",
            provider=cell.provider,
            batch=cell.batch,
            threads=cell.threads,
            dims=cell.dims,
            effect=effect,
            outcome="undecided",
        )
        comparisons.append(comparison)
        if differences:
            comparison.reason = (
                f"Not compared: the baseline was measured on another machine: {'; '.join(differences)}."
            )
        elif (earlier := _cell_of(cell, before)) is None:
            comparison.reason = "The baseline has no measurement of this model and cell."
        else:
            _decide(comparison, cell, earlier)
    return comparisons


def machine_differences(there: Environment, here: Environment) -> list[str]:
    """Differences between two machines that change times: processor, cores, memory, GPUs, system, ONNX Runtime."""

    def facts(machine: Environment) -> dict[str, str]:
        return {
            "processor": f"{machine.cpu.name} ({machine.cpu.architecture})",
            "usable cores": str(machine.cpu.usable_cores),
            "physical cores": str(machine.cpu.physical_cores),
            "system": machine.os,
            "GPU": ", ".join(f"{gpu.name} (driver {gpu.driver})" for gpu in machine.gpus) or "none",
            "ONNX Runtime": ", ".join(
                f"{name} {machine.libraries[name]}" for name in _RUNTIMES if name in machine.libraries
            ),
        }

    then, now = facts(there), facts(here)
    found = [f"{key} was {then[key]}, is {now[key]}" for key in then if then[key] != now[key]]
    if abs(there.memory_bytes - here.memory_bytes) > SAME_MEMORY * there.memory_bytes:
        found.append(f"memory was {units.size(there.memory_bytes)}, is {units.size(here.memory_bytes)}")
    return found


def _bench_of(name: str, subjects: Sequence[Subject]) -> Bench | None:
    measured = [subject for subject in subjects if subject.bench]
    named = [subject for subject in measured if subject.name == name]
    if len(named) == 1:
        return named[0].bench
    return measured[0].bench if len(measured) == 1 else None


def _cell_of(cell: Cell, bench: Bench | None) -> Cell | None:
    return next((other for other in (bench.cells if bench else ()) if cell_name(other) == cell_name(cell)), None)


def _decide(comparison: Comparison, cell: Cell, earlier: Cell) -> None:
    now, then = percentile(cell, 0.5), percentile(earlier, 0.5)
    if not (
        now and then and now.value_s and now.low_s and now.high_s and then.value_s and then.low_s and then.high_s
    ):
        comparison.reason = "The median is not known on both sides: a cell was not measured, or had too few runs."
        return
    comparison.median_s, comparison.against_median_s = now.value_s, then.value_s
    comparison.ratio = now.value_s / then.value_s
    comparison.low, comparison.high = now.low_s / then.high_s, now.high_s / then.low_s
    confidences = [part.latency.confidence for part in (cell, earlier) if part.latency]
    comparison.confidence = 1 - sum(1 - confidence for confidence in confidences)
    comparison.outcome = outcome_of(comparison.low, comparison.high, comparison.effect)
    if comparison.outcome == "undecided":
        comparison.reason = "The interval holds the smallest effect. Measure for longer, or use --against."
