"""ColumnTransformers that stand after another step, choose by a mask, or leave text as text.

skl2onnx looks a column's name up among the inputs of the whole model, knows no masks, and joins all results to one
matrix, which text and numbers cannot share.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from onnxtool.errors import require


def register() -> None:
    """Parse ColumnTransformers here."""
    parsers = require("skl2onnx._parse", "sklearn").sklearn_parsers_map
    parsers[require("sklearn.compose", "sklearn").ColumnTransformer] = _parse


def by_place(step: Any) -> dict[str, Any]:
    """The parts of a ColumnTransformer with places for names and masks; nothing for other steps."""
    if not hasattr(step, "transformers_"):
        return {}
    known = [str(name) for name in getattr(step, "feature_names_in_", ())]
    return {"transformers_": [(name, part, _placed(chosen, known)) for name, part, chosen in step.transformers_]}


def _placed(chosen: Any, known: list[str]) -> Any:
    if isinstance(chosen, slice | int):
        return chosen
    several = [chosen] if isinstance(chosen, str) else list(chosen)
    if several and all(isinstance(one, bool | np.bool_) for one in several):
        return np.flatnonzero(several).tolist()
    return [known.index(one) if isinstance(one, str) else one for one in several]


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    parse = require("skl2onnx._parse", "sklearn")._parse_sklearn_column_transformer
    kept = [(entry, text) for entry in model.transformers_ if (text := _stays_text(entry, inputs)) is not None]
    if len({text for _, text in kept}) < 2:
        return parse(scope, model, inputs, custom_parsers)
    types = require("skl2onnx.common.data_types", "sklearn")
    found = []
    for entry, text in kept:
        alone = copy.copy(model)
        alone.transformers_ = [entry]
        (variable,) = parse(scope, alone, inputs, custom_parsers)
        place = model.output_indices_[entry[0]]
        kind = types.StringTensorType if text else type(variable.type)
        variable.set_type(kind([None, place.stop - place.start]))
        found.append(variable)
    return found


def _stays_text(entry: tuple[str, Any, Any], inputs: Any) -> bool | None:
    """Whether a part gives text; None where it gives nothing."""
    _, part, chosen = entry
    if part == "drop":
        return None
    types = require("skl2onnx.common.data_types", "sklearn").StringTensorType
    look_up = require("skl2onnx.common.utils", "sklearn").get_column_indices
    if isinstance(chosen, slice):
        chosen = range(chosen.start or 0, chosen.stop, chosen.step or 1)
    several = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if not several:
        return None
    places = look_up(several, inputs, multiple=True)
    last = part
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    identity = last == "passthrough" or (type(last).__name__ == "FunctionTransformer" and last.func is None)
    kept = identity or type(last).__name__ == "SimpleImputer"
    return kept and any(isinstance(inputs[place].type, types) for place in places)
