"""Rows to which nearest neighbours have several right answers."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import onnxtool
from onnxtool import cli
from onnxtool.models.sklearn.neighbors import alternatives
from onnxtool.reports.json import read

ROWS, SPECIES = load_iris(return_X_y=True)


@pytest.mark.parametrize("weights", ["uniform", "distance", lambda distances: 1 / (1 + distances)])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_estimators_own_answer_is_among_them(weights, scaled):
    last = KNeighborsClassifier(weights=weights)
    model = (make_pipeline(StandardScaler(), last) if scaled else last).fit(ROWS, SPECIES)
    found = alternatives(model, ROWS)
    near = np.any(
        [np.isclose(answer["probabilities"], model.predict_proba(ROWS)).all(1) for answer in found], axis=0
    )
    same = np.any([answer["label"] == model.predict(ROWS) for answer in found], axis=0)
    assert near.all()
    assert same.all()
    regressor = KNeighborsRegressor(weights=weights).fit(ROWS, ROWS[:, :2])
    found = alternatives(regressor, ROWS)
    assert np.any([np.isclose(a["prediction"], regressor.predict(ROWS)).all(1) for a in found], axis=0).all()


def test_each_choice_is_one_of_them():
    line = np.array([[-1.0], [0.0], [1.0], [5.0]])
    model = KNeighborsRegressor(2).fit(line, [10.0, 20.0, 30.0, 40.0])
    found = {answer["prediction"][0] for answer in alternatives(model, np.array([[0.0]]))}
    assert found == {15.0, 25.0}  # 0 itself, and one of those at a distance of 1


def test_others_have_none():
    assert alternatives(StandardScaler().fit(ROWS), ROWS) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ties")
    joblib.dump(KNeighborsClassifier().fit(ROWS, SPECIES), folder / "m.joblib")
    np.save(folder / "rows.npy", ROWS)
    return folder


def _exit_code(*arguments):
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["onnxtool", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


def test_convert_names_ties_and_accepts_them(saved, capsys):
    """The remedy of the message, to its end."""
    model, rows, result = saved / "m.joblib", saved / "rows.npy", saved / "report.json"
    command = ["convert", model, "--data", rows, "-o", saved / "m.onnx", "--json", result]
    assert _exit_code(*command) == 1
    parity = read(result).subjects[0].parity
    assert parity.ties.rows == parity.outputs[1].mismatched_rows > 0
    gate = " ".join(capsys.readouterr().out.split())
    assert "several nearest neighbours are equally far" in gate
    assert "To accept it: --accept-ties." in gate
    assert "--input-dtype auto" not in gate  # which would not help
    assert _exit_code(*command, "--accept-ties") == 0
    assert read(result).subjects[0].parity.ties.accepted
    metadata = {entry.key: entry.value for entry in onnx.load(saved / "m.onnx").metadata_props}
    assert "another right answer to" in metadata["onnxtool.ties"]
    bundle = ["bundle", saved / "m.onnx", model, "--data", rows, "--accept-ties", "-o", saved / "bundle"]
    assert _exit_code(*bundle) == 0


def test_a_wrong_answer_to_a_tie_is_drift(saved):
    """Every label of a wrong model is another, in tied rows too."""
    onnxtool.convert(saved / "m.joblib", saved / "right.onnx", data=saved / "rows.npy", accept_ties=True)
    model = onnx.load(saved / "right.onnx")
    session = onnxruntime.InferenceSession(str(saved / "right.onnx"))
    label = session.get_outputs()[0].name
    node = next(node for node in model.graph.node if label in node.output)
    node.output[list(node.output).index(label)] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "one"], [label]))
    onnx.save(model, saved / "wrong.onnx")
    report = onnxtool.verify(saved / "wrong.onnx", saved / "m.joblib", data=saved / "rows.npy", accept_ties=True)
    assert not report
    assert report.subjects[0].parity.outputs[0].mismatched_rows == len(ROWS)
