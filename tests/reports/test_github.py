"""Annotations, the job's summary, the composite action and the example workflow, run as GitHub's runner does."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.reports import github
from onnxtool.reports.model import Report

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
COMMAND = re.compile(r"::(error|warning|notice) title=[^:,]*(?:,file=[^:,]*)?::.*")
X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


def test_each_failed_gate_is_an_error_and_the_verdict_a_notice(sample: Report):
    lines = github.render(sample).splitlines()
    assert all(COMMAND.fullmatch(line) for line in lines)
    failed = [check for subject in sample.subjects for check in subject.checks if not check.passed]
    assert sum(line.startswith("::error ") for line in lines) == len(failed) > 0
    assert any(line.startswith("::warning ") and "libnvinfer" in line for line in lines)
    assert lines[-1].startswith("::notice title=onnxtool demo::Failed")


def test_no_text_begins_a_command_of_its_own(sample: Report):
    sample.subjects[0].name = "a\n::error::b,file=c::d%0A::set-output name=x::y"
    sample.subjects[0].checks[0] = (
        sample.subjects[0].checks[0].model_copy(update={"passed": False, "message": "r\r\n::add-mask::z"})
    )
    lines = github.render(sample).splitlines()
    assert all(COMMAND.fullmatch(line) for line in lines)
    assert not any(line.startswith(("::add-mask", "::set-output")) for line in lines)


def test_the_runner_takes_names_as_text():
    log = io.StringIO()
    with github.commands_stopped({"GITHUB_ACTIONS": "true"}, log):
        print("::error::x", file=log)
    first, _, last = log.getvalue().splitlines()
    assert last == f"::{first.removeprefix('::stop-commands::')}::"
    elsewhere = io.StringIO()
    with github.commands_stopped({}, elsewhere):
        pass
    assert not elsewhere.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A converted model, its source and another."""
    folder = tmp_path_factory.mktemp("workspace")
    source = LogisticRegression().fit(X, X[:, 0] > 0)
    joblib.dump(source, folder / "source.joblib")
    joblib.dump(LogisticRegression().fit(X, X[:, 1] > 0), folder / "other.joblib")
    np.save(folder / "rows.npy", X)
    assert onnxtool.convert(source, folder / "model.onnx", data=X)
    return folder


def step(folder, arguments, **inputs):
    """Run the action's last step as the runner does: its inputs in the environment, its script in a file."""
    given = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()}
    given |= {"arguments": arguments, **inputs}
    run = ACTION["runs"]["steps"][-1]
    assert run["shell"] == "python"
    environment = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: given[found[1]], value)
        for name, value in run["env"].items()
    }
    for name in ("output", "summary"):
        (folder / name).unlink(missing_ok=True)
    script = folder / "step.py"
    script.write_text(run["run"], encoding="utf-8")
    files = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, **environment, **files, "GITHUB_ACTIONS": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_action_passes_and_fails_with_the_gate(folder):
    done = step(folder, "verify model.onnx source.joblib --data rows.npy", html="page.html")
    assert done.returncode == 0, done.stderr
    assert (folder / "output").read_text() == "passed=true\n"
    assert "## ✅ Passed" in (folder / "summary").read_text(encoding="utf-8")
    assert Report.model_validate_json((folder / "onnxtool-report.json").read_text(encoding="utf-8")).passed
    assert "<html" in (folder / "page.html").read_text(encoding="utf-8")

    done = step(folder, 'verify model.onnx other.joblib --data "rows.npy"')
    assert done.returncode == 1
    assert (folder / "output").read_text() == "passed=false\n"
    assert "::error title=onnxtool verify%3A model.onnx,file=model.onnx::" in done.stderr


def test_bad_input_is_an_annotation_and_no_verdict(folder):
    done = step(folder, "verify absent.onnx source.joblib")
    assert done.returncode == 2
    assert not (folder / "output").exists()
    assert re.match(r"::error title=onnxtool::.*absent\.onnx", done.stderr)


def test_the_examples_workflow_uses_what_the_action_has(folder):
    workflow = yaml.safe_load((ROOT / "docs/workflows/accuracy-drift.yml").read_text(encoding="utf-8"))
    steps = [step["with"] for step in workflow["jobs"]["drift"]["steps"] if "onnxtool@" in step.get("uses", "")]
    assert len(steps) == 3
    for given in steps:
        assert given.keys() <= ACTION["inputs"].keys()
        command, *_ = given["arguments"].split()
        done = subprocess.run(
            [sys.executable, "-m", "onnxtool", command, "--help"], capture_output=True, text=True, check=True
        )
        for option in re.findall(r"--[a-z-]+", given["arguments"]):
            assert option in done.stdout
