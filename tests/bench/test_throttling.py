"""What a cell says of the processors that others had."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import onnxtool
from onnxtool.bench.throttling import Taken, contention, taken, warnings
from onnxtool.reports.model import Bench, Contention
from onnxtool.reports.render import render

BEFORE = Taken(0, 0.0, 0.0, cpu_s=1.0, waited_s=0.5, voluntary=10, involuntary=20, pressure_s=1.0, at_s=100.0)


@pytest.mark.parametrize(
    ("ran", "waited", "share"), [(1.0, 9.4, 9.4 / 10.4), (1.0, 0.04, 0.04 / 1.04), (0.0, 0.0, 0.0)]
)
def test_the_wait_for_a_core_is_a_share_of_what_was_wanted(ran: float, waited: float, share: float) -> None:
    after = replace(
        BEFORE, cpu_s=1.0 + ran, waited_s=0.5 + waited, voluntary=15, involuntary=50, pressure_s=2.0, at_s=104.0
    )
    found = contention(BEFORE, after)
    assert found.waited_share == pytest.approx(share)
    assert (found.voluntary_switches, found.involuntary_switches, found.pressure) == (5, 30, 0.25)
    texts = warnings(BEFORE, after)
    assert bool(texts) == (share >= 0.05)
    if texts:
        assert "ran for 1.00 s and waited 9.40 s for a core (90% of the time that they were ready)" in texts[0]


def test_a_system_that_does_not_count_gives_no_warning() -> None:
    before = Taken(0, 0.0, 0.0, cpu_s=1.0, at_s=1.0)
    found = contention(before, replace(before, cpu_s=2.0, at_s=2.0))
    assert (found.waited_s, found.pressure, found.waited_share, found.frequency_hz) == (None, None, 0.0, None)
    assert warnings(before, before) == []


def test_a_processor_that_slows_down_is_named() -> None:
    before = replace(BEFORE, frequency_hz=3.2e9)
    assert warnings(before, replace(before, frequency_hz=3.0e9)) == []
    assert warnings(before, replace(before, frequency_hz=2.0e9)) == [
        "The processors slowed down from 3.20 to 2.00 GHz."
    ]


def test_the_counters_are_those_of_linux(tmp_path: Path) -> None:
    for thread, text in (("1", "5 2000000000 7"), ("2", "6 500000000 8")):
        (tmp_path / "self" / "task" / thread).mkdir(parents=True)
        (tmp_path / "self" / "task" / thread / "schedstat").write_text(text)
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text(
        "some avg10=1.00 avg60=2.00 avg300=3.00 total=4000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    )
    found = taken(proc=tmp_path)
    assert (found.waited_s, found.pressure_s) == (2.5, 4.0)
    absent = taken(proc=tmp_path / "absent")
    assert (absent.waited_s, absent.pressure_s) == (None, None)


WAITING = """
import json, threading, time
from dataclasses import asdict
from onnxtool.bench.throttling import contention, taken

def burn(until):
    while time.monotonic() < until:
        pass

before = taken()
burn(time.monotonic() + 1.0)
print(contention(before, taken()).model_dump_json())
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not count waits")
def test_a_process_that_shares_its_core_waits_for_half_of_the_time() -> None:
    """Two processes on one core, by Linux' own scheduler."""
    core = min(os.sched_getaffinity(0))
    other = multiprocessing.get_context("spawn").Process(target=_burn_on, args=(core,), daemon=True)
    other.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\n{WAITING}"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        other.kill()
        other.join()
    assert Contention.model_validate(json.loads(done.stdout)).waited_share > 0.25


def _burn_on(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        pass


def test_a_cell_that_waited_is_marked(dense_model) -> None:
    report = onnxtool.bench(dense_model, duration=0.05)
    bench = report.subjects[0].bench
    assert isinstance(bench, Bench)
    for waited, mark in ((9.0, "! 90 %"), (0.0, None)):
        bench.cells[0].contention = Contention(cpu_s=1.0, waited_s=waited)
        for form in ("text", "html", "md"):
            assert ("Waited" in (text := render(report, form))) == (mark is not None)
            assert mark is None or mark in text.replace("\\", "")
