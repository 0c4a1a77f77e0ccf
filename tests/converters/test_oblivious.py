"""CatBoost's trees as tables: each row reaches the leaf that it reaches in the ensemble's operator."""

from collections import Counter

import catboost
import numpy as np
import onnx
import onnxruntime
import pytest
import xgboost

from onnxtool.converters import boosting
from onnxtool.converters.boosting.oblivious import GROUP, tables_of
from onnxtool.converters.framework import ConvertOptions, frameworks
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source
from onnxtool.validators.parity.thresholds import graph_thresholds

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(300, 5)).astype(np.float32)
ROWS[RNG.random(ROWS.shape) < 0.05] = np.nan
TARGET = np.nan_to_num(ROWS[:, 0]) - np.nan_to_num(ROWS[:, 1]) * np.nan_to_num(ROWS[:, 2])
CLASSES = np.digitize(TARGET, (-0.5, 0.4))


def regressor(**options):
    model = catboost.CatBoostRegressor(**{"iterations": 20, "verbose": 0, "allow_writing_files": False} | options)
    return model.fit(ROWS, TARGET)


def classifier(labels, **options):
    model = catboost.CatBoostClassifier(**{"iterations": 20, "verbose": 0, "allow_writing_files": False} | options)
    return model.fit(ROWS, labels)


MODELS = {
    "regressor": regressor,
    "more trees than go together": lambda: regressor(iterations=2 * GROUP + 5, depth=3),
    "depth of 1": lambda: regressor(depth=1),
    "one tree": lambda: regressor(iterations=1),
    "poisson": lambda: catboost.CatBoostRegressor(
        iterations=20, verbose=0, allow_writing_files=False, loss_function="Poisson"
    ).fit(ROWS, np.digitize(TARGET, (0, 1))),
    "two classes": lambda: classifier((CLASSES > 0).astype(int)),
    "three classes": lambda: classifier(CLASSES),
    "labels of text": lambda: classifier(np.array(["c", "a", "b"])[CLASSES]),
    "one against all": lambda: classifier(CLASSES, loss_function="MultiClassOneVsAll"),
}


def converted(model):
    source = open_source(model, LoadOptions())
    return frameworks()[source.framework].convert(source, {}, ConvertOptions()).model


def run(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})


def at_borders(model):
    """Rows at every threshold of the ensemble and one step to either side, missing and endless numbers among them."""
    (node,) = (node for node in model.graph.node if node.op_type.startswith("TreeEnsemble"))
    fields = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    marks = np.unique(
        np.float32([v for v, m in zip(fields["nodes_values"], fields["nodes_modes"], strict=True) if m != b"LEAF"])
    )
    with np.errstate(over="ignore"):  # a missing number is below all: the threshold is float32's least
        hstack = [np.nextafter(marks, np.float32(way)) for way in (-np.inf, np.inf)]
    near = np.concatenate([marks, *hstack, np.float32([np.nan, np.inf, -np.inf, 0, -0.0])])
    return np.random.default_rng(1).choice(near, size=(2000, 5)).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_leaves_at_every_threshold(name, monkeypatch):
    model = MODELS[name]()
    tables = converted(model)
    monkeypatch.setattr(boosting, "_write_tables", lambda *arguments: False)
    ensemble = converted(model)
    kinds = Counter(node.op_type for node in tables.graph.node)
    assert not any(kind.startswith("TreeEnsemble") for kind in kinds)
    assert kinds["MatMul"] == -(-model.tree_count_ // GROUP)
    rows = at_borders(ensemble)
    for batch in (rows, rows[:1], ROWS):
        for found, expected in zip(run(tables, batch), run(ensemble, batch), strict=True):
            assert found.shape == expected.shape
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
            else:
                np.testing.assert_array_equal(found, expected)
    if len(tables.graph.output) == 2:
        np.testing.assert_array_equal(run(tables, ROWS)[0].astype(str), model.predict(ROWS).ravel().astype(str))
        np.testing.assert_allclose(run(tables, ROWS)[1], model.predict_proba(ROWS), atol=1e-5)
    else:
        np.testing.assert_allclose(run(tables, ROWS)[0].ravel(), model.predict(ROWS), rtol=1e-5, atol=1e-5)


def test_thresholds_are_found_in_the_graph(monkeypatch):
    model = regressor()
    tables = graph_thresholds(converted(model))["X"]
    monkeypatch.setattr(boosting, "_write_tables", lambda *arguments: False)
    ensemble = graph_thresholds(converted(model))["X"]
    assert tables.keys() == ensemble.keys()
    for column, marks in ensemble.items():
        np.testing.assert_array_equal(tables[column], marks)


def attributes_of(model):
    (node,) = (node for node in converted(model).graph.node if node.op_type.startswith("TreeEnsemble"))
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def test_trees_that_ask_different_questions_on_a_level_are_no_tables(monkeypatch):
    assert tables_of(attributes_of(xgboost.XGBRegressor(n_estimators=3).fit(ROWS, TARGET)), 1) is None
    monkeypatch.setattr(boosting, "_write_tables", lambda *arguments: False)
    symmetric = attributes_of(regressor(iterations=3))
    assert len(tables_of(symmetric, 1)) == 3
    for change in (
        {"nodes_modes": [b"BRANCH_LEQ" if m == b"BRANCH_GT" else m for m in symmetric["nodes_modes"]]},
        {"nodes_missing_value_tracks_true": [1] * len(symmetric["nodes_modes"])},
        {"nodes_featureids": [*range(len(symmetric["nodes_modes"]))]},
    ):
        assert tables_of(symmetric | change, 1) is None


def test_a_table_is_not_much_larger_than_its_leaves(monkeypatch):
    """Were all trees written as deep as the deepest, a few deep ones would fill the memory."""
    monkeypatch.setattr(boosting, "_write_tables", lambda *arguments: False)
    deep, flat = attributes_of(regressor(iterations=1, depth=10)), attributes_of(regressor(iterations=50, depth=1))
    for fields in (deep, flat):
        assert tables_of(fields, 1) is not None
    shift = len(set(flat["nodes_treeids"]))
    both = {
        name: [*flat[name], *(value + shift if "treeids" in name else value for value in deep[name])]
        for name in flat
        if isinstance(flat[name], list) and name in deep
    }
    assert tables_of(both, 1) is None
