"""Selections and tables of TensorFlow: values that ordinary rows do not hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxtool
from onnxtool.models.tensorflow import import_tensorflow

FUNCTIONS: dict[str, tuple[Callable[[Any, Any], Any], list[float]]] = {
    "1/x": (lambda tf, x: tf.where(x != 0, 1 / x, 0.0), [0.0, 1, 2, 3]),
    "log": (lambda tf, x: tf.where(x > 0, tf.math.log(x), 0.0), [-1.0, 0, 2, 3]),
    "finite": (lambda tf, x: tf.where(tf.math.is_finite(x), x, 0.0), [np.nan, np.inf, 2, 3]),
}
TABLES: dict[str, tuple[list[Any], list[Any], Any]] = {
    "text to number": (["a", "b", "c"], [5, 6, 7], -1),
    "number to number": ([10, 20, 30], [5, 6, 7], -1),
    "number to text": ([10, 20, 30], ["x", "y", "z"], "?"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_selection_leaves_the_other_branch_out(name: str, tmp_path: Path) -> None:
    tf = import_tensorflow()
    function, row = FUNCTIONS[name]
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": function(tf, x) * 2}, input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")]
    )
    tf.saved_model.save(module, tmp_path / "m", signatures=module.f.get_concrete_function())
    assert onnxtool.convert(tmp_path / "m", tmp_path / "m.onnx", sandbox=None)
    assert "Where" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    given = np.array([row], np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": given})[0], module.f(tf.constant(given))["y"], rtol=1e-6)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_whose_entries_are_swapped_fails(name: str, tmp_path: Path) -> None:
    tf = import_tensorflow()
    keys, values, default = TABLES[name]
    dtypes = [tf.string if isinstance(some[0], str) else tf.int64 for some in (keys, values)]
    module = tf.Module()
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(keys, dtypes[0]), tf.constant(values, dtypes[1]))
    module.table = tf.lookup.StaticHashTable(pairs, default)
    module.f = tf.function(
        lambda x: {"y": module.table.lookup(x)}, input_signature=[tf.TensorSpec([None, 3], dtypes[0], "x")]
    )
    tf.saved_model.save(module, tmp_path / "m", signatures=module.f.get_concrete_function())
    assert onnxtool.convert(tmp_path / "m", tmp_path / "m.onnx", sandbox=None)
    wrong, swapped = onnx.load(tmp_path / "m.onnx"), False
    for node in wrong.graph.node:
        for attribute in node.attribute:
            entries = {"cats_strings": attribute.strings, "keys_int64s": attribute.ints}.get(attribute.name, [])
            if len(entries) > 1:
                entries[0], entries[1] = entries[1], entries[0]
                swapped = True
    assert swapped
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert not onnxtool.verify(tmp_path / "wrong.onnx", tmp_path / "m", sandbox=None)
