"""Which column's rounding moves a row: the cast that an ONNX model's signature forces, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import SourceError
from onnxtool.models.onnx.evaluate import whole
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Tensors
from onnxtool.validators.numerics.tolerance import Tolerances
from onnxtool.validators.parity.input_rounding import row_differences
from onnxtool.validators.parity.pairs import Pair, predict_source
from onnxtool.validators.parity.thresholds import graph_thresholds

_NEAR = (
    4.0  # distances of the rounding within which a threshold, followed back through a scaler, is taken for crossed
)
_STEP = 1e-3  # relative difference after a step from which its rows are taken for moved


def rounding_causes(pair: Pair, worst: Sequence[Tensors]) -> list[str]:
    """Name, for each row that the rounding of the input moves, the column that moves it.

    Each column is rounded alone; the one after which the source's answer is furthest from the truth is the cause.

    Args:
        pair: The models; where rounding is accepted there is nothing to name.
        worst: One row of the source's inputs each, the worst first.

    Returns:
        A sentence a row.
    """
    if pair.accept_rounding:
        return []
    found = (_cause(pair, row) for row in worst if pair.feeds.changed(row))
    return list(dict.fromkeys(sentence for sentence in found if sentence))


def _cause(pair: Pair, row: Tensors) -> str:
    truth, _ = pair.run(row)
    tolerances = pair.tolerances(row, truth, None, None)
    cast = pair.feeds.as_cast(row)
    if not _distance(pair, truth, cast, tolerances):
        return ""
    places = [
        (name, int(column))
        for name, tensor in cast.items()
        for column in np.flatnonzero(_unequal(tensor, row[name]).reshape(-1))
    ]
    distances = [_distance(pair, truth, _rounded_at(row, cast, *place), tolerances) for place in places]
    place = int(np.argmax(distances))
    if not distances[place]:
        return "The rounding of several columns together moves the row; none alone does."
    name, column = places[place]
    before, after = row[name].reshape(-1)[column].item(), cast[name].reshape(-1)[column].item()
    where = _crossed(pair, name, column, float(before), float(after))
    where = where or _step(pair, row, _rounded_at(row, cast, name, column))
    what = _column_name(pair, name, column)
    return f"Rounding of the input moves the row: {what} is {before!r}, and {after!r} in ONNX{where}."


def _distance(pair: Pair, truth: Tensors, rows: Tensors, tolerances: Tolerances) -> float:
    """How far the source's answer is from the truth, 0 within tolerance."""
    try:
        found = row_differences(truth, predict_source(pair.source, rows), pair.source.roles, tolerances, 1)
    except SourceError:
        return float("inf")
    flipped = found.flips is not None and bool(found.flips.any())
    return found.largest + float(flipped) if found.off.any() or flipped else 0.0


def _unequal(first: NDArray[np.generic], second: NDArray[np.generic]) -> NDArray[np.bool_]:
    if first is second:
        return np.zeros(first.shape, dtype=bool)
    both_missing = (np.isnan(first) & np.isnan(second)) if first.dtype.kind == "f" else False
    return np.asarray((first != second) & ~both_missing, dtype=bool)


def _rounded_at(row: Tensors, cast: Tensors, name: str, column: int) -> Tensors:
    """The row with one number rounded."""
    tensor = row[name].copy()
    tensor.reshape(-1)[column] = cast[name].reshape(-1)[column]
    return {**row, name: tensor}


def _column_name(pair: Pair, name: str, column: int) -> str:
    spec = next(spec for spec in pair.source.inputs if spec.name == name)
    if spec.columns:
        return f"column {spec.columns[column]!r}"
    return f"column {name!r}" if spec.shape[1:] in ((), (1,)) else f"column {column} of {name!r}"


def _crossed(pair: Pair, name: str, column: int, before: float, after: float) -> str:
    """The threshold between the two, or next to them where it had to be followed back through a scaler."""
    low, high = min(before, after), max(before, after)
    marks = np.unique(np.concatenate([np.empty(0), *_marks(pair, name, column)]))
    inside = marks[(marks >= low) & (marks <= high)]
    if not len(inside):
        distance = np.abs(marks - before)
        if not len(marks) or distance.min() > _NEAR * (high - low):
            return ""
        inside = marks[[int(distance.argmin())]]
    return f", on the other side of the threshold {float(inside[0])!r}"


def _marks(pair: Pair, name: str, column: int) -> Iterator[NDArray[np.float64]]:
    yield from _landmarks(pair.source.domains(), name, column)
    proto = whole(pair.model)
    graph = graph_thresholds(proto) if proto is not None else {}
    for feed in pair.feeds.feeds:
        if name in feed.columns and feed.spec.name in graph:
            place = feed.columns.index(name) if len(feed.columns) > 1 else column
            yield graph[feed.spec.name].get(0 if feed.column is not None else place, np.empty(0))


def _landmarks(domains: Mapping[str, Domain], name: str, column: int) -> Iterator[NDArray[np.float64]]:
    domain = domains.get(name, Domain())
    if column < len(domain.columns):
        domain, column = domain.columns[column], 0
    if column < len(domain.landmarks):
        yield domain.landmarks[column]


def _step(pair: Pair, row: Tensors, rounded: Tensors) -> str:
    """The first step of the source after which the two rows differ much."""
    for exact, other in zip(pair.source.steps(row), pair.source.steps(rounded), strict=True):
        first, second = np.asarray(exact.value), np.asarray(other.value)
        if first.dtype.kind not in "iuf":
            if (first != second).any():
                return f", and the step {exact.name} ({exact.kind}) says something else of it"
            continue
        size = np.abs(first).max(initial=0.0)
        if np.abs(first - second).max(initial=0.0) > _STEP * size > 0:
            return f", and the step {exact.name} ({exact.kind}) says something else of it"
    return ""
