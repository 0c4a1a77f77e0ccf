"""CatBoost's trees, which test the same condition everywhere on a level, as tables.

A row's answers on the levels of a tree, written as bits, are the number of its leaf. So all comparisons of many trees
are one operation on a matrix, the bits are added up, and the leaves are looked up: in place of a walk whose every
step waits for the one before. See docs/trees.md for what that gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxtool.converters.sklearn.graph import Graph

GROUP = 128
"""Trees that are looked up together: more are slower on many rows and take more memory, fewer are slower on one."""

LARGEST = 4.0
"""How much larger than its leaves a table may be, where trees differ in depth."""


@dataclass(frozen=True, slots=True)
class Table:
    """A tree.

    Attributes:
        features: Features of each level, from the root.
        thresholds: Thresholds of each level; a row above it has the bit 1.
        leaves: By their number, whose highest bit is the root's, [2 ** levels, targets].
    """

    features: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    leaves: NDArray[np.float32]


def tables_of(attributes: Mapping[str, Any], targets: int) -> list[Table] | None:
    """The trees of an ensemble, or None where one is no such tree.

    Args:
        attributes: Those of a TreeEnsembleClassifier or TreeEnsembleRegressor.
        targets: How many numbers a leaf has.
    """
    kind = "class" if "class_ids" in attributes else "target"
    weights = np.zeros((len(attributes["nodes_modes"]), targets), dtype=np.float32)
    ids = zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True)
    places = {place: number for number, place in enumerate(ids)}
    for name, (tree, node, target) in enumerate(
        zip(*(attributes[f"{kind}_{part}"] for part in ("treeids", "nodeids", "ids")), strict=True)
    ):
        weights[places[tree, node], target] += attributes[f"{kind}_weights"][name]
    found = []
    for tree in dict.fromkeys(attributes["nodes_treeids"]):
        table = _table(attributes, places, tree, weights)
        if table is None:
            return None
        found.append(table)
    deepest = max(len(table.features) for table in found)
    if len(found) * 2**deepest > LARGEST * sum(len(table.leaves) for table in found):
        return None
    return found


def _table(
    attributes: Mapping[str, Any], places: Mapping[tuple[int, int], int], tree: int, weights: NDArray[np.float32]
) -> Table | None:
    level: list[int] = [0]
    features: list[int] = []
    thresholds: list[float] = []
    modes, missing = attributes["nodes_modes"], attributes.get("nodes_missing_value_tracks_true")
    while True:
        numbers = [places[tree, node] for node in level]
        conditions = {
            (
                modes[n],
                attributes["nodes_featureids"][n],
                attributes["nodes_values"][n],
                bool(missing and missing[n]),
            )
            for n in numbers
        }
        if {mode for mode, *_ in conditions} == {b"LEAF"}:
            return Table(
                np.array(features, dtype=np.int64), np.array(thresholds, dtype=np.float32), weights[numbers]
            )
        if len(conditions) > 1 or next(iter(conditions))[0] != b"BRANCH_GT" or next(iter(conditions))[3]:
            return None
        _, feature, threshold, _ = conditions.pop()
        features.append(feature)
        thresholds.append(threshold)
        level = [attributes[f"nodes_{way}nodeids"][number] for number in numbers for way in ("false", "true")]


def write_sums(graph: Graph, rows: str, tables: Sequence[Table], base: NDArray[np.float32]) -> str:
    """Sum the leaves that each row reaches.

    Args:
        graph: Where to write.
        rows: Name of a float32 matrix, [batch, features].
        tables: At least one.
        base: What the sums start from, [targets].

    Returns:
        The name of the sums, [batch, targets].
    """
    columns = graph.node("Transpose", rows, perm=[1, 0])  # so that a feature's numbers lie together
    depth = max(1, *(len(table.features) for table in tables))
    powers = graph.tensor((2.0 ** np.arange(depth)[::-1]).astype(np.float32).reshape(1, -1))
    parts = []
    for start in range(0, len(tables), GROUP):
        group = tables[start : start + GROUP]
        features, thresholds, leaves = _side_by_side(group, depth)
        conditions = graph.node("Gather", [columns, graph.tensor(features.ravel())], axis=0)
        above = graph.node("Greater", [conditions, graph.tensor(thresholds.reshape(-1, 1))])
        by_level = graph.constant(TensorProto.INT64, [depth, -1])
        bits = graph.node("Reshape", [graph.node("Cast", above, to=TensorProto.FLOAT), by_level])
        numbers = graph.node("MatMul", [powers, bits])  # of powers of two: exact
        by_tree = graph.constant(TensorProto.INT64, [len(group), -1])
        whole = graph.node("Cast", graph.node("Reshape", [numbers, by_tree]), to=TensorProto.INT32)
        starts = graph.tensor((np.arange(len(group)) * 2**depth).astype(np.int32).reshape(-1, 1))
        reached = graph.node("Add", [whole, starts])
        found = graph.node("Gather", [graph.tensor(leaves.reshape(-1, leaves.shape[2])), reached], axis=0)
        parts.append(graph.node("ReduceSum", [found, graph.constant(TensorProto.INT64, [0])], keepdims=0))
    return graph.node("Sum", [*parts, graph.tensor(base.reshape(1, -1))])


def _side_by_side(
    tables: Sequence[Table], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Features and thresholds, [depth, trees], and leaves, [trees, 2 ** depth, targets]."""
    features = np.zeros((depth, len(tables)), dtype=np.int64)
    thresholds = np.full((depth, len(tables)), np.inf, dtype=np.float32)  # a tree that is not as deep: bits of 0
    leaves = np.zeros((len(tables), 2**depth, tables[0].leaves.shape[1]), dtype=np.float32)
    for place, table in enumerate(tables):
        first = depth - len(table.features)
        features[first:, place], thresholds[first:, place] = table.features, table.thresholds
        leaves[place, : len(table.leaves)] = table.leaves
    return features, thresholds, leaves
