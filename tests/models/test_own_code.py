"""Saved models that name the user's own code: each refusal names what then converts, and that converts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import onnxtool
from onnxtool.errors import ConversionError, SourceError, UntrustedError, UsageError
from onnxtool.models.own_code import definitions

FEATURES = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
import arithmetic

def ratio(x):
    return np.hstack([x, arithmetic.safe(x[:, :1], x[:, 1:2])])

class Tripled(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.array([[value * 3 for value in row] for row in X])
"""
TRAIN = """
import numpy as np, joblib, cloudpickle
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
import features

LIMIT = np.float64(1.5)
NEVER_RUN = open("{marker}", "a").write("trained\\n")

class Capped(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.minimum(X, LIMIT)

def logged(x):
    return np.log1p(np.abs(x))

X = np.random.default_rng(0).normal(size=(200, 3))
y = (X[:, 0] > 0).astype(int)
np.save("rows.npy", X)
joblib.dump(make_pipeline(FunctionTransformer(features.ratio), LogisticRegression()).fit(X, y), "module.joblib")
joblib.dump(make_pipeline(Capped(), FunctionTransformer(logged), LogisticRegression()).fit(X, y), "main.joblib")
joblib.dump(make_pipeline(features.Tripled(), LogisticRegression()).fit(X, y), "loops.joblib")
by_value = make_pipeline(Capped(), FunctionTransformer(lambda x: x * LIMIT), LogisticRegression()).fit(X, y)
with open("value.pkl", "wb") as file:
    cloudpickle.dump(by_value, file)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "features.py").write_text(FEATURES)
    (folder / "arithmetic.py").write_text("def safe(a, b):\n    return a / (abs(b) + 1)\n")
    (folder / "plugged.py").write_text(
        "import onnxtool\n\n@onnxtool.register_converter('features.Tripled')\n"
        "def tripled(model, rows):\n    return rows * 3\n"
    )
    (folder / "train.py").write_text(TRAIN.format(marker=folder / "marker"))
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True)
    return folder


def convert(saved: Path, name: str, tmp_path: Path, **more: object) -> onnxtool.api.Report:
    return onnxtool.convert(saved / name, tmp_path / "m.onnx", data=saved / "rows.npy", **more)


def flags(message: str) -> list[str]:
    return re.findall(r"--trust ([\w.]+)", message)


def test_a_module_next_to_the_file_is_found_once_it_is_trusted(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError) as refusal:
        convert(saved, "module.joblib", tmp_path)
    assert flags(str(refusal.value)) == ["features.ratio"]
    assert convert(saved, "module.joblib", tmp_path, trust=flags(str(refusal.value)))
    assert convert(saved, "module.joblib", tmp_path, trust=["features"])


def test_the_script_that_saved_a_file_stands_for_main(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError) as refusal:
        convert(saved, "main.joblib", tmp_path)
    trust = flags(str(refusal.value))
    with pytest.raises(SourceError, match=r"--code train\.py"):
        convert(saved, "main.joblib", tmp_path, trust=trust)
    before = (saved / "marker").read_text()
    assert convert(saved, "main.joblib", tmp_path, trust=trust, code=[saved / "train.py"])
    assert (saved / "marker").read_text() == before, "the rest of the script has run"


def test_code_in_a_file_runs_once_cloudpickle_is_trusted(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError) as refusal:
        convert(saved, "value.pkl", tmp_path)
    assert flags(str(refusal.value)) == ["cloudpickle"]
    assert convert(saved, "value.pkl", tmp_path, trust=["cloudpickle"])


def test_a_plugin_converts_what_cannot_be_traced(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"features\.py, line 15, in transform"):
        convert(saved, "loops.joblib", tmp_path, trust=["features"])
    assert convert(saved, "loops.joblib", tmp_path, trust=["features"], code=[saved], plugins=["plugged"])
    with pytest.raises(UsageError, match=r"--plugin nowhere .*--code"):
        convert(saved, "loops.joblib", tmp_path, trust=["features"], plugins=["nowhere"])


def test_a_notebook_is_read_as_a_script(tmp_path: Path) -> None:
    notebook = tmp_path / "train.ipynb"
    notebook.write_text(
        '{"cells": [{"cell_type": "code", "source": ["%pip install x\\n", "def twice(x):\\n", "    return 2*x\\n"]},'
        '{"cell_type": "markdown", "source": ["# no code"]}]}'
    )
    assert definitions(notebook).twice(21) == 42


def test_a_constant_that_needs_the_rest_is_named(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("LIMIT = data.mean()\n\ndef capped(x):\n    return min(x, LIMIT)\n")
    with pytest.raises(SourceError, match=r"train\.py, line 1, .* NameError: name 'data' is not defined"):
        definitions(script)
