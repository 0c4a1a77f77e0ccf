"""docs/extending.md's target, as a distribution that pip installs."""

import re
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from onnxtool import cli
from onnxtool.targets import target

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ROWS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which pip has installed what the page shows."""
    section = PAGE.read_text(encoding="utf-8").split("## A target\n")[1]
    [settings] = re.findall(r"^```toml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    [module] = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(module.splitlines()) <= 40
    folder = tmp_path_factory.mktemp("onnxtool-edge")
    (folder / "pyproject.toml").write_text(settings)
    (folder / "onnxtool_edge.py").write_text(module)
    target_folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--disable-pip-version-check", "--target", target_folder, folder], check=True)
    return target_folder


@pytest.fixture
def run(site, tmp_path, monkeypatch):
    """Run a command with the target installed: its exit status and what it printed."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "onnxtool_edge", raising=False)
    monkeypatch.chdir(tmp_path)
    joblib.dump(LogisticRegression().fit(ROWS, ROWS[:, 0] > 0), "churn.joblib")
    target.targets.cache_clear()

    def call(*arguments):
        result = CliRunner().invoke(cli.cli, [*arguments], standalone_mode=False)
        if result.exception:
            return 2, str(result.exception)
        return result.return_value, result.output

    yield call
    target.targets.cache_clear()


def test_it_is_used_as_the_built_in_ones_are(run):
    code, shown = run("convert", "churn.joblib", "--target", "edge", "--memory", "16")
    assert code == 0, shown
    model = onnx.load("churn.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 17  # the target's own limit
    assert run("lint", "churn.onnx", "--target", "edge")[0] == 0
    code, shown = run(
        "bundle", "churn.onnx", "churn.joblib", "--target", "edge", "-o", "device", "--duration", "0.01"
    )
    assert code == 0, shown
    assert {path.name for path in Path("device").iterdir()} == {
        "edge.ini", "golden.json", "manifest.json", "model.onnx",
    }  # fmt: skip
    assert "memory = 64" in Path("device/edge.ini").read_text()
    arguments = ["bundle", "churn.onnx", "churn.joblib", "-o", "device", "--duration", "0.01"]
    assert "is no bundle" in run(*arguments, "--target", "mlnet")[1]  # another target's is not replaced unasked
    assert run(*arguments, "--format", "edge")[0] == 0  # the same one's is, and --format is an alias


def test_its_rules_are_gates(run):
    assert run("convert", "churn.joblib")[0] == 0
    model = onnx.load("churn.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2**15, np.float32), "large"))
    onnx.save(model, "large.onnx")
    code, shown = run("lint", "large.onnx", "--target", "edge")
    assert code == 1
    assert "EDGE001" in shown
    assert run("lint", "large.onnx", "--target", "edge", "--memory", "200")[0] == 0
    code, shown = run("bundle", "large.onnx", "churn.joblib", "--target", "edge", "-o", "device")
    assert code == 1
    assert not Path("device").exists()
    code, shown = run("convert", "large.onnx", "-o", "again.onnx", "--target", "edge")
    assert code == 2
    assert "EDGE001" in shown
    assert not Path("again.onnx").exists()


def test_bad_options_are_bad_usage(run):
    assert run("convert", "churn.joblib", "--target", "edge", "--memory", "0") == (
        2, "--memory 0 is not a number from 1 on.",
    )  # fmt: skip
    assert "up to opset 17" in run("convert", "churn.joblib", "--target", "edge", "--opset", "18")[1]
    assert "a device of 64 KB" in run("convert", "churn.joblib", "--target", "edge", "--opset", "18")[1]
    assert "--memory goes with --target edge" in run("convert", "churn.joblib", "--memory", "8")[1]
    assert (
        "no software that could run"
        in run("bundle", "churn.onnx", "churn.joblib", "--target", "edge", "-o", "device", "--accept")[1]
    )


def test_an_installed_target_shows_in_another_process(site, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "onnxtool", "lint", "--help"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert "--target [edge|mlnet]" in done.stdout
    assert "--memory" in done.stdout
