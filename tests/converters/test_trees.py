"""Trees, forests and boosting take the branches that they take in scikit-learn, in float32 and in float64."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skl2onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from onnxtool.converters.framework import ConvertOptions
from onnxtool.converters.sklearn import FRAMEWORK, convert_registered
from onnxtool.converters.sklearn.trees import float32_at_most, halves_of, quantum_up_to
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.opening import open_source

CLASSIFIERS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "tree, mixed leaves": DecisionTreeClassifier(max_depth=3, random_state=0),
    "random tree": ExtraTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(20, random_state=0),
    "forest, mixed leaves": RandomForestClassifier(20, max_depth=4, random_state=0),
    "extra trees": ExtraTreesClassifier(20, random_state=0),
    "gradient boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    "histogram gradient boosting": HistGradientBoostingClassifier(max_iter=2),
    "boosted stumps": AdaBoostClassifier(n_estimators=10, random_state=0),
    "bagging": BaggingClassifier(max_features=0.5, random_state=0),
    "bagging, mixed leaves": BaggingClassifier(DecisionTreeClassifier(max_depth=3), random_state=0),
}
REGRESSORS = {
    "tree": DecisionTreeRegressor(random_state=0),
    "random tree": ExtraTreeRegressor(random_state=0),
    "forest": RandomForestRegressor(20, random_state=0),
    "extra trees": ExtraTreesRegressor(20, random_state=0),
    "gradient boosting": GradientBoostingRegressor(n_estimators=20, random_state=0),
    "gradient boosting, huber": GradientBoostingRegressor(loss="huber", n_estimators=20, random_state=0),
    "histogram gradient boosting": HistGradientBoostingRegressor(max_iter=10),
    "boosted trees": AdaBoostRegressor(n_estimators=10, random_state=0),
    "bagging": BaggingRegressor(max_features=0.5, random_state=0),
    "isolation": IsolationForest(n_estimators=20, random_state=0),
    "isolation, some outliers": IsolationForest(
        n_estimators=20, max_features=0.5, contamination=0.1, random_state=0
    ),
}
DATA: dict[str, Callable[[], Any]] = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
    "diabetes": load_diabetes,
    "linnerud": load_linnerud,
}
SMALL = 1e-6  # of single precision
SMALL_DOUBLE = 1e-10


def session(model: Any, dtype: str) -> tuple[SourceModel, onnxruntime.InferenceSession]:
    spec = TensorSpec.parse(f"X:{dtype}[batch,{model.n_features_in_}]")
    source = open_source(model, LoadOptions(inputs=(spec,)))
    proto = convert_registered(source, 20).model
    onnx.checker.check_model(proto)
    return source, onnxruntime.InferenceSession(proto.SerializeToString())


def assert_no_drift(model: Any, rows: Any, dtype: str) -> None:
    """No label differs, and no number by more than its own precision, relative to its size or to one."""
    source, runs = session(model, dtype)
    tensors = {"X": np.asarray(rows).astype(dtype)}
    expected = source.predict(tensors)
    for (name, reference), got in zip(expected.items(), runs.run(None, tensors), strict=True):
        assert got.shape == reference.shape
        if name.startswith("label"):
            np.testing.assert_array_equal(got, reference, err_msg=name)
        else:
            assert got.dtype == np.dtype(dtype)
            drift = np.abs(got - reference) / np.maximum(1, np.abs(reference))
            assert drift.max() < (SMALL if dtype == "float32" else SMALL_DOUBLE), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("data", ["iris", "wine", "breast_cancer", "digits"])
def test_no_row_of_scaled_data_drifts(data: str, name: str, dtype: str) -> None:
    loaded = DATA[data]()
    model = make_pipeline(StandardScaler(), clone(CLASSIFIERS[name])).fit(loaded.data, loaded.target)
    assert_no_drift(model, loaded.data, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REGRESSORS)
def test_no_number_drifts(name: str, dtype: str) -> None:
    loaded = load_diabetes()
    model = make_pipeline(StandardScaler(), clone(REGRESSORS[name])).fit(loaded.data, loaded.target)
    assert_no_drift(model, loaded.data, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_targets(dtype: str) -> None:
    loaded = load_linnerud()
    for name in ("tree", "random tree", "forest", "extra trees"):
        assert_no_drift(clone(REGRESSORS[name]).fit(loaded.data, loaded.target), loaded.data, dtype)
    kinds = np.c_[loaded.target[:, 0] > 170, np.digitize(loaded.target[:, 1], [33, 36])]
    for name in ("tree", "random tree", "forest, mixed leaves", "extra trees"):
        assert_no_drift(clone(CLASSIFIERS[name]).fit(loaded.data, kinds), loaded.data, dtype)


# -- Adversarial rows -----------------------------------------------------------------------------------------


def thresholds(model: Any) -> Any:
    """Every threshold of a model, with its feature."""
    for predictor in [one for group in getattr(model, "_predictors", ()) for one in group]:
        for node in predictor.nodes[~predictor.nodes["is_leaf"].astype(bool)]:
            yield node["feature_idx"], node["num_threshold"]
    members = [model] if hasattr(model, "tree_") else np.ravel(getattr(model, "estimators_", ()))
    for member in members:
        inner = member.tree_.children_left >= 0
        yield from zip(member.tree_.feature[inner], member.tree_.threshold[inner], strict=True)


def at_thresholds(model: Any, rows: Any, dtype: Any) -> Any:
    """Rows at each threshold and next to it, in steps of float32 and of float64, and halfway."""
    near = []
    for place, (feature, threshold) in enumerate(thresholds(model)):
        single = np.float32(threshold)
        for value in (
            threshold, np.nextafter(threshold, -np.inf), np.nextafter(threshold, np.inf),
            single, np.nextafter(single, np.float32(-np.inf)), np.nextafter(single, np.float32(np.inf)),
            (float(single) + float(np.nextafter(single, np.float32(np.inf)))) / 2,
        ):  # fmt: skip
            row = rows[place % len(rows)].astype(float)
            row[feature] = value
            near.append(row)
    return np.array(near).astype(dtype)


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(CLASSIFIERS)),
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 2**16),
    st.sampled_from([1.0, 1e-3, 1e30, 255.0]),
)
def test_rows_at_thresholds_take_the_same_branch(name: str, dtype: str, seed: int, size: float) -> None:
    if name.startswith(("bagging", "boosted")):
        name = "tree"
    random = np.random.default_rng(seed)
    rows = random.normal(size=(60, 3)) * size
    rows[:, 2] = np.round(rows[:, 2] / size * 2) * size  # values that repeat
    kinds = np.digitize(rows[:, 0] + rows[:, 2], [-size, size])
    model = clone(CLASSIFIERS[name]).set_params(random_state=seed).fit(rows, kinds)
    near = at_thresholds(model, rows, dtype)
    assert_no_drift(model, near, dtype)


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(allow_nan=False, width=32))
def test_rounded_thresholds_split_float32_rows_as_before(values: list[float], x: float) -> None:
    rounded = float32_at_most(np.array(values))
    for threshold, single in zip(values, rounded.tolist(), strict=True):
        assert (x <= threshold) == (x <= single)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_multiples_of_the_quantum_are_added_without_rounding(values: list[float]) -> None:
    weights = np.array(values)
    quantum = quantum_up_to(float(np.abs(weights).sum()))
    if quantum:
        coarse, fine = halves_of(weights, quantum)
        np.testing.assert_array_equal(coarse + fine, weights)
        shuffled = np.random.default_rng(0).permutation(coarse).astype(np.float32)
        assert np.cumsum(shuffled, dtype=np.float32)[-1] == coarse.sum()


# -- Missing values, options, size ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tree", "forest", "extra trees", "random tree"])
def test_missing_values_go_where_they_went(name: str) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 4))
    rows[random.random(rows.shape) < 0.2] = np.nan
    kinds = (np.nansum(rows, axis=1) > 0).astype(int)
    for dtype in ("float32", "float64"):
        assert_no_drift(clone(CLASSIFIERS[name]).fit(rows, kinds), rows, dtype)


@pytest.mark.parametrize("loss", ["log_loss", "exponential"])
@pytest.mark.parametrize("init", [None, "zero"])
def test_gradient_boosting_starts_where_it_started(loss: str, init: str | None) -> None:
    loaded = load_breast_cancer()
    model = GradientBoostingClassifier(loss=loss, init=init, n_estimators=3).fit(loaded.data, loaded.target)
    assert_no_drift(model, loaded.data, "float32")


@pytest.mark.parametrize(
    ("start", "dtype"),
    [
        (RandomForestClassifier(3, max_depth=2), "float32"),
        (RandomForestClassifier(3, max_depth=2), "float64"),
        (LogisticRegression(C=0.01), "float32"),
    ],
)
@pytest.mark.parametrize(
    ("load", "loss"),
    [(load_iris, "log_loss"), (load_breast_cancer, "log_loss"), (load_breast_cancer, "exponential")],
)
def test_gradient_boosting_starts_from_another_estimator(load: Any, loss: str, start: Any, dtype: str) -> None:
    loaded = load()
    rows = StandardScaler().fit_transform(loaded.data)
    model = GradientBoostingClassifier(loss=loss, init=clone(start), n_estimators=3, random_state=0)
    assert_no_drift(model.fit(rows, loaded.target), rows, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_boosted_regressor_starts_from_a_tree(dtype: str) -> None:
    loaded = load_diabetes()
    model = GradientBoostingRegressor(init=DecisionTreeRegressor(max_depth=2), n_estimators=3)
    assert_no_drift(model.fit(loaded.data, loaded.target), loaded.data, dtype)


SCALERS = [
    StandardScaler(with_mean=False), MinMaxScaler(), MinMaxScaler((-1, 1), clip=True), RobustScaler(), MaxAbsScaler(),
    QuantileTransformer(n_quantiles=50), Normalizer(),
]  # fmt: skip


CASES = [(scaler, dtype) for scaler in SCALERS for dtype in ("float32", "float64")]
CASES.append((PowerTransformer(), "float64"))  # in float32 its logarithms differ between libraries: docs/trees.md


@pytest.mark.parametrize(
    ("scaler", "dtype"), CASES, ids=lambda one: one if isinstance(one, str) else type(one).__name__
)
def test_no_row_drifts_behind_any_scaler(scaler: Any, dtype: str) -> None:
    """On the training rows and on others; each split lies between two scaled training rows."""
    for loaded in (load_digits(), load_wine()):
        rows = loaded.data.astype(dtype)
        model = make_pipeline(clone(scaler), RandomForestClassifier(30, random_state=0)).fit(rows, loaded.target)
        assert_no_drift(model, rows, dtype)
        other = np.random.default_rng(0).permuted(rows, axis=0)
        assert_no_drift(model, other, dtype)


@pytest.mark.parametrize("name", ["forest", "extra trees", "gradient boosting", "histogram gradient boosting"])
def test_weights_and_monotonic_constraints(name: str) -> None:
    loaded = load_breast_cancer()
    weights = np.random.default_rng(0).random(len(loaded.data)) * (loaded.target + 0.5)
    model = clone(CLASSIFIERS[name])
    if "monotonic_cst" in model.get_params():
        model.set_params(monotonic_cst=[1, -1] + [0] * 28)
    assert_no_drift(model.fit(loaded.data, loaded.target, sample_weight=weights), loaded.data, "float32")


def test_labels_of_text_and_a_single_leaf() -> None:
    loaded = load_iris()
    names = loaded.target_names[loaded.target]
    assert_no_drift(RandomForestClassifier(3, random_state=0).fit(loaded.data, names), loaded.data, "float32")
    assert_no_drift(
        DecisionTreeClassifier(max_leaf_nodes=2).fit(loaded.data, loaded.target), loaded.data, "float64"
    )
    assert_no_drift(DecisionTreeRegressor().fit(loaded.data, np.ones(150)), loaded.data, "float32")


def test_committees_of_other_estimators() -> None:
    loaded = load_iris()
    rows = loaded.data / 10
    model = BaggingClassifier(LogisticRegression(), 3, random_state=0).fit(rows, loaded.target)
    assert_no_drift(model, rows, "float32")


def test_pure_leaves_need_one_target_only() -> None:
    loaded = load_digits()
    model = RandomForestClassifier(10, random_state=0).fit(loaded.data, loaded.target)
    proto = FRAMEWORK.convert(open_source(model, LoadOptions()), {}, ConvertOptions()).model
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds[0] == "TreeEnsembleRegressor"
    assert "MatMul" not in kinds


def test_upstreams_double_trees_are_refused() -> None:
    """The reason for our own: once skl2onnx writes them as ONNX Runtime takes them, this test says so."""
    from skl2onnx.operator_converters.decision_tree import convert_sklearn_decision_tree_classifier
    from skl2onnx.shape_calculators.ensemble_shapes import calculate_tree_classifier_output_shapes

    class Upstream(DecisionTreeClassifier):
        pass

    loaded = load_iris()
    model = Upstream(random_state=0).fit(loaded.data, loaded.target)
    skl2onnx.update_registered_converter(
        Upstream,
        "UpstreamTree",
        calculate_tree_classifier_output_shapes,
        convert_sklearn_decision_tree_classifier,
        options={"zipmap": [True, False], "decision_path": [True, False], "decision_leaf": [True, False],
                 "nocl": [True, False], "output_class_labels": [True, False]},
    )  # fmt: skip
    proto = skl2onnx.convert_sklearn(
        model, initial_types=[("X", DoubleTensorType([None, 4]))], options={id(model): {"zipmap": False}}
    )
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        onnxruntime.InferenceSession(proto.SerializeToString())


def test_upstreams_scaled_forest_drifts() -> None:
    """The reason for our scalers and trees: skl2onnx alone sends rows of scaled digits to other leaves."""
    loaded = load_digits()
    rows = loaded.data.astype(np.float32)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(50, random_state=0)).fit(rows, loaded.target)
    script = (
        "import pickle, sys, skl2onnx\n"
        "from skl2onnx.common.data_types import FloatTensorType\n"
        "model = pickle.load(sys.stdin.buffer)\n"
        "types = [('X', FloatTensorType([None, 64]))]\n"
        "onnx = skl2onnx.convert_sklearn(model, initial_types=types, options={'zipmap': False})\n"
        "sys.stdout.buffer.write(onnx.SerializeToString())\n"
    )  # in a process in which nothing of ours is registered
    upstream = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(model), capture_output=True, check=True
    )
    _, probabilities = onnxruntime.InferenceSession(upstream.stdout).run(None, {"X": rows})
    assert (np.abs(probabilities - model.predict_proba(rows)).max(axis=1) > 1e-3).any()
    assert_no_drift(model, rows, "float32")
