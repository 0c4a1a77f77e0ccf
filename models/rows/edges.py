"""Rows at the edges of what a model takes, where operators differ and ordinary rows never come.

A selection that is written as products is wrong at 0 and infinity only; the epsilon of a normalisation shows where a
row is nearly constant; a clamp shows beyond its bounds; a narrower integer shows above what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Tensors, TensorSpec

NONFINITE: Mapping[str, float] = MappingProxyType({"NaN": np.nan, "infinity": np.inf, "-infinity": -np.inf})
"""Names of the groups of rows with values that are no numbers."""
_EACH = 4
"""Ordinary rows into which a value is put."""
_NEARLY = (0.0, 1e-4, 1e-3, 1e-2)
"""Deviations of rows that are nearly constant: variances up to and beyond every usual epsilon, 1e-3 to 1e-12."""
_FAR = (10.0, 100.0, 1e3, 1e4)
_WHOLE = (-1, 2**31 - 1, -(2**31) + 1, 2**31, 2**32 + 1, 2**40, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63) + 1)

# Operators that make a tensor of a size which an input says, by the place of that input; None for any of them.
_SIZING: Mapping[str, frozenset[int] | None] = {
    "ConstantOfShape": None,
    "Expand": frozenset({1}),
    "If": None,
    "Loop": None,
    "OneHot": frozenset({1}),
    "Pad": frozenset({1}),
    "Range": None,
    "Reshape": frozenset({1}),
    "Resize": frozenset({2, 3}),
    "Scan": None,
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
}

_SELECTING = frozenset({
    "And", "Equal", "Greater", "GreaterOrEqual", "Imputer", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or",
    "Where", "Xor",
})  # fmt: skip


def edge_rows(
    specs: Sequence[TensorSpec],
    domains: Mapping[str, Domain],
    rows: Tensors,
    seed: int,
    *,
    sizes: frozenset[str] = frozenset(),
) -> Iterator[tuple[str, Tensors]]:
    """Make rows up, in groups: what they hold and their tensors. No group is sure to be valid: ask the source.

    Args:
        specs: The inputs, all with a dynamic first dimension.
        domains: What is known of their values: those of a vocabulary or with choices keep to them.
        rows: Ordinary rows, into which single values are put; at least four.
        seed: Seed of NumPy's PCG64.
        sizes: Inputs that say how large another tensor is, which no large number is put into.
    """
    rng = np.random.default_rng(seed)
    # Values that float32 has: what rounding an input costs is found on the ordinary rows.
    first = {name: _in_float32(tensor[:_EACH]) for name, tensor in rows.items()}
    free = [spec.name for spec in specs if spec.dtype.startswith("float") and _is_free(domains.get(spec.name))]
    if free:
        for value in (0.0, 1.0, -1.0):
            yield f"{value:g}", _join(_filled(first, free, value), _dotted(first, free, value, rng))
        yield (
            "nearly constant values",
            _join(
                *(_nearly(first, free, center, deviation, rng) for center in (0.0, 1.0) for deviation in _NEARLY)
            ),
        )
    far = [name for name in free if name not in domains or not domains[name].columns]
    if far:
        yield (
            "values up to ±10,000",
            _join(
                *(_single(first, far, sign * value, rng) for value in _FAR for sign in (1, -1)),
                *(_scaled(first, far, value) for value in (10.0, 100.0)),
            ),
        )
        for name, value in NONFINITE.items():
            yield name, _join(_single(first, far, value, rng), _filled(first, far, value))
    for spec in specs:
        if "int" in spec.dtype and spec.name not in domains and spec.name not in sizes:
            kind = np.iinfo(spec.dtype)
            for value in (*_WHOLE, kind.min + 1 if kind.min else 0, kind.max):
                if kind.min <= value <= kind.max:
                    yield f"{spec.name} = {value:,}", _single(first, [spec.name], value, rng)


def sizing_inputs(graph: onnx.GraphProto) -> frozenset[str]:
    """The inputs of a graph that say, directly or not, how large another tensor is."""
    origins: dict[str, frozenset[str]] = {value.name: frozenset({value.name}) for value in graph.input}
    found: set[str] = set()
    for node in graph.node:
        given = [origins.get(name, frozenset()) for name in node.input]
        if node.op_type in _SIZING:
            places = _SIZING[node.op_type]
            found.update(*(names for place, names in enumerate(given) if places is None or place in places))
        if node.op_type != "Shape":
            reached = frozenset().union(*given)
            origins |= dict.fromkeys(node.output, reached)
    return frozenset(found)


def selects(graph: onnx.GraphProto) -> bool:
    """Whether a graph compares or selects, as one that handles NaN or infinities on purpose does.

    Others may have a finite answer to NaN by chance: TensorFlow's pooling leaves it out, and others' do not.
    """
    return any(node.op_type in _SELECTING or node.op_type.startswith("TreeEnsemble") for node in graph.node)


def _is_free(domain: Domain | None) -> bool:
    return domain is None or not (domain.choices or any(column.choices for column in domain.columns))


def _join(*parts: Tensors) -> Tensors:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _filled(rows: Tensors, names: Sequence[str], value: float) -> Tensors:
    """One row of nothing but a value."""
    one = {name: tensor[:1] for name, tensor in rows.items()}
    return one | {name: np.full_like(one[name], value) for name in names}


def _dotted(rows: Tensors, names: Sequence[str], value: float, rng: np.random.Generator) -> Tensors:
    """Rows of which a quarter of the elements have a value."""
    return rows | {
        name: np.where(rng.random(rows[name].shape) < 0.25, np.asarray(value, rows[name].dtype), rows[name])
        for name in names
    }


def _single(rows: Tensors, names: Sequence[str], value: float, rng: np.random.Generator) -> Tensors:
    """A row for each input, with one element of a value."""
    parts = []
    for name in names:
        changed = rows[name][:1].copy()
        flat = changed.reshape(-1)
        flat[rng.integers(flat.size)] = value
        parts.append({other: tensor[:1] for other, tensor in rows.items()} | {name: changed})
    return _join(*parts)


def _scaled(rows: Tensors, names: Sequence[str], factor: float) -> Tensors:
    one = {name: tensor[:1] for name, tensor in rows.items()}
    return one | {name: one[name] * np.asarray(factor, one[name].dtype) for name in names}


def _nearly(
    rows: Tensors, names: Sequence[str], center: float, deviation: float, rng: np.random.Generator
) -> Tensors:
    """A row whose elements deviate little from a value."""
    one = {name: tensor[:1] for name, tensor in rows.items()}
    return one | {
        name: (center + deviation * rng.standard_normal(one[name].shape))
        .astype(np.float32)
        .astype(one[name].dtype)
        for name in names
    }


def _in_float32(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32).astype(array.dtype) if array.dtype == np.float64 else array
