"""Pipelines with steps of other libraries, by name: `library/step`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from onnxtool.errors import require

ROWS = 400


def _frame(seed: int, *, holes: bool = False) -> pd.DataFrame:
    """Rows of numbers and text; those of another seed than 0 have a city that training has not seen."""
    generator = np.random.default_rng(seed)
    cities = ["Oslo", "Rome", "Bern", "Nice"]
    rows = pd.DataFrame(
        {
            "age": generator.lognormal(1, 0.5, ROWS),
            "pay": generator.lognormal(0, 0.5, ROWS),
            "hour": generator.integers(0, 24, ROWS),
            "city": generator.choice(cities, ROWS, p=[0.4, 0.3, 0.26, 0.04]),
            "kind": generator.choice(["a", "b"], ROWS),
        }
    )
    if holes:
        rows.loc[::9, "age"] = np.nan
        rows.loc[::11, "city"] = None
    return rows


def _target(rows: pd.DataFrame) -> Any:
    return ((rows.age.fillna(3) > 2.7) ^ (rows.city == "Rome")).astype(int).to_numpy()


NUMBERS, TEXTS = ["age", "pay", "hour"], ["city", "kind", "age"]


def _made(module: str, name: str, **settings: Any) -> Any:
    return getattr(require(module, "contrib"), name)(**settings)


def _category_encoders(name: str) -> Callable[[], Any]:
    return partial(_made, "category_encoders", name)


def _feature_engine(module: str, name: str, **settings: Any) -> Callable[[], Any]:
    return partial(_made, f"feature_engine.{module}", name, **settings)


def _chain(*makers: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: require("sklearn.pipeline", "sklearn").make_pipeline(*(make() for make in makers))


def _sampled(*names: str) -> Callable[[], Any]:
    """A pipeline of imbalanced-learn's, which samples when it is fitted."""

    def make() -> Any:
        scaler = require("sklearn.preprocessing", "sklearn").StandardScaler()
        classifier = require("sklearn.linear_model", "sklearn").LogisticRegression()
        samplers = [
            getattr(require(f"imblearn.{name.split('.')[0]}", "contrib"), name.split(".")[1])() for name in names
        ]
        return require("imblearn.pipeline", "contrib").make_pipeline(scaler, *samplers, classifier)

    return make


def _ensemble(name: str) -> Callable[[], Any]:
    return partial(_made, "imblearn.ensemble", name, n_estimators=5, random_state=0)


_ORDINAL = _feature_engine("encoding", "OrdinalEncoder", encoding_method="arbitrary", unseen="encode")

