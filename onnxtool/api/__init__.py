"""The commands as Python functions, one module for each, which is imported when its function is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnxtool.api.arguments import LoadArguments, PathLike, Progress

if TYPE_CHECKING:
    from onnxtool.api.benching import bench as bench
    from onnxtool.api.bundling import bundle as bundle
    from onnxtool.api.converting import convert as convert
    from onnxtool.api.linting import lint as lint
    from onnxtool.api.verifying import verify as verify

__all__ = ["LoadArguments", "PathLike", "Progress", "bench", "bundle", "convert", "lint", "verify"]

_MODULES = {
    "bench": "benching",
    "bundle": "bundling",
    "convert": "converting",
    "lint": "linting",
    "verify": "verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'onnxtool.api' has no attribute {name!r}")
    return getattr(import_module(f"onnxtool.api.{_MODULES[name]}"), name)
