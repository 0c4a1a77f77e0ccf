"""ColumnTransformers as people chain them, against the pipeline's own answers by bare ONNX Runtime."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import onnxtool
from benchmarks.coverage.bare import rows_off

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, 200).astype(float),
        "income": RNG.lognormal(10, 0.6, 200).round(2),
        "city": RNG.choice(["Oslo", "Rome", "Bern", "Riga"], 200, p=[0.6, 0.3, 0.06, 0.04]).astype(object),
        "plan": RNG.choice(["basic", "pro"], 200).astype(object),
    }
)
NUMBERS, WORDS = ["age", "income"], ["city", "plan"]
BOUGHT = ((ROWS["age"] > 50) ^ (ROWS["city"] == "Rome")).astype(int)


def _imputed():
    parts = (SimpleImputer(), NUMBERS), (SimpleImputer(strategy="most_frequent"), WORDS)
    return make_column_transformer(*parts, verbose_feature_names_out=False).set_output(transform="pandas")


def _encoded(**options):
    return make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(**options), WORDS))


PIPELINES = {
    "two in a row by name": lambda: make_pipeline(_imputed(), _encoded(), LogisticRegression()),
    "two in a row by place": lambda: make_pipeline(
        make_column_transformer((SimpleImputer(), NUMBERS), (SimpleImputer(strategy="most_frequent"), WORDS)),
        make_column_transformer((StandardScaler(), [0, 1]), (OneHotEncoder(), [2, 3])),
        LogisticRegression(),
    ),
    "text that passes through": lambda: make_pipeline(
        make_column_transformer(
            (StandardScaler(), NUMBERS), remainder="passthrough", verbose_feature_names_out=False
        ).set_output(transform="pandas"),
        make_column_transformer((OrdinalEncoder(), WORDS), remainder="passthrough"),
        LogisticRegression(max_iter=500),
    ),
    "in a row, in another order": lambda: make_pipeline(
        _imputed(),
        make_column_transformer((StandardScaler(), ["income", "age"]), (OneHotEncoder(), WORDS[::-1])),
        LogisticRegression(),
    ),
    "in a row, columns of two in turns": lambda: make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["income"]),
            (OrdinalEncoder(), WORDS),
            remainder="passthrough",
            verbose_feature_names_out=False,
        ).set_output(transform="pandas"),
        make_column_transformer((StandardScaler(), ["city", "income", "plan", "age"])),
        LogisticRegression(),
    ),
    "slices": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), slice("age", "income")), (OneHotEncoder(), slice(2, None))),
        LogisticRegression(),
    ),
    "a mask": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), [True, True, False, False])), LogisticRegression()
    ),
    "a mask of NumPy": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), np.array([True, False, False, False]))), LogisticRegression()
    ),
    "a selector": lambda: make_pipeline(
        make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include="number")),
            (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
        ),
        LogisticRegression(),
    ),
    "infrequent categories and a scaler": lambda: make_pipeline(
        _encoded(min_frequency=30, handle_unknown="infrequent_if_exist"),
        StandardScaler(with_mean=False),
        LogisticRegression(),
    ),
    "most frequent categories only": lambda: make_pipeline(_encoded(max_categories=3), LogisticRegression()),
    "two in a row, calibrated": lambda: CalibratedClassifierCV(
        make_pipeline(_imputed(), _encoded(), LogisticRegression()), cv=2
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_agrees(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas on frames that scikit-learn makes
        model = PIPELINES[name]().fit(ROWS, BOUGHT)
        before = str(model.get_params())
        assert onnxtool.convert(model, tmp_path / "m.onnx", data=ROWS)
        assert rows_off(model, ROWS, tmp_path / "m.onnx") == 0
        assert str(model.get_params()) == before


@pytest.mark.parametrize(
    "picked", [np.array([True, False, True]), [2, 1, 0]], ids=["mask", "all in another order"]
)
def test_columns_of_a_matrix_agree(picked, tmp_path):
    rows = np.c_[ROWS[NUMBERS], RNG.normal(size=200)]
    columns = make_column_transformer((StandardScaler(), picked), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(rows, BOUGHT)
    assert onnxtool.convert(model, tmp_path / "m.onnx", data=rows, sandbox=None)
    assert rows_off(model, rows, tmp_path / "m.onnx") == 0
