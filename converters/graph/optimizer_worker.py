"""The process in which optimisers run: see `onnxtool.models.onnx.isolated.rewrite_isolated`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from onnxtool.converters.graph.optimizers import optimized, optimizers
from onnxtool.models.onnx.runtime_worker import serve
from onnxtool.models.signature import Tensors


def _rewritten(content: dict[str, Any], tensors: Tensors) -> tuple[object, Tensors]:
    optimizer = next(found for found in optimizers("full") if found.name == content["optimizer"])
    model = optimized(onnx.load_from_string(tensors["model"].tobytes()), optimizer)
    return None, {"model": np.frombuffer(model.SerializeToString(), dtype=np.uint8)}


if __name__ == "__main__":
    serve(_rewritten)
