"""The table of PyTorch's layers and functions: a sample of it, and that it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.coverage import table
from benchmarks.coverage import torch as torch_table
from benchmarks.coverage.torch_cases import NO_MODEL, randomised, torch_cases, torch_module

RECORD = Path(__file__).resolve().parents[2] / "reports" / "coverage" / "torch.json"


@pytest.mark.parametrize(
    "name",
    [
        "GRU/packed-layers",
        "LSTM/projection",
        "LSTM/steps-first",
        "Linear/orthogonal",
        "RNN/layers",
        "function.cdist/3",
        "function.cummax",
        "function.interpolate/channels-last",
        "function.istft",
        "function.losses",
        "function.median/images",
        "function.mode",
        "function.searchsorted/rows",
        "function.solve/right",
    ],
)
def test_a_case_agrees_with_pytorch(name: str) -> None:
    assert torch_table.examine(name) == {"outcome": "agrees", "reason": ""}


def test_bfloat16_says_what_to_do() -> None:
    result = torch_table.examine("function.bfloat16")
    assert result["outcome"] == "fails"
    assert "model.float()" in result["reason"]


def test_every_layer_has_a_case_or_a_reason() -> None:
    kinds = {
        name
        for name, kind in vars(torch.nn).items()
        if isinstance(kind, type) and issubclass(kind, torch.nn.Module)
    }
    examined = {name.partition("/")[0] for name in torch_cases()}
    missing = {name for name in kinds - examined if not name.startswith("Lazy") and not name.endswith("Loss")}
    assert missing == {name for names in NO_MODEL for name in names.split()}


def test_the_record_holds_every_case_and_the_page_is_made_of_it() -> None:
    versions = torch_table.versions()
    results = table.from_json(RECORD, versions)
    assert set(torch_cases()) == set(results)
    assert RECORD.with_suffix(".md").read_text(encoding="utf-8") == torch_table.to_markdown(results, versions)
    assert sum(result["outcome"] == "agrees" for result in results.values()) >= 0.95 * len(results)


def test_a_module_is_the_same_each_time_and_its_statistics_are_random() -> None:
    first, again = (torch_module("BatchNorm2d").state_dict() for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not value.is_floating_point() or len(value.unique()) == value.numel()
    assert randomised(torch.nn.Identity()).state_dict() == {}
