"""The numbers of a model's report under names that stay the same from run to run, for plots over runs."""

from __future__ import annotations

from collections.abc import Iterator

from onnxtool.reports import findings
from onnxtool.reports.model import Bench, Comparison, LabelDrift, Parity, Subject


def scalars(subject: Subject) -> dict[str, float]:
    """Name to number; what was not measured is left out. Times are in seconds, sizes in bytes.

    Names are paths: `parity/probabilities/max_absolute`, `bench/CPU, batch 1/p50_s`.
    """
    found = {
        "gates/failed": float(sum(not check.passed for check in subject.checks)),
        "gates/undecided": float(sum(check.undecided for check in subject.checks)),
        "model/size_bytes": float(subject.model.size_bytes),
        "model/parameters": float(subject.model.parameters),
    }
    if subject.parity:
        found.update(_parity(subject.parity))
    if subject.drift:
        found.update(_drift(subject.drift))
    if subject.bench:
        found.update(_bench(subject.bench))
    found.update(_comparisons(subject.comparisons))
    return found


def _parity(parity: Parity) -> Iterator[tuple[str, float]]:
    yield "parity/rows", float(parity.rows)
    for output in parity.outputs:
        for name in (
            "max_absolute", "mean_absolute", "p99_absolute", "max_relative", "max_ulps", "noise_ratio",
            "mismatched_rows", "label_flips",
        ):  # fmt: skip
            value = getattr(output, name)
            if value is not None:
                yield f"parity/{output.name}/{name}", float(value)


def _drift(drift: LabelDrift) -> Iterator[tuple[str, float]]:
    for metric in drift.metrics:
        for field in ("source", "onnx", "difference"):
            yield f"drift/{metric.name}/{field}", getattr(metric, field)


def _bench(bench: Bench) -> Iterator[tuple[str, float]]:
    for cell in bench.cells:
        if cell.latency is None:
            continue
        name = f"bench/{findings.cell_name(cell)}"
        for entry in cell.latency.percentiles:
            if entry.value_s is not None:
                yield f"{name}/p{100 * entry.q:g}_s", entry.value_s
        for field in ("rows_per_s", "session_s", "peak_memory_bytes"):
            value = getattr(cell, field)
            if value is not None:
                yield f"{name}/{field}", float(value)


def _comparisons(comparisons: list[Comparison]) -> Iterator[tuple[str, float]]:
    for comparison in comparisons:
        if comparison.ratio is not None:
            yield f"comparison/{findings.cell_name(comparison)}/ratio", comparison.ratio
