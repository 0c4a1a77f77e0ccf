from __future__ import annotations

import pytest

from onnxtool.bench.plan import CellPlan, check_duration, plan_cells
from onnxtool.bench.resume import plan_of
from onnxtool.errors import UsageError


def test_every_combination_once_in_order():
    assert plan_cells(["A", "B", "A"], [8, 1, 8], [None]) == [
        CellPlan("A", 8, None), CellPlan("A", 1, None), CellPlan("B", 8, None), CellPlan("B", 1, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (([], [1], [1]), "at least one provider"),
        ((["A"], [], [1]), "at least one batch"),
        ((["A"], [1], []), "at least one number of threads"),
        ((["A"], [4, 0], [1]), "A batch is at least 1, not 0"),
        ((["A"], [1], [None, -2]), "A number of threads is at least 1, not -2"),
        ((["A"], [1], [None], []), "at least one concurrency"),
        ((["A"], [1], [None], [0]), "A concurrency is at least 1, not 0"),
    ],
)
def test_what_is_no_sweep(lists, message):
    with pytest.raises(UsageError, match=message):
        plan_cells(*lists)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "server"}, "needs a rate"),
        ({"rate": 10}, "it alone"),
        ({"scenario": "server", "rate": 0}, "above 0"),
        ({"scenario": "crowd"}, "no scenario 'crowd'"),
        ({"options": {"enable_cuda_graph": "1"}, "io_binding": True}, "one query at a time"),
        ({"options": {"enable_cuda_graph": "1"}}, "add --io-binding"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        plan_cells(["A"], [1], [None], [1, 2], **options)


def test_the_cell_of_a_plan():
    (plan,) = plan_cells(["A"], [2], [3], [4], scenario="server", rate=5.0, io_binding=True, options={"b": "1"})
    cell = plan.cell("failed", "why")
    assert plan_of(cell) == plan
    assert (cell.status, cell.reason, cell.options) == ("failed", "why", {"b": "1"})


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf")])
def test_what_is_no_duration(duration):
    with pytest.raises(UsageError, match="above 0"):
        check_duration(duration)


def test_described_for_a_progress_display():
    assert str(CellPlan("CUDAExecutionProvider", 8, None)) == "CUDA, batch 8, default threads"
    assert str(CellPlan("source", 1, 1)) == "source, batch 1, 1 thread"
    assert str(CellPlan("source", 1, 2)) == "source, batch 1, 2 threads"
