from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from onnxtool.bench.plan import CellPlan
from onnxtool.bench.runner import complete
from onnxtool.bench.session import profiled_placement_of
from onnxtool.errors import UsageError
from onnxtool.models.onnx.log import runtime_messages, tidy
from onnxtool.models.onnx.providers import (
    UnavailableError,
    cross_check,
    make_session,
    placement_of_profile,
    record_placement,
    recorded_placement,
    require_nodes,
)
from onnxtool.models.onnx.settings import full_name
from onnxtool.process import Outcome
from onnxtool.reports.model import Cell, Placement

# What onnxruntime-gpu 1.31.1 wrote on a machine without CUDA.
CUDA_LOG = (
    "\x1b[1;31m2026-11-25 01:54:24.833862061 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/opt/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: "
    "No such file or directory\n\x1b[m\n"
    "\x1b[0;93m2026-11-25 01:54:24.833935717 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295 "
    "CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA "
    "13.*.\x1b[m\n"
)
ALLOCATION_ERROR = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'wide' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for "
    "requested buffer of size 8000"
)
TENSORRT_ERROR = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const "
    "onnxruntime::ProviderOptions&) Please install TensorRT libraries as mentioned in the GPU requirements page.\n"
)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("cpu", "CPUExecutionProvider"),
        ("CUDA", "CUDAExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("openvino", "OpenVINOExecutionProvider"),
        ("OutsidersExecutionProvider", "OutsidersExecutionProvider"),
    ],
)
def test_names(given, name):
    assert full_name(given) == name


def test_unknown_name():
    with pytest.raises(UsageError, match=r"no provider 'gpu'.* cuda, "):
        full_name("gpu")


def test_runtime_messages_are_made_readable():
    assert runtime_messages(CUDA_LOG + "noise\n" + CUDA_LOG) == [
        "Failed to load library /opt/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot "
        "open shared object file: No such file or directory",
        "Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*.",
    ]


def test_place_in_the_sources_is_dropped():
    assert tidy(TENSORRT_ERROR) == "Please install TensorRT libraries as mentioned in the GPU requirements page."
    assert tidy("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel") == "no kernel"
    assert (
        tidy(ALLOCATION_ERROR) == "MatMul node 'wide': Failed to allocate memory for requested buffer of size 8000"
    )
    assert tidy("\n plain (with) words \n") == "plain (with) words"


def test_reason_names_what_is_missing():
    dropped = Cell(
        provider="CUDAExecutionProvider", batch=1, threads=None, status="unavailable",
        reason="ONNX Runtime 1.31.1 dropped CUDAExecutionProvider.",
    )  # fmt: skip
    cell = complete(dropped, np.empty(0, np.int64), Outcome(CUDA_LOG, 0), 60)
    assert cell.reason.startswith("ONNX Runtime 1.31.1 dropped CUDAExecutionProvider; Failed to load library")
    assert "libcublasLt.so.13: cannot open shared object file" in cell.reason
    assert cell.latency is None


def test_placement_is_recorded_by_the_runtime(dense_model):
    options = onnxruntime.SessionOptions()
    record_placement(options)
    session = make_session(str(dense_model), "CPUExecutionProvider", options)
    assert recorded_placement(session) == [
        Placement(provider="CPUExecutionProvider", nodes=2, operators={"Gemm": 1, "Relu": 1})
    ]


def test_placement_from_a_profile(dense_model, tmp_path):
    """Where the runtime keeps no record; here Gemm and Relu have been fused by the time of the run."""
    inputs = {"x": np.ones((2, 4), np.float32)}
    plan = CellPlan("CPUExecutionProvider", 2, None)
    assert profiled_placement_of(str(dense_model), plan, inputs, tmp_path) == [
        Placement(provider="CPUExecutionProvider", nodes=1, operators={"FusedGemm": 1}, kernels=1, time_share=1.0)
    ]


def event(name: str, provider: str, op_name: str, microseconds: int) -> dict:
    return {"cat": "Node", "name": name, "dur": microseconds, "args": {"provider": provider, "op_name": op_name}}


def test_profile_of_two_providers():
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 10_000},
        event("a_kernel_time", "CUDAExecutionProvider", "Conv", 900),
        event("a_kernel_time", "CUDAExecutionProvider", "Conv", 40),
        event("b_kernel_time", "CUDAExecutionProvider", "Conv", 20),
        event("loop_body_kernel_time", "CPUExecutionProvider", "Add", 500),
        event("loop_body_kernel_time", "CPUExecutionProvider", "Add", 10),
        event("loop_body_kernel_time", "CPUExecutionProvider", "Add", 10),
        {"cat": "Node", "name": "a_fence_before", "dur": 99, "args": {"op_name": "Conv"}},
    ]
    assert placement_of_profile(events) == [
        Placement(provider="CUDAExecutionProvider", nodes=2, operators={"Conv": 2}, kernels=2, time_share=0.75),
        Placement(provider="CPUExecutionProvider", nodes=1, operators={"Add": 1}, kernels=1, time_share=0.25),
    ]


def test_the_record_and_the_profile_are_compared():
    cuda = Placement(provider="CUDAExecutionProvider", nodes=8)
    cpu = Placement(provider="CPUExecutionProvider", nodes=2)
    ran = placement_of_profile(
        [event("a", "CUDAExecutionProvider", "Conv", 3), event("b", cpu.provider, "Add", 1)]
    )
    merged, doubts = cross_check([cuda, cpu], ran)
    assert [(part.nodes, part.kernels, part.time_share) for part in merged] == [(8, 1, 0.75), (2, 1, 0.25)]
    assert doubts == []
    merged, doubts = cross_check([cuda, cpu], ran[1:])
    assert (merged[0].kernels, merged[0].time_share) == (0, 0.0)
    assert doubts == [
        "CUDAExecutionProvider was assigned 8 nodes, but none of its kernels ran in a profile of some runs."
    ]
    _, doubts = cross_check([cuda], ran)
    assert doubts == ["CPUExecutionProvider was assigned no node, but ran 1 kernels in a profile of some runs."]


def test_a_provider_without_nodes_is_not_measured():
    cpu = [Placement(provider="CPUExecutionProvider", nodes=7)]
    with pytest.raises(UnavailableError, match=r"CUDAExecutionProvider took none .*7 on CPUExecutionProvider"):
        require_nodes("CUDAExecutionProvider", cpu)
    require_nodes("CPUExecutionProvider", [])
    require_nodes("CUDAExecutionProvider", [*cpu, Placement(provider="CUDAExecutionProvider", nodes=1)])


def test_a_model_that_no_provider_loads_is_the_models_fault(tmp_path):
    """Azure is in the CPU build; the error must not read as if Azure were missing."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x09damaged")
    with pytest.raises(Exception, match=r"damaged\.onnx") as caught:
        make_session(str(damaged), "AzureExecutionProvider", onnxruntime.SessionOptions())
    assert not isinstance(caught.value, UnavailableError)
