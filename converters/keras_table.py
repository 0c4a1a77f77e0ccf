"""Which layers and networks of Keras convert and agree: `python -m onnxtool.converters.keras_table`.

Each is built small with random weights, converted as a user would, and held against Keras itself on generated rows.
Each case runs in a worker process with a time limit, so that a crash costs one row, and its result is kept at once:
a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from onnxtool.converters.keras_cases import (
    NO_MODEL,
    application_model,
    application_names,
    application_rows,
    layer_cases,
    layer_model,
)
from onnxtool.errors import ConversionError, OnnxtoolError, SourceError, require
from onnxtool.files import write_text
from onnxtool.janitor import die_with
from onnxtool.models.artifact import first_line

Result: TypeAlias = dict[str, str]
"""`outcome` (`agrees`, `drifts`, `refused` with a reason, `fails` without one) and `reason`."""

LIMIT_S = 120.0
NETWORK = "applications."


def case_names() -> list[str]:
    """Every case: layers with their variants, then networks."""
    return sorted(layer_cases()) + [f"{NETWORK}{name}" for name in application_names()]


def examine(name: str) -> Result:
    """Build, convert and compare one case."""
    from onnxtool.api import convert

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            network = name.startswith(NETWORK)
            model = application_model(name.removeprefix(NETWORK)) if network else layer_model(name)
        except Exception as error:  # layers raise anything; a case that does not fit shows in the table
            return {"outcome": "fails", "reason": f"It cannot be built: {first_line(error)}"}
        try:
            data = application_rows(model) if network else None
            report = convert(model, Path(folder) / "m.onnx", data=data)
        except (ConversionError, SourceError) as error:
            return {"outcome": "refused", "reason": str(error)}
        except OnnxtoolError as error:
            return {"outcome": "fails", "reason": str(error)}
        except Exception as error:  # whatever it is, it is a row of the table
            return {"outcome": "fails", "reason": f"{type(error).__name__}: {first_line(error)}"}
    parity = report.subjects[0].parity
    if parity is not None and parity.passed:
        return {"outcome": "agrees", "reason": ""}
    return {"outcome": "drifts", "reason": " ".join(check.message for check in report.subjects[0].checks)}


def run(names: Iterable[str], record: Path, workers: int = 2, limit_s: float = LIMIT_S) -> dict[str, Result]:
    """Examine the cases that a record does not hold yet, and keep each result in it.

    Args:
        names: Cases.
        record: A JSON file; results of other versions in it are dropped.
        workers: Processes at a time.
        limit_s: Seconds for a case; the worker is then ended.
    """
    results = from_json(record)
    missing = [name for name in names if name not in results]
    lock = Lock()

    def lane(cases: list[str]) -> None:
        pool = _worker()
        for name in cases:
            try:
                result = pool.submit(examine, name).result(limit_s)
            except (LateError, BrokenProcessPool) as error:
                late = isinstance(error, LateError)
                why = f"It takes longer than {limit_s:.0f} s." if late else "The process crashed."
                result = {"outcome": "fails", "reason": why}
                for process in list((pool._processes or {}).values()):
                    process.kill()
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _worker()
            with lock:
                results[name] = result
                write_text(record, to_json(results))
        pool.shutdown()

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(lane, [missing[place::workers] for place in range(workers)]))
    return results


def _worker() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), die_with, (os.getpid(),))


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    version = require("importlib.metadata", "keras").version
    return {name: version(name) for name in ("keras", "tf2onnx", "onnxruntime")}


def to_json(results: dict[str, Result]) -> str:
    """The record from which the table is made."""
    return json.dumps({"versions": versions(), "results": dict(sorted(results.items()))}, indent=1) + "\n"


def from_json(record: Path) -> dict[str, Result]:
    """What `to_json` wrote with the versions that are installed; nothing else."""
    if not record.exists():
        return {}
    content = json.loads(record.read_text(encoding="utf-8"))
    results: dict[str, Result] = content["results"] if content["versions"] == versions() else {}
    return results


def to_markdown(results: dict[str, Result]) -> str:
    """The table, the reasons, the cases that were not run, and the layers that have no case."""
    agreed = sum(result["outcome"] == "agrees" for result in results.values())
    missing = [name for name in case_names() if name not in results]
    lines = [
        "# Keras's layers and networks",
        "",
        "Written by `python -m onnxtool.converters.keras_table --record reports/coverage/keras.json --markdown",
        "reports/coverage/keras.md`; do not edit. Each case has random weights and running statistics, and is held",
        "against Keras on the TensorFlow backend by the tolerance of `verify`: layers on generated rows, networks",
        "on 8 images. Where a network takes longer than the limit, that says nothing of whether it agrees.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions().items())}.",
        "",
        f"**{agreed} of {len(results)} cases that were run convert and agree; {len(missing)} were not run.**",
        "",
        "| case | outcome | reason |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {result['outcome']} | {result['reason'].replace('|', '/')} |"
        for name, result in sorted(results.items())
    ]
    lines += ["", "## Not run", "", ", ".join(missing) or "None.", "", "## Layers without a case", ""]
    lines += [f"- {name}: {why}." for name, why in NO_MODEL.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m onnxtool.converters.keras_table", description=__doc__)
    parser.add_argument("--only", metavar="REGEX", default=".*", help="cases whose whole name matches")
    parser.add_argument("--record", type=Path, default=Path("keras.json"), help="where results are kept")
    parser.add_argument("--markdown", type=Path, help="where the table goes; by default nowhere")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for a case")
    asked = parser.parse_args(arguments)
    chosen = [name for name in case_names() if re.fullmatch(asked.only, name)]
    results = run(chosen, asked.record, asked.workers, asked.limit)
    outcomes = Counter(results[name]["outcome"] for name in chosen)
    sys.stdout.write(f"{outcomes['agrees']} of {len(chosen)} agree. {dict(outcomes)}\n")
    if asked.markdown:
        write_text(asked.markdown, to_markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
