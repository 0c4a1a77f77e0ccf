"""The process of `isolated`: `python -m onnxtool.sandbox BOUNDS onnxtool.models.onnx.runtime_worker PARENT FOLDER`.

Requests come on standard input, answers go to what was standard output.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from onnxtool.errors import require
from onnxtool.models.onnx import settings
from onnxtool.models.rows.channel import read_message, write_message
from onnxtool.models.signature import Tensors, dtype_name
from onnxtool.system import die_with

Answer: TypeAlias = Callable[[dict[str, Any], Tensors], tuple[object, Tensors]]
"""What a worker makes of a request and its arrays: a value for JSON, and arrays."""


def main() -> None:
    """Answer until there are no more requests."""
    sessions: dict[int, Any] = {}
    serve(lambda content, tensors: _answer(content, tensors, sessions))


def serve(answer_to: Answer) -> None:
    """Answer until there are no more requests; the arguments are those of `ConfinedProcess`.

    Args:
        answer_to: Answers one request; what it raises is an answer too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    if parent := int(sys.argv[1]):
        die_with(parent)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    while True:
        try:
            content, tensors = read_message(requests, sys.maxsize)
        except EOFError:
            return
        made: Tensors = {}
        try:
            value, made = answer_to(content, tensors)
            answer: dict[str, object] = {"value": value}
        except MemoryError:
            answer = {"error": "bad allocation: there is not enough memory"}
        except (
            Exception
        ) as error:  # the exceptions of ONNX Runtime, the reference and optimisers have no common base
            answer = {"error": str(error) or type(error).__name__}
        write_message(answers, answer, made)


def _answer(content: dict[str, Any], tensors: Tensors, sessions: dict[int, Any]) -> tuple[object, Tensors]:
    match content["request"]:
        case "open":
            number = len(sessions)
            session = sessions[number] = _open(content, tensors)
            described = {
                kind: [[value.name, value.shape] for value in values]
                for kind, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
            }
            return {"session": number, **described}, {}
        case "run":
            feeds = {name: tensors[str(place)] for place, name in enumerate(content["names"])}
            return _sent(sessions[content["session"]].run(content["outputs"], feeds))
        case "close":
            sessions[content["session"]] = None
            return None, {}
        case "reference":
            feeds = {name: tensors[str(place)] for place, name in enumerate(content["names"])}
            found = reference(tensors["model"].tobytes(), feeds)
            return list(found), {str(place): array for place, array in enumerate(found.values())}
        case "shapes":
            import onnx  # a session alone does not need it, and it is half of what starting takes

            model = onnx.load_from_string(tensors["model"].tobytes())
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=content["values"]).SerializeToString()
            return None, {"model": np.frombuffer(inferred, dtype=np.uint8)}
        case request:
            raise AssertionError(request)


def _open(content: dict[str, Any], tensors: Tensors) -> Any:
    runtime = require("onnxruntime", "cpu")
    options = runtime.SessionOptions()
    options.log_severity_level = content["severity"]
    if not content["optimized"]:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.apply(content["options"], options)
    model = content.get("path") or tensors["model"].tobytes()
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _sent(values: list[Any]) -> tuple[object, Tensors]:
    """What a session gave: arrays, maps of classes, sequences of arrays."""
    entries: list[object] = []
    arrays: Tensors = {}
    for place, value in enumerate(values):
        if isinstance(value, np.ndarray) and _has_name(value):
            entries.append("array")
            arrays[str(place)] = value
        elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
            entries.append({"rows": [list(row.items()) for row in value]})
        elif isinstance(value, list) and all(isinstance(item, np.ndarray) and _has_name(item) for item in value):
            entries.append({"items": len(value)})
            arrays.update({f"{place}.{item}": array for item, array in enumerate(value)})
        else:
            entries.append(None)
    return entries, arrays


def _has_name(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "biufcOUST" or dtype_name(array) == "bfloat16"


def reference(model: bytes, feeds: Tensors) -> Tensors:
    """Every tensor of a model, by ONNX's own reference implementation."""
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of the reference's own code
        found = ReferenceEvaluator(model).run(None, feeds, intermediate=True)
    return {name: value for name, value in dict(found).items() if isinstance(value, np.ndarray)}


if __name__ == "__main__":
    main()
