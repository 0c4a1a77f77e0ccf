"""Models inside of what a file holds, and tables with other separators, by the commands that a message names."""

from __future__ import annotations

import re

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_validate
from sklearn.preprocessing import StandardScaler

import onnxtool
from onnxtool.errors import SourceError
from onnxtool.models.rows.data import read_data
from onnxtool.models.rows.stream import stream_data

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(RNG.normal(size=(60, 3)).round(3), columns=["a", "b", "c"])
CLASSES = (ROWS["a"] > 0).astype(int)
CLASSIFIER = LogisticRegression().fit(ROWS, CLASSES)
REGRESSOR = Ridge().fit(ROWS, ROWS["b"])

CONTENTS = {
    "a dictionary": ({"features": list(ROWS), "model": CLASSIFIER, "v1.2": REGRESSOR}, "model", "v1.2"),
    "nested": ({"best": {"models": [StandardScaler().fit(ROWS), REGRESSOR]}}, "best.models.0", "best.models.1"),
    "a tuple": ((CLASSIFIER, {"auc": 0.9}, REGRESSOR), "0", "2"),
    "an array of objects": (np.array([CLASSIFIER, REGRESSOR], dtype=object), "0", "1"),
    "cross-validation": (
        cross_validate(LogisticRegression(), ROWS, CLASSES, cv=3, return_estimator=True),
        "estimator.0",
        "estimator.2",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_models_are_named_and_the_named_one_converts(name, tmp_path):
    content, first, last = CONTENTS[name]
    file = tmp_path / "m.joblib"
    joblib.dump(content, file)
    with pytest.raises(SourceError, match=re.escape(f"{first} (")) as refused:
        onnxtool.convert(file, tmp_path / "m.onnx", sandbox=None)
    remedy = str(refused.value).rpartition("as in ")[2]
    assert remedy == f"{file}::{first}"
    assert onnxtool.convert(remedy, tmp_path / "m.onnx", sandbox=None).passed
    report = onnxtool.convert(f"{file}::{last}", tmp_path / "m.onnx", sandbox=None)
    assert report.passed
    assert f"The source is {last} of what {file} holds." in report.subjects[0].parity.notes


def test_in_the_sandbox_too_and_verify_tells_the_parts_apart(tmp_path):
    file = tmp_path / "m.joblib"
    joblib.dump({"model": CLASSIFIER, "other": LogisticRegression().fit(ROWS, 1 - CLASSES)}, file)
    assert onnxtool.convert(f"{file}::model", tmp_path / "m.onnx", data=ROWS).passed
    assert not onnxtool.verify(tmp_path / "m.onnx", f"{file}::other", data=ROWS, sandbox=None).passed


def test_a_part_that_is_not_there_names_those_that_are(tmp_path):
    joblib.dump({"model": CLASSIFIER}, tmp_path / "m.joblib")
    with pytest.raises(SourceError, match=r"no model 'modle'. In it are model \(LogisticRegression\)"):
        onnxtool.convert(f"{tmp_path / 'm.joblib'}::modle", tmp_path / "m.onnx", sandbox=None)


def test_a_live_dictionary_names_its_models(tmp_path):
    with pytest.raises(SourceError, match=r"A dict is no model. It holds m \(Ridge\)"):
        onnxtool.convert({"m": REGRESSOR}, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("d.csv", {"sep": ";"}),
        ("d.csv", {"sep": "\t"}),
        ("d.csv", {"sep": ";", "decimal": ","}),
        ("d.csv.gz", {}),
        ("d.csv.gz", {"sep": ";", "decimal": ","}),
    ],
)
def test_separators_decimal_commas_and_compression(name, settings, tmp_path):
    frame = ROWS.assign(city="Oslo, Norway", code="007")
    frame.to_csv(tmp_path / name, index=False, **settings)
    for found in (read_data(tmp_path / name, ["code"]), next(stream_data(tmp_path / name, ["code"], 100))):
        assert list(found) == list(frame)
        for column in frame:
            assert list(found[column]) == list(frame[column])


def test_one_column_with_commas_in_text_stays_one(tmp_path):
    pd.DataFrame({"text; or words": ["a;b", "c"]}).to_csv(tmp_path / "d.csv", index=False, quoting=1)
    assert list(read_data(tmp_path / "d.csv")) == ["text; or words"]
