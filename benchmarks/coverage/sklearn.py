"""Which of scikit-learn's estimators convert and agree: `python -m benchmarks.coverage.sklearn`.

Every estimator of `sklearn.utils.all_estimators()` is fitted, converted as a user would, and held against its own
predictions on rows that it has not seen, in float32, in float64 and behind a ColumnTransformer over a data frame
of numbers and text. skl2onnx alone, without options, stands beside it. Each case runs in a worker process with a
time limit, so that a crash costs one row of the table.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.coverage.sklearn_cases import (
    DICTIONARIES,
    KINDS,
    READERS,
    TEXT,
    Case,
    NoRowsError,
    estimators,
    make,
)
from benchmarks.coverage.table import Outcome, converted, examine_each, installed
from onnxtool.errors import require
from onnxtool.files import write_text
from onnxtool.models.onnx.artifact import first_line

LIMIT_S = 60.0
"""What one case may take."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one estimator on one kind of input.

    Attributes:
        name: The estimator's class.
        kind: `float32`, `float64` or `frame`; `text` for what reads documents.
        outcome: `agrees`; `drifts` by more than the rounding of the model explains; `refused` with a reason;
            `fails` without one; `no rows`, which is not counted, where it says nothing of new rows of a table.
        reason: Why, or how much.
        upstream: The outcome with skl2onnx alone.
    """

    name: str
    kind: str
    outcome: Outcome
    reason: str = ""
    upstream: Outcome = "refused"


def names() -> list[str]:
    """Every estimator of scikit-learn, in alphabetical order."""
    return list(estimators())


def examine(name: str, kind: str) -> Result:
    """Fit, convert and compare one estimator on one kind of input."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case = make(name, kind)
        except NoRowsError as error:
            return Result(name, kind, "no rows", str(error), "no rows")
        except Exception as error:  # estimators raise anything; a case that does not fit shows in the table
            return Result(name, kind, "fails", f"It cannot be fitted: {first_line(error)}", "fails")
        outcome, reason = converted(case.model, data=case.rows, inputs=case.inputs)
        return Result(name, kind, outcome, reason, _upstream(case))


def _upstream(case: Case) -> Outcome:
    """The same with skl2onnx alone: its default options, one matrix, within 1e-4 of the source."""
    if case.kind in ("frame", TEXT):
        return "no rows"  # what it takes then is not one matrix, and needs a user's help
    skl2onnx = require("skl2onnx", "sklearn")
    runtime = require("onnxruntime", "cpu")
    try:
        model = skl2onnx.to_onnx(case.model, case.rows[:1], target_opset=20)
    except Exception:  # converters raise anything
        return "refused"
    try:
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = session.run(None, {session.get_inputs()[0].name: case.rows})
    except Exception:  # ONNX Runtime's exceptions have no common base
        return "fails"
    said = case.model.predict(case.rows) if hasattr(case.model, "predict") else case.model.transform(case.rows)
    said = said.toarray() if hasattr(said, "toarray") else np.asarray(said)
    first = np.asarray(given[0]).reshape(np.shape(said)) if np.size(given[0]) == np.size(said) else None
    if first is None:
        return "drifts"
    close = np.array_equal(first, said) if said.dtype.kind in "OUS" else np.allclose(first, said, 1e-4, 1e-4)
    return "agrees" if close else "drifts"


# -- Running --------------------------------------------------------------------------------------------------


def run(chosen: Iterable[str], workers: int = 2, limit_s: float = LIMIT_S) -> list[Result]:
    """Examine estimators on every kind of input, each case in a worker process.

    Args:
        chosen: Names of classes.
        workers: Processes at a time.
        limit_s: Seconds for a case; the worker is then ended.
    """
    cases = [(name, kind) for name in chosen for kind in kinds_of(name)]
    found: list[Result] = []
    examine_each(
        _examine,
        cases,
        lost=lambda case, why: Result(*case, "fails", why),
        keep=lambda _, result: found.append(result),
        workers=workers,
        limit_s=limit_s,
    )
    return sorted(found, key=lambda result: (result.name, (*KINDS, TEXT).index(result.kind)))


def _examine(case: tuple[str, str]) -> Result:
    return examine(*case)


# -- The table ------------------------------------------------------------------------------------------------