CASES: dict[str, tuple[Callable[[], Any], list[str], bool]] = {
    **{
        f"category_encoders/{name}": (_category_encoders(name), TEXTS, True)
        for name in (
            "TargetEncoder", "OrdinalEncoder", "CatBoostEncoder", "WOEEncoder", "JamesSteinEncoder", "CountEncoder",
            "BinaryEncoder", "OneHotEncoder", "LeaveOneOutEncoder", "MEstimateEncoder", "BaseNEncoder", "SumEncoder",
        )
    },
    "feature_engine/MeanMedianImputer": (_feature_engine("imputation", "MeanMedianImputer"), ["age", "pay"], True),
    "feature_engine/ArbitraryNumberImputer": (
        _feature_engine("imputation", "ArbitraryNumberImputer"), ["age", "pay"], True),
    "feature_engine/EndTailImputer": (_feature_engine("imputation", "EndTailImputer"), ["age", "pay"], True),
    "feature_engine/CategoricalImputer": (
        _chain(_feature_engine("imputation", "CategoricalImputer"), _ORDINAL), ["city", "kind"], True),
    "feature_engine/AddMissingIndicator": (
        _chain(_feature_engine("imputation", "AddMissingIndicator"),
               _feature_engine("imputation", "MeanMedianImputer")), ["age", "pay"], True),
    "feature_engine/OrdinalEncoder": (_ORDINAL, TEXTS, False),
    "feature_engine/MeanEncoder": (_feature_engine("encoding", "MeanEncoder", unseen="encode"), TEXTS, False),
    "feature_engine/CountFrequencyEncoder": (
        _feature_engine("encoding", "CountFrequencyEncoder", unseen="encode"), TEXTS, False),
    "feature_engine/OneHotEncoder": (_feature_engine("encoding", "OneHotEncoder"), TEXTS, False),
    "feature_engine/RareLabelEncoder": (
        _chain(_feature_engine("encoding", "RareLabelEncoder", tol=0.1, n_categories=2),
               _feature_engine("encoding", "OneHotEncoder")), TEXTS, False),
    "feature_engine/DecisionTreeEncoder": (
        _feature_engine("encoding", "DecisionTreeEncoder", regression=False), TEXTS, False),
    "feature_engine/EqualFrequencyDiscretiser": (
        _feature_engine("discretisation", "EqualFrequencyDiscretiser"), NUMBERS, False),
    "feature_engine/EqualWidthDiscretiser": (
        _feature_engine("discretisation", "EqualWidthDiscretiser"), NUMBERS, False),
    "feature_engine/DecisionTreeDiscretiser": (
        _feature_engine("discretisation", "DecisionTreeDiscretiser", regression=False), NUMBERS, False),
    "feature_engine/CyclicalFeatures": (
        _feature_engine("creation", "CyclicalFeatures", variables=["hour"]), NUMBERS, False),
    "feature_engine/MathFeatures": (
        _feature_engine("creation", "MathFeatures", variables=["age", "pay"], func=["sum", "mean", "std"]),
        NUMBERS, False),
    "feature_engine/RelativeFeatures": (
        _feature_engine("creation", "RelativeFeatures", variables=["age"], reference=["pay"], func=["div", "sub"]),
        NUMBERS, False),
    "feature_engine/LogTransformer": (
        _feature_engine("transformation", "LogTransformer", variables=["age", "pay"]), NUMBERS, False),
    "feature_engine/YeoJohnsonTransformer": (
        _feature_engine("transformation", "YeoJohnsonTransformer"), NUMBERS, False),
    "feature_engine/BoxCoxTransformer": (
        _feature_engine("transformation", "BoxCoxTransformer", variables=["age", "pay"]), NUMBERS, False),
    "feature_engine/Winsorizer": (_feature_engine("outliers", "Winsorizer"), NUMBERS, False),
    "feature_engine/DropConstantFeatures": (_feature_engine("selection", "DropConstantFeatures"), NUMBERS, False),
    "imblearn/SMOTE": (_sampled("over_sampling.SMOTE"), NUMBERS, False),
    "imblearn/RandomUnderSampler": (_sampled("under_sampling.RandomUnderSampler"), NUMBERS, False),
    "imblearn/BalancedRandomForestClassifier": (_ensemble("BalancedRandomForestClassifier"), NUMBERS, False),
    "imblearn/BalancedBaggingClassifier": (_ensemble("BalancedBaggingClassifier"), NUMBERS, False),
    "imblearn/EasyEnsembleClassifier": (_ensemble("EasyEnsembleClassifier"), NUMBERS, False),
    "imblearn/RUSBoostClassifier": (_ensemble("RUSBoostClassifier"), NUMBERS, False),
}  # fmt: skip
"""How each is made, the columns that it is given, and whether values are missing."""


def names() -> list[str]:
    return list(CASES)


def build(name: str) -> tuple[Any, pd.DataFrame]:
    """A fitted pipeline that ends in a classifier, and rows that it has not seen."""
    make, columns, holes = CASES[name]
    model = make()
    if not hasattr(model, "predict"):
        model = _chain(lambda: model, require("sklearn.linear_model", "sklearn").LogisticRegression)()
    train, fresh = _frame(0, holes=holes), _frame(1, holes=holes)
    if name.startswith("category_encoders"):
        train["age"], fresh["age"] = train.age.fillna(2.0), fresh.age.fillna(2.0)  # for the classifier behind it
        fresh.loc[::7, "city"] = "Berlin"
    return model.fit(train[columns], _target(train)), fresh[columns]
