"""What passes and what fails, from the numbers alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from onnxtool.reports import findings, units
from onnxtool.reports.columns import bench_columns
from onnxtool.reports.gates import coverage_gates, finished_gates, latency_gates
from onnxtool.reports.html import render as render_html
from onnxtool.reports.model import Bench, Cell, Change, Check, Latency, LatencyBound, Percentile, Placement
from onnxtool.reports.render import render

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def cell(p50: float = 1e-3, rows_per_s: float = 1000, provider: str = CPU, **more: object) -> Cell:
    percentiles = [
        Percentile(q=0.5, value_s=p50, low_s=0.9 * p50, high_s=1.1 * p50),
        Percentile(q=0.99, value_s=2 * p50, low_s=1.8 * p50, high_s=2.5 * p50),
    ]
    latency = Latency(
        samples=1000, mean_s=p50, std_s=0, min_s=p50, max_s=3 * p50, confidence=0.99, percentiles=percentiles
    )
    settings = {"batch": 1, "threads": None, "status": "measured", "latency": latency, "rows_per_s": rows_per_s}
    return Cell(provider=provider, **{**settings, **more})


def bench(*cells: Cell, **more: object) -> Bench:
    return Bench(data="rows", seed=0, duration_s=1.0, cells=list(cells), **more)


def placed(nodes: tuple[int, int], time: tuple[float, float] | None) -> list[Placement]:
    shares = time or (None, None)
    return [
        Placement(provider=CUDA, nodes=nodes[0], time_share=shares[0]),
        Placement(provider=CPU, nodes=nodes[1], time_share=shares[1]),
    ]


@pytest.mark.parametrize(
    ("nodes", "time", "passed", "phrase"),
    [
        ((96, 4), (0.97, 0.03), True, "96 % of the nodes and 97 % of the time on CUDA; required are 95 %."),
        ((94, 6), (0.97, 0.03), False, "94 % of the nodes"),
        ((96, 4), (0.9, 0.1), False, "Nodes: CUDA 96 (90 % of the time), CPU 4 (10 % of the time)."),
        ((95, 5), None, True, "95 % of the nodes on CUDA"),
        ((9499, 501), None, False, "94.9 % of the nodes"),
    ],
)
def test_coverage_is_of_nodes_and_of_time(nodes, time, passed, phrase):
    found = cell(provider=CUDA, placement=placed(nodes, time))
    (check,) = coverage_gates([found, cell(provider=CPU)], {CUDA: 0.95})
    assert (check.id, check.passed) == ("coverage:CUDA, batch 1", passed)
    assert phrase in check.message


def test_coverage_that_is_not_known_fails():
    absent = Cell(provider=CUDA, batch=1, threads=None, status="unavailable", reason="No card.")
    (check,) = coverage_gates([absent], {CUDA: 0.5})
    assert not check.passed and check.message == "Not known: No card."


def test_a_model_without_nodes_is_covered():
    assert findings.coverage(cell()) == (1.0, None)


def test_shares_are_never_rounded_up():
    assert units.share(0.99999) == "99.9 %"
    assert units.share(1.0) == "100 %"


def bounded(outcome: str, **more: object) -> Cell:
    bound = LatencyBound(
        **{"q": 0.99, "bound_s": 2e-3, "outcome": outcome, "samples": 1000, "above": 3, "measured_s": 2.0, **more}
    )
    return cell(bounds=[bound])


@pytest.mark.parametrize(
    ("found", "undecided", "passed", "phrase"),
    [
        (
            bounded("within"),
            "fail",
            True,
            "p99 is within 2.00 ms, 1.80 ms to 2.50 ms: 3 of 1,000 queries took longer.",
        ),
        (bounded("above"), "pass", False, "p99 is above 2.00 ms"),
        (bounded("above", bound_s=1e-4), "pass", False, "The fastest took 1.00 ms."),
        (bounded("above", q=0.5), "pass", False, "p50 is above 2.00 ms"),
        (bounded("undecided", needed_s=100.0), "fail", False, "About 100 s would decide: --budget 111."),
        (
            bounded("undecided", needed_s=100.0),
            "pass",
            True,
            "Undecided: p99 against 2.00 ms. 3 of 1,000 queries took",
        ),
        (bounded("undecided"), "fail", False, "so near to the bound"),
    ],
)
def test_a_bound_passes_fails_or_is_undecided(found, undecided, passed, phrase):
    (check,) = latency_gates(bench(found), undecided == "pass")
    assert (check.passed, check.undecided) == (passed, found.bounds[0].outcome == "undecided")
    assert phrase in check.message
    assert check.id == "latency:CPU, batch 1" + (", p50" if found.bounds[0].q == 0.5 else "")


def test_queries_without_an_answer_are_named():
    found = bounded("above")
    found.unanswered = 3
    (check,) = latency_gates(bench(found), pass_undecided=True)
    assert not check.passed and "and 3 queries got no answer by the end" in check.message


def test_without_a_bound_there_is_no_gate():
    assert latency_gates(bench(cell()), pass_undecided=False) == []


@pytest.mark.parametrize("passes", [False, True])
def test_undecided_is_the_headline_whatever_it_does_to_the_run(sample, passes):
    """A run that passes with an undecided gate is no PASSED, and one that fails with it alone is no FAILED."""
    sample.subjects = sample.subjects[:1]
    (subject,) = sample.subjects
    subject.checks = [
        Check(id="parity", passed=True, message="Agree."),
        Check(id="against:CPU, batch 1", passed=passes, undecided=True, message="Undecided: 2 times."),
    ]
    assert sample.passed == passes
    verdict = findings.verdict(sample)
    assert (verdict.outcome, verdict.reason) == ("undecided", "Undecided: 2 times.")
    assert findings.subject_verdict(subject).outcome == "undecided"
    for form in ("text", "md", "html", "github"):
        text = render(sample, form)
        assert "undecided: 2 times" in text.lower() and "passed" not in text.lower().split("\n")[0]
    assert render(sample, "text").startswith("? UNDECIDED")
    annotation = "::warning" if passes else "::error"
    assert next(line for line in render(sample, "github").splitlines() if "2 times" in line).startswith(annotation)
    case = ET.fromstring(render(sample, "junit")).findall(".//testcase")[1]  # noqa: S314 - our own
    assert [child.tag for child in case] == ["skipped" if passes else "failure"]
    subject.checks.append(Check(id="bench", passed=False, message="Broken."))
    assert findings.verdict(sample).reason == "Broken."
    subject.checks[-1] = subject.checks[1]
    assert findings.verdict(sample).reason == "Undecided: 2 times. And 1 more check is undecided."


def test_an_interrupted_sweep_is_no_success():
    (check,) = finished_gates(bench(cell(), unfinished=2))
    assert not check.passed and check.message.startswith("2 of 3 cells are not measured yet")
    assert finished_gates(bench(cell())) == []


def test_the_front_holds_what_nothing_beats(sample):
    fast, wide = cell(1e-3, 1000), cell(4e-3, 8000, batch=32)
    beaten, source = cell(4e-3, 900, threads=2), cell(1e-4, 9000, provider="source")
    both = bench(beaten, wide, source, fast)
    assert findings.pareto(both) == [fast, wide]
    assert findings.pareto(bench(fast)) == findings.pareto(bench(fast, source)) == []
    column = bench_columns(both)[-2]
    assert (column.title, [column.text(entry) for entry in both.cells]) == ("Best", ["", "★", "", "★"])
    assert findings.bench_notes(both)[-1].startswith("★")
    sample.subjects = sample.subjects[:1]
    sample.subjects[0].bench = both
    page = render_html(sample)
    assert "Latency against throughput" in page and page.count('class="series beaten"') == 1


def test_cells_that_differ_have_names_that_differ():
    options = [
        {}, {"concurrency": 2}, {"scenario": "server", "rate": 50.0}, {"io_binding": True}, {"options": {"a": "1"}},
    ]  # fmt: skip
    names = [findings.cell_name(cell(**option)) for option in options]
    assert names == [
        "CPU, batch 1", "CPU, batch 1, 2 callers", "CPU, batch 1, server at 50.0/s", "CPU, batch 1, bound",
        "CPU, batch 1, a=1",
    ]  # fmt: skip


def test_reasons_to_doubt_a_cell_are_reported():
    doubtful = cell(
        warmup_settled=False, unanswered=1, build_s=61.0, timer_overhead_s=5e-6, timer_resolution_s=1e-9
    )
    doubtful.latency.change = Change(at=0.5, before_s=1e-3, after_s=2e-3, p_value=1e-6)
    notes = " ".join(findings.bench_notes(bench(doubtful)))
    for phrase in (
        "still changed when the warm-up ended", "after 50 % of the runs, from a median of 1.00 ms to 2.00 ms",
        "1 query got no answer", "engine was built in 61.0 s", "adds 5.00 µs to a run, at most 0.5 % of a median",
    ):  # fmt: skip
        assert phrase in notes
