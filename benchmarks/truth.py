"""Whether `convert` says what bare ONNX Runtime and the estimator say of the rows as they were loaded.

`python -m benchmarks.truth` fits pipelines on the data sets that come with scikit-learn, and on made-up money,
seconds and identifiers; converts each with its rows; and compares the ONNX file with the estimator's own answers to
the float64 rows. The comparison shares nothing with `onnxtool.validators`. Then it measures what an input of float64
costs against one of float32. The result is in reports/truth/. `--only TEXT` runs the cases whose name has the text.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR
from xgboost import XGBClassifier, XGBRegressor

import onnxtool
from onnxtool.files import write_text
from onnxtool.reports.environment import environment

RECORDS = Path(__file__).parents[1] / "reports" / "truth"
RTOL, ATOL = 1e-4, 1e-5
"""Tolerances of numbers, `convert`'s own for float32; labels are equal."""

DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
ANSWERS = {"probabilities": "predict_proba", "scores": "decision_function", "prediction": "predict"}
"""Output of the ONNX model to the method whose answer it is."""

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "scaled forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(50, random_state=0)),
    "scaled histogram gradient boosting": lambda: make_pipeline(MinMaxScaler(), HistGradientBoostingClassifier()),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=30, random_state=0),
    "isolation forest": lambda: IsolationForest(random_state=0),
    "scaled neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier()),
    "scaled support vectors": lambda: make_pipeline(StandardScaler(), SVC()),
    "PCA and forest": lambda: make_pipeline(PCA(3, random_state=0), RandomForestClassifier(30, random_state=0)),
    "scaled XGBoost": lambda: make_pipeline(StandardScaler(), XGBClassifier(n_estimators=30)),
    "scaled LightGBM": lambda: make_pipeline(MinMaxScaler(), LGBMClassifier(n_estimators=30, verbose=-1)),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "scaled forest": lambda: make_pipeline(StandardScaler(), RandomForestRegressor(30, random_state=0)),
    "scaled histogram gradient boosting": lambda: make_pipeline(MinMaxScaler(), HistGradientBoostingRegressor()),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=30, random_state=0),
    "scaled neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsRegressor()),
    "scaled support vectors": lambda: make_pipeline(StandardScaler(), SVR()),
    "PCA and forest": lambda: make_pipeline(PCA(3, random_state=0), RandomForestRegressor(30, random_state=0)),
    "scaled XGBoost": lambda: make_pipeline(StandardScaler(), XGBRegressor(n_estimators=30)),
    "scaled LightGBM": lambda: make_pipeline(MinMaxScaler(), LGBMRegressor(n_estimators=30, verbose=-1)),
}


class Case(NamedTuple):
    """Rows, what they are fitted to, and a pipeline."""

    name: str
    rows: Any
    target: Any
    model: Any


