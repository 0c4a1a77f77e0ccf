"""The time that bench reports is the model's, not bench's: on a model of about 10 us within 3 %."""

from __future__ import annotations

import gc
import os
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxtool.bench.runner import run_bench
from onnxtool.bench.timing import time_runs

BARE_LOOP = Path(__file__).with_name("bare_loop.py")
bare_loop = runpy.run_path(str(BARE_LOOP))["bare_loop"]
WIDTH = 64
TARGET_NS = 10_000
SECONDS = 1.0
PAIRS = 11
ALLOWED = 0.03


def chain(layers: int) -> onnx.ModelProto:
    """A model of so many dense layers."""
    weights = np.eye(WIDTH, dtype=np.float32).ravel().tolist()
    nodes = [helper.make_node("Gemm", [f"h{i}" if i else "x", "w"], [f"h{i + 1}"]) for i in range(layers)]
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, [WIDTH, WIDTH], weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    """One row."""
    return {"x": np.ones((1, WIDTH), dtype=np.float32)}


@pytest.fixture(scope="module")
def model(inputs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many layers as take about 10 us here."""
    path = tmp_path_factory.mktemp("model") / "chain.onnx"
    for layers in range(1, 100):
        onnx.save(chain(layers), path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        if min(bare_loop(session, inputs, 0.05) for _ in range(3)) >= TARGET_NS:
            break
    return path


def record(benchmark, bare: list[float], ours: list[float]) -> float:
    """Keep the ratios of the pairs in pytest-benchmark's file, and return their median."""
    ratios = [b / a for a, b in zip(bare, ours, strict=True)]
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(
        ratio=round(ratio, 4),
        ratios=[round(value, 4) for value in sorted(ratios)],
        bare_median_us=round(statistics.median(bare) / 1e3, 3),
        bench_median_us=round(statistics.median(ours) / 1e3, 3),
    )
    return ratio


def test_worker_against_bare_loop(benchmark, model: Path, inputs: dict[str, np.ndarray]) -> None:
    """Each in fresh processes with the same settings, in turns, so that both see the same machine."""

    def bare() -> float:
        command = [sys.executable, BARE_LOOP, model, str(WIDTH), str(SECONDS)]
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
        return float(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)

    def ours() -> float:
        bench = run_bench(
            model, inputs=inputs, providers=["cpu"], batches=[1], threads=[None], duration_s=SECONDS,
            data="ones", seed=None,
        )  # fmt: skip
        median = bench.cells[0].latency.percentiles[0]
        assert median.q == 0.5
        return median.value_s * 1e9

    def pairs() -> tuple[list[float], list[float]]:
        times: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(PAIRS):
            for is_bare in (True, False) if turn % 2 else (False, True):
                times[is_bare].append(bare() if is_bare else ours())
        return times[True], times[False]

    ratio = record(benchmark, *benchmark.pedantic(pairs, rounds=1))
    assert abs(ratio - 1) <= ALLOWED


def test_loop_against_bare_loop(benchmark, model: Path, inputs: dict[str, np.ndarray]) -> None:
    """Both loops over one session in one process: what the loop itself adds."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def pairs() -> tuple[list[float], list[float]]:
        bare, ours = [], []
        gc.disable()
        for _ in range(40):
            bare.append(bare_loop(session, inputs, 0.1))
            ours.append(float(np.median(time_runs(session.run, [inputs], 100_000_000))))
        gc.enable()
        return bare, ours

    ratio = record(benchmark, *benchmark.pedantic(pairs, rounds=1, warmup_rounds=1))
    assert abs(ratio - 1) <= ALLOWED
