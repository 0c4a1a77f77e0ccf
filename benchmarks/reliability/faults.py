"""Faults of the machine, provoked for real: `python -m benchmarks.reliability.faults --rounds 5`.

A full disk, folders that may not be written, two runs that write to one place, a clock that goes back, a worker
without memory. Each command must end in its result or in an error of its own, with the old output or a whole new one,
and leave nothing temporary.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.reliability.kill import prepare, state, whole
from benchmarks.reliability.record import keep

COMMANDS: Mapping[str, tuple[str, str]] = {
    "convert": ("convert model.joblib --data rows.npy -o", "out.onnx"),
    "verify": ("verify good.onnx model.joblib --data rows.npy --json", "out.json"),
    "page": ("verify good.onnx model.joblib --data rows.npy --report", "out.html"),
    "search": ("verify good.onnx other.joblib --adversarial --budget 3000 --save-worst", "out.npz"),
    "bench": ("bench long.onnx --batch 1 --duration 0.1 --json", "out.json"),
    "bundle": ("bundle long.onnx model.joblib --data rows.npy --duration 0.1 --force -o", "out"),
    "lint": ("lint bad.onnx --fix -o", "out.onnx"),
    "report": ("report saved.json --format html -o", "out.html"),
}
"""Name to a command line that ends where the path of its output follows, and the name of that."""

LARGEST = {"bench": 300_000, "bundle": 300_000}
"""Bytes that a file may have on the full disk; 500 for other commands. ONNX Runtime's profile fits in."""

CLOCK = """
import time
from datetime import UTC, datetime
from types import SimpleNamespace

calls = 0

def backwards():
    global calls
    calls += 1
    return {start} - 600.0 * calls

class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(backwards(), tz)

time.time = backwards
import onnxtool.clock
onnxtool.clock.datetime = SimpleNamespace(datetime=Clock, UTC=UTC)
"""
"""A `sitecustomize` with which the clock goes ten minutes back each time it is read."""


@dataclass(frozen=True, slots=True)
class Work:
    """Folders of a run: what it reads, where it writes, where its temporary files go."""

    source: Path
    output: Path
    temporary: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: exit code, and its standard error."""

    code: int
    message: str


def workplace(folder: Path) -> Work:
    """Write the models, rows and reports that the commands take."""
    work = Work(*(folder / name for name in ("source", "output", "temporary")))
    for path in (work.source, work.output, work.temporary):
        path.mkdir()
    prepare(work.source)
    model = onnx.load(work.source / "good.onnx")
    helper.set_model_props(model, {"note": "long " * 80_000})  # so that what is made of it is above 300 kB
    onnx.save(model, work.source / "long.onnx")
    return work


def start(
    work: Work, name: str, fault: Callable[[], object] | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start one of `COMMANDS`; `fault` is called in its process, before it becomes onnxtool."""
    line, output = COMMANDS[name]
    return subprocess.Popen(
        [sys.executable, "-m", "onnxtool", *line.split(), str(work.output / output)],
        cwd=work.source,
        env={
            **os.environ,
            "TMPDIR": str(work.temporary),
            "CI": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(variables or {}),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=fault,  # noqa: PLW1509 - no threads here
        restore_signals=False,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a run."""
    _, message = process.communicate()
    return Ended(process.returncode, message)


def full_disk(largest: int) -> None:
    """No file of this process can grow beyond `largest` bytes: writing more fails, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))


def no_privilege() -> None:
    """Have modes of files hold for root too."""
    if os.geteuid() == 0:
        drop, override, search = 24, 1, 2  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        for capability in (override, search):
            ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


def refused(work: Work, name: str, fault: Callable[[], object]) -> list[str]:
    """What is wrong when a command cannot write: it must exit with 2, say where, and leave the old output."""
    output = work.output / COMMANDS[name][1]
    before = state(work.output)
    ended = end(start(work, name, fault))
    wrong = [] if ended.code == 2 else [f"exit {ended.code}"]
    places = (output, *((work.temporary,) if name == "lint" else ()))  # lint proves a repair there before
    if (
        not any(f"onnxtool: Cannot write {place}" in ended.message for place in places)
        or "\n" in ended.message[:-1]
    ):
        wrong.append(f"message: {ended.message[-300:]}")
    wrong += [] if state(work.output) == before else ["the old output changed"]
    return wrong + left(work)


def left(work: Work) -> list[str]:
    """Temporary files that a run left."""
    found = [*work.temporary.iterdir(), *(path for path in work.output.iterdir() if path.name.startswith("."))]
    return [f"left: {path.name}" for path in found]


def old_outputs(work: Work) -> None:
    """Put something where each command writes."""
    for _, output in COMMANDS.values():
        path = work.output / output
        if path.suffix:
            path.write_text("old", encoding="utf-8")
        else:
            path.mkdir(exist_ok=True)
            (path / "old.txt").write_text("old", encoding="utf-8")


