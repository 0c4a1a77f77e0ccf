import numpy as np
import pytest

from onnxtool.errors import DataError, UsageError
from onnxtool.validators.labels import label_drift, read_labels

TRUTH = np.array(["a", "b", "a", "b"], object)


def outputs(labels):
    return {"label": np.array(list(labels), object)}


def test_equal_predictions_lose_nothing():
    drift = label_drift(TRUTH, "y", source=outputs("abab"), onnx=outputs("abab"), roles={"label": "label"})
    assert drift.passed
    assert {metric.name: metric.onnx for metric in drift.metrics} == {"accuracy": 1.0, "F1 (macro)": 1.0}


def test_a_lost_answer_fails_and_a_won_one_does_not():
    worse = label_drift(TRUTH, "y", source=outputs("abab"), onnx=outputs("abaa"), roles={"label": "label"})
    better = label_drift(TRUTH, "y", source=outputs("abaa"), onnx=outputs("abab"), roles={"label": "label"})
    assert not worse.passed
    assert worse.metrics[0].difference == -0.25
    assert better.passed


def test_probabilities_without_a_label_number_their_classes():
    truth = np.array([0, 1, 1])
    probabilities = {"p": np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)}
    drift = label_drift(truth, "y", source=probabilities, onnx=probabilities, roles={"p": "probabilities"})
    assert drift.task == "classification"
    assert drift.metrics[0].source == 1.0


def test_regressors_are_scored_by_their_errors():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    good = {"prediction": np.array([[1.1], [2.0], [2.9], [4.0]], np.float32)}
    bad = {"prediction": np.array([[1.3], [2.0], [2.7], [4.0]], np.float32)}
    assert label_drift(truth, "y", source=good, onnx=good, roles={}).passed
    drift = label_drift(truth, "y", source=good, onnx=bad, roles={})
    assert not drift.passed
    assert {metric.name: metric.passed for metric in drift.metrics} == {"R²": False, "RMSE": False, "MAE": False}


def test_labels_come_from_a_column_or_a_file(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("truth\na\nb\n")
    assert read_labels("y", {"y": np.array([1, 2])}, "rows.csv")[0].tolist() == [1, 2]
    assert read_labels(str(path), {}, "rows.csv")[0].tolist() == ["a", "b"]
    with pytest.raises(DataError, match="neither a column"):
        read_labels("nope", {"y": np.array([1])}, "rows.csv")


def test_what_does_not_fit_is_an_error():
    with pytest.raises(DataError, match="4 labels for 3 rows"):
        label_drift(TRUTH, "y", source=outputs("aba"), onnx=outputs("aba"), roles={"label": "label"})
    wide = {"y": np.zeros((4, 7), np.float32)}
    with pytest.raises(UsageError, match="--labels"):
        label_drift(TRUTH, "y", source=wide, onnx=wide, roles={})
