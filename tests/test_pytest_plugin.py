"""The pytest plug-in, in runs of pytest of its own, with pytest-benchmark's own commands on what it saves."""

import json
import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import onnxtool

X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its source, another source, and rows."""
    folder = tmp_path_factory.mktemp("plugin")
    source = LogisticRegression().fit(X, X[:, 0] > 0)
    joblib.dump(source, folder / "source.joblib")
    joblib.dump(LogisticRegression().fit(X, X[:, 1] > 0), folder / "other.joblib")
    np.save(folder / "rows.npy", X)
    assert onnxtool.convert(source, folder / "model.onnx", data=X)
    return folder


def run(folder, test, *arguments):
    (folder / "test_model.py").write_text(test, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_model.py", *arguments]
    # A run of its own, although the one that starts it may be a worker of pytest-xdist, which measures nothing.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_parity_passes_and_fails_with_the_report(folder):
    done = run(
        folder,
        """
def test_agrees(onnx_parity):
    report = onnx_parity("model.onnx", "source.joblib", data="rows.npy")
    assert report.subjects[0].parity.rows == 200

def test_drifts(onnx_parity):
    onnx_parity("model.onnx", "other.joblib", data="rows.npy")
""",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "Mismatch" in done.stdout
    assert "Traceback" not in done.stdout


BENCHMARK = """
import pytest

@pytest.mark.parametrize("batch", [1, 16])
def test_latency(onnx_benchmark, batch):
    outputs = onnx_benchmark("model.onnx", data="rows.npy", batch=batch, threads=1)
    assert outputs["probabilities"].shape == (batch, 2)
"""


def test_benchmarks_are_saved_and_compared(folder):
    for name in ("first", "second"):
        done = run(folder, BENCHMARK, f"--benchmark-save={name}", "--benchmark-max-time=0.05")
        assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads(next(folder.rglob("0002_second.json")).read_text(encoding="utf-8"))
    info = {entry["params"]["batch"]: entry["extra_info"] for entry in saved["benchmarks"]}
    assert info[16]["provider"] == "CPUExecutionProvider"
    assert info[16]["nodes"]["CPUExecutionProvider"] > 0
    assert (
        info[1]["sha256"]
        == onnxtool.verify(folder / "model.onnx", str(folder / "source.joblib")).subjects[0].model.sha256
    )
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "0001", "0002"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    assert "test_latency[16] (0002_second)" in compared.stdout


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ('onnx_benchmark("model.onnx", provider="cuda")', "CUDAExecutionProvider"),
        ('onnx_benchmark("absent.onnx")', "absent.onnx"),
    ],
)
def test_what_cannot_be_measured_fails(folder, test, message):
    done = run(folder, f"def test_latency(onnx_benchmark):\n    {test}\n")
    assert done.returncode == 1
    assert message in done.stdout


def test_pytest_benchmark_is_required(folder):
    done = run(folder, BENCHMARK, "-p", "no:benchmark")
    assert "pip install pytest-benchmark" in done.stdout


def test_a_run_without_the_fixtures_imports_nothing(folder):
    done = run(
        folder,
        """
import sys

def test_light():
    assert not {"numpy", "onnx", "onnxruntime"} & set(sys.modules)
""",
    )
    assert done.returncode == 0, done.stdout
