"""The way of converting is chosen by measuring, and the choice is reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression

import onnxtool
from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.sklearn import FRAMEWORK
from onnxtool.errors import ConversionError
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source
from onnxtool.validators.parity.agreement import agreement

RNG = np.random.default_rng(0)
FAR = (RNG.normal(size=(200, 4)) + 1000).astype(np.float32)
"""So far from zero that squared distances lose their digits in single precision."""


def choices(model: Any, rows: Any) -> list[str]:
    source = open_source(model, LoadOptions())
    return FRAMEWORK.convert(source, {}, ConvertOptions(rows={"X": rows}, compare=agreement)).choices


def test_single_precision_is_kept_where_it_agrees() -> None:
    rows = RNG.normal(size=(200, 4)).astype(np.float32)
    assert choices(LinearRegression().fit(rows, rows[:, 0]), rows) == []


def test_double_precision_where_single_drifts_and_the_report_says_so(tmp_path: Any) -> None:
    model = GaussianProcessRegressor().fit(FAR, FAR[:, 0] - 1000)
    report = onnxtool.convert(model, tmp_path / "m.onnx", data=FAR)
    conversion = report.subjects[0].conversion
    assert conversion is not None
    assert any("double precision between casts: in single precision" in choice for choice in conversion.choices)
    assert report.subjects[0].model.inputs[0].dtype == "float32"
    assert report.subjects[0].model.outputs[0].dtype == "float32"


def test_nothing_is_chosen_for_float64_rows() -> None:
    model = GaussianProcessRegressor().fit(FAR, FAR[:, 0] - 1000)
    source = open_source(model, LoadOptions(inputs=(TensorSpec.parse("X:float64[batch,4]"),)))
    assert FRAMEWORK.convert(source, {}, ConvertOptions(compare=agreement)).choices == []


class Unknown(TransformerMixin, BaseEstimator):
    """An estimator that no converter knows."""

    def fit(self, rows: Any, target: Any = None) -> Unknown:
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows: Any) -> Any:
        return rows if rows[0, 0] > 0 else -rows


def test_the_first_failure_is_the_reason() -> None:
    with pytest.raises(ConversionError, match="Unknown cannot be written as ONNX"):
        choices(Unknown().fit(FAR), FAR)
