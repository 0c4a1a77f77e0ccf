"""RandomTreesEmbedding: which leaf of each tree a row reaches; skl2onnx 1.20 refuses its sparse output."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from onnxtool.converters.sklearn.registration import transformer
from onnxtool.converters.sklearn.trees import Tree, total
from onnxtool.converters.sklearn.values import Value


def register() -> None:
    """Register this family."""
    transformer("ensemble.RandomTreesEmbedding", _leaves)


def _leaves(rows: Value, model: Any) -> Value:
    """One for the leaf that is reached, zero for the others."""
    known = model.one_hot_encoder_.categories_
    width = sum(map(len, known))
    trees, start = [], 0
    for member, leaves in zip(model.estimators_, known, strict=True):
        values = np.zeros((member.tree_.node_count, width))
        values[np.asarray(leaves, dtype=int), start + np.arange(len(leaves))] = 1.0
        trees.append(Tree(member.tree_, values))
        start += len(leaves)
    single = rows.apply("Cast", to=TensorProto.FLOAT)
    sums, _ = total(rows.graph, single.name, trees, np.zeros(width), exact=False)
    return Value(rows.graph, sums, rows.narrow).double()
