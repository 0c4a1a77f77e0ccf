"""The forty transformers of `benchmarks.coverage.custom_code`, by a judge of bare ONNX Runtime and the step alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import onnxtool
from benchmarks.coverage import custom_code
from onnxtool.errors import ConversionError

KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def answers(path: Path, rows: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {}
    for place, value in enumerate(session.get_inputs()):
        given = rows[[value.name]] if hasattr(rows, "columns") and value.name in rows else rows
        array = np.asarray(given)
        if value.type == "tensor(string)":
            feeds[value.name] = array.astype(str).astype(object)
        else:
            feeds[value.name] = array.astype(KINDS[value.type])
        assert place == 0 or array.shape[1] == 1
    return list(session.run(None, feeds))


@pytest.mark.parametrize("name", [name for name in custom_code.names() if name not in custom_code.REFUSED])
def test_a_transformer_as_people_write_it_agrees(name: str, tmp_path: Path) -> None:
    model, rows = custom_code.build(name)
    assert onnxtool.convert(model, tmp_path / "m.onnx", data=rows)
    found = answers(tmp_path / "m.onnx", rows)
    if hasattr(model, "predict_proba"):
        assert found[0].tolist() == model.predict(rows).tolist()
        np.testing.assert_allclose(found[1], model.predict_proba(rows), rtol=1e-4, atol=1e-6)
        return
    expected = np.asarray(model.predict(rows) if hasattr(model, "predict") else model.transform(rows), dtype=float)
    close = np.isclose(found[0].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    # A value at an edge of a bin may round to its other side as float32.
    assert np.mean(~close) == 0


@pytest.mark.parametrize("name", custom_code.REFUSED)
def test_what_cannot_be_traced_is_refused_by_its_own_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes a file when it runs
    model, rows = custom_code.build(name)
    with pytest.raises(ConversionError, match=rf"custom_code\.py, line \d+, in {name}: `.+` is ") as refusal:
        onnxtool.convert(model, tmp_path / "m.onnx", data=rows)
    assert "/" not in str(refusal.value).partition("`")[0]
