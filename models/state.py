"""The state of a model that runs may change, saved so that it can be compared and restored.

Weights of Keras and TensorFlow, and the attributes of a user's own estimators; `models.torch.state` has what PyTorch
needs.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxtool.models.source import SourceModel

_LARGEST = 2**24
"""Bytes of a value beyond which it is not copied for each run: a run of a fitted model does not learn."""

_LIBRARIES = {"builtins", "numpy", "scipy", "pandas", "sklearn", "xgboost", "lightgbm", "catboost", "skl2onnx"}
"""Packages whose estimators are known to predict without changing themselves."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that runs may change.

    Attributes:
        name: For the report.
        read: Gives it.
        write: Puts it back.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


class ModelState:
    """The values of some entries, as they are now.

    Args:
        entries: The entries; one that cannot be copied, or is large, is left out.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._saved: list[tuple[Entry, bytes, Any]] = []
        for entry in entries:
            value = entry.read()
            content = _content(value)
            if content is not None and len(content) <= _LARGEST:
                self._saved.append((entry, content, copy.deepcopy(value)))

    def changes(self) -> list[str]:
        """Names of the entries that are not as they were."""
        return [entry.name for entry, content, _ in self._saved if _content(entry.read()) != content]

    def restore(self) -> None:
        """Put every entry back that is not as it was."""
        for entry, content, value in self._saved:
            if _content(entry.read()) != content:
                entry.write(copy.deepcopy(value))


@contextmanager
def keeping(source: SourceModel, state: ModelState) -> Iterator[None]:
    """Put back what a run changes of a model, and random numbers; its `effects` name what changed."""
    numpy_random, python_random = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        if changed := state.changes():
            state.restore()
            shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            source.remark(
                "its own state", f"Running the source changes it ({shown}). It was put back after each run."
            )
        np.random.set_state(numpy_random)
        random.setstate(python_random)


def weights_of(model: Any) -> Iterator[Entry]:
    """The variables of a Keras or TensorFlow model."""
    for variable in getattr(model, "variables", ()):
        name = str(getattr(variable, "path", None) or variable.name)
        yield Entry(name, lambda v=variable: np.asarray(v.numpy()), variable.assign)  # type: ignore[misc]


def attributes_of(model: Any) -> Iterator[Entry]:
    """The attributes of estimators of the user's own, wherever they are in a model."""
    waiting, seen = [("", model)], set[int]()
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += [(f"{path}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}[{place}]", item) for place, item in enumerate(value)]
        elif isinstance(attributes := getattr(value, "__dict__", None), dict) and hasattr(value, "get_params"):
            if type(value).__module__.partition(".")[0] not in _LIBRARIES:
                yield Entry(path or type(value).__name__, lambda a=attributes: a, _writer(attributes))  # type: ignore[misc]
            waiting += [(f"{path}.{name}".lstrip("."), item) for name, item in attributes.items()]


def _writer(attributes: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def write(value: dict[str, Any]) -> None:
        attributes.clear()
        attributes.update(value)

    return write


def _content(value: Any) -> bytes | None:
    """What is compared: the bytes of an array, else of a pickle; None for what has none."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None
