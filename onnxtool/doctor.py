"""`onnxtool doctor`: what is installed, what really works, and what to install for the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import numpy as np
import onnx
from packaging.requirements import Requirement

from onnxtool._version import __version__
from onnxtool.bench.runner import run_bench
from onnxtool.errors import OnnxtoolError, require
from onnxtool.reports.diagnosis import Diagnosis, Extra, Provider
from onnxtool.reports.environment import environment
from onnxtool.reports.model import Environment
from onnxtool.sandbox.launch import lacks
from onnxtool.sandbox.promises import PROMISES

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""Distributions that all install the package `onnxruntime`, each over the other's files."""

# Offered even where they are not built in, since these are what people come for.
_EXPECTED_PROVIDERS = ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider")
_SAME = {"tensorflow-cpu": "tensorflow", "xgboost-cpu": "xgboost"}
"""Builds that bring the same package: a user has one or the other."""

_NO_FRAMEWORKS = ("all", "cpu", "docs", "gpu", "openvino", "test")
"""Extras that are not listed: ONNX Runtime has lines of its own."""


def examine() -> Diagnosis:
    """Look at this installation. Each provider runs a small model in a separate process."""
    runtimes = {name: found for name in RUNTIMES if (found := _version(name))}
    problems = _runtime_problems(runtimes)
    machine = environment()
    lacking = lacks()
    return Diagnosis(
        onnxtool=__version__,
        environment=machine,
        extras=[
            _extra(name)
            for name in metadata("onnxtool").get_all("Provides-Extra") or ()
            if name not in _NO_FRAMEWORKS
        ],
        providers=_providers(machine) if runtimes and not problems else [],
        sandbox=lacking,
        promises={promise: lack not in lacking for promise, lack in PROMISES.items()},
        problems=problems,
    )


def _runtime_problems(runtimes: dict[str, str]) -> list[str]:
    if not runtimes:
        return [
            "ONNX Runtime is not installed: nothing can be verified or measured. "
            "Repair it with: pip install 'onnxtool[cpu]' (or 'onnxtool[gpu]' on a machine with an NVIDIA GPU)"
        ]
    if len(runtimes) > 1:
        names = " ".join(runtimes)
        keep = next((name for name in runtimes if name != "onnxruntime"), "onnxruntime")
        return [
            f"{' and '.join(runtimes)} are both installed, and overwrite each other's files. "
            f"Repair it with: pip uninstall -y {names} && pip install {keep}"
        ]
    name = next(iter(runtimes))
    try:
        runtime = require("onnxruntime", "cpu")
        broken = not hasattr(runtime, "InferenceSession")
    except (ImportError, OnnxtoolError, OSError):
        broken = True
    if broken:
        return [
            f"{name} is installed but cannot be imported, as after another build was removed again. "
            f"Repair it with: pip install --force-reinstall --no-deps {name}"
        ]
    return []


def _providers(machine: Environment) -> list[Provider]:
    """Run one small model on each provider that is built in, and name those that are not."""
    names = list(dict.fromkeys([*_EXPECTED_PROVIDERS, *machine.providers]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        onnx.save(_tiny_model(), path)
        bench = run_bench(
            path,
            inputs={"x": np.ones((1, 4), dtype=np.float32)},
            providers=names,
            batches=[1],
            threads=[None],
            duration_s=0.05,
            data="ones",
            seed=None,
        )
    return [
        Provider(name=name, usable=cell.status == "measured", reason=cell.reason or "")
        for name, cell in zip(names, bench.cells, strict=True)
    ]


def _tiny_model() -> onnx.ModelProto:
    """A matrix product: the least that every provider can run."""
    weights = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "tiny", [x], [y], [weights]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def _extra(name: str) -> Extra:
    found = {
        requirement: _version(requirement) or _version(_SAME.get(requirement, requirement))
        for requirement in dict.fromkeys(_requirements(name))
    }
    return Extra(
        name=name,
        installed={requirement: have for requirement, have in found.items() if have},
        missing=[requirement for requirement, have in found.items() if not have],
    )


def _requirements(extra: str) -> Iterator[str]:
    """Distributions that an extra brings on this platform, from onnxtool's own metadata."""
    for text in requires("onnxtool") or ():
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "onnxtool":
            for inner in requirement.extras:
                yield from _requirements(inner)
        else:
            yield requirement.name


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
