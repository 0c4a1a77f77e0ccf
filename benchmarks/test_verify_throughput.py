"""verify over a million rows of 20 columns, against a bare loop over the same chunks of both models."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import onnxtool

ROWS, COLUMNS, CHUNK = 1_000_000, 20, 16_384
ROUNDS = 5

rng = np.random.default_rng(0)
X = rng.normal(size=(5000, COLUMNS)).astype(np.float32)
Y = (X @ rng.normal(size=COLUMNS) > 0).astype(int)
MODELS = {
    "mlp": lambda: make_pipeline(StandardScaler(), MLPClassifier((128, 128), max_iter=5)).fit(X, Y),
    "forest": lambda: RandomForestClassifier(20, max_depth=8, n_jobs=1, random_state=0).fit(X, Y),
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
}
# A logistic regression takes 0.2 us a row in both together: reading the row and comparing it takes as long.
LEAST = {"mlp": 0.8, "forest": 0.8, "logistic": 0.3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32))
    return path


def bare(source: object, model: Path, data: Path) -> float:
    """Rows a second of what any comparison must do."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = np.load(data)
    began = time.perf_counter()
    for start in range(0, ROWS, CHUNK):
        chunk = rows[start : start + CHUNK]
        source.predict(chunk)
        source.predict_proba(chunk)
        session.run(None, {name: chunk})
    return ROWS / (time.perf_counter() - began)


def ours(source: object, model: Path, data: Path) -> float:
    """Rows a second of verify, reading the file and all."""
    began = time.perf_counter()
    assert onnxtool.verify(model, source, data=data)
    return ROWS / (time.perf_counter() - began)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("name", MODELS)
def test_throughput(benchmark, name: str, data: Path, tmp_path: Path) -> None:
    """Each in turn in one process, so that both see the same machine."""
    source, model = MODELS[name](), tmp_path / "model.onnx"
    onnxtool.convert(source, model)

    def pairs() -> list[float]:
        ratios = []
        for turn in range(ROUNDS):
            rates = {side: side(source, model, data) for side in ((bare, ours) if turn % 2 else (ours, bare))}
            ratios.append(rates[ours] / rates[bare])
        return ratios

    ratios = benchmark.pedantic(pairs, rounds=1)
    ratio = statistics.median(ratios)
    benchmark.extra_info.update(ratio=round(ratio, 3), ratios=[round(value, 3) for value in sorted(ratios)])
    assert ratio >= LEAST[name]
