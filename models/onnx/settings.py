"""Names of providers and options of a session as a user gives them, checked against the installed ONNX Runtime.

- `device_id`: of every provider; `cuda:device_id`: of one.
- `session.intra_op.allow_spinning`: an entry of the session's configuration, known by its dot.
- `graph_optimization_level` and the other names of `PROPERTIES`: of the session itself.
- `free_dimension:seq`: the size of a dynamic dimension that holds for the whole session.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from onnxtool.errors import UsageError, require

SUFFIX = "ExecutionProvider"

FREE_DIMENSION = "free_dimension:"

_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
_SWITCH = {"0": False, "1": True}

PROPERTIES: Mapping[str, Mapping[str, Any] | None] = {
    "graph_optimization_level": _LEVELS,
    "execution_mode": _MODES,
    "enable_cpu_mem_arena": _SWITCH,
    "enable_mem_pattern": _SWITCH,
    "inter_op_num_threads": None,
}
"""Properties of `onnxruntime.SessionOptions`, and the values that each takes; None for a whole number above 0."""

_ENTRY = re.compile(rb"(?:session|ep|optimization|memory|mlas)\.[a-z0-9_.]*[a-z0-9_](?=\0)")


def full_name(name: str) -> str:
    """The full name of a provider given as `cuda`, `openvino` or in full.

    Raises:
        UsageError: ONNX Runtime knows no such provider.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if name.endswith(SUFFIX):
        return name
    runtime = require("onnxruntime", "cpu")
    known = {*runtime.get_all_providers(), *runtime.get_available_providers()}
    short: dict[str, str] = {provider.removesuffix(SUFFIX).lower(): provider for provider in known}
    if name.lower() not in short:
        raise UsageError(f"There is no provider {name!r}. ONNX Runtime knows {', '.join(sorted(short))}.")
    return short[name.lower()]


def options_for(options: Mapping[str, str], provider: str) -> dict[str, str]:
    """The options that are for one provider, without its name before them.

    Args:
        options: As the user gave them.
        provider: Full name.

    Raises:
        UsageError: ONNX Runtime knows no such provider.
    """
    found: dict[str, str] = {}
    for name, value in options.items():
        owner, _, own = name.partition(":")
        if not own or name.startswith(FREE_DIMENSION):
            found.setdefault(name, value)
        elif full_name(owner) == provider:
            found[own] = value
    return found


def provider_options(options: Mapping[str, str]) -> dict[str, str]:
    """Those that are the provider's own, from what `options_for` gave."""
    return {name: value for name, value in options.items() if not _is_of_session(name)}


def apply(options: Mapping[str, str], session_options: Any) -> None:
    """Set those that are of the session.

    Args:
        options: What `options_for` gave, and `check` has seen.
        session_options: `onnxruntime.SessionOptions`, changed in place.
    """
    import onnxruntime

    enums = {
        "graph_optimization_level": onnxruntime.GraphOptimizationLevel,
        "execution_mode": onnxruntime.ExecutionMode,
    }
    for name, value in options.items():
        if name.startswith(FREE_DIMENSION):
            session_options.add_free_dimension_override_by_name(name.removeprefix(FREE_DIMENSION), int(value))
        elif name in PROPERTIES:
            values = PROPERTIES[name]
            known: Any = int(value) if values is None else values[value]
            setattr(session_options, name, getattr(enums[name], known) if name in enums else known)
        elif "." in name:
            session_options.add_session_config_entry(name, value)


def check(options: Mapping[str, str], providers: Iterable[str], graph: onnx.GraphProto | None = None) -> None:
    """Refuse what ONNX Runtime would ignore without a word.

    What a provider's own options are called is known to the provider alone: `providers.make_session` asks it.

    Args:
        options: As the user gave them.
        providers: Full names of those of the run.
        graph: Of the model, whose dynamic dimensions may be fixed.

    Raises:
        UsageError: ONNX Runtime, the run or the model has nothing of the name, or the value is none of it.
    """
    chosen = list(providers)
    for name, value in options.items():
        owner, _, own = name.partition(":")
        if name.startswith(FREE_DIMENSION):
            _check_dimension(own, value, graph)
        elif own and full_name(owner) not in chosen:
            raise UsageError(
                f"--option {name}={value} is for {full_name(owner)}, which this run does not use. "
                f"Add --provider {owner}, or leave it out."
            )
        elif not own and name in PROPERTIES:
            _check_value(name, value)
        elif not own and "." in name and (known := entries()) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(
                f"--option {name}={value}: ONNX Runtime {require('onnxruntime', 'cpu').__version__} has no entry "
                f"{name!r} of a session's configuration." + (f" Did you mean {near[0]}?" if near else "")
            )


@cache
def entries() -> frozenset[str]:
    """The entries of a session's configuration that the installed ONNX Runtime reads.

    It takes any entry and lists none; the names stand as texts in its library, whose version alone decides.
    Empty for a build whose library is elsewhere.
    """
    folder = Path(str(require("onnxruntime", "cpu").__file__)).parent / "capi"
    libraries = [*folder.glob("onnxruntime_pybind11_state*"), *folder.glob("libonnxruntime_providers_*")]
    return frozenset(found.decode() for library in libraries for found in _ENTRY.findall(library.read_bytes()))


def _is_of_session(name: str) -> bool:
    return "." in name or name in PROPERTIES or name.startswith(FREE_DIMENSION)


def _check_value(name: str, value: str) -> None:
    values = PROPERTIES[name]
    if not (value.isdigit() and int(value) > 0 if values is None else value in values):
        raise UsageError(
            f"--option {name}={value}: it is {'a whole number above 0' if values is None else ', '.join(values)}."
        )


def _check_dimension(name: str, value: str, graph: onnx.GraphProto | None) -> None:
    if not (value.isdigit() and int(value) > 0):
        raise UsageError(f"--option {FREE_DIMENSION}{name}={value}: a size is a whole number above 0.")
    if graph is None:
        return
    names = {dim.dim_param for entry in graph.input for dim in entry.type.tensor_type.shape.dim if dim.dim_param}
    if name not in names:
        has = f"It has {', '.join(sorted(names))}." if names else "It has none."
        raise UsageError(f"The model has no dynamic dimension {name!r} to fix. {has}")
