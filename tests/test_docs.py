"""The documentation says what is true."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    for example in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(example, str(page), "exec"), {"__name__": "__main__"})  # noqa: S102 - our own pages


def test_each_threat_has_its_test():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = TEST.findall(text)
    assert len(named) == sum(line.startswith("| ") for line in text.splitlines()) - 2  # the heads of the table
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), test
