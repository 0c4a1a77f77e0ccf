"""The command line as its users meet it: real files in, exit status and messages out."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import joblib
import numpy as np
import onnx
import pandas as pd
import psutil
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from onnxtool import cli


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pipeline over numbers and text, its data, and its ONNX model."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.normal(40, 10, 300).round(), "city": rng.choice(["Oslo", "Rome", "Bern"], 300)}
    )
    truth = np.where((frame["age"] > 40) ^ (frame["city"] == "Rome"), "yes", "no")
    steps = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["city"]))
    model = make_pipeline(steps, LogisticRegression()).fit(frame, truth)
    joblib.dump(model, folder / "model.joblib", compress=3)
    frame.assign(bought=truth).to_csv(folder / "rows.csv", index=False)
    frame[["age"]].to_csv(folder / "narrow.csv", index=False)
    worse = make_pipeline(steps, LogisticRegression(C=0.01)).fit(frame, truth[::-1])
    joblib.dump(worse, folder / "other.joblib")
    with pytest.raises(SystemExit) as end:
        _main("convert", folder / "model.joblib", "-o", folder / "model.onnx", "--data", folder / "rows.csv")
    assert end.value.code == 0
    return folder


def _main(*arguments):
    argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["onnxtool", *map(str, arguments)]
    try:
        cli.main()
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            _main(*arguments)
        return end.value.code, *capsys.readouterr()

    return call


def test_the_whole_path(run, files, tmp_path):
    code, out, _ = run(
        "verify", files / "model.onnx", files / "model.joblib", "--data", files / "rows.csv", "--labels", "bought",
        "--json", "verify.json", "--report", "verify.html",
    )  # fmt: skip
    assert code == 0
    assert "PASSED" in out
    assert "accuracy" in out
    saved = json.loads((tmp_path / "verify.json").read_text())
    assert saved["subjects"][0]["parity"]["rows"] == 300
    assert saved["subjects"][0]["drift"]["passed"] is True
    assert "<svg" in (tmp_path / "verify.html").read_text()
    code, out, _ = run("report", "verify.json", "--format", "md")
    assert code == 0
    assert "| " in out
    assert run("report", "verify.json", "--format", "junit", "-o", "verify.xml")[0] == 0
    assert (tmp_path / "verify.xml").read_text().startswith("<?xml")


def test_every_group_has_the_same_limit(run, files):
    arguments = ("verify", files / "model.onnx", files / "model.joblib", "--data", files / "rows.csv")
    code, out, _ = run(*arguments, "--labels", "bought", "--group", "city", "--json", "-")
    drift = json.loads(out)["subjects"][0]["drift"]
    assert code == 0
    assert drift["grouped_by"] == "city"
    assert {group["group"] for group in drift["groups"]} == {"Oslo", "Rome", "Bern"}
    assert run(*arguments, "--group", "city")[0] == 2
    assert run(*arguments, "--labels", "bought", "--group", "nowhere")[0] == 2


def test_converting_without_data_or_output_name(run, files, tmp_path):
    code, out, _ = run("convert", files / "model.joblib")
    assert code == 0
    assert "made up" in out
    model = onnx.load(tmp_path / "model.onnx")
    assert [value.name for value in model.graph.input] == ["age", "city"]
    assert [value.name for value in model.graph.output] == ["label", "probabilities"]
    assert not any(node.op_type == "ZipMap" for node in model.graph.node)
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["onnxtool.source.framework"].startswith("sklearn ")
    assert len(metadata["onnxtool.source.sha256"]) == 64
    assert {"onnxtool.version", "onnxtool.opset", "onnxtool.created", "onnxtool.source.kind"} <= set(metadata)


def test_json_on_standard_output_is_nothing_but_json(run, files):
    code, out, _ = run("verify", files / "model.onnx", files / "model.joblib", "--json", "-")
    assert code == 0
    assert json.loads(out)["command"] == "verify"


def test_drift_exits_1_and_names_the_rows(run, files):
    code, out, _ = run("verify", files / "model.onnx", files / "other.joblib", "--data", files / "rows.csv")
    assert code == 1
    assert "FAILED" in out
    assert "rows are out of tolerance" in " ".join(out.split())


def test_convert_exits_1_on_drift_and_keeps_the_file(run, files, tmp_path):
    code, out, _ = run("convert", files / "model.joblib", "--rtol", "0", "--atol", "0")
    assert code == 1
    assert "FAILED" in out
    assert (tmp_path / "model.onnx").exists()


def test_bench_measures_and_reports_what_is_absent(run, files, tmp_path):
    arguments = ("bench", files / "model.onnx", "--batch", "1,4", "--duration", "0.1")
    code, out, _ = run(*arguments, "--provider", "cpu,cuda", "--json", "bench.json")
    assert code == 0
    assert "unavailable" in out
    cells = json.loads((tmp_path / "bench.json").read_text())["subjects"][0]["bench"]["cells"]
    assert [(cell["provider"], cell["batch"], cell["status"]) for cell in cells] == [
        ("CPUExecutionProvider", 1, "measured"),
        ("CPUExecutionProvider", 4, "measured"),
        ("CUDAExecutionProvider", 1, "unavailable"),
        ("CUDAExecutionProvider", 4, "unavailable"),
    ]
    assert all(cell["latency"] is None for cell in cells[2:])
    assert run(*arguments, "--provider", "cpu,cuda", "--strict")[0] == 1
    assert run(*arguments, "--provider", "cuda")[0] == 1


def test_bench_with_the_source(run, files):
    code, out, _ = run(
        "bench", files / "model.onnx", "--source", files / "model.joblib", "--data", files / "rows.csv",
        "--duration", "0.1", "--json", "-",
    )  # fmt: skip
    assert code == 0
    providers = [cell["provider"] for cell in json.loads(out)["subjects"][0]["bench"]["cells"]]
    assert providers == ["CPUExecutionProvider", "source"]


def test_inspect(run, files):
    code, out, _ = run("inspect", files / "model.onnx")
    assert code == 0
    assert "city" in out
    assert json.loads(run("inspect", files / "model.onnx", "--json")[1])["inputs"][1]["dtype"] == "string"


def test_doctor_says_what_works(run):
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert {provider["name"]: provider["usable"] for provider in found["providers"]}[
        "CPUExecutionProvider"
    ] is True
    assert found["problems"] == []


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _zip(path, name):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "hello")


BAD = {
    "empty file": (lambda d: (d / "m.joblib").write_bytes(b""), ["convert", "m.joblib"], "is empty"),
    "missing file": (lambda d: None, ["convert", "m.joblib"], "no such file"),
    "foreign zip": (lambda d: _zip(d / "m.keras", "a.txt"), ["convert", "m.keras"], "not recognised"),
    "evil pickle": (
        lambda d: (d / "m.pkl").write_bytes(pickle.dumps(Payload(d / "ran"))),
        ["convert", "m.pkl"],
        r"mkdir",
    ),
    "no SavedModel": (lambda d: (d / "m").mkdir(), ["convert", "m"], "no SavedModel"),
    "truncated pickle": (
        lambda d: (d / "m.pkl").write_bytes(pickle.dumps(LogisticRegression())[:40]),
        ["convert", "m.pkl"],
        r"m\.pkl",
    ),
    "wrong column": (
        lambda d: None,
        ["convert", "{files}/model.joblib", "--data", "{files}/narrow.csv"],
        "lacks city",
    ),
    "no data": (lambda d: None, ["convert", "{files}/model.joblib", "--data", "nowhere.csv"], "no such data file"),
    "unwritable": (lambda d: None, ["convert", "{files}/model.joblib", "-o", "no/where.onnx"], "does not exist"),
    "output is a folder": (lambda d: None, ["convert", "{files}/model.joblib", "-o", "."], "is a folder"),
    "unwritable report": (
        lambda d: None,
        ["bench", "{files}/model.onnx", "--duration", "60", "--report", "no/where.html"],
        "does not exist",
    ),
    "opset too high": (lambda d: None, ["convert", "{files}/model.joblib", "--opset", "99"], "out of range"),
    "opset too low": (lambda d: None, ["convert", "{files}/model.joblib", "--opset", "0"], "out of range"),
    "bad input spec": (lambda d: None, ["convert", "{files}/model.joblib", "--input", "x"], "NAME:DTYPE"),
    "long name": (lambda d: None, ["convert", "x" * 300], "File name too long"),
    "bad size": (
        lambda d: None,
        ["convert", "{files}/model.joblib", "--sandbox-memory", "lots"],
        "amount of memory",
    ),
    "bad limit": (lambda d: None, ["convert", "{files}/model.joblib", "--sandbox-files", "2"], "64 is the least"),
    "too slow": (
        lambda d: None,
        ["convert", "{files}/model.joblib", "--sandbox-timeout", "0.01"],
        "more than 0.01 s",
    ),
    "bad option": (lambda d: None, ["convert", "{files}/model.joblib", "--nonsense"], "nonsense"),
    "truncated ONNX": (
        lambda d: (d / "m.onnx").write_bytes(onnx.helper.make_model(onnx.GraphProto()).SerializeToString()[:7]),
        ["inspect", "m.onnx"],
        r"m\.onnx",
    ),
    "no ONNX": (lambda d: (d / "m.onnx").write_text("hello"), ["bench", "m.onnx"], r"m\.onnx"),
    "labels": (
        lambda d: None,
        ["verify", "{files}/model.onnx", "{files}/model.joblib", "--data", "{files}/rows.csv", "--labels", "nope"],
        "neither a column",
    ),
    "unknown provider": (lambda d: None, ["bench", "{files}/model.onnx", "--provider", "abacus"], "abacus"),
    "bad batch": (lambda d: None, ["bench", "{files}/model.onnx", "--batch", "1,zwei"], "whole numbers"),
    "no report": (lambda d: (d / "r.json").write_text("{}"), ["report", "r.json", "--format", "md"], r"r\.json"),
    "unknown format": (lambda d: None, ["report", "{files}/model.onnx", "--format", "docx"], "docx|report"),
    "module not found": (lambda d: None, ["convert", "no_such_module_here:build"], "no_such_module_here"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_short_error_with_exit_2_and_no_file(run, files, tmp_path, case):
    make, arguments, message = BAD[case]
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*(argument.format(files=files) for argument in arguments))
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.strip().splitlines() if not line.startswith(("Usage:", "Try ")) and line]
    assert 1 <= len(lines) <= 2
    assert re.search(message, err)
    assert sorted(tmp_path.rglob("*")) == before


SLOW = """
import time, pathlib, torch
def build():
    pathlib.Path("started").touch()
    time.sleep(120)
"""


def _interrupt(process, started, number):
    deadline = time.monotonic() + 60
    while not started():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert "interrupted" in err
    assert "Traceback" not in err
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    return gone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_convert_leaves_nothing(tmp_path, number):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "out").mkdir()
    command = [
        sys.executable,
        "-m",
        "onnxtool",
        "convert",
        "slow:build",
        "-o",
        "out/m.onnx",
        "--input",
        "x:float32[batch,2]",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _interrupt(process, (tmp_path / "started").exists, number)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])  # the janitor is there while libraries are still imported
def test_an_interrupted_bench_ends_its_worker(files, tmp_path, processes):
    command = [
        sys.executable,
        "-m",
        "onnxtool",
        "bench",
        str(files / "model.onnx"),
        "--duration",
        "60",
        "--json",
        "b.json",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ended = _interrupt(process, lambda: len(psutil.Process(process.pid).children()) >= processes, signal.SIGINT)
    assert len(ended) >= processes
    assert list(tmp_path.iterdir()) == []


def test_a_full_standard_output_is_an_error_of_two_lines(files):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "onnxtool", "inspect", str(files / "model.onnx")]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "onnxtool: Standard output: No space left on device.\n"
