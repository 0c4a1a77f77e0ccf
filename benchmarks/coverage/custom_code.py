"""Forty transformers as people write them, in NumPy and pandas: 36 convert, 4 are refused by their own line.

They stand in a module, as they would beside a saved model, so that a pickle names them by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_array, check_is_fitted

AGES = [0, 18, 30, 45, 65, 120]
CITIES = {"Oslo": 0.7, "Rome": 2.8, "Bern": 0.13}


# -- Functions, for FunctionTransformer -------------------------------------------------------------------------


def log_ratio(x: Any) -> Any:
    return np.log(x[:, [0]] / (x[:, [1]] + 1e-9))


def clipped(x: Any) -> Any:
    return np.clip(x, 0.1, 3.0)


def signed_log(x: Any) -> Any:
    return np.sign(x) * np.log1p(np.abs(x))


def interactions(x: Any) -> Any:
    n = x.shape[1]
    products = [x[:, i] * x[:, j] for i in range(n) for j in range(i + 1, n)]
    return np.column_stack([x, *products])


def row_statistics(x: Any) -> Any:
    return np.c_[
        x.mean(axis=1), x.std(axis=1), x.min(axis=1), x.max(axis=1), np.median(x, axis=1), np.ptp(x, axis=1)
    ]


def cyclical(x: Any) -> Any:
    hour = x[:, 0] * 24 % 24
    return np.hstack([np.sin(2 * np.pi * hour / 24)[:, None], np.cos(2 * np.pi * hour / 24)[:, None], x])


def binned(x: Any) -> Any:
    return np.digitize(x, [0.25, 0.5, 1.0, 2.0])


def searched(x: Any) -> Any:
    return np.searchsorted(np.array([0.3, 0.9, 1.5]), x, side="right").astype(np.float64)


def winsorised(x: Any) -> Any:
    out = x.copy()
    out[out > 2] = 2
    out[:, 0] = np.sqrt(out[:, 0])
    return out


def without_division_by_zero(x: Any) -> Any:
    return np.divide(x[:, 0], x[:, 1], out=np.zeros_like(x[:, 0]), where=x[:, 1] > 0.5)[:, np.newaxis]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def selected(x: Any) -> Any:
    a = x[:, 0]
    return np.select([a < 0.5, a < 1.5, a >= 1.5], [a, a * 2, 0.0], default=-1.0).reshape(-1, 1)


def unit_rows(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def angles(x: Any) -> Any:
    return np.stack(
        [np.arctan2(x[:, 0], x[:, 1] - 1), np.hypot(x[:, 0], x[:, 1]), np.arcsin(np.tanh(x[:, 2]))], axis=1
    )


def filled_in(x: Any) -> Any:
    return np.where(np.isnan(x), np.nanmean(x, axis=1, keepdims=True), x)


def whole_parts(x: Any) -> Any:
    return np.concatenate([x // 0.5, x % 0.5, np.floor(x).astype(int) // 2, np.round(x, 1)], axis=1)


def allocated(x: Any) -> Any:
    out = np.empty((x.shape[0], 2))
    out[:, 0] = x[:, 0] ** 2
    out[:, 1] = x[:, 1:].sum(axis=1)
    return out


def frame_ratios(frame: Any) -> Any:
    return frame.assign(ratio=frame["a"] / frame["b"], total=lambda d: d.a + d.b + d.c).drop(columns=["c"])


def frame_flags(frame: Any) -> Any:
    out = pd.DataFrame(index=frame.index)
    out["expensive"] = (frame["a"] > 1.2) & ~(frame["b"] < 0.4)
    out["middle"] = frame["c"].between(0.5, 1.5).astype(int)
    return out


def frame_rows(frame: Any) -> Any:
    return pd.DataFrame({"mean": frame.mean(axis=1), "most": frame.max(axis=1), "spread": frame.std(axis=1)})


def age_groups(frame: Any) -> Any:
    frame = frame.copy()
    frame["age"] = pd.cut(frame["age"], bins=AGES, labels=False)
    frame["distance"] = frame["city"].map(CITIES).fillna(-1.0)
    frame["is_rome"] = np.where(frame["city"] == "Rome", 1, 0)
    return frame[["age", "distance", "is_rome"]]


def capitals(frame: Any) -> Any:
    upper = frame["city"].str.upper()
    return pd.concat([frame["age"] / 100, upper.isin(["OSLO", "ROME"]).rename("capital").astype(float)], axis=1)


def per_row(frame: Any) -> Any:
    return frame.apply(lambda row: row["a"] * 2 + row["b"], axis=1).to_frame("score")


# -- Transformers of one's own ----------------------------------------------------------------------------------


class RatioAdder(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def __init__(self, eps: float = 1e-6) -> None:
        self.eps = eps

    def fit(self, X: Any, y: Any = None) -> RatioAdder:
        X = check_array(X)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        X = check_array(X)
        return np.hstack([X, X[:, :1] / (X[:, 1:2] + self.eps)])


class QuantileClipper(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def __init__(self, low: float = 0.05, high: float = 0.95) -> None:
        self.low, self.high = low, high

    def fit(self, X: Any, y: Any = None) -> QuantileClipper:
        self.lower_ = np.quantile(X, self.low, axis=0)
        self.upper_ = np.quantile(X, self.high, axis=0)
        return self

    def transform(self, X: Any) -> Any:
        return np.minimum(np.maximum(X, self.lower_), self.upper_)


class Standardiser(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> Standardiser:
        self.mean_, self.std_ = X.mean(), X.std()
        return self

    def transform(self, X: Any) -> Any:
        return (X - self.mean_) / self.std_


class ColumnPicker(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def __init__(self, columns: Any) -> None:
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> ColumnPicker:
        return self

    def transform(self, X: Any) -> Any:
        return X[self.columns].to_numpy()


class GroupMedianImputer(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> GroupMedianImputer:
        self.medians_ = X.groupby("city")["age"].median()
        return self

    def transform(self, X: Any) -> Any:
        X = X.copy()
        X["age"] = X["age"].fillna(X["city"].map(self.medians_))
        return X[["age"]]


class RareGrouper(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> RareGrouper:
        counts = X["city"].value_counts()
        self.kept_ = list(counts.index[:2])
        self.codes_ = {city: code for code, city in enumerate([*self.kept_, "other"])}
        return self

    def transform(self, X: Any) -> Any:
        city = X["city"].where(X["city"].isin(self.kept_), "other")
        return city.map(self.codes_).to_frame()


class OutlierFlags(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> OutlierFlags:
        self.center_ = np.median(X, axis=0)
        self.scale_ = np.median(np.abs(X - self.center_), axis=0) + 1e-9
        return self

    def transform(self, X: Any) -> Any:
        score = np.abs(X - self.center_) / self.scale_
        return np.hstack([X, (score > 3.5).astype(float), score.max(axis=1).reshape(-1, 1)])


class PiecewiseLinear(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> PiecewiseLinear:
        self.knots_ = np.quantile(X[:, 0], [0.1, 0.5, 0.9])
        return self

    def transform(self, X: Any) -> Any:
        hinges = [np.maximum(X[:, 0] - knot, 0) for knot in self.knots_]
        return np.vstack([X[:, 0], *hinges, np.interp(X[:, 1], self.knots_, [0.0, 1.0, 4.0])]).T


class RadialBasis(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> RadialBasis:
        self.centers_ = X[:4]
        return self

    def transform(self, X: Any) -> Any:
        difference = X[:, None, :] - self.centers_[None, :, :]
        return np.exp(-0.5 * np.sum(difference**2, axis=2))


class ScaledThenSquared(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """A step that uses a step of scikit-learn's."""

    def fit(self, X: Any, y: Any = None) -> ScaledThenSquared:
        self.scaler_ = StandardScaler().fit(X)
        return self

    def transform(self, X: Any) -> Any:
        return self.scaler_.transform(X) ** 2


