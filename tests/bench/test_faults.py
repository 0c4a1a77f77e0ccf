"""A worker that misbehaves costs its own cell; a run that is interrupted leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from onnxtool.bench.runner import SourceTask, run_bench

ROWS = {"x": np.ones((1, 4), dtype=np.float32)}


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Whatever the test does, nothing is left where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime leaves a file there
    yield folder
    assert list(folder.iterdir()) == []


def bench_source(model, source, timeout_s=60.0):
    return run_bench(
        model, inputs=ROWS, providers=["cpu"], batches=[1], threads=[None], duration_s=0.1, data="ones", seed=None,
        source=SourceTask(source), timeout_s=timeout_s,
    ).cells  # fmt: skip


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (
            "crash",
            "Its worker was ended by SIGKILL (the system does so when memory runs out); "
            "its last words: about to crash",
        ),
        ("segfault", "Its worker was ended by SIGSEGV."),
        ("exit", "Its worker ended with exit code 3."),
        ("memory", "MemoryError: no memory left"),
    ],
)
def test_worker_that_ends_early(dense_model, misbehaving, action, reason):
    measured, failed = bench_source(dense_model, misbehaving(action))
    assert measured.status == "measured"
    assert (failed.status, failed.reason) == ("failed", reason)
    assert failed.latency is None


@pytest.mark.parametrize("action", ["garbage", "flood"])
def test_prints_do_not_garble_the_answer(dense_model, misbehaving, action):
    _, cell = bench_source(dense_model, misbehaving(action))
    assert (cell.status, cell.reason) == ("measured", None)
    assert cell.latency.samples > 0


def test_worker_that_hangs_is_ended_with_its_children(dense_model, misbehaving):
    measured, failed = bench_source(dense_model, misbehaving("hang"), timeout_s=6)
    assert measured.status == "measured"
    assert failed.status == "failed"
    child = re.fullmatch(
        r"Its worker did not end within 6 s \(--timeout\); its last words: child (\d+)", failed.reason
    )
    assert_ended([int(child[1])])


def test_worker_that_hangs_after_its_answer_is_measured(dense_model, misbehaving):
    start = time.monotonic()
    _, cell = bench_source(dense_model, misbehaving("hang at exit"))
    assert cell.status == "measured"
    assert time.monotonic() - start < 40
    assert cell.warnings[-1].startswith("After the measurement its worker ended with exit code 1")


def test_interrupt_in_a_live_session_ends_the_worker(dense_model):
    """As in a notebook, where this process lives on."""
    before = workers(psutil.Process())

    def interrupt(done, total, cell):
        if done == 0:
            signal.setitimer(signal.ITIMER_REAL, 2)

    def raise_interrupt(number, frame):
        seen.extend(workers(psutil.Process()))
        raise KeyboardInterrupt

    seen: list[int] = []
    previous = signal.signal(signal.SIGALRM, raise_interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_bench(
                dense_model, inputs=ROWS, providers=["cpu"], batches=[1], threads=[None], duration_s=60,
                data="ones", seed=None, on_progress=interrupt,
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(seen) == 1
    assert before == workers(psutil.Process()) == []
    assert_ended(seen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_of_a_run_that_is_ended(dense_model, temporary_folder, number):
    script = f"""
import numpy as np
from onnxtool.bench.runner import run_bench
run_bench({str(dense_model)!r}, inputs={{"x": np.ones((1, 4), np.float32)}}, providers=["cpu"], batches=[1, 2],
          threads=[None], duration_s=60, data="ones", seed=None)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (running := workers(psutil.Process(parent.pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(running) == 1
    time.sleep(1)
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=20)
    assert parent.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert_ended(running)


def workers(process: psutil.Process) -> list[int]:
    """The workers that a process has started and that live."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "onnxtool.bench.worker" in child.cmdline():
                found.append(child.pid)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def assert_ended(pids: list[int]) -> None:
    """A process without a parent to reap it stays in the table as a zombie: it has ended."""

    def lives(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + 10
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if lives(pid)]
