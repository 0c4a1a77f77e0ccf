"""Encoders of category_encoders, all in one way: each column that comes out is a table of one that goes in.

The fitted encoder itself is given each category that it knows, one that it does not know and a missing one, and its
answers are the table. So whatever it does with each is what the ONNX model does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.tracing.converters import register_converter
from onnxtool.converters.tracing.frames import TracedFrame, looked_up
from onnxtool.errors import ConversionError
from onnxtool.models.sklearn.contrib import known_categories

ENCODERS = {
    "backward_difference": "BackwardDifferenceEncoder",
    "basen": "BaseNEncoder",
    "binary": "BinaryEncoder",
    "cat_boost": "CatBoostEncoder",
    "count": "CountEncoder",
    "glmm": "GLMMEncoder",
    "gray": "GrayEncoder",
    "helmert": "HelmertEncoder",
    "james_stein": "JamesSteinEncoder",
    "leave_one_out": "LeaveOneOutEncoder",
    "m_estimate": "MEstimateEncoder",
    "one_hot": "OneHotEncoder",
    "ordinal": "OrdinalEncoder",
    "polynomial": "PolynomialEncoder",
    "quantile_encoder": "QuantileEncoder",
    "sum_coding": "SumEncoder",
    "target_encoder": "TargetEncoder",
    "woe": "WOEEncoder",
}
"""Modules of the library, and the encoder in each that treats every column by itself."""

UNKNOWN = "never seen"


def _encoded(encoder: Any, rows: Any) -> Any:
    import pandas as pd

    if not isinstance(rows, pd.DataFrame):
        rows = TracedFrame({name: rows[:, place] for place, name in enumerate(encoder.feature_names_in_)})
    names, encoded = list(rows.columns), [str(name) for name in encoder.cols]
    known = {column: known_categories(encoder, column) for column in encoded}
    if empty := [column for column in encoded if not known[column]]:
        raise ConversionError(
            f"{type(encoder).__name__} has no categories of {', '.join(empty)}, so it is not fitted."
        )
    usual = {name: known[name][0] if name in known else 0.0 for name in names}
    answers = {column: _answers(encoder, usual, column, known[column]) for column in encoded}
    first = _answer(encoder, usual)
    made: dict[Any, Any] = {}
    for output in first:
        if output in names and output not in encoded:
            made[output] = rows[output]
            continue
        owners = [
            column for column, table in answers.items() if any(row[output] != first[output] for row in table)
        ]
        if len(owners) > 1:
            raise ConversionError(
                f"{type(encoder).__name__} makes {output!r} of several columns: {', '.join(owners)}."
            )
        owner = owners[0] if owners else encoded[0]
        *values, unknown, missing = [row[output] for row in answers[owner]]
        table = dict(zip(known[owner], values, strict=True))
        made[output] = looked_up(rows.columns_[owner], {**table, np.nan: missing}, unknown)
    found = TracedFrame(made)
    return found if encoder.return_df else found.to_numpy()


def _answers(encoder: Any, usual: dict[str, Any], column: str, known: list[Any]) -> list[dict[str, float]]:
    """What comes out for each category of a column, then for an unknown one and for a missing one."""
    unknown: Any = UNKNOWN if isinstance(known[0], str) else max(map(float, known)) + 1.5
    return [_answer(encoder, {**usual, column: value}) for value in (*known, unknown, np.nan)]


def _answer(encoder: Any, row: dict[str, Any]) -> dict[str, float]:
    """What comes out for one row; NaN where the encoder refuses it, as for an unknown category if it is to."""
    import pandas as pd

    frame = pd.DataFrame({name: pd.Series([value], dtype=object if isinstance(value, str) else None)
                          for name, value in row.items()})  # fmt: skip
    passed = set(row) - set(map(str, encoder.cols))
    refused = False
    try:
        out = encoder.transform(frame, override_return_df=True)
    except ValueError:
        refused = True
        usual = {name: known_categories(encoder, name)[0] for name in map(str, encoder.cols)}
        out = encoder.transform(frame.assign(**usual), override_return_df=True)
    return {
        str(name): float("nan") if refused or str(name) in passed else float(value)
        for name, value in out.iloc[0].items()
    }


for _module, _name in ENCODERS.items():
    register_converter(f"category_encoders.{_module}.{_name}")(_encoded)
