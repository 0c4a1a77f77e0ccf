"""Reading and replacing parts of traced arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.tracing.arrays import (
    OPERATIONS,
    Traced,
    UntraceableError,
    astype,
    broadcast,
    emit,
    integers,
    is_rows,
    is_traced,
    lift,
    reshape,
)

ROWS_CHOSEN = (
    "a choice of some rows: a model gives one row for each that it gets. Use numpy.where to change some of them"
)


def get(array: Traced, key: Any) -> Any:
    """A part of an array: any columns, all rows."""
    keys = _whole_key(array, key)
    example = array.example[tuple(keys)] if not any(is_traced(each) for each in keys) else None
    result, axis = array, 0
    added: list[int] = []
    for each in keys:
        if each is None:
            added.append(axis + len(added))
            continue
        size = result.shape[axis]
        if is_traced(each):
            if each.dtype.kind not in "iu" or each.ndim != 1 or is_rows(size):
                raise UntraceableError(ROWS_CHOSEN)
            return np.take(array, each, axis=axis)
        if is_rows(size):
            if not _is_everything(each, size):
                raise UntraceableError(ROWS_CHOSEN)
            axis += 1
            continue
        result, kept = _along(result, each, axis)
        axis += kept
    if example is None or len(added) == 0:
        return result
    return reshape(result, example.shape)


def put(array: Traced, key: Any, value: Any) -> Traced:
    """An array of which a part is replaced: where a condition holds, in some columns, or both."""
    if is_traced(key):
        if key.dtype != bool:
            raise UntraceableError("an assignment to places that are computed")
        return _where(_for_columns(key, array), value, array)
    keys = _whole_key(array, key)
    if any(each is None for each in keys):
        raise UntraceableError("an assignment to a new dimension")
    conditions = [each for each in keys if is_traced(each)]
    axes = [
        axis
        for axis, each in enumerate(keys)
        if not is_traced(each) and not _is_everything(each, array.shape[axis])
    ]
    if any(is_rows(array.shape[axis]) for axis in axes) or len(axes) > 1 or len(conditions) > 1:
        raise UntraceableError(ROWS_CHOSEN)
    plain = [slice(None) if is_traced(each) else each for each in keys]
    old = get(array, tuple(plain))
    new = _where(_for_columns(conditions[0], old), value, old) if conditions else lift(value)
    new = broadcast(astype(new, array.dtype), old.shape)
    if not axes:
        return new
    axis = axes[0]
    places = np.atleast_1d(np.arange(array.shape[axis])[keys[axis]])
    if new.ndim < array.ndim:
        new = reshape(new, [*array.shape[:axis], 1, *array.shape[axis + 1 :]])
    order = np.arange(array.shape[axis])
    order[places] = array.shape[axis] + np.arange(len(places))
    both = emit("Concat", [array, new], np.concatenate([array.example, new.example], axis=axis), axis=axis)
    return emit("Gather", [both, integers(*order.tolist())], np.take(both.example, order, axis=axis), axis=axis)


def _where(condition: Traced, value: Any, otherwise: Traced) -> Traced:
    return astype(lift(np.where(condition, astype(lift(value), otherwise.dtype), otherwise)), otherwise.dtype)


def _for_columns(condition: Traced, array: Traced) -> Traced:
    """A condition on rows, for all columns of them."""
    if condition.dtype != bool:
        raise UntraceableError("an assignment to places that are computed")
    missing = array.ndim - condition.ndim
    return condition if missing <= 0 else reshape(condition, [*condition.shape, *[1] * missing])


def _whole_key(array: Traced, key: Any) -> list[Any]:
    """One entry for each dimension, and None for each that is added."""
    keys = list(key) if isinstance(key, tuple) and not is_traced(key) else [key]
    keys = [np.asarray(each) if isinstance(each, list) else each for each in keys]
    given = sum(each is not None and each is not Ellipsis for each in keys)
    places = [place for place, each in enumerate(keys) if each is Ellipsis]
    rest = [slice(None)] * (array.ndim - given)
    if places:
        return [*keys[: places[0]], *rest, *keys[places[0] + 1 :]]
    return [*keys, *rest]


def _is_everything(key: Any, size: int) -> bool:
    return isinstance(key, slice) and key.indices(size) == (0, size, 1)


def _along(array: Traced, key: Any, axis: int) -> tuple[Traced, int]:
    """The part along one dimension, and whether the dimension stays."""
    size = array.shape[axis]
    if _is_everything(key, size):
        return array, 1
    if isinstance(key, int | np.integer):
        place = lift(np.array(range(size)[key], dtype=np.int64))
        return emit("Gather", [array, place], np.take(array.example, range(size)[key], axis=axis), axis=axis), 0
    places = np.arange(size)[key]
    if places.ndim != 1:
        raise UntraceableError("places that are a matrix")
    return emit(
        "Gather", [array, integers(*places.tolist())], np.take(array.example, places, axis=axis), axis=axis
    ), 1


OPERATIONS |= {"get": get, "put": put}
