"""How often `bench --against` is wrong, with every core kept busy by other processes.

`python benchmarks/false_alarms.py [COMPARISONS] [BUDGET_S] [SEED]` compares a model with a copy of itself that many
times, and a third as often a model of 22 equal layers with one of 20. Each comparison has a fresh process and
fresh sessions, and is printed to standard error.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # noqa: F401 - so that it is there in each process that is forked
from onnx import TensorProto, helper
from scipy.stats import binomtest

from onnxtool.bench.paired import PairTask, measure
from onnxtool.bench.plan import CellPlan

WIDTH = 128


def write_layers(path: Path, layers: int) -> Path:
    """A model of equal layers, so that its time goes with their number."""
    weights = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
    names = ["x", *(f"h{index}" for index in range(layers - 1)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [onnx.numpy_helper.from_array(weights, f"w{i}") for i in range(layers)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def be_busy(seed: int) -> None:
    """Compute in bursts of 0.1 s on average, with pauses of 0.02 s, like another job of the same machine."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    while True:
        end = time.perf_counter() + rng.expovariate(10)
        while time.perf_counter() < end:
            sum(range(1000))
        time.sleep(rng.expovariate(50))


@contextmanager
def busy_cores() -> Iterator[None]:
    """A busy process for each core."""
    cores = [multiprocessing.Process(target=be_busy, args=(seed,)) for seed in range(len(os.sched_getaffinity(0)))]
    for core in cores:
        core.start()
    try:
        yield
    finally:
        for core in cores:
            core.kill()
            core.join()


def compare(job: tuple[PairTask, int]) -> tuple[str, float]:
    """The outcome and the ratio of one comparison."""
    task, batch = job
    answer, _ = measure(task, [{"x": np.ones((batch, WIDTH), dtype=np.float32)}])
    assert answer.decision is not None
    return answer.decision.outcome, answer.decision.ratio


def main(comparisons: int = 300, budget_s: float = 16, seed: int = 0) -> None:
    """Print the counts, with exact (Clopper-Pearson) one-sided bounds at 95 %."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = write_layers(Path(folder, "model.onnx"), 20)
        twin = shutil.copy(model, Path(folder, "twin.onnx"))
        slower = write_layers(Path(folder, "slower.onnx"), 22)
        found: dict[str, list[tuple[str, float]]] = {}
        with busy_cores(), multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
            for index in range(comparisons):
                # Small and on one thread, or larger and on all of them
                threads, batch = ((1, 1), (None, 16))[index % 2]
                for name, candidate in (("identical", twin), ("10 % slower", slower))[
                    : 2 if index % 3 == 0 else 1
                ]:
                    plan = CellPlan("CPUExecutionProvider", batch, threads)
                    task = PairTask((str(candidate), str(model)), plan, 0.05, budget_s, seed + index)
                    result = pool.apply(compare, ((task, batch),))
                    print(name, batch, *result, file=sys.stderr, flush=True)  # noqa: T201
                    found.setdefault(f"{name}, batch {batch}, threads {threads or 'default'}", []).append(result)
    for name in ("identical", "10 % slower"):
        together = [entry for key, entries in found.items() if key.startswith(name) for entry in entries]
        for key, entries in {name: together, **{k: v for k, v in found.items() if k.startswith(name)}}.items():
            outcomes = Counter(outcome for outcome, _ in entries)
            ratios = np.quantile([ratio for _, ratio in entries], (0, 0.5, 1))
            side, failed = ("less" if name == "identical" else "greater"), outcomes["fail"]
            bound = binomtest(failed, len(entries), 0.5, side).proportion_ci(0.95)
            text = f"at most {bound.high:.2%}" if side == "less" else f"at least {bound.low:.1%}"
            print(  # noqa: T201
                f"{key}: {dict(outcomes)}; fail in {failed / len(entries):.2%}, {text} (95 %); "
                f"ratios {ratios[0]:.3f} .. {ratios[1]:.3f} .. {ratios[2]:.3f}"
            )
    print(f"{time.monotonic() - start:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
