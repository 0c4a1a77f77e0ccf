"""The table of timm's networks: what is in the record, and the command where timm is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.coverage import table
from benchmarks.coverage import timm as timm_table
from benchmarks.coverage.__main__ import main
from benchmarks.coverage.torch_cases import randomised

RECORD = Path(__file__).resolve().parents[2] / "reports" / "coverage" / "timm.json"
CONTENT = json.loads(RECORD.read_text(encoding="utf-8"))


def of_kind(detectors: bool, backbones: bool) -> list[str]:
    return [
        result["outcome"]
        for case, result in CONTENT["results"].items()
        if case.startswith(timm_table.DETECTOR) == detectors and case.endswith(timm_table.BACKBONE) == backbones
    ]


def test_the_record_is_of_what_is_installed() -> None:
    assert CONTENT["versions"].items() >= table.installed("torch", "onnxscript", "onnx", "onnxruntime").items()
    assert {"timm", "torchvision"} <= set(CONTENT["versions"])


def test_the_page_is_made_of_the_record() -> None:
    page = RECORD.with_suffix(".md").read_text(encoding="utf-8")
    assert page == timm_table.to_markdown(CONTENT["results"], CONTENT["versions"])


def test_what_does_not_agree_has_a_reason() -> None:
    results = [result for result in CONTENT["results"].values() if result["outcome"] != "agrees"]
    assert all(result["reason"] and "crashed" not in result["reason"] for result in results)
    assert not any("Traceback" in result["reason"] for result in results)


@pytest.mark.parametrize(("backbones", "least"), [(False, 184), (True, 184)])
def test_networks_agree(backbones: bool, least: int) -> None:
    outcomes = of_kind(detectors=False, backbones=backbones)
    assert len(outcomes) >= least
    assert outcomes.count("agrees") >= 0.98 * len(outcomes)


def test_a_run_needs_timm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python does itself for what must not be imported
    assert main(["timm", "--only", "resnet18"]) == 2
    assert "pip install timm" in capsys.readouterr().err


def test_no_weight_is_as_it_was_initialised() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)
            self.dense = nn.Linear(4, 4)
            self.scale = nn.Parameter(1e-6 * torch.ones(4, 1, 1))
            nn.init.zeros_(self.dense.weight)

    model = randomised(Scaled())
    kept = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
    assert len(kept) == 7
    for name, value in kept.items():
        assert len(np.unique(value.numpy())) == value.numel(), name
    randomised(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
