"""Running a source model and its ONNX model side by side, in chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import OnnxtoolError, SourceError
from onnxtool.models.artifact import OnnxModel, first_line
from onnxtool.models.data import count_rows
from onnxtool.models.inputs import graph_domains, make_inputs, sensible_rows
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import Parity
from onnxtool.validators.comparison import OutputComparison
from onnxtool.validators.feeds import match_inputs
from onnxtool.validators.tolerance import Limit, Tolerances, derive

FIRST_BATCHES = (1, 3, 17)
"""Batch sizes run before the large chunks: a batch dimension frozen at export shows at once."""

_CHUNK_ELEMENTS = 2**22
_MAX_CHUNK = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Rows:
    """What both models are run on.

    Attributes:
        tensors: One array an input of the source.
        origin: The data file, or how the rows were made.
        seed: Seed of made-up rows, None for the user's own.
        notes: What was left aside or rounded on the way.
    """

    tensors: Tensors
    origin: str
    seed: int | None = None
    notes: list[str] = field(default_factory=list)


def made_up_rows(specs: Sequence[TensorSpec], source: SourceModel | None, model: OnnxModel, seed: int) -> Rows:
    """Make rows up from what the graph and the fitted source know of their inputs."""
    domains = {**graph_domains(model.proto), **(source.domains() if source else {})}
    rows = sensible_rows(specs)
    return Rows(make_inputs(specs, rows, seed, domains), f"{rows} rows made up from the model's signature", seed)


def check_parity(
    source: SourceModel,
    model: OnnxModel,
    rows: Rows,
    *,
    rtol: Limit = None,
    atol: Limit = None,
    on_progress: Progress | None = None,
    on_outputs: Callable[[Tensors, Tensors], None] | None = None,
) -> Parity:
    """Compare every output of every row.

    Args:
        source: The truth.
        model: The ONNX model, run on the CPU provider.
        rows: What to run on.
        rtol: Relative tolerance, for all outputs or by name; None derives it, see `validators.tolerance`.
        atol: Absolute tolerance, likewise.
        on_progress: Called with the rows done and the rows in all.
        on_outputs: Called with each chunk's outputs of the source and of the ONNX model, under the same names.

    Raises:
        DataError: the two models take different inputs.
        ModelError: ONNX Runtime refuses the model or fails on a batch.
        SourceError: the source model fails on a batch.
        UsageError: a tolerance is for an output that there is not.
    """
    notes = list(rows.notes)
    feeds = match_inputs(source.inputs, model.inputs, notes)
    session = model.session()
    total = count_rows(rows.tensors, source.inputs)
    comparisons: dict[str, OutputComparison] = {}
    batches: set[int] = set()
    source_s = onnx_s = 0.0
    done = 0
    for start, stop, size in _chunks(total, model.inputs):
        batch = feeds.rounded({name: _slice(tensor, start, stop, size) for name, tensor in rows.tensors.items()})
        began = time.perf_counter()
        truth = _predict_source(source, batch)
        switched = time.perf_counter()
        found = model.predict(session, feeds(batch))
        onnx_s += time.perf_counter() - switched
        source_s += switched - began
        if not comparisons:
            pairs = match_outputs(truth, found, notes)
            tolerances = Tolerances(rtol, atol)
            tolerances.check(list(truth))
            if not tolerances.complete(truth):
                derived, reason = derive(model, feeds(feeds.rounded(rows.tensors)))
                by_name = {name: derived[partner] for name, partner in pairs.items() if partner in derived}
                tolerances = Tolerances(rtol, atol, by_name, reason)
            comparisons = {
                name: OutputComparison(name, source.roles.get(name, "values"), tolerances) for name in truth
            }
        wanted = stop - start
        truth = {name: _rows_only(output, size, wanted) for name, output in truth.items()}
        found = {name: _rows_only(found[partner], size, wanted) for name, partner in pairs.items()}
        for name, comparison in comparisons.items():
            if name in found:
                comparison.update(truth[name], found[name])
            else:
                comparison.fail("The ONNX model has no such output.")
        if on_outputs:
            on_outputs(truth, found)
        batches.add(size)
        done = stop
        if on_progress:
            on_progress(done, total)
    results = [comparison.result() for comparison in comparisons.values()]
    return Parity(
        rows=done,
        batches=sorted(batches),
        data=rows.origin,
        seed=rows.seed,
        provider="CPUExecutionProvider",
        outputs=results,
        notes=notes,
        source_s=source_s,
        onnx_s=onnx_s,
        passed=bool(results) and all(result.passed for result in results),
    )


def match_outputs(source: Mapping[str, object], onnx: Mapping[str, object], notes: list[str]) -> dict[str, str]:
    """Source output name to ONNX output name: by name, else by position where there are as many."""
    if set(source) <= set(onnx):
        return {name: name for name in source}
    if len(source) == len(onnx):
        pairs = dict(zip(source, onnx, strict=True))
        notes.append(
            "Outputs have other names in ONNX, and were matched by position: "
            + ", ".join(f"{first} -> {second}" for first, second in pairs.items())
        )
        return pairs
    return {name: name for name in source if name in onnx}


def _chunks(total: int, specs: Sequence[TensorSpec]) -> Iterator[tuple[int, int, int]]:
    """Start, stop and batch size of each chunk; a fixed batch is padded beyond `stop`."""
    fixed = [spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)]
    if fixed:
        size = fixed[0]
        for start in range(0, total, size):
            yield start, min(start + size, total), size
        return
    elements = sum(int(np.prod([dim for dim in spec.shape if isinstance(dim, int)])) for spec in specs)
    large = int(np.clip(_CHUNK_ELEMENTS // max(elements, 1), 32, _MAX_CHUNK))
    start = 0
    for size in FIRST_BATCHES:
        if start < total:
            stop = min(start + size, total)
            yield start, stop, stop - start
            start = stop
    while start < total:
        stop = min(start + large, total)
        yield start, stop, stop - start
        start = stop


def _slice(tensor: NDArray[Any], start: int, stop: int, size: int) -> NDArray[Any]:
    if not tensor.ndim:
        return tensor
    part = tensor[start:stop]
    return part if len(part) == size else part[np.minimum(np.arange(size), len(part) - 1)]


def _rows_only(output: NDArray[Any], size: int, wanted: int) -> NDArray[Any]:
    """Cut the padding off; an output that does not follow the batch is one row."""
    output = np.asarray(output)
    if output.ndim and len(output) == size:
        return output[:wanted]
    return output[None]


def _predict_source(source: SourceModel, batch: Tensors) -> Tensors:
    try:
        return source.predict(batch)
    except OnnxtoolError:
        raise
    except Exception as error:  # any framework may raise anything
        shapes = ", ".join(f"{name}{list(tensor.shape)}" for name, tensor in batch.items())
        raise SourceError(f"The source model fails on {shapes}: {first_line(error)}") from error
