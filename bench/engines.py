"""Engines that a provider builds from a model, which takes minutes, kept in the user's cache folder.

TensorRT's engines hold for one model, one version of everything, one kind of card and one range of shapes; ONNX
Runtime detects some of that from the file, not all of it. Here each combination has a folder of its own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnxtool.bench.plan import CellPlan
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.signature import Tensors, dtype_name
from onnxtool.reports.environment import gpus

TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True, slots=True)
class EngineCache:
    """The folder of a cell's engine, and the options by which the provider finds it."""

    folder: Path
    options: Mapping[str, str]

    def is_filled(self) -> bool:
        """Whether an engine is there."""
        return any(self.folder.glob("*.engine"))


def cache_of(model: str, plan: CellPlan, inputs: Tensors) -> EngineCache | None:
    """The cache of a cell's engine; None where its provider builds none, or the user has named a place.

    Args:
        model: Path of the ONNX file.
        plan: The cell.
        inputs: One batch.
    """
    given = dict(plan.options)
    if plan.provider != TENSORRT or any(name.startswith("trt_engine_cache") for name in given):
        return None
    import platformdirs  # here: nothing but TensorRT needs it

    caches = Path(platformdirs.user_cache_dir("onnxtool", appauthor=False))
    cards = [f"{card.name}, driver {card.driver}" for card in gpus()]
    device = int(given.get("device_id", "0"))
    key = engine_key(
        OnnxModel.read(Path(model)).summary().sha256,
        {"onnxruntime": runtime_version(), "tensorrt": tensorrt_version()},
        cards[device] if device < len(cards) else "unknown",
        given,
        inputs,
    )
    folder = caches / "tensorrt" / key
    folder.mkdir(parents=True, exist_ok=True)
    return EngineCache(
        folder,
        {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder.parent),
        },
    )


def engine_key(
    model_sha256: str, versions: Mapping[str, str], device: str, options: Mapping[str, str], inputs: Tensors
) -> str:
    """A folder's name that changes with anything that an engine depends on.

    Args:
        model_sha256: SHA-256 of the model and its weights.
        versions: Versions of what builds and loads it.
        device: The card and its driver.
        options: Options of the provider: precision, profiles of shapes.
        inputs: One batch; names, dtypes and shapes count.
    """
    shapes = {name: (dtype_name(array), array.shape) for name, array in inputs.items()}
    parts = [model_sha256, dict(versions), device, dict(options), shapes]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def runtime_version() -> str:
    """Version of ONNX Runtime."""
    import onnxruntime

    return str(onnxruntime.__version__)


def tensorrt_version() -> str:
    """Version of TensorRT as its library says, or its distribution; `unknown` where there is neither."""
    if path := ctypes.util.find_library("nvinfer"):
        with suppress(OSError, AttributeError):
            return str(ctypes.CDLL(path).getInferLibVersion())
    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        with suppress(PackageNotFoundError):
            return version(name)
    return "unknown"
