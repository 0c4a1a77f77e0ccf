"""The command line as people expect it: completion, verbosity, colour, width, several models, exit statuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression, Ridge

import onnxtool
from onnxtool.cli import cli
from onnxtool.errors import UsageError
from onnxtool.models.onnx import providers
from onnxtool.reports.model import Report

ONNXTOOL = str(Path(sys.executable).with_name("onnxtool"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models and their rows."""
    folder = tmp_path_factory.mktemp("models")
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save(folder / "rows.npy", x)
    joblib.dump(LogisticRegression().fit(x, x[:, 0] > 0), folder / "churn.joblib")
    joblib.dump(Ridge().fit(x, x[:, 1]), folder / "price.joblib")
    onnxtool.convert(folder / "churn.joblib", folder / "churn.onnx", data=x, sandbox=None)
    return folder


@pytest.fixture
def invoke(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def invoke(*arguments):
        return CliRunner().invoke(cli, [*arguments], catch_exceptions=False, standalone_mode=False)

    return invoke


# -- Completion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [("onnxtool conv", "convert"), ("onnxtool history ", "show"), ("onnxtool bench --lat", "--latency-bound"),
     ("onnxtool convert m.joblib --target ", "mlnet")],
)  # fmt: skip
def test_each_shell_completes_commands_options_and_targets(shell, line, word):
    words = line.split(" ")
    variables = {"_ONNXTOOL_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        variables |= {"COMP_CWORD": words[-1]}
    done = subprocess.run([ONNXTOOL], env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert word in re.split(r"[,\t\n]", done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shells_script_is_one_that_the_shell_reads(shell, tmp_path):
    environment = {**os.environ, "_ONNXTOOL_COMPLETE": f"{shell}_source"}
    script = subprocess.run([ONNXTOOL], env=environment, capture_output=True, text=True, check=False).stdout
    assert "_ONNXTOOL_COMPLETE" in script
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(script, encoding="utf-8")
        subprocess.run([program, "-n", str(tmp_path / "script")], check=True)


def test_bash_completes_when_the_script_is_read(tmp_path):
    code = (
        f'PATH={Path(ONNXTOOL).parent}:$PATH; eval "$(_ONNXTOOL_COMPLETE=bash_source onnxtool)"\n'
        "COMP_WORDS=(onnxtool ver); COMP_CWORD=1; _onnxtool_completion onnxtool; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "verify"


# -- What is printed ----------------------------------------------------------------------------------------


def test_quiet_prints_what_does_not_pass_only(invoke):
    done = invoke("convert", "churn.joblib", "--data", "rows.npy", "--quiet", "--no-sandbox")
    assert (done.return_value, done.output) == (0, "")
    done = invoke("verify", "churn.onnx", "price.joblib", "--data", "rows.npy", "-q", "--no-sandbox")
    assert done.return_value == 1
    assert "✗ FAILED" in done.output
    with pytest.raises(UsageError, match="contradict"):
        invoke("convert", "churn.joblib", "-q", "-v")


def test_verbose_says_where_the_time_goes(invoke):
    done = invoke("convert", "churn.joblib", "--data", "rows.npy", "--verbose")
    stages = [re.sub(r"^ *\d+\.\d\d s  ", "", line) for line in done.stderr.splitlines()]
    assert stages[:3] == ["Imports are done", "Loading the source", "Converting from sklearn"]
    assert "Comparing rows" in stages
    own, workers = map(float, re.findall(r"(\d+\.\d\d) s in", stages[-1]))
    assert own > 0
    assert workers > 0.1  # the processes of the source and of ONNX Runtime


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False), ({}, False)],
)  # fmt: skip
def test_colour_is_as_the_environment_says(folder, variables, coloured):
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(
        [ONNXTOOL, "lint", "churn.onnx"],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        check=False,
    )
    assert bool(re.search(rb"\x1b\[[\d;]*3[1-7]m", done.stdout)) == coloured


@pytest.mark.parametrize(("columns", "most"), [(None, 100), ("72", 72)])
def test_a_pipe_has_the_width_of_a_text_report(invoke, monkeypatch, columns, most):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    done = invoke("convert", "churn.joblib", "--data", "rows.npy", "--no-sandbox")
    longest = max(map(len, done.stdout.splitlines()))
    assert most - 25 < longest <= most


# -- Several models -----------------------------------------------------------------------------------------


def test_several_sources_are_one_report(invoke, folder, tmp_path):
    done = invoke("convert", "*.joblib", "--data", "rows.npy", "-o", str(tmp_path), "--json", "-", "--no-sandbox")
    report = Report.model_validate_json(done.stdout)
    assert [subject.name for subject in report.subjects] == ["churn.onnx", "price.onnx"]
    assert done.return_value == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.onnx", "price.onnx"]


def test_one_that_cannot_be_converted_does_not_stop_the_others(invoke, tmp_path):
    (tmp_path / "broken.joblib").write_bytes(b"no model")
    done = invoke("convert", str(tmp_path / "broken.joblib"), "price.joblib", "-o", str(tmp_path), "--no-sandbox")
    assert done.return_value == 2
    assert "broken.joblib" in done.stderr
    assert "price.onnx" in done.stdout
    assert (tmp_path / "price.onnx").exists()


def test_several_sources_need_a_folder_and_names_of_their_own(invoke):
    with pytest.raises(UsageError, match=r"is none\. Make it"):
        invoke("convert", "churn.joblib", "price.joblib", "-o", "both.onnx")
    with pytest.raises(UsageError, match=r"written to churn\.onnx"):
        invoke("convert", "churn.joblib", "./churn.joblib")


# -- Statuses, JSON, remedies -------------------------------------------------------------------------------


def commands():
    for name, command in cli.commands.items():
        inner = getattr(command, "commands", None)
        yield from ([name, below] for below in inner) if inner else ([name],)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_each_help_says_the_exit_statuses(command):
    done = CliRunner().invoke(cli, [*command, "--help"])
    text = " ".join(done.output.split())
    assert re.search(r"Exit status: 0 \w+.*2 bad usage", text)


def test_one_schema_holds_the_json_of_every_command(invoke):
    schema = json.loads((Path(__file__).parents[1] / "reports/schema/output-2.0.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for command in (
        ["inspect", "churn.onnx", "--json"],
        ["lint", "churn.onnx", "--json", "-"],
        ["doctor", "--json"],
    ):
        content = json.loads(invoke(*command).stdout)
        validator.validate(content)
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**content, "other": 1})


def test_a_provider_that_is_not_built_in_names_a_remedy_that_works():
    """Two builds of ONNX Runtime overwrite each other: the one has to go before the other comes."""
    with pytest.raises(
        providers.UnavailableError, match="uninstall -y onnxruntime && pip install onnxruntime-gpu"
    ):
        providers.make_session("m.onnx", "CUDAExecutionProvider", None, {})
