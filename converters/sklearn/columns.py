"""ColumnTransformer wherever it stands: picking by mask or slice, and after steps that give data frames.

skl2onnx 1.20 knows no masks and no slices of names, and looks for names in what a step before gives as one matrix of
unknown width, which cannot hold numbers and text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import require


def register() -> None:
    """Parse ColumnTransformer and Pipeline here, so that one can follow another."""
    parsers = require("skl2onnx._parse", "sklearn").sklearn_parsers_map
    upstream = {kind.__name__: (kind, parse) for kind, parse in parsers.items()}
    transformer, one_matrix = upstream["ColumnTransformer"]
    pipeline, _ = upstream["Pipeline"]

    def parse_columns(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        with _by_position(model, inputs):
            inputs = _in_order(scope, model, inputs)
            return one_matrix(scope, model, inputs, custom_parsers=custom_parsers)

    def parse_steps(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        module = require("skl2onnx._parse", "sklearn")
        classifies = require("sklearn.base", "sklearn").is_classifier
        chain = [step for _, step in model.steps]
        for step, after in zip_longest(chain, chain[1:]):
            if classifies(step) and id(step) not in (scope.options or {}):
                scope.add_options(id(step), scope.get_options(model, {"zipmap": True}))
            if isinstance(step, transformer) and isinstance(after, transformer):
                inputs = _parts(scope, step, inputs, custom_parsers)
            else:
                inputs = module._parse_sklearn(scope, step, inputs, custom_parsers=custom_parsers)
        return inputs

    parsers[transformer] = parse_columns
    parsers[pipeline] = parse_steps


@contextmanager
def _by_position(model: Any, inputs: Any) -> Iterator[None]:
    """Let a ColumnTransformer pick by position while it is parsed, if the inputs' widths are known."""
    widths = [_width(variable) for variable in inputs]
    if widths.count(None) == 1:
        place = widths.index(None)
        widths[place] = model.n_features_in_ - sum(width or 0 for width in widths)
        inputs[place].set_type(type(inputs[place].type)([None, widths[place]]))
    before = model.transformers_
    if None not in widths and sum(width or 0 for width in widths) == model.n_features_in_:
        positions = model._transformer_to_input_indices
        model.transformers_ = [(name, step, list(map(int, positions[name]))) for name, step, _ in before]
    try:
        yield
    finally:
        model.transformers_ = before


def _width(variable: Any) -> int | None:
    shape = variable.type.shape
    return shape[1] if len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 0 else None


def _parts(scope: Any, model: Any, inputs: Any, custom_parsers: Any) -> list[Any]:
    """What each transformer gives, for a step that picks columns: numbers and text are separate."""
    module = require("skl2onnx._parse", "sklearn")
    found = []
    with _by_position(model, inputs):
        inputs = _in_order(scope, model, inputs)
        for name, step, places in model.transformers_:
            if (isinstance(step, str) and step == "drop") or not len(places):
                continue
            if isinstance(step, str):
                found += _picked(scope, inputs, places)
                continue
            (given,) = module._parse_sklearn_column_transformer(
                scope, _only(model, name), inputs, custom_parsers=custom_parsers
            )
            width = model.output_indices_[name]
            given.set_type(type(given.type)([None, width.stop - width.start]))
            found.append(given)
    return found


def _picked(scope: Any, inputs: Any, places: Iterable[int]) -> list[Any]:
    """Single columns of all that comes in."""
    slices = require("skl2onnx._parse", "sklearn")._fetch_input_slice
    where = [(variable, column) for variable in inputs for column in range(_width(variable) or 0)]
    found = []
    for place in places:
        variable, column = where[place]
        (one,) = slices(scope, [variable], [column])
        one.set_type(type(variable.type)([None, 1]))  # its own: skl2onnx lets the two share theirs
        found.append(one)
    return found


def _in_order(scope: Any, model: Any, inputs: Any) -> Any:
    """The inputs; as single columns where skl2onnx would give a transformer its columns in another order."""
    widths = [width for variable in inputs if (width := _width(variable)) is not None]
    if len(widths) < len(inputs):
        return inputs
    which = np.repeat(np.arange(len(inputs)), widths)
    if all(
        _as_given(which, np.asarray(places, dtype=int)) for places in model._transformer_to_input_indices.values()
    ):
        return inputs
    return _picked(scope, inputs, range(len(which)))


def _as_given(which: NDArray[Any], places: NDArray[Any]) -> bool:
    """Whether skl2onnx keeps an order: it takes the columns of an input together, and all of them as they stand.

    Args:
        which: The input of each column.
        places: The columns that are picked.
    """
    given: list[int] = []
    for one in dict.fromkeys(which[places]):
        own = places[which[places] == one]
        given += sorted(own) if len(own) == np.count_nonzero(which == one) else list(own)
    return given == list(places)


def _only(model: Any, name: str) -> Any:
    """The same ColumnTransformer with one of its transformers."""
    alone = copy.copy(model)
    alone.transformers_ = [part for part in model.transformers_ if part[0] == name]
    return alone
