"""MLflow and TensorBoard: what is logged is read back with their own readers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.errors import OutputError
from onnxtool.reports import json, tensorboard
from onnxtool.reports.model import Report
from onnxtool.reports.scalars import scalars
from onnxtool.targets.mlflow import tracking as mlflow

X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    """MLflow on a folder, which newer versions allow only with a variable set."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/runs")
    import mlflow as library

    library.set_tracking_uri(None)
    yield library.MlflowClient(f"file://{tmp_path}/runs")
    library.set_tracking_uri(None)


def test_the_names_of_numbers_say_what_they_are(sample: Report):
    found = scalars(sample.subjects[0])
    assert found["parity/probabilities/mismatched_rows"] == 0
    assert found["bench/CPU, batch 1, 1 thread/p50_s"] > 0
    assert all(isinstance(value, float) for value in found.values())


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_run_of_mlflow_holds_numbers_report_and_model(tracking, tmp_path):
    report = onnxtool.convert(LogisticRegression().fit(X, X[:, 0] > 0), tmp_path / "model.onnx", data=X)
    (run_id,) = mlflow.log(report, "gate")
    run = tracking.get_run(run_id)
    assert run.info.run_name == "model.onnx"
    assert run.data.tags["onnxtool.passed"] == "true"
    assert run.data.params["verdict"] == "Passed"
    assert run.data.metrics["parity/probabilities/max_absolute"] == pytest.approx(
        report.subjects[0].parity.outputs[1].max_absolute
    )
    saved = tracking.download_artifacts(run_id, "report.json")
    assert json.read(Path(saved)).subjects[0].parity == report.subjects[0].parity

    from mlflow.onnx import load_model

    model = load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert session.run(None, {"X": X})[0].shape == (200,)


@pytest.mark.filterwarnings("ignore")
def test_hostile_names_are_metrics_all_the_same(tracking, sample: Report):
    sample.subjects[0].name = "../../a\nb"
    sample.subjects[0].parity.outputs[0].name = "//../..\x00é: {}"
    for subject in sample.subjects:
        subject.model.path = "absent.onnx"
    assert len(mlflow.log(sample, "hostile")) == len(sample.subjects)


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_is_not_there_is_one_error(monkeypatch, sample: Report):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    import mlflow as library

    library.set_tracking_uri("http://127.0.0.1:9")
    try:
        with pytest.raises(OutputError, match="MLFLOW_TRACKING_URI"):
            mlflow.log(sample, "gate")
    finally:
        library.set_tracking_uri(None)


READ = """
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
for event in events.Scalars("bench/CPU, batch 1, 1 thread/p50_s"):
    print(event.step, event.value)
"""


def test_tensorboard_reads_one_step_a_report(sample: Report, tmp_path):
    later = sample.model_copy(update={"created": sample.created.replace(year=sample.created.year + 1)})
    for report in (sample, later):
        written = tensorboard.write(report, tmp_path)
    assert len({*written}) == len(sample.subjects)
    # In a process of its own: it imports TensorFlow where there is one.
    done = subprocess.run([sys.executable, "-c", READ, written[0]], capture_output=True, text=True, check=True)
    steps = [line.split() for line in done.stdout.splitlines()]
    assert [int(step) for step, _ in steps] == [int(report.created.timestamp()) for report in (sample, later)]
    assert float(steps[0][1]) == pytest.approx(scalars(sample.subjects[0])["bench/CPU, batch 1, 1 thread/p50_s"])


def test_a_folder_that_is_none_is_one_error(sample: Report, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        tensorboard.write(sample, tmp_path / "file")
