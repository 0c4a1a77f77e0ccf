"""Which layers of torch.nn and functions of torch convert and agree: `python -m benchmarks.coverage torch`.

Each is built small with random weights, exported as a user would, and compared with PyTorch itself on generated rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.coverage.table import Result, examined, installed, rows_of, versions_line
from benchmarks.coverage.torch_cases import FUNCTION, NO_MODEL, torch_cases, torch_module


def case_names() -> list[str]:
    """Every case: layers with their variants, then functions."""
    return sorted(torch_cases(), key=lambda name: (name.startswith(FUNCTION), name))


def examine(name: str) -> Result:
    """Build, convert and compare one case."""
    return examined(lambda: (torch_module(name), {"inputs": torch_cases()[name].inputs}))


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    return installed("torch", "onnxscript", "onnx", "onnxruntime")


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """The table, and the layers that have no case."""
    missing = [name for name in case_names() if name not in results]
    lines = [
        "# PyTorch's layers and functions",
        "",
        "Written by `python -m benchmarks.coverage torch --record reports/coverage/torch.json --markdown",
        "reports/coverage/torch.md`; do not edit. Every layer of torch.nn is here, and functions that models call.",
        "Each has random weights and running statistics, is exported for any number of rows (and of steps, where it",
        "has some), and compared with PyTorch on generated rows by the tolerance of `verify`.",
        versions_line(versions),
        "",
        *rows_of(results),
    ]
    lines += ["", "## Not run", "", ", ".join(missing) or "None.", "", "## Layers without a case", ""]
    lines += [f"- {', '.join(names.split())}: {why}." for names, why in NO_MODEL.items()]
    lines += ["- Lazy modules: another layer once they have run.", "- Losses, but for a few: of training only."]
    return "\n".join(lines) + "\n"
