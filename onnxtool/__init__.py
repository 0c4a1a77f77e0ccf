"""onnxtool: convert trained models to ONNX, prove that they give the same results, and measure them.

    import onnxtool

    report = onnxtool.convert(estimator, "model.onnx", data=frame)
    assert report, report.subjects[0].checks
    onnxtool.bench("model.onnx", batches=[1, 64])

Importing this package imports nothing heavy; the functions do when they are first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from onnxtool._version import __version__
from onnxtool.errors import OnnxtoolError

if TYPE_CHECKING:
    from onnxtool.api import bench as bench
    from onnxtool.api import bundle as bundle
    from onnxtool.api import convert as convert
    from onnxtool.api import lint as lint
    from onnxtool.api import verify as verify
    from onnxtool.converters.tracing.converters import register_converter as register_converter
    from onnxtool.sandbox.limits import Limits as Limits

# A conversion tool reports to its user and to nobody else. ONNX Runtime reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Limits", "OnnxtoolError", "__version__", "bench", "bundle", "convert", "lint", "register_converter", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "bench":  # a package too, and callable: see its docstring
        import onnxtool.bench

        return onnxtool.bench
    if name in ("bundle", "convert", "lint", "verify"):
        from onnxtool import api

        return getattr(api, name)
    if name == "register_converter":
        from onnxtool.converters.tracing.converters import register_converter

        return register_converter
    if name == "Limits":
        from onnxtool.sandbox.limits import Limits

        return Limits
    raise AttributeError(f"module 'onnxtool' has no attribute {name!r}")
