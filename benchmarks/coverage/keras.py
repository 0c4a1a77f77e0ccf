"""Which layers and networks of Keras convert and agree: `python -m benchmarks.coverage keras`.

Each is built small with random weights, converted as a user would, and compared with Keras itself on generated rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.coverage.keras_cases import (
    NO_MODEL,
    application_model,
    application_names,
    application_rows,
    layer_cases,
    layer_model,
)
from benchmarks.coverage.table import Result, examined, installed, rows_of, versions_line
from onnxtool.models.keras.backend import backend

NETWORK = "applications."


class Backend(NamedTuple):
    """A backend of Keras: its name, what converts its models, and the name of its page."""

    title: str
    converter: str
    page: str


_BACKENDS = {
    "tensorflow": Backend("TensorFlow", "tf2onnx", "keras"),
    "torch": Backend("PyTorch", "torch", "keras-torch"),
}


def case_names() -> list[str]:
    """Every case: layers with their variants, then networks."""
    return sorted(layer_cases()) + [f"{NETWORK}{name}" for name in application_names()]


def examine(name: str) -> Result:
    """Build, convert and compare one case."""

    def build() -> tuple[object, dict[str, Any]]:
        if not name.startswith(NETWORK):
            return layer_model(name), {}
        model = application_model(name.removeprefix(NETWORK))
        return model, {"data": application_rows(model)}

    return examined(build)


def versions(on: str = "") -> dict[str, str]:
    """The versions that decide what converts on a backend, by default on the one of this process."""
    return installed("keras", _BACKENDS[on or backend()].converter, "onnxruntime")


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """The table, the reasons, the cases that were not run, and the layers that have no case.

    Args:
        results: What `examine` returned, by case.
        versions: Those that the results were found with; they show the backend.
    """
    missing = [name for name in case_names() if name not in results]
    on, shown = next(item for item in _BACKENDS.items() if item[1].converter in versions)
    lines = [
        f"# Keras's layers and networks on its {shown.title} backend",
        "",
        f"Written by `KERAS_BACKEND={on} python -m benchmarks.coverage keras --record",
        f"reports/coverage/{shown.page}.json --markdown reports/coverage/{shown.page}.md`; do not edit. Each case",
        "has random weights and running statistics, and is compared with Keras by the tolerance of `verify`: layers",
        "on generated rows, networks on 8 images. Where a network takes longer than the limit, that says nothing of",
        "whether it agrees.",
        versions_line(versions),
        "",
        *rows_of(results),
    ]
    lines += ["", "## Not run", "", ", ".join(missing) or "None.", "", "## Layers without a case", ""]
    lines += [f"- {name}: {why}." for name, why in NO_MODEL.items()]
    return "\n".join(lines) + "\n"
