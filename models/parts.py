"""Models inside of what a file holds: a dictionary with the columns' names, a list of folds, results of a search.

`m.joblib::model` is the entry `model` of what m.joblib holds, `m.joblib::estimator.2` the third of the list
`estimator` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.errors import SourceError

SEPARATOR = "::"
_DEEPEST, _SHOWN = 5, 12


def file_and_part(source: str) -> tuple[str, str]:
    """A file, and the name of a part of what it holds; "" for all of it."""
    file, separator, part = source.rpartition(SEPARATOR)
    return (file, part) if separator and not Path(source).exists() and Path(file).is_file() else (source, "")


def pick(content: Any, part: str, is_model: Callable[[Any], bool], file: str = "") -> Any:
    """The model that a part is, or the whole content.

    Args:
        content: What a file holds, or a live object.
        part: A name that `models_in` gives, "" for the content itself.
        is_model: Whether an object is a model of any framework.
        file: Where it comes from, for messages.

    Raises:
        SourceError: there is no such part, or the content is no model; the message names those that it holds.
    """
    if not part and is_model(content):
        return content
    found = dict(models_in(content, is_model))
    if part in found:
        return found[part]
    named = _listed(found)
    if not found:
        kind = type(content)
        raise SourceError(f"No framework knows what to do with a {kind.__module__}.{kind.__qualname__}.")
    if not file:
        raise SourceError(f"A {type(content).__name__} is no model. It holds {named}: give one of them.")
    first = f"{file}{SEPARATOR}{next(iter(found))}"
    lack = f"has no model {part!r}" if part else f"holds a {type(content).__name__}, and no model alone"
    raise SourceError(f"{file} {lack}. In it are {named}. Name one of them, as in {first}")


def models_in(content: Any, is_model: Callable[[Any], bool], name: str = "") -> Iterator[tuple[str, Any]]:
    """The models inside dictionaries, lists, tuples and arrays, with the keys and places that lead there."""
    if name and is_model(content):
        yield name, content
        return
    if name.count(".") >= _DEEPEST:
        return
    if isinstance(content, Mapping):
        entries = list(content.items())
    elif isinstance(content, list | tuple) or (isinstance(content, np.ndarray) and content.dtype == object):
        entries = list(enumerate(content))
    else:
        return
    for key, inside in entries:
        yield from models_in(inside, is_model, f"{name}.{key}" if name else str(key))


def _listed(found: Mapping[str, Any]) -> str:
    shown = [f"{name} ({type(model).__name__})" for name, model in list(found.items())[:_SHOWN]]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