def share(results: Iterable[Result]) -> tuple[int, int]:
    """How many cases convert and agree, and how many there are; those without rows are not counted."""
    counted = [result for result in results if result.outcome != "no rows"]
    return sum(result.outcome == "agrees" for result in counted), len(counted)


def to_json(results: list[Result], versions: dict[str, str]) -> str:
    """The record from which the table is made."""
    return json.dumps({"versions": versions, "results": [asdict(result) for result in results]}, indent=1) + "\n"


def from_json(text: str) -> tuple[list[Result], dict[str, str]]:
    """What `to_json` wrote."""
    record = json.loads(text)
    return [Result(**entry) for entry in record["results"]], record["versions"]


def to_markdown(results: list[Result], versions: dict[str, str]) -> str:
    """The page of the docs: a summary, the table, and the reasons."""
    agreed, counted = share(results)
    alone = [result for result in results if result.upstream != "no rows" and result.outcome != "no rows"]
    upstream = sum(result.upstream == "agrees" for result in alone)
    ours = sum(result.outcome == "agrees" for result in alone)
    estimators = {result.name for result in results if result.outcome != "no rows"}
    whole = sum(
        all(result.outcome in ("agrees", "no rows") for result in results if result.name == name)
        for name in estimators
    )
    lines = [
        "# scikit-learn's estimators",
        "",
        "Written by `python -m benchmarks.coverage.sklearn --json reports/coverage/sklearn.json --markdown",
        "reports/coverage/sklearn.md`; do not edit. Each estimator is fitted small, with its defaults where they",
        "serve, converted as a user would, and held against its own predictions on rows that it has not seen, by the",
        "tolerance of `verify`.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        "",
        f"**{agreed} of {counted} cases convert and agree ({agreed / max(counted, 1):.1%}); {whole} of",
        f"{len(estimators)} estimators do on every kind of input ({whole / max(len(estimators), 1):.1%}).**",
        f"Of the {len(alone)} cases over one matrix, {ours} agree here and {upstream} with skl2onnx alone, which is",
        "held to 1e-4 on the first output only.",
        "",
        "`frame` is a pipeline behind a ColumnTransformer over a data frame of numbers and text; `text` is documents",
        "or dictionaries.",
        "",
        "| estimator | float32 | float64 | frame | text | skl2onnx alone, float32 | float64 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    reasons: dict[str, dict[str, list[str]]] = {}
    for name in sorted({result.name for result in results}):
        found = {result.kind: result for result in results if result.name == name}
        shown = [found[kind].outcome if kind in found else "" for kind in (*KINDS, TEXT)]
        others = [found[kind].upstream if kind in found else "" for kind in ("float32", "float64")]
        lines.append(f"| {name} | {' | '.join(shown + others)} |")
        for result in found.values():
            if result.outcome != "agrees":
                reasons.setdefault(name, {}).setdefault(result.reason, []).append(result.kind)
    lines += ["", "## Reasons", ""]
    for name, said in reasons.items():
        lines += [f"- **{name}** ({', '.join(kinds)}): {reason}" for reason, kinds in said.items()]
    return "\n".join(lines) + "\n"


def kinds_of(name: str) -> tuple[str, ...]:
    """The kinds of input on which an estimator is examined."""
    return (TEXT,) if name in READERS | DICTIONARIES else KINDS


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    return installed("scikit-learn", "skl2onnx", "onnxruntime")


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage.sklearn", description=__doc__)
    parser.add_argument("--only", metavar="REGEX", default="", help="estimators whose whole name matches")
    parser.add_argument("--json", type=Path, help="where the record goes; by default nowhere")
    parser.add_argument("--markdown", type=Path, help="where the table goes; by default nowhere")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for a case")
    asked = parser.parse_args(arguments)
    chosen = [name for name in names() if not asked.only or re.fullmatch(asked.only, name)]
    results = run(chosen, asked.workers, asked.limit)
    for result in results:
        if result.outcome != "agrees":
            sys.stdout.write(f"{result.name:30} {result.kind:8} {result.outcome:8} {result.reason[:160]}\n")
    agreed, counted = share(results)
    outcomes = Counter(result.outcome for result in results)
    sys.stdout.write(f"{agreed} of {counted} agree. {dict(outcomes)}\n")
    if asked.json:
        write_text(asked.json, to_json(results, versions()))
    if asked.markdown:
        write_text(asked.markdown, to_markdown(results, versions()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
