"""A scikit-learn model of a real kind: a pipeline over numbers and text of a data frame, some of them missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["tenure", "monthly charges", "total charges", "support calls"]
TEXTS = ["contract", "payment", "internet"]
CODES = ["region"]
LABEL = "churned"


def customers(rows: int = 2000, seed: int = 7) -> tuple[pd.DataFrame, pd.Series[int]]:
    """Made-up customers of a telephone company, and whether they left within the month.

    Returns:
        A data frame with a column of each of `NUMBERS`, `TEXTS` and `CODES`, [rows, 8], where about one value
        in twenty of the charges and of the payment is missing; and the labels, 0 or 1, [rows].
    """
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "tenure": rng.integers(0, 73, rows),
            "contract": rng.choice(["month-to-month", "one year", "two years"], rows, p=[0.55, 0.25, 0.2]),
            "payment": rng.choice(["bank transfer", "card", "cheque"], rows).astype(object),
            "internet": rng.choice(["fibre", "dsl", "no internet"], rows, p=[0.45, 0.35, 0.2]),
            "region": rng.choice([101, 102, 205, 311], rows),
            "support calls": rng.poisson(1.5, rows),
        }
    )
    base = frame["internet"].map({"fibre": 80.0, "dsl": 55.0, "no internet": 22.0})
    frame["monthly charges"] = (base + rng.normal(0, 9, rows)).round(2)
    frame["total charges"] = (frame["monthly charges"] * frame["tenure"] * rng.normal(1, 0.05, rows)).round(2)
    odds = (
        -1.2
        - 0.045 * frame["tenure"]
        + 0.02 * frame["monthly charges"]
        + 0.35 * frame["support calls"]
        + frame["contract"].map({"month-to-month": 0.9, "one year": -0.5, "two years": -1.6})
        + np.where(frame["payment"] == "cheque", 0.5, 0.0)
        + np.where(frame["region"] == 205, 0.6, 0.0)
    )
    left = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    for column in ("monthly charges", "total charges", "payment"):
        frame.loc[rng.random(rows) < 0.05, column] = np.nan
    return frame[[*NUMBERS, *TEXTS, *CODES]], pd.Series(left, name=LABEL)


def pipeline(seed: int = 7) -> tuple[Pipeline, pd.DataFrame, pd.Series[int]]:
    """A fitted pipeline, the data frame it was fitted on, and the labels.

    Numbers are imputed by the median and scaled, text is imputed by the most frequent value and encoded
    one-hot, region codes are encoded one-hot; a random forest decides.
    """
    frame, labels = customers(seed=seed)
    columns: Any = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
            (
                "texts",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                TEXTS,
            ),
            ("codes", OneHotEncoder(handle_unknown="ignore"), CODES),
        ]
    )
    forest = RandomForestClassifier(40, max_depth=10, min_samples_leaf=3, random_state=seed)
    return Pipeline([("columns", columns), ("forest", forest)]).fit(frame, labels), frame, labels


def save(folder: Path) -> tuple[Path, Path]:
    """Write the pipeline and its rows into a folder.

    Returns:
        `churn.joblib`, and `churn.csv` with the label in the column `churned`.
    """
    model, frame, labels = pipeline()
    joblib.dump(model, folder / "churn.joblib")
    frame.assign(**{LABEL: labels}).to_csv(folder / "churn.csv", index=False)
    return folder / "churn.joblib", folder / "churn.csv"
