"""Names and texts use the field's words: search, compare, diverge, repair, options, progress, result.

Words of our own make a newcomer learn a language before the code. The words below once stood for these terms. They
are looked for in the identifiers of the Python code, in docstrings, comments and messages of the package, and in the
pages of the documentation.
"""

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "converters", "models", "onnxtool", "reports", "validators")
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")

NAMES = {
    "hunt": "search",
    "hunter": "search",
    "hunted": "search",
    "judge": "compare or decide",
    "judged": "compare or decide",
    "judgement": "decision",
    "tell": "progress or report",
    "tells": "report",
    "telling": "notable",
    "told": "options or message",
    "mend": "repair",
    "mended": "repaired",
    "aside": "auxiliary or labels",
    "wanted": "expected or options",
    "said": "message, answers or output",
    "asked": "options or request",
    "apart": "difference or distance",
    "beside": "hstack or next_to",
}
"""A word in an identifier, and what to write instead."""

TEXTS = {
    r"hunt(s|ed|ing)?": "search",
    r"h[eo]lds? ([\w.`']+ ){0,4}against": "compare with",
    r"(is|are|was|were|be|been|being) held (against|to)": "is compared with",
    r"judg(e|es|ed|ing|ement|ements)": "compare, decide or check",
    r"tells?|telling|told": "show, report or know",
    r"mend(s|ed|ing)?": "repair or fix",
    r"aside": "without, except, or auxiliary",
    r"wants?|wanted": "needs, takes or expects",
    r"said": "reported, or the message",
    r"(models|two|both|they|answers|versions) part": "diverge",
    r"(is|are|be|far|drawn|stand|stay|stays|left|set|kept) apart": "differ, or separate",
    r"beside": "next to",
    r"asked for": "requested, or given",
}
"""A pattern in prose, and what to write instead."""

FILE_METHODS = {"tell"}
"""Names that Python gives."""

ORDINARY = {
    ("reports/migration.py", "hunt"),  # the field's name in schema 1.0
}
"""Uses of a word that are not ours to choose."""


def _python(*folders: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *(f"{folder}/*.py" for folder in folders)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return listed.stdout.split()


def _identifiers(code: str) -> set[str]:
    """Every name that the code defines or uses, keyword arguments and attributes included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        for field in ("id", "attr", "arg", "name", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                found.add(value)
    return found - FILE_METHODS


def _words(identifier: str) -> list[str]:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().split("_")


def _prose(code: str) -> str:
    """Comments and strings of a module, a line break apart."""
    kinds = (tokenize.COMMENT, tokenize.STRING)
    return "\n".join(
        token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type in kinds
    )


def faults_in_names(path: str, code: str) -> list[str]:
    return [
        f"{path}: {name}: write {NAMES[word]}"
        for name in sorted(_identifiers(code))
        for word in _words(name)
        if word in NAMES and not name.startswith("test_") and (path, word) not in ORDINARY
    ]


def faults_in_prose(path: str, text: str) -> list[str]:
    flat = re.sub(r"[\s#]+", " ", text)
    return [
        f"{path}: {flat[max(0, match.start() - 30) : match.end() + 20]!r}: write {instead}"
        for pattern, instead in TEXTS.items()
        for match in re.finditer(rf"(?<![\w`.-])({pattern})(?![\w`(=-])", flat, re.IGNORECASE)
        if (path, match[0].lower()) not in ORDINARY
    ]


def test_identifiers():
    assert not [
        fault
        for path in _python(*PACKAGES, "benchmarks", "docs", "tests")
        if path != "tests/test_words.py"
        for fault in faults_in_names(path, (ROOT / path).read_text(encoding="utf-8"))
    ]


def test_docstrings_comments_and_messages():
    assert not [
        fault
        for path in _python(*PACKAGES)
        for fault in faults_in_prose(path, _prose((ROOT / path).read_text(encoding="utf-8")))
    ]


def test_pages():
    pages = [
        path
        for name in PAGES
        for path in ([ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).glob("*.md")))
    ]
    assert len(pages) > 10
    assert not [
        fault
        for path in pages
        for fault in faults_in_prose(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(
    "code",
    ["class Judge: ...", "tell_cell = 1", "f(aside=1)", "x.hunt()", "def f(wanted): ...", "import a as told"],
)
def test_a_coined_name_is_found(code: str):
    assert faults_in_names("x.py", code)


@pytest.mark.parametrize(
    "text",
    [
        "Hold a model against its source.",
        "Both are held\n    # against each other.",
        "where the models part",
        "How far apart they are.",
        "What is asked for.",
        "It hunts for drift.",
        "Mend it with pip.",
    ],
)
def test_a_coined_text_is_found(text: str):
    assert faults_in_prose("x.py", text)


@pytest.mark.parametrize(
    "text", ["a part of a node", "partial sums", "The file holds the weights.", "a threshold", "`hunt` is a field"]
)
def test_ordinary_text_passes(text: str):
    assert not faults_in_prose("x.py", text)
