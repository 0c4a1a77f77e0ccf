"""Which of scikit-learn's estimators convert and agree: `python -m benchmarks.coverage sklearn`.

Every estimator of `sklearn.utils.all_estimators()` is fitted, converted as a user would, and compared with its own
predictions on rows that it has not seen, in float32, in float64 and behind a ColumnTransformer over a data frame
of numbers and text. The last column is skl2onnx alone, without options.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from benchmarks.coverage.bare import rows_off
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
from benchmarks.coverage.table import Outcome, Result, converted, installed, versions_line
from onnxtool.errors import require
from onnxtool.models.onnx.artifact import first_line


def case_names() -> list[str]:
    """Every estimator of scikit-learn on each kind of input: `NAME/float32`, or `NAME/text` for what reads text."""
    return [
        f"{name}/{kind}"
        for name in estimators()
        for kind in ((TEXT,) if name in READERS | DICTIONARIES else KINDS)
    ]


def examine(case: str) -> Result:
    """Fit, convert and compare one case; `upstream` is the outcome with skl2onnx alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = make(*case.split("/"))
        except NoRowsError as error:
            return {"outcome": "no rows", "reason": str(error), "upstream": "no rows"}
        except Exception as error:  # estimators raise anything; a case that does not fit shows in the table
            reason = f"It cannot be fitted: {first_line(error)}"
            return {"outcome": "fails", "reason": reason, "upstream": "fails"}
        count = None if made.rows is None else partial(rows_off, made.model, made.rows)
        outcome, reason = converted(made.model, data=made.rows, inputs=made.inputs, rows_off=count)
        return {"outcome": outcome, "reason": reason, "upstream": upstream(made)}


def upstream(case: Case) -> Outcome:
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
    expected = case.model.predict(case.rows) if hasattr(case.model, "predict") else case.model.transform(case.rows)
    expected = expected.toarray() if hasattr(expected, "toarray") else np.asarray(expected)
    first = np.asarray(given[0]).reshape(np.shape(expected)) if np.size(given[0]) == np.size(expected) else None
    if first is None:
        return "drifts"
    close = (
        np.array_equal(first, expected)
        if expected.dtype.kind in "OUS"
        else np.allclose(first, expected, 1e-4, 1e-4)
    )
    return "agrees" if close else "drifts"


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    return installed("scikit-learn", "skl2onnx", "onnxruntime")


def share(results: Iterable[Result]) -> tuple[int, int]:
    """How many cases convert and agree, and how many there are; those without rows are not counted."""
    outcomes = [result["outcome"] for result in results if result["outcome"] != "no rows"]
    return outcomes.count("agrees"), len(outcomes)


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """The page: a summary, the table, and the reasons.

    Args:
        results: What `examine` returned, by case.
        versions: Those that the results were found with.
    """
    by_estimator: dict[str, dict[str, Result]] = {}
    for case, result in sorted(results.items()):
        name, _, kind = case.partition("/")
        by_estimator.setdefault(name, {})[kind] = result
    agreed, counted = share(results.values())
    alone = [result for result in results.values() if "no rows" not in (result["outcome"], _alone(result))]
    theirs = sum(_alone(result) == "agrees" for result in alone)
    ours = sum(result["outcome"] == "agrees" for result in alone)
    shares = [share(found.values()) for found in by_estimator.values()]
    examined = [cases for _, cases in shares if cases]
    whole = sum(0 < cases == agree for agree, cases in shares)
    lines = [
        "# scikit-learn's estimators",
        "",
        "Written by `python -m benchmarks.coverage sklearn --record reports/coverage/sklearn.json --markdown",
        "reports/coverage/sklearn.md`; do not edit. Each estimator is fitted small, with its defaults where they",
        "serve, converted as a user would, and compared with its own predictions on rows that it has not seen: by",
        "`convert`, and by bare ONNX Runtime and the estimator alone, within 1e-5 of the output's largest number and",
        "1e-4 of each, labels equal. A case agrees where both say so; it is `untrue` where only `convert` does.",
        versions_line(versions),
        "",
        f"**{agreed} of {counted} cases convert and agree ({agreed / max(counted, 1):.1%}); {whole} of",
        f"{len(examined)} estimators do on every kind of input ({whole / max(len(examined), 1):.1%}).**",
        f"Of the {len(alone)} cases over one matrix, {ours} agree here and {theirs} with skl2onnx alone, which is",
        "compared within 1e-4 on the first output only.",
        "",
        "`frame` is a pipeline behind a ColumnTransformer over a data frame of numbers and text; `text` is documents",
        "or dictionaries.",
        "",
        "| estimator | float32 | float64 | frame | text | skl2onnx alone, float32 | float64 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    reasons = []
    for name, found in by_estimator.items():
        shown = [found[kind]["outcome"] if kind in found else "" for kind in (*KINDS, TEXT)]
        others = [_alone(found[kind]) if kind in found else "" for kind in ("float32", "float64")]
        lines.append(f"| {name} | {' | '.join(shown + others)} |")
        kinds: dict[str, list[str]] = {}
        for kind, result in found.items():
            if result["outcome"] != "agrees":
                kinds.setdefault(result["reason"], []).append(kind)
        reasons += [f"- **{name}** ({', '.join(of)}): {reason}" for reason, of in kinds.items()]
    return "\n".join([*lines, "", "## Reasons", "", *reasons]) + "\n"


def _alone(result: Result) -> str:
    """The outcome with skl2onnx alone; of a case that crashed or took too long, it is not known."""
    return result.get("upstream", "no rows")
