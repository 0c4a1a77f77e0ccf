"""The documentation says what is true."""

import doctest
import os
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

import onnxtool

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def test_the_reference_of_the_command_line_is_in_step():
    reference = runpy.run_path(str(ROOT / "docs" / "generate_cli.py"))["reference"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference, "run: make schema"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [page for page in PAGES if PYTHON.search(page.read_text("utf-8"))], ids=lambda page: page.name
)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for example in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(example, str(page), "exec"), names)  # noqa: S102 - our own pages


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """What the examples of docstrings take as there, and their folder."""
    folder = tmp_path_factory.mktemp("examples")
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    model = GradientBoostingRegressor(n_estimators=5).fit(x, x @ [1.0, 2.0, 3.0, 4.0])
    report = onnxtool.convert(model, folder / "model.onnx", data=x)
    speed = onnxtool.bench(folder / "model.onnx", batches=[1, 10], duration=0.1)
    names = {
        "np": np,
        "onnxtool": onnxtool,
        "Path": Path,
        "x": x,
        "model": model,
        "report": report,
        "speed": speed,
    }
    return folder, names


@pytest.mark.parametrize(
    "module",
    ["reports.model", *(f"api.{name}" for name in ("converting", "verifying", "benching", "linting", "bundling"))],
)
def test_the_examples_of_docstrings_are_true(module, examples, monkeypatch):
    folder, names = examples
    monkeypatch.chdir(folder)
    tests = doctest.DocTestFinder(exclude_empty=True).find(import_module(f"onnxtool.{module}"), extraglobs=names)
    tests = [test for test in tests if test.examples]
    assert tests
    runner = doctest.DocTestRunner()
    for test in tests:
        written: list[str] = []
        assert not runner.run(test, out=written.append).failed, "".join(written)


def test_the_site_is_built_without_a_warning(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path / "site").as_posix(): page for page in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "api.html", "SECURITY.html", "tutorials/when-it-fails.html"} <= pages.keys()
    assert "Convert a model to ONNX and prove" in pages["api.html"].read_text(encoding="utf-8")
    loaded = re.compile(r'<(?:script|img|link)[^>]+(?:src|href)="?(https?:[^" >]+)')
    for name, page in pages.items():
        text = page.read_text(encoding="utf-8").replace("\n", " ")
        assert not loaded.findall(text), name


def test_each_threat_has_its_test():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = TEST.findall(text)
    assert len(named) == sum(line.startswith("| ") for line in text.splitlines()) - 2  # the heads of the table
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
