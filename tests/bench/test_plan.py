from __future__ import annotations

import pytest

from onnxtool.bench.plan import CellPlan, check_duration, plan_cells
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
    ],
)
def test_what_is_no_sweep(lists, message):
    with pytest.raises(UsageError, match=message):
        plan_cells(*lists)


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf")])
def test_what_is_no_duration(duration):
    with pytest.raises(UsageError, match="above 0"):
        check_duration(duration)


def test_described_for_a_progress_display():
    assert str(CellPlan("CUDAExecutionProvider", 8, None)) == "CUDA, batch 8, default threads"
    assert str(CellPlan("source", 1, 1)) == "source, batch 1, 1 thread"
    assert str(CellPlan("source", 1, 2)) == "source, batch 1, 2 threads"
