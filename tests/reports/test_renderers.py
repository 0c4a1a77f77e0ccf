"""Every renderer escapes names and metadata from untrusted files, and stays readable."""

import csv
import io
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from rich.console import Console

from onnxtool.errors import UsageError
from onnxtool.reports import terminal
from onnxtool.reports.model import Bench, Report
from onnxtool.reports.render import render
from onnxtool.targets.target import formats

SCHEMA = Path(__file__).resolve().parents[2] / "reports" / "schema" / "junit.xsd"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
VOID = {"meta", "br"}
ALL = formats()


@pytest.mark.parametrize("name", ALL)
def test_every_format_is_text_without_control_characters(name: str, sample: Report):
    text = render(sample, name, ALL)
    if name not in ("json", "mlnet"):  # JSON keeps what it was given, with its own escapes
        assert not CONTROLS.search(text)
    assert "credit.onnx" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", ALL)
def test_an_empty_report_renders(name: str, sample: Report):
    sample.subjects = []
    assert render(sample, name, ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_model_that_was_only_converted_renders(name: str, sample: Report):
    subject = sample.subjects[0]
    subject.source = subject.conversion = subject.parity = subject.drift = subject.bench = None
    subject.checks = []
    subject.model.operators = {}
    sample.subjects = [subject]
    assert render(sample, name, ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_sweep_without_a_measured_cell_renders(name: str, sample: Report):
    cells = [cell for cell in sample.subjects[0].bench.cells if cell.status != "measured"]
    sample.subjects[0].bench = Bench(data="made up", seed=0, duration_s=1, cells=cells)
    assert "libnvinfer" in render(sample, name, ALL) or name in ("junit", "sarif", "pytest-benchmark")


def test_an_unknown_format_is_named():
    with pytest.raises(UsageError, match=r"'pdf'.*html"):
        render(None, "pdf")  # type: ignore[arg-type]


def test_nothing_checked_is_not_passed(sample: Report):
    for subject in sample.subjects:
        subject.checks = []
    assert "✓ PASSED" not in render(sample, "text")
    assert "Nothing checked" in render(sample, "md")


def _xml(text: str) -> ET.Element:
    return ET.fromstring(text.encode())  # noqa: S314 - our own output


# -- HTML ---------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Counts elements, gathers attributes, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_no_name_becomes_markup_in_html(sample: Report, hostile_strings: tuple[str, ...]):
    page = _Page(render(sample, "html"))
    for tag in ("script", "img", "b", "iframe", "object", "embed", "link", "base", "form"):
        assert tag not in page.elements
    assert page.elements["title"] > 1  # of the page and of each chart
    assert page.elements["style"] == page.elements["html"] == page.elements["body"] == 1
    assert not [entry for entry in page.attributes if entry[1].startswith("on")]
    for text in hostile_strings:
        if not CONTROLS.search(text):
            assert text in page.words
    assert "{{ 7*7 }}" in page.words
    assert r"\x1b[31mred\x07\x85\u202egnp.exe" in page.words


def test_the_page_needs_nothing_else(sample: Report):
    text = render(sample, "html")
    page = _Page(text)
    loading = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background", "ping"}
    targets = [value for _, key, value in page.attributes if key in loading]
    assert targets
    assert all(target.startswith("#") for target in targets)
    styles = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_page_lists_every_finding(sample: Report):
    words = _Page(render(sample, "html")).words
    for fact in (
        "✗ Failed",
        "14 of 256 rows are out of tolerance",
        "Shapes differ: [1, 512] in the source",
        "libnvinfer.so.10 is not installed",
        "The worker was killed (signal 9)",
        "p99 needs 528 runs",
        "2.4e-7",
        "F1 (macro)",
        "ZipMap is left out",
        "NVIDIA H100 80GB HBM3",
        "ai.onnx.ml",
        "onnxtool.source.framework",
    ):
        assert fact in words, fact


def test_every_chart_has_a_title_and_finite_coordinates(sample: Report):
    text = render(sample, "html")
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) > 40
    for chart in charts:
        root = _xml(chart)
        assert root.find("title") is not None or root.get("aria-hidden")
        for element in root.iter():
            for key, value in element.attrib.items():
                assert not re.search(r"nan|inf|None", value), (key, value)


def test_a_sweep_of_500_cells_stays_a_page(sample: Report):
    bench = sample.subjects[0].bench
    measured = [cell for cell in bench.cells if cell.latency]
    bench.cells = [
        measured[number % len(measured)].model_copy(update={"batch": 1 + number // 10, "threads": 1 + number % 10})
        for number in range(500)
    ]
    text = render(sample, "html")
    assert _Page(text).elements["tr"] > 500
    assert len(text) < 6_000_000
    assert len(render(sample, "md")) < 65_536


# -- Markdown -----------------------------------------------------------------------------------------------


def test_no_name_becomes_markup_in_markdown(sample: Report):
    text = render(sample, "md")
    assert set(re.findall(r"(?<!\\)</?([a-z]+)", text)) <= {"details", "summary", "sub"}
    read = [line for line in text.splitlines() if not line.startswith("<details>")]  # an HTML block is not read
    assert not any("[a link](" in line or "<script" in line for line in read)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 30
    width = 0
    for line in tables:  # a pipe in a name makes no further column
        cells = len(re.findall(r"(?<!\\)\|", line))
        if not re.fullmatch(r"[|:-]+", line) and width and cells != width:
            assert re.match(r"\| +\|? ?[A-Z]", line), line
        width = cells


# -- CSV ----------------------------------------------------------------------------------------------------


def test_no_cell_is_a_formula(sample: Report):
    rows = list(csv.reader(io.StringIO(render(sample, "csv"))))
    assert len({len(row) for row in rows}) == 1
    outputs = sum(len(subject.parity.outputs) for subject in sample.subjects)
    cells = sum(len(subject.bench.cells) for subject in sample.subjects)
    assert len(rows) == 1 + outputs + cells
    for cell in (cell for row in rows for cell in row):
        if cell.strip()[:1] in ("=", "+", "-", "@", "\t", "\r"):
            float(cell)
    assert "'=cmd|'/c calc'!A1" in {row["output"] for row in _records(sample)}


def test_csv_numbers_are_unrounded(sample: Report):
    row = next(
        row for row in _records(sample) if row["provider"] == "CUDAExecutionProvider" and row["batch"] == "8"
    )
    cell = next(
        cell
        for cell in sample.subjects[0].bench.cells
        if cell.provider == "CUDAExecutionProvider" and cell.batch == 8
    )
    assert float(row["p50_s"]) == cell.latency.percentiles[0].value_s
    assert float(row["rows_per_s"]) == cell.rows_per_s
    assert float(row["speedup"]) == pytest.approx(44.9, rel=0.01)
    assert row["ran_on"] == "CUDA 6"


def _records(sample: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(sample, "csv"))))


# -- JUnit --------------------------------------------------------------------------------------------------


def test_junit_has_what_the_schemas_ask_for(sample: Report):
    """The rules of windyroad/JUnit-Schema's JUnit.xsd, which are the strictest."""
    root = _xml(render(sample, "junit"))
    assert (root.tag, root.attrib) == ("testsuites", {})
    assert [suite.get("id") for suite in root] == ["0", "1", "2"]
    for suite, subject in zip(root, sample.subjects, strict=True):
        assert set(suite.attrib) == {
            "id", "package", "name", "timestamp", "hostname", "tests", "failures", "errors", "time",
        }  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
        assert re.fullmatch(r"\d+\.\d+", suite.get("time"))
        assert suite.get("name")
        cases = suite.findall("testcase")
        assert [child.tag for child in suite] == [
            "properties",
            *["testcase"] * len(cases),
            "system-out",
            "system-err",
        ]
        assert suite.get("tests") == str(len(subject.checks)) == str(len(cases))
        assert all(set(entry.attrib) == {"name", "value"} and entry.get("name") for entry in suite[0])
        failures = 0
        for case, check in zip(cases, subject.checks, strict=True):
            assert set(case.attrib) == {"name", "classname", "time"}
            assert [child.tag for child in case] == ([] if check.passed else ["failure"])
            assert all(set(child.attrib) == {"type", "message"} for child in case)
            failures += not check.passed
        assert suite.get("failures") == str(failures)


def test_junit_keeps_hostile_text_as_text(sample: Report):
    root = _xml(render(sample, "junit"))
    failure = root[2].find("testcase/failure")
    assert failure.get("message") == "<script>alert(1)</script>"
    assert not root.findall(".//script")
    assert root[2].findall("testcase")[1].get("name").startswith(r"a\x00b\x1b[31mred")


def test_junit_names_the_worst_rows(sample: Report):
    root = _xml(render(sample, "junit"))
    assert "row 31 [0]: source 1.25, ONNX 1.2913" in root[1].find("testcase/failure").text


# -- Terminal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_is_cut_off_on_a_terminal(width: int, sample: Report):
    text = _printed(sample, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for fact in (
        "✗ FAILED",
        "2.4e-7",
        "48,123",
        "1.2913",
        "11.7 µs",
        "14.4 µs",
        "unavailable",
        "refused",
        "172\N{MULTIPLICATION SIGN}",
    ):
        assert fact in text, fact
    assert text.lstrip().startswith("✗ FAILED")


def test_tolerances_are_always_printed(sample: Report):
    for width in (80, 140):
        assert "1e-5 + 1e-4·|source|" in _printed(sample, width)


def test_colour_only_on_a_terminal(sample: Report, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in _printed(sample, 100, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*3[1-7]m", _printed(sample, 100, force_terminal=True))


def _printed(report: Report, width: int, **options: object) -> str:
    console = Console(width=width, file=io.StringIO(), **options)  # type: ignore[arg-type]
    console.print(terminal.view(report, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("empty", [False, True])
def test_junit_validates_against_its_schema(sample: Report, empty: bool):
    """Ours, which is narrower than Ant's and Jenkins': it and our output were compared with both by hand."""
    if empty:
        sample.subjects = []
    xmlschema.XMLSchema(str(SCHEMA)).validate(io.StringIO(render(sample, "junit")))


def test_pytest_benchmark_compares_its_files(sample: Report, tmp_path: Path):
    for name in ("0001_before.json", "0002_after.json"):
        (tmp_path / name).write_text(render(sample, "pytest-benchmark"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "0001_before.json", "0002_after.json",
         "--histogram=latency", "--csv=table.csv"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = [
        cell for subject in sample.subjects if subject.bench for cell in subject.bench.cells if cell.latency
    ]
    assert f"{2 * len(measured)} tests" in done.stdout
    assert "credit.onnx[CPU, batch 1, 1 thread] (0002_after)" in done.stdout
    assert (tmp_path / "latency.svg").stat().st_size
    assert len((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * len(measured)
