"""The memory that measuring takes: one session at a time, and a measurement that outlives its profile."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtool.bench import worker
from onnxtool.bench.feeds import stacked
from onnxtool.bench.plan import CellPlan
from onnxtool.bench.session import open_session
from onnxtool.bench.task import Task
from onnxtool.models.onnx.providers import UnavailableError

ROWS = {"x": np.ones((2, 4), np.float32)}


def task(model: Path, **plan: Any) -> Task:
    return Task(CellPlan("CPUExecutionProvider", 2, 1, **plan), 0.05, 0, str(model), stacked([ROWS]))


@pytest.mark.parametrize("plan", [{}, {"io_binding": True}, {"concurrency": 2}], ids=str)
def test_the_session_is_gone_before_the_profile_opens_its_own(dense_model, monkeypatch, plan) -> None:
    sessions: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def opened(*arguments: Any) -> Any:
        session = open_session(*arguments)
        sessions.append(weakref.ref(session))
        return session

    def profiled(*_: Any) -> list[Any]:
        alive.extend(session() is not None for session in sessions)
        return []

    monkeypatch.setattr(worker, "open_session", opened)
    monkeypatch.setattr(worker, "profiled_placement_of", profiled)
    monkeypatch.setattr(worker.confine, "limit", lambda _: None)  # this process is the tests'
    gc.disable()
    try:
        cell, samples = worker.measure(task(dense_model, **plan))
    finally:
        gc.enable()
    assert (cell.status, len(samples) > 0, alive) == ("measured", True, [False])


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("bad_alloc")], ids=str)
def test_a_profile_that_fails_costs_a_warning(dense_model, monkeypatch, error) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "profiled_placement_of", fail)
    monkeypatch.setattr(worker.confine, "limit", lambda _: None)
    cell, samples = worker.measure(task(dense_model))
    assert cell.status == "measured" and len(samples) and cell.placement[0].nodes == 2
    assert "a profile to check it failed: " + (str(error) or "MemoryError") in cell.warnings[-1]


def test_without_a_record_the_profile_is_needed(dense_model, monkeypatch) -> None:
    def fail(*_: Any) -> None:
        raise UnavailableError("It took no node.")

    monkeypatch.setattr(worker, "profiled_placement_of", fail)
    monkeypatch.setattr(worker.confine, "limit", lambda _: None)
    assert worker.measure(task(dense_model))[0].status == "unavailable"
    monkeypatch.setattr(worker.providers, "recorded_placement", lambda _: None)
    monkeypatch.setattr(worker, "profiled_placement_of", lambda *_: 1 / 0)
    assert worker.measure(task(dense_model))[0].status == "failed"
