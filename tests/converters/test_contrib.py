"""Steps of other libraries, by a judge of bare ONNX Runtime and the pipeline alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest

import onnxtool
from benchmarks.coverage import contrib_cases

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries themselves

KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def probabilities(path: Path, rows: pd.DataFrame) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        given = rows.to_numpy() if value.name == "X" else rows[[value.name]].to_numpy()
        text = value.type == "tensor(string)"
        feeds[value.name] = np.where(pd.isna(given), "", given) if text else given.astype(KINDS[value.type])
    return session.run(["probabilities"], feeds)[0]


@pytest.mark.parametrize("name", contrib_cases.names())
def test_a_step_of_another_library_agrees(name: str, tmp_path: Path) -> None:
    model, rows = contrib_cases.build(name)
    assert onnxtool.convert(model, tmp_path / "m.onnx", data=rows)
    np.testing.assert_allclose(
        probabilities(tmp_path / "m.onnx", rows), model.predict_proba(rows), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "name",
    [
        "category_encoders/BinaryEncoder",
        "category_encoders/CatBoostEncoder",
        "feature_engine/RareLabelEncoder",
        "imblearn/SMOTE",
        "imblearn/BalancedBaggingClassifier",
    ],
)
def test_its_file_opens_without_trust(name: str, tmp_path: Path) -> None:
    model, rows = contrib_cases.build(name)
    joblib.dump(model, tmp_path / "m.joblib")
    sandbox = onnxtool.Limits() if name == "imblearn/SMOTE" else None
    assert onnxtool.convert(tmp_path / "m.joblib", tmp_path / "m.onnx", data=rows, sandbox=sandbox)


def test_a_data_frame_whose_parts_do_not_fill_it_is_damaged(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(3.0), "b": np.arange(3.0)})
    block = frame._mgr.blocks[0]
    manager = type(frame._mgr)((block,), [pd.Index(["a", "b"]), pd.RangeIndex(5)], verify_integrity=False)
    frame._mgr = manager
    encoder = contrib_cases.CASES["category_encoders/CatBoostEncoder"][0]()
    encoder.mapping = {"a": frame}
    joblib.dump(encoder, tmp_path / "m.joblib")
    with pytest.raises(onnxtool.OnnxtoolError, match="the parts of a data frame do not fill it"):
        onnxtool.convert(tmp_path / "m.joblib", tmp_path / "m.onnx", sandbox=None)
