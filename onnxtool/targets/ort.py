"""ONNX Runtime itself: whatever converts, it takes."""

from __future__ import annotations

from onnxtool.targets.target import Target


class Ort(Target):
    """ONNX Runtime."""

    name = "ort"
    runtime = "ONNX Runtime"
