"""Text: comparing it, finding it among known words, and looking up what a word stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxtool.converters.tracing.arrays import Traced, UntraceableError, current, emit, is_traced, lift
from onnxtool.converters.tracing.recording import ML


def places_among(array: Traced, words: Sequence[str]) -> Traced:
    """The place of each text among words, and their number where it is none of them; int64, of the same shape."""
    known = {word: place for place, word in reversed(list(enumerate(words)))}
    example = np.array([known.get(value, len(words)) for value in array.example.ravel()], dtype=np.int64)
    keys, places = list(known), list(known.values())
    if not keys:
        return _none_of(array)
    return emit(
        "LabelEncoder", [array], example.reshape(array.shape), ML,
        keys_strings=keys, values_int64s=places, default_int64=len(words),
    )  # fmt: skip


def _none_of(array: Traced) -> Traced:
    return emit(
        "LabelEncoder", [array], np.zeros_like(array.example, dtype=np.int64), ML,
        keys_strings=[""], values_int64s=[0], default_int64=0,
    )  # fmt: skip


def text_among(array: Traced, words: Sequence[str]) -> Any:
    """Whether each text is one of some words."""
    distinct = list(dict.fromkeys(words))
    return np.less(places_among(array, distinct), len(distinct))


def compare_text(name: str, *inputs: Any) -> Any:
    """What a universal function does to text: it is equal or not, and is joined to other text."""
    if name not in ("equal", "not_equal", "add") or len(inputs) != 2:
        raise UntraceableError(f"numpy.{name} of text")
    a, b = inputs
    if name == "add":
        parts = [lift(np.array(each, dtype=object)) if isinstance(each, str) else lift(each) for each in inputs]
        if current().recording.opset < 20 or any(part.dtype != object for part in parts):
            raise UntraceableError("text that is joined, which needs opset 20")
        return emit("StringConcat", parts, parts[0].example + parts[1].example)
    if not is_traced(a):
        a, b = b, a
    if isinstance(b, str):
        same = text_among(a, [b])
    elif is_traced(b) and b.dtype == object and a.dtype == object:
        if current().recording.opset < 19:
            raise UntraceableError("columns of text that are compared, which needs opset 19")
        same = emit("Equal", [a, b], np.equal(a.example, b.example).astype(bool))
    else:
        same = np.zeros_like(a, dtype=bool)  # text is no number
    return np.logical_not(same) if name == "not_equal" else same


def changed_case(array: Traced, action: str) -> Traced:
    """In lower or upper case; of ASCII's letters and all others that the C.UTF-8 locale knows.

    Args:
        array: Text, of one dimension.
        action: `LOWER` or `UPPER`.
    """
    change = str.lower if action == "LOWER" else str.upper
    example = np.array([change(value) for value in array.example.ravel()], dtype=object).reshape(array.shape)
    return emit(
        "StringNormalizer", [array], example, case_change_action=action, is_case_sensitive=1, locale="C.UTF-8"
    )


def matches(array: Traced, pattern: str) -> Traced:
    """Whether a whole text is what a pattern of RE2 says."""
    if current().recording.opset < 20:
        raise UntraceableError("a pattern of text, which needs opset 20")
    compiled = re.compile(pattern, re.DOTALL)
    example = np.array([bool(compiled.fullmatch(value)) for value in array.example.ravel()]).reshape(array.shape)
    return emit("RegexFullMatch", [array], example, pattern=f"(?s){pattern}")
