"""Find the measurements of an interrupted sweep that are still valid."""

from __future__ import annotations

from onnxtool.bench.baseline import machine_differences
from onnxtool.bench.plan import SOURCE, CellPlan
from onnxtool.errors import UsageError
from onnxtool.reports.model import Bench, Cell, Environment, ModelSummary, Report, SourceSummary


def plan_of(cell: Cell) -> CellPlan:
    """The plan that a cell was measured by."""
    return CellPlan(
        provider=cell.provider,
        batch=cell.batch,
        threads=cell.threads,
        concurrency=cell.concurrency,
        scenario=cell.scenario,
        rate=cell.rate,
        io_binding=cell.io_binding,
        options=tuple(sorted(cell.options.items())),
        dims=tuple(sorted(cell.dims.items())),
        bounds=tuple((bound.q, bound.bound_s) for bound in cell.bounds),
    )


def check_same_place(name: str, earlier: Report, here: Environment) -> None:
    """Check that the sweep goes on where it began, with the same software.

    Args:
        name: Name of the saved report.
        earlier: The report.
        here: The machine now.

    Raises:
        UsageError: it does not; the message names the differences.
    """
    found = machine_differences(earlier.environment, here)
    then, now = earlier.environment.libraries, here.libraries
    found += [
        f"{library} was {then.get(library, 'not installed')}, is {now.get(library, 'not installed')}"
        for library in sorted(then.keys() | now.keys())
        if then.get(library) != now.get(library) and not library.startswith("onnxruntime")
    ]
    if found:
        raise UsageError(f"{name} cannot be resumed here: {'; '.join(found)}.")


def earlier_bench(earlier: Report, model: ModelSummary, source: SourceSummary | None) -> Bench | None:
    """The earlier measurements of a model, found by its hash, and of the source, found by the source's hash.

    Args:
        earlier: The saved report.
        model: The model.
        source: The source that is measured too, if there is one.
    """
    for subject in earlier.subjects:
        if subject.bench and subject.model.sha256 == model.sha256:
            known = subject.source.sha256 if subject.source else None
            same = source is not None and known is not None and known == source.sha256
            cells = [cell for cell in subject.bench.cells if cell.provider != SOURCE or same]
            return subject.bench.model_copy(update={"cells": cells})
    return None


def kept_cells(planned: Bench, earlier: Bench | None) -> dict[CellPlan, Cell]:
    """The cells that need not be measured again; those that failed or were unavailable are tried again.

    Args:
        planned: The sweep, its cells not looked at.
        earlier: The earlier measurements.

    Raises:
        UsageError: it was measured for another time, or with other rows.
    """
    if earlier is None:
        return {}
    if earlier.duration_s != planned.duration_s:
        raise UsageError(
            f"The sweep cannot be resumed: cells were measured for {earlier.duration_s:g} s, not for "
            f"{planned.duration_s:g} s."
        )
    if (earlier.rows_sha256, earlier.seed) != (planned.rows_sha256, planned.seed):
        raise UsageError(
            f"The sweep cannot be resumed: it ran other rows ({earlier.data}, seed {earlier.seed}). Give the same "
            "data, seed and largest batch."
        )
    return {plan_of(cell): cell for cell in earlier.cells if cell.status == "measured"}
