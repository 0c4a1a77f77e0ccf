"""Own converters are known to skl2onnx while onnxtool converts, and at no other time.

They are registered through skl2onnx's public function, whose tables are the process's: someone who uses skl2onnx
must find it unchanged.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeAlias

from onnxtool.errors import require

Table: TypeAlias = dict[Any, Any]

STEPS_OF = ("xgboost", "lightgbm", "catboost", "interpret")
"""Libraries that bring steps of pipelines. They are registered where a model has imported them: to import all that
are installed takes as long as a conversion."""


@contextlib.contextmanager
def registered(register: Callable[[], None]) -> Iterator[None]:
    """Register own converters within the block.

    What a user has registered in the meantime stays, and goes before ours.

    Args:
        register: Registers them all; it is called once for each set of libraries in `STEPS_OF` that are imported.
    """
    tables = _tables()
    before = [dict(table) for table in tables]
    imported = frozenset(name for name in STEPS_OF if name in sys.modules)
    for table, (upstream, own) in zip(tables, _entries(register, imported), strict=True):
        table.update({key: value for key, value in own.items() if table.get(key) is upstream.get(key)})
    try:
        yield
    finally:
        _put_back(before)


@cache
def _entries(register: Callable[[], None], imported: frozenset[str]) -> list[tuple[Table, Table]]:
    """The entries of the tables before registration, and those that are added or replaced."""
    tables = _tables()
    before = [dict(table) for table in tables]
    register()
    own = [
        {key: value for key, value in table.items() if old.get(key) is not value}
        for table, old in zip(tables, before, strict=True)
    ]
    _put_back(before)
    return list(zip(before, own, strict=True))


def _put_back(contents: list[Table]) -> None:
    for table, content in zip(_tables(), contents, strict=True):
        table.clear()
        table.update(content)


def _tables() -> list[Table]:
    """skl2onnx's tables: converters, shapes, aliases and parsers."""
    registration = require("skl2onnx.common._registration", "sklearn")
    return [
        registration._converter_pool,
        registration._shape_calculator_pool,
        require("skl2onnx._supported_operators", "sklearn").sklearn_operator_name_map,
        require("skl2onnx._parse", "sklearn").sklearn_parsers_map,
    ]
