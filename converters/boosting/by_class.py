"""Boosted trees of several classes: an operator a class in place of one for all, which ONNX Runtime runs faster.

A tree of XGBoost's or LightGBM's belongs to one class. For an ensemble of one target ONNX Runtime keeps the leaf's
number in its node and a running sum in a register; for several it looks up the leaf's targets in a list. And the
trees of one class fit into the processor's nearest cache, which all trees do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, helper, numpy_helper

from onnxtool.converters.sklearn.graph import ML, Graph

FEWEST = 16
"""Trees of a class below which one row pays more for the operators than it gains by them; see docs/trees.md."""

LINKS = {b"NONE": "Identity", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}
"""What an ensemble may do with its sums, and the operator that does the same."""


def split_by_class(graph: Graph, node: onnx.NodeProto) -> bool:
    """Replace a classifier's ensemble, in skl2onnx's container, by one of a single target for each class.

    Args:
        graph: Where the node stands.
        node: A TreeEnsembleClassifier.

    Returns:
        Whether it was: of two classes, of few trees or trees that belong to several classes, and behind other links
        it stays as it is.
    """
    given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    labels = given.get("classlabels_int64s") or given.get("classlabels_strings") or []
    link = LINKS.get(given.get("post_transform", b"NONE"))
    classes, spoken_by = np.array(given["class_ids"]), np.array(given["class_treeids"])
    speaks = dict(zip(spoken_by.tolist(), classes.tolist(), strict=True))
    of_one = np.array_equal(classes, [speaks[tree] for tree in spoken_by.tolist()])
    counts = np.bincount([*speaks.values()], minlength=len(labels))
    if len(labels) < 3 or link is None or not of_one or not counts.all() or len(speaks) < FEWEST * len(labels):
        return False
    fields = {
        name: _array(value) for name, value in given.items() if name.startswith(("nodes_", "class_", "base_"))
    }
    owner = np.array([speaks[tree] for tree in fields["nodes_treeids"].tolist()])
    sums = []
    for place in range(len(labels)):
        sums.append(graph.node("TreeEnsembleRegressor", node.input[0], domain=ML, n_targets=1))
        made, nodes, leaves = graph.container.nodes[-1], owner == place, classes == place
        for name, values in fields.items():
            if name.startswith("base_"):
                _add(made, name, values[place : place + 1])
            elif name.startswith("nodes_") and not name.startswith("nodes_hitrates"):
                _add(made, name, values[nodes])
            elif name.startswith("class_") and name != "class_ids":
                _add(made, name.replace("class", "target", 1), values[leaves])
        _add(made, "target_ids", np.zeros(int(leaves.sum()), dtype=np.int64))
    scores = graph.node("Concat", sums, axis=1)
    axis: dict[str, Any] = {"axis": 1} if link == "Softmax" else {}
    graph.labels(scores, text_of(labels))
    _rename_output(graph, node.output[0])
    graph.node(link, scores, **axis)
    _rename_output(graph, node.output[1])
    graph.container.nodes.remove(node)
    return True


def text_of(labels: Sequence[int | bytes]) -> NDArray[Any]:
    """Labels as an ensemble's attribute has them, text decoded."""
    return np.array([label.decode() if isinstance(label, bytes) else label for label in labels])


def _rename_output(graph: Graph, name: str) -> None:
    """Give the last node an output's name that skl2onnx takes for given already."""
    graph.container.nodes[-1].output[0] = name


def _array(value: Any) -> NDArray[Any]:
    """An attribute's values, of which those in double precision come as a tensor."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.array(value, dtype=np.float32 if value and isinstance(value[0], float) else None)


def _add(node: onnx.NodeProto, name: str, values: NDArray[Any]) -> None:
    """Add an attribute; `onnx.helper` would look at each of many numbers."""
    if not values.size:
        return
    if name.endswith("_as_tensor"):
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        node.attribute.add(name=name, type=AttributeProto.TENSOR).t.CopyFrom(tensor)
    elif values.dtype.kind == "f":
        node.attribute.add(name=name, type=AttributeProto.FLOATS).floats.extend(values.tolist())
    elif values.dtype.kind == "S":
        node.attribute.add(name=name, type=AttributeProto.STRINGS).strings.extend(values.tolist())
    else:
        node.attribute.add(name=name, type=AttributeProto.INTS).ints.extend(values.tolist())
