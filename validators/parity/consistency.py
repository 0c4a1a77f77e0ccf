"""Whether a source agrees with itself: only then is a difference from it one of the conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import OnnxtoolError
from onnxtool.models.rows.batches import Batching
from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import Inconsistency
from onnxtool.validators.numerics.comparison import OutputComparison
from onnxtool.validators.numerics.tolerance import Tolerances

_ROWS = 32
_ELEMENTS = 2**20
_PIECES = 3


def ask_again(
    source: SourceModel, batching: Batching, rows: Tensors, tolerances: Tolerances
) -> Inconsistency | None:
    """Ask the source twice for a few rows, the second time in another order and in smaller batches too.

    Args:
        source: The source.
        batching: How its rows lie.
        rows: Rows that it answers.
        tolerances: What an answer may differ by.

    Returns:
        How it contradicts itself, or None where it does not.
    """
    total = batching.count(rows)
    each = max(1, sum(array.size for array in rows.values()) // max(total, 1))
    count = min(total, int(np.clip(_ELEMENTS // each, batching.size or 4, _ROWS)))
    if batching.size is not None:
        count = max(batching.size, count // batching.size * batching.size)
    sample = batching.rows(rows, 0, min(count, total), count)
    try:
        return _compared(source, batching, sample, tolerances)
    except OnnxtoolError:  # it refuses some batch, which the comparison itself reports
        return None


def _compared(
    source: SourceModel, batching: Batching, sample: Tensors, tolerances: Tolerances
) -> Inconsistency | None:
    count = batching.count(sample)
    size = batching.size or count
    whole = [batching.rows(sample, start, start + size) for start in range(0, count, size)]
    found = source.answers([*whole, *whole])
    first, second = found[: len(whole)], found[len(whole) :]
    differing = _differing(source, first, second, tolerances)
    if differing:
        kept = "its own state" in source.effects
        kind: Literal["random", "stateful", "batch-dependent"] = "stateful" if kept else "random"
        return _record(source, kind, (whole[0], whole[0]), count, differing)
    order = np.arange(count)[::-1]
    step = batching.size or max(1, count // _PIECES)
    if count < 2 or not batching.axes:
        return None
    reverse = batching.take(sample, order)
    pieces = [batching.rows(reverse, start, min(start + step, count)) for start in range(0, count, step)]
    counts = [batching.count(piece) for piece in pieces]
    found = source.answers([*pieces, *whole])
    if differing := _differing(source, first, found[len(pieces) :], tolerances):
        return _record(source, "stateful", (whole[0], pieces[0], whole[0]), count, differing)
    answers = _joined(found[: len(pieces)], counts)
    expected = {
        name: array
        for name, array in _joined(first, [size] * len(first)).items()
        if name in answers and answers[name].shape == array.shape
    }
    turned = {name: answers[name][order] for name in expected}
    differing = _differing(source, [expected], [turned], tolerances, labels=False)
    if not differing:
        return None
    alone_first = batching.rows(sample, 0, 1, batching.size)
    return _record(source, "batch-dependent", (sample, alone_first), count, differing)


def _differing(
    source: SourceModel,
    first: Sequence[Tensors],
    second: Sequence[Tensors],
    tolerances: Tolerances,
    *,
    labels: bool = True,
) -> dict[str, int]:
    """Outputs that differ, and in how many rows.

    Labels are left out where another output shows a difference too: of a row on the boundary of two classes, rounding
    decides.
    """
    found = {}
    for name in first[0]:
        role = source.roles.get(name, "values")
        if role == "label" and not labels:
            continue
        comparison = OutputComparison(name, role, tolerances)
        for one, other in zip(first, second, strict=True):
            if np.shape(one[name]) != np.shape(other[name]):
                return {name: len(np.atleast_1d(one[name]))}
            comparison.update(np.atleast_1d(one[name]), np.atleast_1d(other[name]))
        if rows := comparison.result().mismatched_rows:
            found[name] = rows
    return found


def _joined(answers: Sequence[Tensors], counts: Sequence[int]) -> Tensors:
    """Outputs that have a place along the first axis for each row, one batch after another.

    An output whose other axes follow the batch, such as one as long as its longest row, is left out.
    """
    return {
        name: np.concatenate([np.asarray(answer[name]) for answer in answers])
        for name in answers[0]
        if all(np.ndim(a[name]) and len(a[name]) == count for a, count in zip(answers, counts, strict=True))
        and len({np.shape(answer[name])[1:] for answer in answers}) == 1
    }


def _record(
    source: SourceModel,
    kind: Literal["random", "stateful", "batch-dependent"],
    batches: Sequence[Tensors],
    count: int,
    differing: Mapping[str, int],
) -> Inconsistency:
    return Inconsistency(
        kind=kind, rows=count, mismatched_rows=max(differing.values()), layer=_first_layer(source, batches)
    )


def _first_layer(source: SourceModel, batches: Sequence[Tensors]) -> str | None:
    """The first layer that differs for the rows with which the first and last batch begin; None if not known."""
    try:
        one, *_, other = source.step_runs(batches)
    except (OnnxtoolError, RuntimeError):
        return None
    for step, again in zip(one, other, strict=False):
        if step.name != again.name:
            return f"{again.name} ({again.kind})"
        if _unlike(step.value, again.value):
            return f"{step.name} ({step.kind})"
    return None


def _unlike(first: NDArray[Any], second: NDArray[Any]) -> bool:
    rows = min(len(first), len(second)) if first.ndim and second.ndim else 0
    one, other = (first[:rows], second[:rows]) if rows else (first, second)
    if one.shape != other.shape or one.dtype.kind not in "fiub":
        return False
    return not np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
