"""Converted ensembles against the source's own `predict`, at three batch sizes; and a forest's memory."""

import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

ROUNDS = {1: 200, 100: 50, 10_000: 7}
LOSES = {("xgboost", 10_000)}
"""XGBoost takes 64 rows a tree at a time; ONNX Runtime all trees a row. See docs/trees.md."""


def _ensembles():
    from catboost import CatBoostClassifier
    from lightgbm import LGBMClassifier
    from sklearn import ensemble
    from xgboost import XGBClassifier

    return {
        "random forest": ensemble.RandomForestClassifier(100, random_state=0),
        "extra trees": ensemble.ExtraTreesClassifier(100, random_state=0),
        "gradient boosting": ensemble.GradientBoostingClassifier(n_estimators=30, random_state=0),
        "histogram gradient boosting": ensemble.HistGradientBoostingClassifier(max_iter=30),
        "xgboost": XGBClassifier(n_estimators=30),
        "lightgbm": LGBMClassifier(n_estimators=30, verbose=-1),
        "catboost": CatBoostClassifier(iterations=30, verbose=0, allow_writing_files=False),
    }


def _seconds(run, rows):
    began = time.perf_counter()
    run(rows)
    return time.perf_counter() - began


@pytest.mark.parametrize("name", _ensembles())
def test_no_slower_than_the_source(benchmark, name):
    import onnxruntime
    from sklearn.datasets import load_digits

    from onnxtool.converters.sklearn import convert_registered
    from onnxtool.models.source import LoadOptions
    from onnxtool.opening import open_source

    digits = load_digits()
    model = _ensembles()[name].fit(digits.data.astype(np.float32), digits.target)
    proto = convert_registered(open_source(model, LoadOptions()), 20).model
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    ratios = {}
    for batch, rounds in ROUNDS.items():
        rows = np.resize(digits.data, (batch, 64)).astype(np.float32)
        rows += np.random.default_rng(0).random(rows.shape, dtype=np.float32)  # no branch learnt by heart
        pairs = [
            (_seconds(model.predict, rows), _seconds(lambda x: session.run(None, {"X": x}), rows))
            for _ in range(rounds)
        ]
        before, after = map(min, zip(*pairs, strict=True))
        ratios[batch] = before / after
    benchmark.extra_info |= {f"times faster, batch {batch}": round(ratio, 2) for batch, ratio in ratios.items()}
    benchmark(lambda: session.run(None, {"X": rows[:100]}))
    assert all(ratio >= 1 for batch, ratio in ratios.items() if (name, batch) not in LOSES), ratios


CONVERT = """
import pickle, resource, sys
import psutil
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from onnxtool.opening import open_source
from onnxtool.converters.sklearn import convert_registered
from onnxtool.models.source import LoadOptions
small = RandomForestClassifier(2).fit(*load_iris(return_X_y=True))
convert_registered(open_source(small, LoadOptions()), 20)  # imports what there is to import
before = psutil.Process().memory_info().rss
model = pickle.load(open(sys.argv[1], "rb"))
convert_registered(open_source(model, LoadOptions()), 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def test_a_forest_of_1000_deep_trees_fits_into_4_times_its_size(benchmark, tmp_path):
    """The peak counts the forest itself."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    rows, target = make_classification(8000, 20, n_informative=12, flip_y=0.1, n_classes=3, random_state=0)
    model = RandomForestClassifier(1000, n_jobs=-1, random_state=0).fit(rows.astype(np.float32), target)
    path = tmp_path / "forest.pkl"
    path.write_bytes(pickle.dumps(model))
    del model
    command = [sys.executable, "-c", CONVERT, str(path)]
    peak = int(benchmark.pedantic(lambda: subprocess.check_output(command), rounds=1, iterations=1))
    times = peak / path.stat().st_size
    benchmark.extra_info |= {"pickle, MB": path.stat().st_size // 10**6, "times its size": round(times, 2)}
    assert times <= 4
