"""Whether a conversion agrees with its source on a few rows. Converters use it to choose between several ways."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from onnxtool.converters.framework import Agreement
from onnxtool.errors import OnnxtoolError
from onnxtool.models.onnx.artifact import OnnxModel, fits_inline
from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.validators.parity.pairs import Rows, check_parity, made_up_rows

ROWS = 256
"""Rows on which the ways are measured; what is chosen is then verified on all rows."""

SEED = 0


def agreement(source: SourceModel, model: onnx.ModelProto, rows: Tensors) -> Agreement:
    """Compare a conversion with its source on a few rows.

    Args:
        source: The reference.
        model: Its conversion.
        rows: The user's own, of which the first are taken; none for rows that are made up.
    """
    if not fits_inline(model):
        return Agreement(0, "the model is too large to be tried out")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        written = OnnxModel(path, model)
        made_up = made_up_rows(source.inputs, source, written, SEED)
        few = {name: tensor[:ROWS] for name, tensor in (rows or made_up.tensors).items()}
        try:
            # Ways of computing are compared: what the input's dtype costs is the same for all.
            parity = check_parity(source, written, Rows(few, made_up.origin, SEED), accept_rounding=True)
        except OnnxtoolError as error:
            return Agreement(None, str(error).replace(str(path), "the model").rstrip("."))
    if parity.passed:
        return Agreement(0, "all rows agree")
    off = max(output.mismatched_rows if output.problem is None else parity.rows for output in parity.outputs)
    failing = ", ".join(output.name for output in parity.outputs if not output.passed)
    return Agreement(max(off, 1), f"{off} of {parity.rows} rows are out of tolerance ({failing})")
