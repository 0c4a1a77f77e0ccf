"""Files of other releases: what they say of themselves, and what the verdict makes of it.

The files in data/old are real ones, of scikit-learn 1.3.2 and 1.5.2, XGBoost 1.7.6 and LightGBM 3.3.5.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import sklearn
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.cli import cli
from onnxtool.errors import DataError, UsageError
from onnxtool.models.source import LoadOptions
from onnxtool.models.versions import SKLEARN, XGBOOST, _versions_in, saved_by
from onnxtool.opening import open_source
from onnxtool.reports.model import Check, Report
from onnxtool.sandbox.limits import Limits

OLD = Path(__file__).parent / "data" / "old"
ROWS = OLD / "rows.npy"
CONFINED = Limits(8 * 2**30, 600, 256)


def releases(path: Path) -> list[tuple[str, str, bool]]:
    saved = open_source(str(path), LoadOptions()).saved_by
    return [(each.library, each.version, each.same_meaning) for each in saved]


def version_check(report: Report) -> Check:
    (check,) = [check for check in report.subjects[0].checks if check.id == "saved-version"]
    return check


@pytest.mark.parametrize(
    ("file", "library", "version", "same"),
    [
        ("calibrated-1.3.2.joblib", "scikit-learn", "1.3.2", False),
        ("linear-1.3.2.skops", "scikit-learn", "1.3.2", False),
        ("ada-1.5.2.joblib", "scikit-learn", "1.5.2", False),
        ("xgboost-1.7.6.json", "xgboost", "1.7.6", True),
        ("xgboost-1.7.6.ubj", "xgboost", "1.7.6", True),
        ("lightgbm-3.3.5.txt", "LightGBM's format", "3", True),
    ],
)
def test_a_file_names_what_saved_it(file: str, library: str, version: str, same: bool) -> None:
    assert releases(OLD / file) == [(library, version, same)]


def test_the_release_is_found_in_every_protocol_and_across_chunks() -> None:
    model = LogisticRegression().fit(np.eye(3), [0, 1, 1])
    for protocol in range(6):
        content = pickle.dumps(model, protocol)
        for lead in (0, 2**20 - content.index(b"_sklearn_version") - 10):  # cut in two
            stream = io.BytesIO(bytes(lead) + content)
            assert _versions_in(stream.read, SKLEARN) == [sklearn.__version__]
    assert _versions_in(io.BytesIO(b'{"version":[3,12,0]}').read, XGBOOST) == ["3.12.0"]


@pytest.mark.parametrize(
    ("saved", "running", "promise", "same"),
    [
        ("1.5.2", "1.5.0", "minor", True),
        ("1.5.2", "1.6.0", "minor", False),
        ("3.1.0", "3.15.1", "major", True),
        ("2.15.0", "3.15.1", "major", False),
        ("3.16.0", "3.15.1", "major", False),  # nobody promises what is to come
        ("1.7.6", "3.2.0", "later", True),
        ("3.3.0", "3.2.0", "later", False),
        ("2.9.0+cu128", "2.13.0+cpu", "major", True),
    ],
)
def test_what_libraries_promise(saved: str, running: str, promise: Any, same: bool) -> None:
    assert saved_by("library", saved, running, promise).same_meaning is same


@pytest.mark.parametrize("sandbox", [None, CONFINED], ids=["here", "confined"])
def test_an_old_model_passes_only_where_its_version_is_accepted(tmp_path: Path, sandbox: Limits | None) -> None:
    source, output = OLD / "calibrated-1.3.2.joblib", tmp_path / "m.onnx"
    report = onnxtool.convert(source, output, data=ROWS, sandbox=sandbox)
    assert not report
    check = version_check(report)
    assert "Saved by scikit-learn 1.3.2" in check.message
    assert "Convert in an environment with scikit-learn 1.3.2" in check.message
    assert '"version":"1.3.2"' in report.model_dump_json()
    if sandbox is None:
        assert not onnxtool.convert(source, output, data=ROWS, accept_version=["1.5.2"], sandbox=None)
        assert not onnxtool.convert(source, output, verify=False, sandbox=None)
    accepted = onnxtool.convert(source, output, data=ROWS, accept_version=["1.3.2"], sandbox=sandbox)
    assert accepted
    metadata = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert metadata["onnxtool.source.saved_by"] == "scikit-learn 1.3.2"
    assert metadata["onnxtool.source.accepted_version"] == "scikit-learn 1.3.2"
    if sandbox is None:
        assert not onnxtool.verify(output, source, data=ROWS, sandbox=None)
        assert onnxtool.verify(output, source, data=ROWS, accept_version=["1.3.2"], sandbox=None)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("linear-1.3.2", True), ("calibrated-1.5.2", True), ("calibrated-1.3.2", False), ("ada-1.5.2", False)],
)
def test_the_owners_answers_are_the_truth(tmp_path: Path, name: str, passes: bool) -> None:
    source, answers = OLD / f"{name}.joblib", OLD / f"{name}.npy"
    report = onnxtool.convert(source, tmp_path / "m.onnx", data=ROWS, expected=answers, sandbox=None)
    assert bool(report) is passes
    parity = report.subjects[0].parity
    assert parity is not None and parity.expected == str(answers)
    assert {output.name: output.truth for output in parity.outputs} == dict.fromkeys(
        ("label", "probabilities"), "expected"
    )
    assert version_check(report).passed
    verified = onnxtool.verify(tmp_path / "m.onnx", source, data=ROWS, expected=answers, sandbox=None)
    assert bool(verified) is passes
    truth = np.load(answers)
    off = {output.name: output.mismatched_rows for output in parity.outputs}["probabilities"]
    with source.open("rb") as file, pytest.warns(UserWarning):
        today = joblib.load(file).predict_proba(np.load(ROWS))
    assert off == (np.abs(today - truth) > 1e-4).any(axis=1).sum()
    assert any("the source itself" in note for note in parity.notes) is not passes


def test_answers_that_are_missing_leave_the_version_in_doubt(tmp_path: Path) -> None:
    source = OLD / "linear-1.3.2.joblib"
    np.savez(tmp_path / "labels.npz", label=np.load(OLD / "linear-1.3.2.npy").argmax(axis=1))
    report = onnxtool.convert(
        source, tmp_path / "m.onnx", data=ROWS, expected=tmp_path / "labels.npz", sandbox=None
    )
    assert not report
    assert "has not for probabilities" in version_check(report).message


def test_answers_of_another_number_of_rows_or_shape_are_refused(tmp_path: Path) -> None:
    source, answers = OLD / "linear-1.3.2.joblib", np.load(OLD / "linear-1.3.2.npy")
    for wrong, message in (
        (answers[:-1], "39 rows"),
        (np.concatenate([answers, answers]), "80 rows"),
        (answers[:, :1].repeat(3, 1), "no answers"),
    ):
        with pytest.raises(DataError, match=message):
            onnxtool.convert(source, tmp_path / "m.onnx", data=ROWS, expected=wrong, sandbox=None)
    with pytest.raises(UsageError, match="--data"):
        onnxtool.convert(source, tmp_path / "m.onnx", expected=answers, sandbox=None)


def test_other_frameworks_take_answers_too(tmp_path: Path) -> None:
    right = np.load(OLD / "xgboost-1.7.6.npy")
    source = OLD / "xgboost-1.7.6.json"
    report = onnxtool.convert(source, tmp_path / "m.onnx", data=ROWS, expected=right, sandbox=None)
    assert report and "later releases" in version_check(report).message
    assert not onnxtool.verify(tmp_path / "m.onnx", source, data=ROWS, expected=right + 0.01, sandbox=None)
    light = OLD / "lightgbm-3.3.5.txt"
    assert onnxtool.convert(
        light, tmp_path / "l.onnx", data=ROWS, expected=OLD / "lightgbm-3.3.5.npy", sandbox=None
    )


def test_warnings_of_the_confined_process_are_in_the_report(tmp_path: Path) -> None:
    source = OLD / "xgboost-1.7.6.joblib"
    report = onnxtool.convert(
        source, tmp_path / "m.onnx", data=ROWS, accept_version=["1.7.6", "1.3.2"], sandbox=CONFINED
    )
    assert report
    parity = report.subjects[0].parity
    assert parity and any("older version of XGBoost" in note for note in parity.notes)


def test_the_command_line_names_the_version(tmp_path: Path) -> None:
    arguments = [
        "convert",
        str(OLD / "ada-1.5.2.joblib"),
        "-o",
        str(tmp_path / "m.onnx"),
        "--data",
        str(ROWS),
        "--no-sandbox",
    ]
    report = tmp_path / "r.json"
    done = CliRunner().invoke(cli, [*arguments, "--json", str(report)], standalone_mode=False)
    assert done.return_value == 1
    assert "scikit-learn 1.5.2" in done.output
    assert json.loads(report.read_text())["subjects"][0]["source"]["saved_by"][0]["version"] == "1.5.2"
    done = CliRunner().invoke(cli, [*arguments, "--accept-version", "1.5.2"], standalone_mode=False)
    assert done.return_value == 0
    assert "accepted by --accept-version" in " ".join(done.output.split())
    done = CliRunner().invoke(cli, [*arguments, "--expected", str(OLD / "ada-1.5.2.npy")], standalone_mode=False)
    assert done.return_value == 1
    assert "40 of 40 rows" in " ".join(done.output.split())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_names_its_release(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "m.keras")
    assert releases(tmp_path / "m.keras") == [("keras", keras.__version__, True)]
    with zipfile.ZipFile(tmp_path / "m.keras") as archive, zipfile.ZipFile(tmp_path / "o.keras", "w") as old:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"keras_version": "3.0.5"}).encode()
            old.writestr(name, content)
    assert releases(tmp_path / "o.keras") == [("keras", "3.0.5", True)]
    model.export(tmp_path / "saved", verbose=False)
    (saved,) = releases(tmp_path / "saved")
    assert saved == ("tensorflow", __import__("tensorflow").__version__, True)


def test_pytorch_names_its_release(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    program = torch.export.export(torch.nn.Linear(2, 1), (torch.zeros(2, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    assert releases(tmp_path / "m.pt2") == [("torch", torch.__version__, True)]
