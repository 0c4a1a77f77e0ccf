"""The attributes that a file may set on an object of a known class: data, and none of the class's own names."""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any


def check_attributes(kind: type, state: Any) -> str:
    """Look at a state that a file gives to an instance.

    An attribute of an instance hides a method of its class: `predict` could be any function that may be kept. What
    Python itself reads (`__class__`, `__dict__`) is no attribute of a model either.

    Args:
        kind: The class.
        state: A dictionary of attributes, or a pair of one and of a dictionary of slots; anything else is for the
            class's own `__setstate__`.

    Returns:
        What is wrong with it, after the name of the file; nothing where it is right.
    """
    if not kind.__dictoffset__:  # compiled: its state is data that its own `__setstate__` reads
        return ""
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    for name in attributes if isinstance(attributes, dict) else ():
        if hides_method(kind, name):
            return f"sets {name!r} of {kind.__name__}, which is a method of its class"
    for name in slots if isinstance(slots, dict) else ():
        if not isinstance(inspect.getattr_static(kind, str(name), None), types.MemberDescriptorType):
            return f"sets {name!r} of {kind.__name__}, which is no attribute of it"
    return ""


def hides_method(kind: type, name: object) -> bool:
    """Whether an instance's attribute of this name would stand before a method of its class.

    A property stands before the attribute, and what a cached one found is an attribute.
    """
    if not isinstance(name, str):
        return False
    if name.startswith("__") and name.endswith("__"):
        return True
    found = inspect.getattr_static(kind, name, None)
    if hasattr(type(found), "__set__") or isinstance(found, functools.cached_property):
        return False
    return callable(found) or hasattr(type(found), "__get__")
