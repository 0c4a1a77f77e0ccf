"""OpenVINO, ONNX Runtime's second provider that needs no card.

Its build, `onnxruntime-openvino`, brings the package `onnxruntime` in the place of that of the other tests, so that
it needs an environment of its own: docs/openvino.md says how to make one, and how to run this file there.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

import onnxtool
from onnxtool.cli import cli
from onnxtool.errors import UsageError

pytestmark = pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-openvino in place of onnxruntime, see docs/openvino.md",
)


def test_a_model_is_verified_and_measured_on_a_device_that_is_asked_for(dense_model):
    rows = {"x": np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)}
    options = {"openvino:device_type": "CPU", "openvino:num_of_threads": "1"}
    report = onnxtool.verify(
        dense_model, dense_model, data=rows, provider="openvino", options=options, sandbox=None
    )
    assert report and report.subjects[0].parity.provider == "OpenVINOExecutionProvider"
    report = onnxtool.bench(
        dense_model, providers=["openvino", "cpu"], options=options, duration=0.1, sandbox=None
    )
    openvino, cpu = report.subjects[0].bench.cells
    assert openvino.status == cpu.status == "measured"
    assert [part.provider for part in openvino.placement] == ["OpenVINOExecutionProvider"]
    assert openvino.options == {"device_type": "CPU", "num_of_threads": "1"} and cpu.options == {}


def test_an_option_that_openvino_does_not_have_is_refused(dense_model):
    arguments = ["verify", str(dense_model), str(dense_model), "--provider", "openvino"]
    found = CliRunner().invoke(cli, [*arguments, "--option", "bogus=1"])
    assert isinstance(found.exception, UsageError)
    assert "OpenVINOExecutionProvider has no option 'bogus'" in str(found.exception)


def test_a_device_that_is_not_there_is_no_measurement(dense_model):
    report = onnxtool.bench(
        dense_model, providers=["openvino"], options={"device_type": "NPU"}, duration=0.1, sandbox=None
    )
    (cell,) = report.subjects[0].bench.cells
    assert cell.status == "unavailable" and "NPU is not available" in cell.reason


def test_a_difference_that_openvino_makes_is_explained_on_openvino(tmp_path):
    """It divides by multiplying, and a row next to a tree's threshold takes the other branch."""
    pipeline = pytest.importorskip("sklearn.pipeline")
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    model = pipeline.make_pipeline(StandardScaler(), GradientBoostingRegressor(n_estimators=20))
    model.fit(x, x @ np.arange(8))
    path = tmp_path / "trees.onnx"
    assert onnxtool.convert(model, path, data=x)
    report = onnxtool.verify(path, model, provider="openvino", explain=True)
    found = report.subjects[0].parity.explanation
    assert not report and found.provider == "OpenVINOExecutionProvider"
    assert found.stages[found.first_difference].kind == "Div"
    assert found.stages[found.first_failure].kind == "TreeEnsembleRegressor"
    assert found.cause.startswith(
        "OpenVINO computes otherwise than the CPU, where the model agrees with the source"
    )