def together(work: Work, name: str, rounds: int) -> list[str]:
    """Faults when two runs write to one place: it must have what one of them wrote, complete."""
    wrong: list[str] = []
    output = work.output / COMMANDS[name][1]
    alone = set()
    epochs = ("0", "1000000000")  # the time in the file identifies the run
    if name in {"convert", "lint"}:
        for epoch in epochs:
            end(start(work, name, variables={"SOURCE_DATE_EPOCH": epoch}))
            alone.add(state(work.output)[output.name])
    for _ in range(rounds):
        runs = [start(work, name, variables={"SOURCE_DATE_EPOCH": epoch}) for epoch in epochs]
        wrong += [
            f"exit {ended.code}: {ended.message[-300:]}"
            for ended in map(end, runs)
            if ended.code != 0 and not ended.message.startswith("onnxtool: Cannot write")
        ]
        if alone and state(work.output)[output.name] not in alone:
            wrong.append("the output is neither's")
        try:
            wrong += [] if whole(output) else ["broken"]
        except Exception as error:
            wrong.append(f"broken: {type(error).__name__}: {error}")
        wrong += left(work)
    return wrong


def clock_back(work: Work, name: str, begin: float) -> list[str]:
    """What is wrong when the clock goes back from `begin`, in s since 1970: nothing may fail, nor last below 0 s."""
    folder = work.source / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CLOCK.format(start=begin), encoding="utf-8")
    ended = end(start(work, name, variables={"PYTHONPATH": str(folder)}))
    drifts = name == "search"  # it looks for rows on which two models differ, and finds some
    wrong = [] if ended.code == int(drifts) else [f"exit {ended.code}: {ended.message[-300:]}"]
    output = work.output / COMMANDS[name][1]
    if output.suffix == ".json":
        report = json.loads(output.read_text(encoding="utf-8"))
        wrong += [f"{field} is {value}" for field, value in _durations(report) if value < 0]
    return wrong + left(work)


def _durations(value: Any, name: str = "") -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [found for key, entry in value.items() for found in _durations(entry, key)]
    if isinstance(value, list):
        return [found for entry in value for found in _durations(entry, name)]
    return [(name, value)] if name.endswith("_s") and isinstance(value, int | float) else []


def write_swelling(path: Path) -> None:
    """Write a model that takes 400 kB a row."""
    weights = onnx.numpy_helper.from_array(np.ones((1, 100_000), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["wide"]),
            helper.make_node("ReduceMax", ["wide"], ["y"], axes=[1]),
        ],
        "swelling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def out_of_memory(work: Work, batches: Sequence[int] = (1, 20_000, 2), memory: int = 2 << 30) -> list[str]:
    """What is wrong when a worker needs more memory than there is: its cell alone may fail, and must say why."""
    write_swelling(work.source / "swelling.onnx")
    output = work.output / "swelling.json"
    subprocess.run(
        [sys.executable, "-m", "onnxtool", "bench", "swelling.onnx", "--threads", "1", "--duration", "0.1",
         "--batch", ",".join(map(str, batches)), "--json", output],
        cwd=work.source, env={**os.environ, "TMPDIR": str(work.temporary), "CI": "true"}, check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_DATA, (memory, memory)),
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    cells = json.loads(output.read_text(encoding="utf-8"))["subjects"][0]["bench"]["cells"]
    wrong = []
    for cell in cells:
        if cell["batch"] * 400_000 < memory:
            wrong += [] if cell["status"] == "measured" else [f"batch {cell['batch']}: {cell['reason']}"]
        elif cell["status"] != "failed" or "allocate memory" not in cell["reason"]:
            wrong.append(f"batch {cell['batch']}: {cell['status']}: {cell['reason']}")
    return wrong + left(work)


def provoke(work: Work, rounds: int) -> dict[str, dict[str, list[str]]]:
    """Every fault for every command that it may meet: what was wrong, by fault and command."""
    found: dict[str, dict[str, list[str]]] = {}
    old_outputs(work)
    found["full disk"] = {
        name: refused(work, name, partial(full_disk, LARGEST.get(name, 500))) for name in COMMANDS
    }
    work.output.chmod(0o555)
    found["read-only output folder"] = {name: refused(work, name, no_privilege) for name in COMMANDS}
    work.output.chmod(0o755)
    work.source.chmod(0o555)
    found["read-only source folder"] = {
        name: []
        if (code := end(start(work, name, no_privilege)).code) == int(name == "search")
        else [f"exit {code}"]
        for name in COMMANDS
    }
    work.source.chmod(0o755)
    found["two runs at once"] = {
        name: together(work, name, rounds) for name in ("convert", "lint", "bench", "bundle", "report")
    }
    for what, begin in (("clock that goes back", time.time()), ("clock that goes back in 1970", 86400.0 * 30)):
        found[what] = {name: clock_back(work, name, begin) for name in COMMANDS}
    for path in work.source.iterdir():
        os.utime(path, (4e9, 4e9))  # 2096
    found["sources of the future"] = {
        name: [] if (code := end(start(work, name)).code) == int(name == "search") else [f"exit {code}"]
        for name in COMMANDS
    }
    found["worker out of memory"] = {"bench": out_of_memory(work)}
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of two runs at once, for each command")
    parser.add_argument("--record", type=Path, help="where the result is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = provoke(workplace(Path(folder)), options.rounds)
    for fault, commands in found.items():
        sys.stdout.write(f"{fault}: {commands}\n")
    keep(options.record, f"faults --rounds {options.rounds}", rounds=options.rounds, faults=found)
    return int(any(wrong for commands in found.values() for wrong in commands.values()))


if __name__ == "__main__":
    raise SystemExit(main())
