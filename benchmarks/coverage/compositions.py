"""Which estimators of estimators convert and agree: `python -m benchmarks.coverage compositions`.

Every estimator that is made around another one: around a model alone, a pipeline, boosting, and each of them behind a
ColumnTransformer over numbers and text; fitted on a matrix and on a data frame. Each is converted as a user would and
compared with its own answers by bare ONNX Runtime too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from xgboost import XGBClassifier, XGBRegressor

from benchmarks.coverage.bare import rows_off
from benchmarks.coverage.table import Result, converted, installed, versions_line
from onnxtool.models.onnx.artifact import first_line

_RNG = np.random.default_rng(0)
_COUNT, _TRAINING = 240, 160
FRAME = pd.DataFrame(
    {
        "age": _RNG.integers(18, 90, _COUNT),
        "income": np.round(_RNG.lognormal(10, 0.6, _COUNT), 2),
        "city": _RNG.choice(["Oslo", "Rome", "Bern"], _COUNT).astype(object),
    }
)
NUMBERS = ["age", "income"]
_AMOUNT = np.log(FRAME["income"].to_numpy()) + (FRAME["city"] == "Rome").to_numpy()
_YES = ((FRAME["age"] > 50) ^ (FRAME["city"] == "Rome")).astype(int).to_numpy()
_LEVEL = np.digitize(FRAME["age"], [40, 65])
TARGETS: dict[str, Any] = {
    "two classes": _YES,
    "three classes": _LEVEL,
    "words": np.array(["low", "middle", "high"])[_LEVEL],
    "several labels": np.c_[_YES, np.median(_AMOUNT) < _AMOUNT].astype(int),
    "number": _AMOUNT,
    "several numbers": np.c_[_AMOUNT, -2 * _AMOUNT],
    "some unknown": np.where(np.arange(_COUNT) % 3, _YES, -1),
}

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: LogisticRegression(max_iter=300),
    "forest": lambda: RandomForestClassifier(4, max_depth=4, random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "LightGBM": lambda: LGBMClassifier(n_estimators=4, verbose=-1),
    "XGBoost": lambda: XGBClassifier(n_estimators=4, max_depth=3),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=4),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": Ridge,
    "pipeline": lambda: make_pipeline(StandardScaler(), Ridge()),
    "LightGBM": lambda: LGBMRegressor(n_estimators=4, verbose=-1),
    "XGBoost": lambda: XGBRegressor(n_estimators=4, max_depth=3),
    "histogram boosting": lambda: HistGradientBoostingRegressor(max_iter=4),
}
COLUMNS = "columns, "
"""Before the name of an inner model: the model behind a ColumnTransformer."""


class Meta(NamedTuple):
    """An estimator around another one.

    Attributes:
        make: Makes it, from functions that make inner models.
        target: What it is fitted to; see `TARGETS`.
    """

    make: Callable[[Callable[[], Any]], Any]
    target: str


METAS: dict[str, Meta] = {
    **{
        f"CalibratedClassifierCV, {method}, {target}": Meta(
            partial(lambda method, one: CalibratedClassifierCV(one(), cv=2, method=method), method), target
        )
        for method in ("sigmoid", "isotonic", "temperature")
        for target in ("two classes", "three classes")
    },
    "StackingClassifier": Meta(lambda one: StackingClassifier([("a", one()), ("b", one())], cv=2), "two classes"),
    "StackingClassifier, words": Meta(lambda one: StackingClassifier([("a", one())], cv=2), "words"),
    "StackingRegressor": Meta(lambda one: StackingRegressor([("a", one()), ("b", one())], cv=2), "number"),
    "VotingClassifier, soft": Meta(
        lambda one: VotingClassifier([("a", one()), ("b", one())], voting="soft"), "three classes"
    ),
    "VotingRegressor": Meta(lambda one: VotingRegressor([("a", one()), ("b", one())]), "number"),
    "TunedThresholdClassifierCV": Meta(lambda one: TunedThresholdClassifierCV(one(), cv=2), "two classes"),
    "FixedThresholdClassifier": Meta(lambda one: FixedThresholdClassifier(one(), threshold=0.3), "two classes"),
    "OneVsRestClassifier": Meta(lambda one: OneVsRestClassifier(one()), "three classes"),
    "OneVsRestClassifier, two": Meta(lambda one: OneVsRestClassifier(one()), "two classes"),
    "OneVsOneClassifier": Meta(lambda one: OneVsOneClassifier(one()), "words"),
    "OutputCodeClassifier": Meta(lambda one: OutputCodeClassifier(one(), random_state=0), "three classes"),
    "MultiOutputClassifier": Meta(lambda one: MultiOutputClassifier(one()), "several labels"),
    "MultiOutputRegressor": Meta(lambda one: MultiOutputRegressor(one()), "several numbers"),
    "ClassifierChain": Meta(lambda one: ClassifierChain(one()), "several labels"),
    "RegressorChain": Meta(lambda one: RegressorChain(one()), "several numbers"),
    "TransformedTargetRegressor, log1p": Meta(
        lambda one: TransformedTargetRegressor(one(), func=np.log1p, inverse_func=np.expm1), "number"
    ),
    "TransformedTargetRegressor, scaler": Meta(
        lambda one: TransformedTargetRegressor(one(), transformer=StandardScaler()), "number"
    ),
    "BaggingClassifier": Meta(
        lambda one: BaggingClassifier(one(), n_estimators=3, random_state=0), "three classes"
    ),
    "BaggingRegressor": Meta(lambda one: BaggingRegressor(one(), n_estimators=3, random_state=0), "number"),
    "AdaBoostClassifier": Meta(lambda one: AdaBoostClassifier(one(), n_estimators=3), "three classes"),
    "AdaBoostRegressor": Meta(lambda one: AdaBoostRegressor(one(), n_estimators=3, random_state=0), "number"),
    "GridSearchCV": Meta(lambda one: GridSearchCV(one(), {}, cv=2), "two classes"),
    "FrozenEstimator": Meta(lambda one: FrozenEstimator(one()), "two classes"),
    "SelfTrainingClassifier": Meta(lambda one: SelfTrainingClassifier(one()), "some unknown"),
    "RFE": Meta(
        lambda one: make_pipeline(RFE(one(), n_features_to_select=1), LogisticRegression()), "two classes"
    ),
}


def case_names() -> list[str]:
    """Every composition, `META/INNER/matrix` or `META/INNER/frame`."""
    found = []
    for name, meta in METAS.items():
        inner = REGRESSORS if "number" in meta.target else CLASSIFIERS
        found += [f"{name}/{one}/{form}" for one in inner for form in ("matrix", "frame")]
        found += [f"{name}/{COLUMNS}{one}/frame" for one in inner if one != "pipeline"]
    return found


def make(case: str) -> tuple[Any, Any]:
    """A fitted composition, and rows that it has not seen."""
    name, inner, form = case.split("/")
    meta = METAS[name]
    one = (REGRESSORS if "number" in meta.target else CLASSIFIERS)[inner.removeprefix(COLUMNS)]
    behind = inner.startswith(COLUMNS)
    rows: Any = FRAME if behind else FRAME[NUMBERS]
    rows = rows.to_numpy(dtype=np.float64) if form == "matrix" else rows
    model = meta.make(partial(_behind_columns, one) if behind else one)
    if name == "FrozenEstimator":
        model.estimator.fit(rows[:_TRAINING], TARGETS[meta.target][:_TRAINING])
    return model.fit(rows[:_TRAINING], TARGETS[meta.target][:_TRAINING]), rows[_TRAINING:]


def _behind_columns(one: Callable[[], Any]) -> Any:
    columns = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(sparse_output=False), ["city"]))
    return make_pipeline(columns, one())


def examine(case: str) -> Result:
    """Fit, convert and compare one composition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, rows = make(case)
        except Exception as error:  # scikit-learn has no such composition, as a chain over a data frame of text
            return {"outcome": "no rows", "reason": f"scikit-learn does not fit it: {first_line(error)}"}
        outcome, reason = converted(model, data=rows, rows_off=partial(rows_off, model, rows))
        return {"outcome": outcome, "reason": reason}


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    return installed("scikit-learn", "skl2onnx", "onnxruntime", "lightgbm", "xgboost-cpu")