def data() -> Iterator[tuple[str, Any, Any]]:
    """The data sets that come with scikit-learn, and columns as businesses have them, in float64 or int64."""
    for name in ("iris", "wine", "breast_cancer", "digits", "diabetes", "linnerud"):
        loaded = getattr(datasets, f"load_{name}")()
        target = loaded.target[:, 0] if loaded.target.ndim == 2 else loaded.target
        yield name, loaded.data, target
    rng = np.random.default_rng(0)
    count = 1500
    money = np.round(rng.lognormal(4, 1.5, (count, 4)), 2)
    seconds = rng.integers(1_600_000_000, 1_780_000_000, (count, 2)).astype(np.float64)
    ids = rng.integers(10_000_000, 90_000_000, (count, 2))
    share = np.round(rng.random((count, 2)), 3)
    yield "money", money, (money[:, 0] > money[:, 1]).astype(int)
    yield "seconds", np.hstack([seconds, share]), ((seconds[:, 0] // 86_400) % 7 < 2).astype(int)
    yield "identifiers", np.hstack([ids.astype(np.float64), share]), (ids[:, 0] // 1000 % 2).astype(int)
    yield "whole identifiers", ids, (ids[:, 0] // 1000 % 2).astype(int)


def cases() -> Iterator[Case]:
    """Every pipeline on every data set that has targets for it."""
    for name, rows, target in data():
        regression = name in ("diabetes", "linnerud")
        for kind, make in (REGRESSORS if regression else CLASSIFIERS).items():
            if kind.startswith("PCA") and rows.shape[1] < 4:
                continue
            yield Case(f"{name}/{kind}", rows, target, make())


def mismatched_rows(model: Any, rows: Any, path: Path) -> tuple[int, int]:
    """Rows with another number, or another label, than the estimator gives for the rows as loaded."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    found = session.run(None, {entry.name: rows.astype(DTYPES[entry.type])})
    outputs = dict(zip((output.name for output in session.get_outputs()), found, strict=True))
    numbers = np.zeros(len(rows), dtype=bool)
    flips = np.zeros(len(rows), dtype=bool)
    if "label" in outputs:
        flips = np.asarray(outputs["label"]).reshape(-1) != model.predict(rows)
    for name, method in ANSWERS.items():
        if name in outputs and hasattr(model, method):
            truth = np.asarray(getattr(model, method)(rows)).reshape(len(rows), -1)
            gap = np.abs(np.asarray(outputs[name]).reshape(len(rows), -1) - truth)
            numbers |= (gap > ATOL + RTOL * np.abs(truth)).any(axis=1)
    return int(numbers.sum()), int(flips.sum())


def examine(case: Case) -> dict[str, Any]:
    """What `convert` says of a case, and what the estimator does."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        model = case.model.fit(case.rows, case.target)
        path = Path(folder) / "m.onnx"
        try:
            report = onnxtool.convert(model, path, data=case.rows, rtol=RTOL, atol=ATOL)
        except onnxtool.OnnxtoolError as error:
            return {"case": case.name, "error": str(error)}
        numbers, flips = mismatched_rows(model, case.rows, path)
        return {
            "case": case.name,
            "rows": len(case.rows),
            "dtype": report.subjects[0].model.inputs[0].dtype,
            "passed": bool(report),
            "numbers": numbers,
            "flips": flips,
            "ties": _ties(model, case.rows),
        }


def _ties(model: Any, rows: Any) -> int:
    """Rows whose last neighbour and the next one are equally far: scikit-learn takes what its tree comes to first."""
    last = model[-1] if hasattr(model, "steps") else model
    if not isinstance(last, KNeighborsClassifier | KNeighborsRegressor):
        return 0
    distances, _ = last.kneighbors(model[:-1].transform(rows), n_neighbors=last.n_neighbors + 1)
    return int(np.isclose(distances[:, -1], distances[:, -2], rtol=1e-9, atol=0).sum())


def latencies() -> list[dict[str, Any]]:
    """Time of a float64 input as a share of that of a float32 input, the two in turn, medians of 15 rounds."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10_000, 20))
    target = (rows[:, 0] > 0).astype(int)
    found = []
    for kind in (
        "scaled forest",
        "scaled histogram gradient boosting",
        "scaled support vectors",
        "scaled LightGBM",
    ):
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            model = CLASSIFIERS[kind]().fit(rows[:2000], target[:2000])
            sessions = {}
            for dtype in ("float32", "float64"):
                path = Path(folder) / f"{dtype}.onnx"
                onnxtool.convert(model, path, data=rows[:200], input_dtype=dtype, accept_input_rounding=True)
                sessions[dtype] = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for count in (1, 100, 10_000):
            times: dict[str, list[float]] = {dtype: [] for dtype in sessions}
            for _ in range(15):
                for dtype, session in sessions.items():
                    (entry,) = session.get_inputs()
                    feed = {entry.name: rows[:count].astype(DTYPES[entry.type])}
                    runs = max(1, 2000 // count)
                    began = time.perf_counter()
                    for _ in range(runs):
                        session.run(None, feed)
                    times[dtype].append((time.perf_counter() - began) / runs)
            medians = {dtype: float(np.median(values)) for dtype, values in times.items()}
            found.append(
                {"model": kind, "rows": count, "ratio": medians["float64"] / medians["float32"], **medians}
            )
    return found


def page(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    results = record["cases"]
    done = [result for result in results if "error" not in result]
    untrue = [result for result in done if result["passed"] and result["numbers"] + result["flips"]]
    off = [result for result in done if result["numbers"] + result["flips"]]
    dtypes = Counter(result["dtype"] for result in done)
    lines = [
        "# What convert says, and what the estimator says",
        "",
        "Written by `python -m benchmarks.truth`; do not edit. Each pipeline was converted with the rows that it was",
        "fitted on, as loaded (float64, or int64). The ONNX file was compared with the estimator's own answers",
        f"by bare ONNX Runtime, within {ATOL:g} + {RTOL:g}·|answer|; labels must be equal.",
        "",
        f"{len(results)} conversions: {len(done) - len(off)} have 0 rows off and no label that flips; {len(off)} "
        f"have rows off, of which {len(untrue)} passed; {len(results) - len(done)} are errors.",
        "",
        f"Inputs chosen: {', '.join(f'{count} {dtype}' for dtype, count in dtypes.most_common())}.",
        "",
        "| case | input | rows | numbers off | labels off | verdict | equally far neighbours |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['case']} | {r['dtype']} | {r['rows']:,} | {r['numbers']} | {r['flips']} | "
        f"{'passed' if r['passed'] else 'failed'} | {r['ties'] or ''} |"
        if "error" not in r
        else f"| {r['case']} | | | | | error: {r['error'].splitlines()[0]} | |"
        for r in results
    ]
    lines += [
        "",
        "## What a float64 input costs",
        "",
        "Latency as a multiple of that with a float32 input, both in turn, medians of 15 rounds.",
        "",
        "| pipeline | 1 row | 100 rows | 10,000 rows |",
        "|---|---|---|---|",
    ]
    ratios = {(entry["model"], entry["rows"]): entry["ratio"] for entry in record["latencies"]}
    for kind in dict.fromkeys(entry["model"] for entry in record["latencies"]):
        lines.append(f"| {kind} | {' | '.join(f'{ratios[kind, count]:.2f}' for count in (1, 100, 10_000))} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 1 where a verdict is not what the estimator says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this text; the record is not written")
    options = parser.parse_args(arguments)
    results = []
    for case in cases():
        if options.only in case.name:
            results.append(examine(case))
            sys.stdout.write(f"{json.dumps(results[-1])}\n")
            sys.stdout.flush()
    wrong = [r for r in results if "error" in r or r["passed"] != (r["numbers"] + r["flips"] == 0)]
    if not options.only:
        libraries = environment().libraries
        record = {"libraries": libraries, "cases": results, "latencies": latencies()}
        RECORDS.mkdir(exist_ok=True)
        write_text(RECORDS / "truth.json", json.dumps(record, indent=1) + "\n")
        write_text(RECORDS / "README.md", page(record))
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