class LookupTable(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> LookupTable:
        self.table_ = np.linspace(-1, 1, 5) ** 3
        return self

    def transform(self, X: Any) -> Any:
        place = np.clip(X[:, 0].astype(int), 0, 4)
        return self.table_[place].reshape(-1, 1)


# -- Predictors of one's own ------------------------------------------------------------------------------------


class LogisticByHand(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any) -> LogisticByHand:
        X = np.asarray(X)
        self.classes_ = np.unique(y)
        self.coef_ = LogisticRegression().fit(X, y).coef_[0]
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: Any) -> Any:
        p = expit(np.asarray(X) @ self.coef_)
        return np.column_stack([1 - p, p])

    def predict(self, X: Any) -> Any:
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]


class Blend(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A weighted mean of two regressors."""

    def fit(self, X: Any, y: Any) -> Blend:
        self.models_ = [Ridge(alpha).fit(X, y) for alpha in (0.1, 10.0)]
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        return np.average([model.predict(X) for model in self.models_], axis=0, weights=[0.7, 0.3])


# -- What cannot be traced --------------------------------------------------------------------------------------


def branches_on_values(x: Any) -> Any:
    if (x[:, 0] > 2).any():
        return np.log1p(x)
    return x


def loops_over_rows(x: Any) -> Any:
    return np.array([[math.sqrt(value) for value in row] for row in x])


def writes_a_file(x: Any) -> Any:
    np.savetxt("rows.txt", x)
    return x


def splits_text(frame: Any) -> Any:
    return frame["city"].str.split("o").str.len().to_frame()


MATRIX: dict[str, Callable[[Any], Any]] = {
    each.__name__: each
    for each in (
        log_ratio, clipped, signed_log, interactions, row_statistics, cyclical, binned, searched, winsorised,
        without_division_by_zero, softmax, selected, unit_rows, angles, filled_in, whole_parts, allocated,
    )
}  # fmt: skip
FRAME: dict[str, Callable[[Any], Any]] = {
    each.__name__: each for each in (frame_ratios, frame_flags, frame_rows, per_row)
}
MIXED: dict[str, Callable[[Any], Any]] = {each.__name__: each for each in (age_groups, capitals)}
STEPS: dict[str, tuple[str, Any]] = {
    "RatioAdder": ("matrix", RatioAdder()),
    "QuantileClipper": ("matrix", QuantileClipper()),
    "Standardiser": ("frame", Standardiser()),
    "ColumnPicker": ("frame", ColumnPicker(["c", "a"])),
    "GroupMedianImputer": ("mixed", GroupMedianImputer()),
    "RareGrouper": ("mixed", RareGrouper()),
    "OutlierFlags": ("matrix", OutlierFlags()),
    "PiecewiseLinear": ("matrix", PiecewiseLinear()),
    "RadialBasis": ("matrix", RadialBasis()),
    "ScaledThenSquared": ("matrix", ScaledThenSquared()),
    "LookupTable": ("matrix", LookupTable()),
    "LogisticByHand": ("matrix", LogisticByHand()),
    "Blend": ("matrix", Blend()),
}
REFUSED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "branches_on_values": ("matrix", branches_on_values),
    "loops_over_rows": ("matrix", loops_over_rows),
    "writes_a_file": ("matrix", writes_a_file),
    "splits_text": ("mixed", splits_text),
}


def names() -> list[str]:
    """All forty."""
    return [*MATRIX, *FRAME, *MIXED, *STEPS, *REFUSED]


def rows(kind: str, count: int, seed: int) -> Any:
    """Rows for a transformer: a matrix, a frame of numbers, or one of numbers and text."""
    generator = np.random.default_rng(seed)
    if kind == "mixed":
        age = generator.integers(1, 100, count).astype(float)
        age[generator.random(count) < 0.1] = np.nan
        return pd.DataFrame({"age": age, "city": generator.choice(["Oslo", "Rome", "Bern", "Nice"], count)})
    matrix = generator.lognormal(0, 0.7, size=(count, 3))
    return matrix if kind == "matrix" else pd.DataFrame(matrix, columns=["a", "b", "c"])


def build(name: str) -> tuple[Any, Any]:
    """A fitted transformer, or predictor, and rows that it has not seen."""
    from sklearn.preprocessing import FunctionTransformer

    if name in STEPS:
        kind, step = STEPS[name]
        step = type(step)(**step.get_params())
    else:
        function = {**MATRIX, **FRAME, **MIXED, **{n: f for n, (_, f) in REFUSED.items()}}[name]
        kind = (
            REFUSED[name][0]
            if name in REFUSED
            else "matrix"
            if name in MATRIX
            else "frame"
            if name in FRAME
            else "mixed"
        )
        step = FunctionTransformer(function)
    train = rows(kind, 400, 0)
    first = np.asarray(train)[:, 0].astype(float)
    target = first + 0.1 * np.random.default_rng(1).normal(size=400)
    if name == "LogisticByHand":
        target = np.where(first > 1, "high", "low")
    fresh = rows(kind, 200, 2)
    if name == "filled_in":
        fresh[::7, 1] = np.nan
    return step.fit(train, target), fresh
