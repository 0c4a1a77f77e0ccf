"""The table of tf2onnx's own tests: a small suite of the same form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.coverage import tf2onnx as tf2onnx_table
from benchmarks.coverage.__main__ import main

SUITE = """
import unittest

import numpy as np
import tensorflow as tf


class BackendTests(unittest.TestCase):
    def run_test_case(self, func, feed_dict, inputs, outputs, **kwargs):
        raise AssertionError("the suite's own check ran")

    def check(self, func, feed_dict, **kwargs):
        return self.run_test_case(func, feed_dict, [], ["output:0"], **kwargs)

    def test_fine(self):
        self.check(lambda x: tf.nn.relu(x), {"x:0": np.array([[-1.0, 2.0]], np.float32)})

    def test_unknown_operator(self):
        self.check(lambda x: tf.math.igamma(x, x), {"x:0": np.array([[1.0, 2.0]], np.float32)})

    def test_session(self):
        self.check(lambda x: x, {"x:0": np.ones(2, np.float32)}, as_session=True)
"""


def test_a_run_needs_the_suite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tf2onnx_table, "imported", lambda name, install: None)
    monkeypatch.setenv(tf2onnx_table.SUITE, "")
    assert main(["tf2onnx", "--suite", str(tmp_path)]) == 2
    assert "--suite FOLDER" in capsys.readouterr().err


def test_a_suite_is_judged_by_its_models_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "test_backend.py").write_text(SUITE)
    monkeypatch.setenv(tf2onnx_table.SUITE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "test_backend", raising=False)
    names = tf2onnx_table.case_names()
    monkeypatch.delitem(sys.modules, "test_backend")
    assert len(names) == 6
    found = {name: tf2onnx_table.examine(name) for name in names}
    monkeypatch.delitem(sys.modules, "test_backend")
    assert {name: (result["bare"], result["outcome"]) for name, result in found.items()} == {
        "test_fine": ("agrees", "agrees"),
        "test_fine/batch": ("agrees", "agrees"),
        "test_session": ("no rows", "no rows"),
        "test_session/batch": ("no rows", "no rows"),
        "test_unknown_operator": ("fails", "refused"),
        "test_unknown_operator/batch": ("fails", "refused"),
    }
    assert "Igamma" in found["test_unknown_operator"]["reason"]
