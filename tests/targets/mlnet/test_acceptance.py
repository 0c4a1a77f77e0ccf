"""`bundle --accept`: bundles run by the .NET SDK, in the ML.NET that they pin or a later one."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.errors import UsageError
from onnxtool.targets.mlnet import Mlnet

needs_dotnet = pytest.mark.usefixtures("dotnet")


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """A folder with a bundle, and what it is made of."""
    folder = tmp_path_factory.mktemp("accepted")
    rows, truth = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(rows, truth)
    data = rows.astype(np.float32)
    assert onnxtool.convert(model, folder / "iris.onnx", target="mlnet", data=data)
    accept = bool(shutil.which("dotnet"))
    report = onnxtool.bundle(folder / "iris.onnx", model, folder / "b", data=data, duration=0.01, accept=accept)
    assert report
    return folder / "b", model, report


@needs_dotnet
def test_the_check_of_the_bundle_is_a_gate(iris):
    bundle, _, report = iris
    [gate] = [check for check in report.subjects[0].checks if check.id == "acceptance"]
    assert gate.passed
    assert gate.message == "ML.NET: 32 golden rows agree with the source model."
    assert not list(bundle.rglob("obj"))  # what was built is not in the bundle


@needs_dotnet
def test_drift_and_code_that_does_not_compile_are_not_accepted(iris, tmp_path):
    accept = Mlnet().acceptance()
    copy = shutil.copytree(iris[0], tmp_path / "copy")
    golden = json.loads((copy / "golden.json").read_text())
    golden["rows"][0]["outputs"]["label"] = [2]
    (copy / "golden.json").write_text(json.dumps(golden))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["golden.json"] = hashlib.sha256((copy / "golden.json").read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    gate = accept(copy)
    assert not gate.passed
    assert gate.message == "ML.NET: Drift in ML.NET: 1 elements of 32 golden rows are out of tolerance."
    (copy / "IrisOnnx" / "IrisInput.cs").write_text("no C#")
    gate = accept(copy)
    assert not gate.passed
    assert "CS" in gate.message
    assert str(tmp_path) not in gate.message


@needs_dotnet
def test_packages_that_cannot_be_had_are_bad_input(iris, tmp_path, monkeypatch):
    copy = shutil.copytree(iris[0], tmp_path / "copy")
    monkeypatch.setenv("RestoreSources", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="NuGet source"):
        Mlnet().acceptance()(copy)


def test_without_dotnet_nothing_is_begun(iris, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"Install the \.NET SDK"):
        onnxtool.bundle(tmp_path / "none.onnx", iris[1], tmp_path / "bundle", accept=True)