def share(results: Iterable[Result]) -> tuple[int, int]:
    """How many compositions agree, and how many can be fitted."""
    outcomes = [result["outcome"] for result in results if result["outcome"] != "no rows"]
    return outcomes.count("agrees"), len(outcomes)


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """The page: a summary, the share of each estimator, and the reasons."""
    agreed, counted = share(results.values())
    lines = [
        "# scikit-learn's estimators around others",
        "",
        "Written by `python -m benchmarks.coverage compositions --record reports/coverage/compositions.json",
        "--markdown reports/coverage/compositions.md`; do not edit. Each estimator around a model alone, a pipeline",
        "and boosting, on a matrix and on a data frame, and around each behind a ColumnTransformer over numbers and",
        "text. A case agrees where `convert` says so and bare ONNX Runtime beside the estimator does.",
        versions_line(versions),
        "",
        f"**{agreed} of {counted} compositions convert and agree ({agreed / max(counted, 1):.1%}).**",
        f"{len(results) - counted} others are none that scikit-learn fits.",
        "",
        "| estimator | agree | of |",
        "| --- | --: | --: |",
    ]
    reasons = []
    for name in METAS:
        found = {case: result for case, result in results.items() if case.partition("/")[0] == name}
        agree, fitted = share(found.values())
        lines.append(f"| {name} | {agree} | {fitted} |")
        reasons += [
            f"- **{case}**, {result['outcome']}: {result['reason']}"
            for case, result in found.items()
            if result["outcome"] not in ("agrees", "no rows")
        ]
    return "\n".join([*lines, "", "## Reasons", "", *(reasons or ["None."])]) + "\n"
