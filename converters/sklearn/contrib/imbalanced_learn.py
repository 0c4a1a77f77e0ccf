"""Imbalanced-learn: its samplers do nothing to rows that are predicted, and its ensembles answer as others do.

Its pipeline, its balanced forest and RUSBoost predict as scikit-learn's do, and convert as these. Its bagging has
pipelines of a sampler and a classifier for members.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.tracing.converters import register_converter


def _probabilities(model: Any, rows: Any) -> Any:
    """The mean of the members' probabilities, each on its share of the columns."""
    matrix = np.asarray(rows)
    parts = []
    for member, features in zip(model.estimators_, model.estimators_features_, strict=True):
        found = member.predict_proba(matrix[:, np.asarray(features)])
        known = [int(label) for label in member.classes_]  # a member may not have seen every class
        columns = [found[:, known.index(place)] if place in known else 0.0 * found[:, 0]
                   for place in range(len(model.classes_))]  # fmt: skip
        parts.append(np.column_stack(columns))
    return sum(parts[1:], start=parts[0]) / len(parts)


def _label(model: Any, rows: Any) -> Any:
    return model.classes_[np.argmax(_probabilities(model, rows), axis=1)]


for _name in ("_bagging.BalancedBaggingClassifier", "_easy_ensemble.EasyEnsembleClassifier"):
    register_converter(f"imblearn.ensemble.{_name}", "predict_proba")(_probabilities)
    register_converter(f"imblearn.ensemble.{_name}", "predict")(_label)
