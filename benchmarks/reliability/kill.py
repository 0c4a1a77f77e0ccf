"""SIGKILL at every stage of every command: `python -m benchmarks.reliability.kill --points 200`.

A command is run once to see how long it takes, then again and again, killed at moments spread over that time. After
each kill the output must be the old one or a whole new one, or none where there was none; nothing temporary may be
left, and no process. Then the command must work once more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil

from benchmarks.reliability.record import keep

SETTLE_S = 5.0
"""Time that workers and the janitor have to end in."""

COMMANDS: dict[str, tuple[str, str]] = {
    "convert": ("convert model.joblib -o out.onnx --data rows.npy --json out.json --report out.html", "out.onnx"),
    "verify": ("verify good.onnx model.joblib --data rows.npy --json out.json --report out.html", "out.json"),
    "search": ("verify good.onnx other.joblib --adversarial --budget 3000 --save-worst out.npz", "out.npz"),
    "bench": ("bench good.onnx --batch 1,4 --duration 0.3 --json out.json --report out.html", "out.json"),
    "bundle": ("bundle good.onnx model.joblib --data rows.npy -o out --duration 0.2", "out"),
    "lint": ("lint bad.onnx --fix -o out.onnx", "out.onnx"),
    "report": ("report saved.json --format html -o out.html", "out.html"),
}
"""Name to a command line, and its main output."""


def prepare(folder: Path) -> None:
    """Write the models, rows and reports that the commands take."""
    from sklearn.linear_model import LogisticRegression

    import onnxtool
    from onnxtool.reports import json as reports

    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    joblib.dump(model, folder / "model.joblib")
    joblib.dump(LogisticRegression().fit(x, x[:, 1] > 0), folder / "other.joblib")
    np.save(folder / "rows.npy", x)
    report = onnxtool.convert(model, folder / "good.onnx", data=x, target="mlnet")
    reports.write(report, folder / "saved.json")
    onnxtool.convert(model, folder / "bad.onnx", inputs=["X:float64[batch,4]"])  # ML.NET has no double


def state(folder: Path) -> dict[str, str]:
    """Every file in a folder, with its SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def start(line: str, folder: Path, temporary: Path) -> subprocess.Popen[bytes]:
    """Run a command of onnxtool in a folder, with a folder of its own for what is temporary."""
    return subprocess.Popen(
        [sys.executable, "-m", "onnxtool", *line.split()],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), "CI": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def left_over(folder: Path) -> list[str]:
    """Processes that work in a folder still, after the time that they have to end in."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            try:
                if process.cwd() == str(folder):
                    found.append(" ".join(process.info["cmdline"] or ()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def whole(output: Path) -> bool:
    """Whether an output can be read by whoever it is for."""
    if output.is_dir():
        manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
        return all(
            hashlib.sha256((output / name).read_bytes()).hexdigest() == sha
            for name, sha in manifest["files"].items()
        )
    if output.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(output))
    elif output.suffix == ".json":
        from onnxtool.reports.json import read

        read(output)
    elif output.suffix == ".npz":
        with np.load(output) as arrays:
            return bool(arrays.files)
    else:
        return output.read_text(encoding="utf-8").rstrip().endswith("</html>")
    return True


def sweep(name: str, points: int) -> dict[str, Any]:
    """Kill one command at moments spread over its run.

    Args:
        name: One of `COMMANDS`.
        points: How many times.

    Returns:
        How many runs were `killed` and how many ended before, and what was wrong with which: `findings`.
    """
    line, output = COMMANDS[name]
    findings: list[dict[str, Any]] = []
    killed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder, temporary = Path(scratch, "work"), Path(scratch, "tmp")
        folder.mkdir()
        temporary.mkdir()
        prepare(folder)
        inputs = state(folder)
        began = time.monotonic()
        start(line, folder, temporary).wait()
        takes_s = time.monotonic() - began
        for point in range(points):
            fresh = point % 2 == 0  # every other time there is no old output
            for path in [folder / file for file in state(folder) if file not in inputs]:
                if fresh:
                    path.unlink(missing_ok=True)
            if fresh:
                shutil.rmtree(folder / "out", ignore_errors=True)
            before = state(folder)
            process = start(line, folder, temporary)
            try:
                process.wait(takes_s * 1.05 * (point + 0.5) / points)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
            orphans = left_over(folder)
            after = state(folder)
            known = {*inputs, "out.onnx", "out.json", "out.html", "out.npz"}
            wrong = [f"orphan: {command}" for command in orphans]
            wrong += [f"left: {file}" for file in after if file not in known and not file.startswith("out/")]
            wrong += [f"left: {path.name}" for path in temporary.iterdir()]
            wrong += [f"changed: {file}" for file in inputs if after.get(file) != inputs[file]]
            for file in {
                path.split("/")[0] for path in after if path not in inputs and after[path] != before.get(path)
            }:
                try:
                    wrong += [] if whole(folder / file) else [f"broken: {file}"]
                except Exception as error:
                    wrong.append(f"broken: {file}: {type(error).__name__}")
            if not fresh:
                wrong += [f"lost: {file}" for file in before if file not in after and not file.startswith("out/")]
            findings += [{"point": point, "what": what} for what in wrong]
            for path in temporary.iterdir():
                shutil.rmtree(path, ignore_errors=True)
        if start(line, folder, temporary).wait() not in (0, 1) or not (folder / output).exists():
            findings.append({"point": points, "what": "the next run fails"})
    return {"points": points, "killed": killed, "takes_s": round(takes_s, 2), "findings": findings}


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.kill", description=__doc__)
    parser.add_argument("--points", type=int, default=210, help="over all commands")
    parser.add_argument("--only", choices=COMMANDS, action="append", help="commands; by default all")
    parser.add_argument("--record", type=Path, help="where the result is kept")
    options = parser.parse_args(arguments)
    chosen = options.only or list(COMMANDS)
    results = {}
    for name in chosen:
        results[name] = sweep(name, -(-options.points // len(chosen)))
        sys.stdout.write(f"{name}: {results[name]}\n")
        sys.stdout.flush()
    keep(options.record, f"kill --points {options.points}", commands=results)
    return 1 if any(result["findings"] for result in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
