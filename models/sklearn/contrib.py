"""What encoders of other libraries know of the columns that they read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from onnxtool.models.sklearn.lineage import is_missing

ENCODERS = frozenset({"category_encoders", "feature_engine"})
"""Libraries whose encoders read data frames, in which missing text is NaN."""


KNOWN_LIBRARIES = ENCODERS | {"sklearn", "imblearn", "xgboost", "lightgbm", "catboost", "interpret", "onnxtool"}
"""Libraries whose steps are known by themselves; others are code of the user's own."""


def library_of(step: Any) -> str:
    """The library that a step's class comes from."""
    return type(step).__module__.partition(".")[0]


def known_categories(step: Any, column: str) -> list[Any]:
    """The values of a column that a fitted encoder has learnt, text or numbers, missing ones left out.

    Args:
        step: An encoder of category_encoders or feature_engine.
        column: The column's name.
    """
    found: dict[Any, None] = {}
    for holder in (step, *(getattr(step, name, None) for name in ("ordinal_encoder", "base_n_encoder"))):
        for name in ("mapping", "mapping_", "encoder_dict_"):
            found |= dict.fromkeys(_values(getattr(holder, name, None), column))
        inner = getattr(holder, "ordinal_encoder", None)
        found |= dict.fromkeys(_values(getattr(inner, "mapping", None), column))
    values = [value for value in found if not is_missing(value)]
    texts = [value for value in values if isinstance(value, str)]  # codes of its own stand among them
    return texts or [value for value in values if isinstance(value, int | float | np.number)]


def _values(mapping: Any, column: str) -> Iterable[Any]:
    """The keys of a column's mapping: a list of mappings that name their column, or a mapping by column."""
    if isinstance(mapping, list):
        mapping = {
            entry["col"]: entry["mapping"] for entry in mapping if isinstance(entry, dict) and "col" in entry
        }
    entry = mapping.get(column) if isinstance(mapping, dict) else None
    if entry is None:
        return ()
    if hasattr(entry, "columns") and all(isinstance(name, str) for name in entry.columns):
        return (
            entry.index.tolist() if entry.index.dtype.kind not in "iu" else ()
        )  # indexed by codes, not by values
    return entry.index.tolist() if hasattr(entry, "index") and not isinstance(entry, list | tuple) else list(entry)
