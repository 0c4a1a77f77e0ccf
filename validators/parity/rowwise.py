"""Comparing rows one by one: the difference of two models on each, and the rows that a model rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import OnnxtoolError
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.signature import Tensors, dtype_name
from onnxtool.validators.numerics.comparison import absolute_differences
from onnxtool.validators.numerics.tolerance import PRECISION, Tolerances
from onnxtool.validators.parity.pairs import Batch, Pair


@dataclass
class Verdicts:
    """The results for some rows.

    Attributes:
        excess: For each row, the largest difference in units of what is allowed; above 1 it is drift. Infinite
            where a label differs, or one side alone is NaN or infinite. 0 where a side refused.
        output: The output where it is largest.
        refused: Why a model rejected a row that the other one answered, and how often.
        both_refused: Rows that both rejected, which is agreement.
        ties: Rows whose label differs while the source's two likeliest classes are within tolerance of each other.
        labels: The source's label of each row, where it has one; else the likeliest class.
    """

    excess: NDArray[np.float64]
    output: list[str]
    refused: Counter[str] = field(default_factory=Counter)
    both_refused: int = 0
    ties: int = 0
    labels: NDArray[Any] | None = None


class RowComparer:
    """Runs both models on rows and compares their outputs on each.

    Args:
        pair: The models.
        tolerances: The tolerances of the outputs.
    """

    def __init__(self, pair: Pair, tolerances: Tolerances) -> None:
        self.pair, self.tolerances = pair, tolerances
        self.rows = 0

    def __call__(self, tensors: Tensors, tolerances: Tolerances | None = None) -> Verdicts:
        """Compare rows.

        Args:
            tensors: The source's inputs.
            tolerances: Replace the comparer's own.
        """
        total = self.pair.batching.count(tensors)
        verdicts = Verdicts(np.zeros(total), [""] * total)
        labels: list[tuple[int, NDArray[Any]]] = []
        for batch in self.pair.batches(tensors):
            for first, last, truth, found in self._answers(batch, verdicts):
                place = slice(batch.start + first, batch.start + last)
                excess, output, ties = self.excess(truth, found, last - first, tolerances or self.tolerances)
                verdicts.excess[place] = excess
                verdicts.output[place] = output
                verdicts.ties += ties
                if (answer := self._labels(truth)) is not None:
                    labels.append((batch.start + first, answer[: last - first]))
        if labels:
            verdicts.labels = np.full(total, None, dtype=object)
            for first, answer in labels:
                verdicts.labels[first : first + len(answer)] = answer
        self.rows += total
        return verdicts

    def _answers(self, batch: Batch, verdicts: Verdicts) -> Iterator[tuple[int, int, Tensors, Tensors]]:
        """First and last row, and both answers, of the parts of a batch that both answer.

        A batch that a side refuses is halved until single rows are left, of which it is then known.
        """
        batching = self.pair.batching
        pending = [(0, batch.stop - batch.start)]
        while pending:
            first, last = pending.pop()
            tensors = batching.rows(batch.tensors, first, last, batching.size)
            part = Batch(first, last, batching.size or last - first, tensors)
            truth, source_error = _attempt(self.pair.run_source, part.tensors)
            found, onnx_error = _attempt(self.pair.run_onnx, part.tensors)
            if truth is not None and found is not None:
                found = self.pair.renamed(truth, found)
                yield first, last, self.pair.cut(truth, part), self.pair.cut(found, part)
            elif last - first > 1:
                middle = (first + last) // 2
                pending += [(first, middle), (middle, last)]
            elif truth is None and found is None:
                verdicts.both_refused += 1
            else:
                who, reason = ("The source", source_error) if truth is None else ("ONNX Runtime", onnx_error)
                verdicts.refused[f"{who} refuses what the other answers: {reason}"] += 1

    def excess(
        self, truth: Tensors, found: Tensors, rows: int, tolerances: Tolerances
    ) -> tuple[NDArray[np.float64], list[str], int]:
        """Excess and output of each row as in `Verdicts`, and the number of ties."""
        worst, output = np.zeros(rows), np.full(rows, "", dtype=object)
        flipped = np.zeros(rows, dtype=bool)
        tied = np.zeros(rows, dtype=bool)
        for name, answer in truth.items():
            expected = np.asarray(answer)
            role = self.pair.source.roles.get(name, "values")
            other = found.get(name)
            if other is None or not _same_shape(expected, other) or len(expected) != rows:
                excess = np.full(rows, np.inf)
            else:
                values, others = expected.reshape(rows, -1), np.asarray(other).reshape(rows, -1)
                allowed = tolerances.of(name, dtype_name(values), dtype_name(others))
                if not all(dtype_name(array) in PRECISION for array in (values, others)):
                    differs = (values.astype(object) != others.astype(object)).any(axis=1)
                    if role == "label":
                        flipped |= differs
                        continue
                    excess = np.where(differs, np.inf, 0.0)
                else:
                    excess = _float_excess(values, others, allowed)
                    # The nearest cluster wins, and the likeliest class.
                    ranked = -values if name.startswith("distances") else values
                    tied |= _undecided(ranked, 2 * (allowed.atol + allowed.rtol * np.abs(values)))
            larger = excess > worst
            worst[larger], output[larger] = excess[larger], name
        ties = flipped & tied & (worst <= 1)
        off = flipped & ~ties
        label = next((name for name, role in self.pair.source.roles.items() if role == "label"), "label")
        worst[off], output[off] = np.inf, label
        return worst, output.tolist(), int(ties.sum())

    def _labels(self, truth: Tensors) -> NDArray[Any] | None:
        for kind in ("label", "probabilities"):
            for name, role in self.pair.source.roles.items():
                if role == kind and name in truth:
                    return truth[name].reshape(-1) if kind == "label" else truth[name].argmax(axis=1)
        return None


def _attempt(run: Any, batch: Tensors) -> tuple[Tensors | None, str]:
    try:
        return run(batch), ""
    except OnnxtoolError as error:
        return None, first_line(error).rpartition(": ")[2][:200]


def _same_shape(first: NDArray[Any], second: NDArray[Any]) -> bool:
    shapes = [
        array.shape[:-1] if array.ndim > 1 and array.shape[-1] == 1 else array.shape for array in (first, second)
    ]
    return shapes[0] == shapes[1]


def _float_excess(source: NDArray[Any], onnx: NDArray[Any], allowed: Any) -> NDArray[np.float64]:
    truth, other = source.astype(np.float64), onnx.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        difference, _, mismatched_nonfinite = absolute_differences(truth, other, allowed)
        limit = allowed.atol + allowed.rtol * np.abs(truth)
        excess = np.where(difference == 0, 0.0, difference / limit)
    excess[~np.isfinite(truth) & ~mismatched_nonfinite] = 0.0
    excess[mismatched_nonfinite] = np.inf
    return np.asarray(excess.max(axis=1, initial=0.0))


def _undecided(values: NDArray[Any], allowed: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows whose two largest values are within tolerance of each other; of a single score, of zero."""
    if values.shape[1] == 1:
        return np.asarray(np.abs(values[:, 0].astype(np.float64)) <= allowed[:, 0])
    top = np.sort(values.astype(np.float64), axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0] <= allowed.max(axis=1))
