"""Rows to which a source has several right answers, and ONNX gives one that the source did not pick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import Ties
from onnxtool.validators.numerics.tolerance import Tolerances
from onnxtool.validators.parity.input_rounding import row_differences


@dataclass
class TieCount:
    """Counts the rows that differ in nothing but the choice among equals, batch by batch.

    Attributes:
        source: The reference, which knows its other right answers.
        accepted: Whether the user takes another right answer for no drift.
    """

    source: SourceModel
    accepted: bool
    _rows: int = 0

    def settle(self, batch: Tensors, truth: Tensors, found: Tensors, tolerances: Tolerances) -> Tensors:
        """Take a batch in, and return what counts as the ONNX model's outputs.

        Args:
            batch: The source's inputs.
            truth: The source's outputs, rows along the first axis.
            found: The ONNX model's, under the same names.
            tolerances: The tolerances of the outputs.
        """
        rows, roles = len(next(iter(truth.values()))), self.source.roles
        off = row_differences(truth, found, roles, tolerances, rows).off
        if not off.any():
            return found
        right = np.zeros(rows, dtype=bool)
        for answer in self.source.alternatives(batch):
            unpadded = {name: array[:rows] for name, array in answer.items()}
            right |= ~row_differences(unpadded, found, roles, tolerances, rows).off
        another = off & right
        self._rows += int(another.sum())
        if not self.accepted or not another.any():
            return found
        return {
            name: np.where(
                another.reshape(-1, *[1] * (array.ndim - 1)), np.reshape(truth[name], array.shape), array
            )
            for name, array in found.items()
        }

    def record(self) -> Ties | None:
        """What was counted; None where no row differs so."""
        return Ties(rows=self._rows, accepted=self.accepted) if self._rows else None
