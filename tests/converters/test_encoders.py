"""Each dtype of a column that an encoder or an imputer reads goes through with scikit-learn's meaning, or is refused.

The judge is bare ONNX Runtime beside the pipeline alone.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

import onnxtool
from onnxtool.errors import SourceError

COUNT = 40
RNG = np.random.default_rng(0)
WHOLE, WORDS = RNG.integers(0, 5, COUNT), RNG.choice(["a", "b", "c"], COUNT).astype(object)
MONEY, TRUTH, LOST = (
    np.round(RNG.choice(RNG.normal(20, 9, 6), COUNT), 2),
    RNG.random(COUNT) < 0.5,
    RNG.random(COUNT) < 0.2,
)
TARGET = (WHOLE + MONEY > 20).astype(int)


def without(values: Any, dtype: str) -> pd.Series:
    column = pd.Series(values).astype(dtype)
    column[LOST] = None if dtype == "object" else pd.NA if column.dtype != float else np.nan
    return column


COLUMNS = {
    "bool": pd.Series(TRUTH),
    "boolean": without(TRUTH, "boolean"),
    "truth in objects": without(TRUTH, "object"),
    "Int64": without(WHOLE, "Int64"),
    "Float64": without(MONEY, "Float64"),
    "float": without(MONEY, "float64"),
    "whole numbers in objects": pd.Series(list(map(int, WHOLE)), dtype=object),
    "category of whole numbers": pd.Series(WHOLE, dtype="category"),
    "Arrow's int64": without(WHOLE, "int64[pyarrow]"),
    "Arrow's bool": pd.Series(TRUTH, dtype="bool[pyarrow]"),
    "string": pd.Series(WORDS, dtype="string"),
    "text, some of it missing": without(WORDS, "object"),
    "category, some of it missing": without(WORDS, "category"),
    "Arrow's string": pd.Series(WORDS, dtype="string[pyarrow]"),
    "Decimal": pd.Series([Decimal(str(value)) for value in MONEY]),
}
TEXT = {"string", "text, some of it missing", "category, some of it missing", "Arrow's string"}
STEPS = {
    "imputed": SimpleImputer,
    "imputed and marked": lambda: SimpleImputer(strategy="median", add_indicator=True),
    "one-hot": lambda: OneHotEncoder(handle_unknown="ignore", drop="if_binary"),
    "ordinal": lambda: OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-2, encoded_missing_value=-1
    ),
}


def pipeline(step: Any) -> Any:
    columns = make_column_transformer(("passthrough", ["money"]), (step, ["c"]))
    return make_pipeline(columns, RandomForestClassifier(5, random_state=0))


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("step", STEPS)
def test_each_dtype_goes_through_with_its_meaning_or_is_refused(kind: str, step: str, tmp_path: Any) -> None:
    if "imputed" in step and kind in TEXT:
        return  # scikit-learn has no mean and no median of text
    frame = pd.DataFrame({"money": MONEY, "c": COLUMNS[kind]})
    model = pipeline(STEPS[step]()).fit(frame, TARGET)
    path = tmp_path / "m.onnx"
    if kind == "Decimal" and "imputed" not in step:
        with pytest.raises(SourceError, match=r"'c'.*Decimal.*astype"):
            onnxtool.convert(model, path, data=frame, sandbox=None)
        frame["c"] = frame["c"].astype(float)  # the remedy
        model = pipeline(STEPS[step]()).fit(frame, TARGET)
    assert onnxtool.convert(model, path, data=frame, sandbox=None).passed
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kinds = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(int64)": np.int64,
        "tensor(bool)": bool,
    }
    feeds = {}
    for one in session.get_inputs():
        values = frame[one.name].astype(object)
        if one.type == "tensor(string)":
            feeds[one.name] = values.where(values.notna(), "").to_numpy(dtype=object)[:, None]
        else:
            numbers = [np.nan if missing else value for value, missing in zip(values, values.isna(), strict=True)]
            feeds[one.name] = np.array(numbers, dtype=kinds[one.type])[:, None]
    np.testing.assert_allclose(session.run(["probabilities"], feeds)[0], model.predict_proba(frame), atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [pd.to_datetime(["2020-01-01", "2021-01-01"] * 20), [date(2020, 1, 1), date(2021, 1, 1)] * 20],
    ids=["dates", "days"],
)
def test_categories_that_are_dates_are_refused_by_column_and_the_remedy_works(values: Any, tmp_path: Any) -> None:
    frame = pd.DataFrame({"money": MONEY, "c": values})
    with pytest.raises(SourceError, match=r"Column 'c'.*astype\(str\)"):
        onnxtool.convert(
            pipeline(OneHotEncoder()).fit(frame, TARGET), tmp_path / "m.onnx", data=frame[["money"]], sandbox=None
        )
    frame["c"] = frame["c"].astype(str)
    model = pipeline(OneHotEncoder()).fit(frame, TARGET)
    assert onnxtool.convert(model, tmp_path / "m.onnx", data=frame, sandbox=None).passed
