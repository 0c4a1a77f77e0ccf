"""The types that a skops archive may name, by how skops uses them.

skops has one list of trusted types for all of its nodes: a name that may be kept could be called just as well. Here
each kind of node (`__loader__` in the archive's `schema.json`) has a rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from onnxtool.models.own_code import is_trusted
from onnxtool.models.safety.admission import OPERATIONS, STAND_INS, Admitted, admit, is_function
from onnxtool.models.safety.attributes import hides_method

DATA = {
    "BytearrayNode": {"builtins.bytearray"},
    "BytesNode": {"builtins.bytes"},
    "DTypeNode": {"numpy.dtype"},
    "DefaultDictNode": {"collections.defaultdict"},
    "DictNode": {"builtins.dict", "collections.OrderedDict", "sklearn.utils.Bunch", "sklearn.utils._bunch.Bunch"},
    "JsonNode": {f"builtins.{kind}" for kind in ("bool", "float", "int", "str", "NoneType")},
    "ListNode": {"builtins.list"},
    "MaskedArrayNode": {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "SetNode": {"builtins.set"},
    "SliceNode": {"builtins.slice"},
    "TupleNode": {"builtins.tuple"},
}
"""Kind of node to the types that it makes of data."""


def refused(schema: Any, trust: Sequence[str]) -> list[str]:
    """Names that a skops archive uses in a way that is not known to be safe.

    Args:
        schema: Its `schema.json`.
        trust: Full names that the user vouches for.

    Raises:
        SourceError: a name is known to be safe, but the installed library does not have it.
        ValueError: it is of an unknown form.
    """
    found = {
        name for node in _nodes(schema) if not is_trusted(name := _name(node), trust) and not _is_known(node, name)
    }
    return sorted(found)


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _name(node: dict[str, Any]) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _is_known(node: dict[str, Any], name: str) -> bool:
    loader = node["__loader__"]
    if loader in DATA:
        return name in DATA[loader]
    if (rule := RULES.get(loader)) is None or name in STAND_INS:  # skops would take what they stand for
        return False
    found = admit(str(node.get("__module__")), str(node.get("__class__")))
    return found is not None and rule(found, node)


def _array(found: Admitted, node: dict[str, Any]) -> bool:
    return found.value is np.ndarray or (isinstance(found.value, type) and issubclass(found.value, np.generic))


def _sparse(found: Admitted, node: dict[str, Any]) -> bool:
    return found.full_name.startswith("scipy.sparse.")


def _type(found: Admitted, node: dict[str, Any]) -> bool:
    return isinstance(found.value, type)


def _function(found: Admitted, node: dict[str, Any]) -> bool:
    return is_function(found)


def _called(found: Admitted, node: dict[str, Any]) -> bool:
    """Scikit-learn's compiled classes, which are given no class, and sets."""
    if found.full_name in ("builtins.frozenset", "builtins.set"):
        return True
    loaders = [inner["__loader__"] for inner in _nodes(node.get("content"))]
    compiled = found.full_name.startswith("sklearn.") and "REDUCE" in OPERATIONS[found.level]
    return compiled and "TypeNode" not in loaders


def _object(found: Admitted, node: dict[str, Any]) -> bool:
    """An estimator whose attributes are its own."""
    if not found.allows("NEWOBJ", ()):
        return False
    state = node.get("content")
    if state is None or not found.value.__dictoffset__:
        return True
    if not isinstance(state, dict) or state.get("__loader__") != "DictNode":
        return False
    return not any(hides_method(found.value, name) for name in state.get("content", ()))


RULES: dict[str, Callable[[Admitted, dict[str, Any]], bool]] = {
    "ConstructorFromReduceNode": _called,
    "FunctionNode": _function,
    "LossNode": _called,
    "NdArrayNode": _array,
    "ObjectNode": _object,
    "SGDNode": _called,
    "SparseMatrixNode": _sparse,
    "TreeNode": _called,
    "TypeNode": _type,
}
"""Kind of node to what it may do with a name that is admitted. Other kinds are refused."""
