"""What it costs that an ONNX model's signature makes its caller cast the rows, as from float64 to float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxtool.models.signature import Role, Tensors, dtype_name
from onnxtool.reports.model import InputRounding
from onnxtool.validators.numerics.comparison import absolute_differences
from onnxtool.validators.numerics.tolerance import PRECISION, Tolerances


@dataclass(frozen=True, slots=True)
class RowDifferences:
    """How two answers to the same rows differ.

    Attributes:
        off: Rows out of tolerance, or with another label, [rows].
        flips: Rows with another label, or another likeliest class, [rows]; None where there are no classes.
        largest: Largest absolute difference of floats, 0 where there are none.
    """

    off: NDArray[np.bool_]
    flips: NDArray[np.bool_] | None
    largest: float


def row_differences(
    truth: Tensors, other: Tensors, roles: Mapping[str, Role], tolerances: Tolerances, rows: int
) -> RowDifferences:
    """Compare two answers row by row.

    Args:
        truth: The source's outputs, rows along the first axis.
        other: Outputs to compare with them, under the same names; what is missing counts as off.
        roles: What the outputs mean.
        tolerances: What decides the tolerance of each output.
        rows: How many rows there are.
    """
    off, largest = np.zeros(rows, dtype=bool), 0.0
    flips: NDArray[np.bool_] | None = None
    for name, answer in truth.items():
        first, second = np.asarray(answer), np.asarray(other.get(name, ()))
        if first.size != second.size:
            return RowDifferences(np.ones(rows, dtype=bool), flips, largest)
        if first.shape[:1] != (rows,):
            continue  # it is no answer to a row
        first, second = first.reshape(rows, -1), second.reshape(rows, -1)
        role = roles.get(name, "values")
        if all(dtype_name(array) in PRECISION for array in (first, second)):
            allowed = tolerances.of(name, dtype_name(first), dtype_name(second))
            difference, out, _ = absolute_differences(first.astype(np.float64), second.astype(np.float64), allowed)
            largest = max(largest, float(difference[np.isfinite(difference)].max(initial=0.0)))
        else:
            out = np.asarray(first.astype(object) != second.astype(object), dtype=bool)
        off |= out.any(axis=1)
        if role == "label":
            flipped = out.any(axis=1)
        elif role == "probabilities" and first.shape[1] > 1:
            flipped = first.argmax(axis=1) != second.argmax(axis=1)
        else:
            continue
        flips = np.asarray(flipped if flips is None else flips | flipped)
    return RowDifferences(off, flips, largest)


@dataclass
class RoundingCount:
    """Counts what the cast of the input costs, batch by batch.

    Attributes:
        accepted: Whether the user accepts it.
        inputs: Inputs of which the cast changes a value, and how.
    """

    accepted: bool
    inputs: dict[str, str] = field(default_factory=dict)
    _rows: int = 0
    _flips: int | None = None
    _largest: float = 0.0
    _conversion_rows: int = 0
    _largest_conversion: float = 0.0

    def update(self, rounding: RowDifferences, conversion: RowDifferences) -> None:
        """Take a batch in.

        Args:
            rounding: The source's answers to the rows as they came, and to the rows as cast.
            conversion: The latter, and the ONNX model's answers.
        """
        self._rows += int(rounding.off.sum())
        if rounding.flips is not None:
            self._flips = (self._flips or 0) + int(rounding.flips.sum())
        self._largest = max(self._largest, rounding.largest)
        self._conversion_rows += int(conversion.off.sum())
        self._largest_conversion = max(self._largest_conversion, conversion.largest)

    def record(self) -> InputRounding | None:
        """What was counted; None where the cast changes no value."""
        if not self.inputs:
            return None
        return InputRounding(
            inputs=self.inputs,
            rows=self._rows,
            label_flips=self._flips,
            largest=self._largest,
            conversion_rows=self._conversion_rows,
            largest_conversion=self._largest_conversion,
            accepted=self.accepted,
        )
