"""Models beyond the usual size: `python -m benchmarks.reliability.sizes --nodes 10000 --gigabytes 2.2`.

A chain of many nodes, as many inputs, as many outputs, and weights beyond protobuf's 2 GB. Each command must end in
its result; what it took is written down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.reliability.record import keep

LIMIT_S = 600
"""After which a command is ended, and counts as failed."""

READABLE_BYTES = 200_000
"""Most that a report for people may hold, whatever the model."""

COMMANDS = (
    "inspect model.onnx",
    "lint model.onnx",
    "convert model.onnx -o converted.onnx --optimize basic {rows}",
    "verify model.onnx model.onnx {rows} --explain --json out.json --report out.html",
    "bench model.onnx {rows} --batch 1 --duration 0.2 --json out.json --report out.html",
    "report out.json --format md",
)


def chain(nodes: int) -> onnx.GraphProto:
    """A graph of nodes that follow each other."""
    operators = ("Mul", "Add", "Tanh", "Relu")
    names = ["x", *(f"t{number}" for number in range(nodes - 1)), "y"]
    return helper.make_graph(
        [
            helper.make_node(operator, [first] + (["w"] if operator in {"Mul", "Add"} else []), [second])
            for first, second, operator in zip(names, names[1:], operators * nodes, strict=False)
        ],
        "chain",
        _values(["x"]),
        _values(["y"]),
        [numpy_helper.from_array(np.full(1, 0.999, np.float32), "w")],
    )


def wide(inputs: int, outputs: int) -> onnx.GraphProto:
    """A graph of one node for each output, which adds up the inputs."""
    read = [f"x{number}" for number in range(inputs)]
    written = [f"y{number}" for number in range(outputs)]
    return helper.make_graph(
        [helper.make_node("Sum", read, [name]) for name in written], "wide", _values(read), _values(written)
    )


def heavy(gigabytes: float) -> onnx.GraphProto:
    """A graph of matrices of 64 MiB each, one for every layer."""
    layers = round(gigabytes * 1e9 / 2**26)
    weights = np.random.default_rng(0).normal(scale=1 / 64, size=(4096, 4096)).astype(np.float32)
    names = ["x", *(f"t{number}" for number in range(layers - 1)), "y"]
    return helper.make_graph(
        [
            helper.make_node("MatMul", [first, f"w{number}"], [second])
            for number, (first, second) in enumerate(pairwise(names))
        ],
        "heavy",
        _values(["x"], 4096),
        _values(["y"], 4096),
        [numpy_helper.from_array(np.roll(weights, number), f"w{number}") for number in range(layers)],
    )


def _values(names: list[str], width: int = 1) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in names]


def save(graph: onnx.GraphProto, path: Path) -> None:
    """Write a graph as a model, with external weights where they are large."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=2**20)


def measure(line: str, folder: Path) -> dict[str, Any]:
    """Run a command in a folder.

    Returns:
        Its exit code, the time in s that it took, the most memory in bytes that its process had (not its workers'),
        the bytes that it printed and, where it failed, its last words.
    """
    began = time.monotonic()
    peak = 0
    with (folder / "printed").open("wb+") as printed, (folder / "errors").open("wb+") as stderr_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "onnxtool", *line.split()],
            cwd=folder, env={**os.environ, "CI": "true"}, stdout=printed, stderr=stderr_file,
        )  # fmt: skip
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            if time.monotonic() - began > LIMIT_S:
                process.terminate()
                process.wait()
            time.sleep(0.02)
        stderr_file.seek(0)
        words = stderr_file.read().decode(errors="replace").strip()
        size = printed.tell() if printed.seek(0, os.SEEK_END) else 0
    found = {
        "command": line,
        "exit": process.returncode,
        "seconds": round(time.monotonic() - began, 1),
        "peak_bytes": peak,
        "printed_bytes": size,
    }
    page = folder / "out.html"
    if "--report" in line and page.exists():
        found["html_bytes"] = page.stat().st_size
    return {**found, "said": words[-500:]} if process.returncode and words else found


def _peak(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.sizes", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000, help="of the chain, and inputs, and outputs")
    parser.add_argument("--gigabytes", type=float, default=2.2, help="of weights")
    parser.add_argument("--record", type=Path, help="where the result is kept")
    options = parser.parse_args(arguments)
    number = options.nodes
    models: dict[str, Any] = {
        f"{number:,} nodes in a chain": lambda: chain(number),
        f"{number:,} inputs": lambda: wide(number, 1),
        f"{number:,} outputs": lambda: wide(1, number),
        f"{options.gigabytes:g} GB of weights": lambda: heavy(options.gigabytes),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for name, make in models.items():
        with tempfile.TemporaryDirectory() as folder:
            graph = make()
            save(graph, Path(folder, "model.onnx"))
            few = graph.name == "heavy"  # a row of it takes a billion operations
            np.save(Path(folder, "rows.npy"), np.random.default_rng(1).normal(size=(8, 4096)).astype(np.float32))
            del graph
            found[name] = []
            for line in COMMANDS:
                command = " ".join(line.format(rows="--data rows.npy" if few else "").split())
                found[name].append(measure(command, Path(folder)))
                sys.stdout.write(f"{name}: {found[name][-1]}\n")
                sys.stdout.flush()
    keep(options.record, f"sizes --nodes {number} --gigabytes {options.gigabytes:g}", models=found)
    runs = [run for model in found.values() for run in model]
    allowed = {"lint": (0, 1)}  # what is above 2 GB is none for ML.NET, and lint says so
    failed = [run for run in runs if run["exit"] not in allowed.get(run["command"].split()[0], (0,))]
    return int(bool(failed) or any(run.get("html_bytes", 0) > READABLE_BYTES for run in runs))


if __name__ == "__main__":
    raise SystemExit(main())
