"""What reaches ONNX Runtime for the second of several cards. No card is needed: the calls are recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxtool.bench.plan import CellPlan
from onnxtool.bench.session import runs_of
from onnxtool.models.onnx.providers import make_session

ROWS = {"x": np.zeros((1, 4), np.float32)}
AVAILABLE = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


class Recorder:
    """In the place of a session, its binding and its values; `calls` keeps what they were given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def io_binding(self) -> Recorder:
        return self

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        self.calls.append(("input", name, value))

    def bind_output(self, name: str, device: str, device_id: int) -> None:
        self.calls.append(("output", name, device, device_id))

    def get_outputs(self) -> list[object]:
        return [type("Output", (), {"name": "y"})()]

    def run_with_iobinding(self, binding: object) -> None:
        self.calls.append(("run",))


def test_bound_inputs_and_outputs_lie_on_the_card_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(lambda _, device, number: (device, number))
    )
    recorder = Recorder()
    plan = CellPlan("CUDAExecutionProvider", 1, None, io_binding=True, options=(("device_id", "1"),))
    (run,) = runs_of(recorder, "m.onnx", plan, [ROWS])
    run(None, ROWS)
    assert recorder.calls == [("input", "x", ("cuda", 1)), ("output", "y", "cuda", 1), ("run",)]


@pytest.mark.parametrize("provider", ["TensorrtExecutionProvider", "CUDAExecutionProvider"])
def test_cuda_is_loaded_from_pips_packages_and_serves_the_same_card(
    monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    given: list[Any] = []

    class Session:
        def __init__(self, model: str, options: object, providers: Any, enable_fallback: int) -> None:
            given.append(providers)

        def get_providers(self) -> list[str]:
            return AVAILABLE

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            return {provider: {"device_id": "1", "trt_fp16_enable": "1"}}

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: AVAILABLE)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: given.append("preloaded"), raising=False)
    make_session("m.onnx", provider, None, {"device_id": "1", "trt_fp16_enable": "1"})
    cuda = [("CUDAExecutionProvider", {"device_id": "1"})] if provider.startswith("Tensorrt") else []
    assert given == ["preloaded", [(provider, {"device_id": "1", "trt_fp16_enable": "1"}), *cuda]]
