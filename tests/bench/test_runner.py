from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxtool.bench.runner import SourceTask, fixed_batch, run_bench
from onnxtool.errors import DataError, ModelError, UsageError
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions

BUSY = ("The host of", "The quota of", "The processors were busy")
"""Begin warnings of what others do on the machine that runs the tests."""

ROWS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def bench(model, inputs=ROWS, *, providers=("cpu",), batches=(1,), threads=(None,), duration_s=0.1, **options):
    return run_bench(
        model, inputs=inputs, providers=providers, batches=batches, threads=threads, duration_s=duration_s,
        data="test rows", seed=0, **options,
    )  # fmt: skip


def test_cpu_cell_is_measured(dense_model):
    progress = []
    result = bench(dense_model, batches=[1, 3], threads=[2], on_progress=lambda *now: progress.append(now))
    assert progress == [
        (0, 2, "CPU, batch 1, 2 threads"), (1, 2, "CPU, batch 3, 2 threads"), (2, 2, "CPU, batch 3, 2 threads"),
    ]  # fmt: skip
    assert (result.data, result.seed, result.duration_s) == ("test rows", 0, 0.1)
    for cell, batch in zip(result.cells, [1, 3], strict=True):
        assert (cell.status, cell.reason, cell.provider) == ("measured", None, "CPUExecutionProvider")
        assert (cell.batch, cell.threads) == (batch, 2)
        assert cell.providers == ["CPUExecutionProvider"]
        assert [(p.provider, p.nodes, p.operators, p.kernels, p.time_share) for p in cell.placement] == [
            ("CPUExecutionProvider", 2, {"Gemm": 1, "Relu": 1}, 1, 1.0)
        ]
        assert 0 < cell.session_s < 10
        assert 0 < cell.first_run_s < 10
        assert cell.warmup_runs > 0
        assert (
            cell.contention.cpu_s > 0.005
            and cell.contention.waited_s >= 0
            and cell.contention.voluntary_switches >= 0
        )
        latency = cell.latency
        assert latency.samples > 100
        assert 0 < latency.min_s <= latency.percentiles[0].value_s <= latency.max_s
        assert cell.rows_per_s == pytest.approx(batch / latency.mean_s)
        assert 0.05 < latency.mean_s * latency.samples <= 0.2  # the runs fill the duration
        assert 0 < cell.timer_resolution_s < 1e-4
        assert 0 < cell.timer_overhead_s < latency.min_s
        # That others had the machine meanwhile is no fault of the cell.
        assert [text for text in cell.warnings if not text.startswith(BUSY)] == []


def test_callers_scenarios_and_bindings(dense_model):
    cells = bench(dense_model, batches=[2], threads=[1], concurrency=[1, 2], scenario="multi-stream").cells
    assert [(cell.status, cell.concurrency, cell.scenario) for cell in cells] == [
        ("measured", 1, "multi-stream"), ("measured", 2, "multi-stream"),
    ]  # fmt: skip
    assert cells[1].rows_per_s == pytest.approx(4 / cells[1].latency.mean_s, rel=0.5)

    (cell,) = bench(dense_model, threads=[1], scenario="server", rate=500.0, duration_s=0.4, io_binding=True).cells
    assert (cell.status, cell.rate, cell.io_binding, cell.unanswered) == ("measured", 500.0, True, 0)
    assert 100 < cell.latency.samples < 350
    assert 200 < cell.rows_per_s < 900


def test_options_reach_the_session_or_fail_the_cell(dense_model):
    (cell,) = bench(dense_model, options={"session.intra_op.allow_spinning": "0"}).cells
    assert (cell.status, cell.options) == ("measured", {"session.intra_op.allow_spinning": "0"})
    (cell,) = bench(dense_model, options={"trt_fp16_enable": "1"}).cells
    assert cell.status == "failed"
    assert cell.reason == "CPUExecutionProvider has no option 'trt_fp16_enable'. It has none."


def test_memory_is_the_workers_own(save, make_dense):
    """Neither this process's memory nor the libraries count as the model's."""
    width = 3_000_000  # 36 MB of weights
    ballast = np.ones(100_000_000)  # 800 MB; the kernel would hand its peak on to a child
    cell = bench(save(make_dense(width=width)), {"x": np.ones((1, width), np.float32)}).cells[0]
    assert len(ballast)
    assert 36e6 < cell.model_memory_bytes < 400e6  # ONNX Runtime holds several copies while it loads
    assert cell.model_memory_bytes < cell.peak_memory_bytes < 600e6


def test_absent_provider_is_unavailable_and_the_others_are_measured(dense_model):
    available = onnxruntime.get_available_providers()
    absent = next(p for p in ("CUDAExecutionProvider", "QNNExecutionProvider") if p not in available)
    missing, outsider, measured = bench(dense_model, providers=[absent, "NewExecutionProvider", "cpu"]).cells
    assert (missing.status, missing.provider) == ("unavailable", absent)
    assert f"{absent} is not in this build of ONNX Runtime" in missing.reason
    assert (
        "CPUExecutionProvider. Replace it: pip uninstall -y onnxruntime && pip install onnxruntime-"
        in missing.reason
    )
    assert missing.latency is missing.session_s is missing.rows_per_s is None
    assert (outsider.status, measured.status) == ("unavailable", "measured")


def test_provider_that_takes_no_node_is_unavailable(dense_model):
    """ONNX Runtime makes such a session without a word, and runs everything on the CPU."""
    cell = bench(dense_model, providers=["azure"]).cells[0]
    assert cell.status == "unavailable"
    assert cell.reason == "AzureExecutionProvider took none of the model's nodes (2 on CPUExecutionProvider)."
    assert cell.latency is cell.session_s is cell.first_run_s is cell.peak_memory_bytes is None
    assert cell.providers == ["AzureExecutionProvider", "CPUExecutionProvider"]


def test_string_inputs(save):
    node = helper.make_node(
        "LabelEncoder",
        ["city"],
        ["code"],
        domain="ai.onnx.ml",
        keys_strings=["Bern", "Zürich"],
        values_int64s=[1, 2],
    )
    graph = helper.make_graph(
        [node],
        "strings",
        [helper.make_tensor_value_info("city", TensorProto.STRING, ["batch", 1])],
        [helper.make_tensor_value_info("code", TensorProto.INT64, ["batch", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = save(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    cell = bench(model, {"city": np.array([["Zürich"], [""], ["\n"]], dtype=object)}, batches=[7]).cells[0]
    assert (cell.status, cell.reason) == ("measured", None)
    assert cell.placement[0].operators == {"ai.onnx.ml.LabelEncoder": 1}


def test_fixed_batch_costs_the_cells_of_other_batches(save, make_dense):
    fits, other = bench(save(make_dense(batch=2)), batches=[2, 5]).cells
    assert fits.status == "measured"
    assert other.status == "failed"
    assert other.reason.startswith("The model's batch is fixed at 2: it cannot run 5 rows at once.")


def test_model_that_fails_in_a_run_has_the_message_of_the_runtime(save):
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "reshape",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])],
        [helper.make_tensor("shape", TensorProto.INT64, [1], [8])],
    )
    model = save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    fits, other = bench(model, batches=[2, 3]).cells
    assert fits.status == "measured"
    assert other.status == "failed"
    assert "cannot be reshaped" in other.reason
    assert other.session_s is None


def test_model_that_the_runtime_refuses(save, make_dense):
    model = make_dense()
    model.graph.node[0].op_type = "Nonsense"
    cell = bench(save(model)).cells[0]
    assert cell.status == "failed"
    assert "Nonsense" in cell.reason
    assert "\n" not in cell.reason


def test_warnings_of_the_runtime_are_kept(save, make_dense):
    cell = bench(save(make_dense(unused=True))).cells[0]
    assert cell.status == "measured"
    (warning,) = (text for text in cell.warnings if not text.startswith(BUSY))
    assert "left_over" in warning
    assert "onnxruntime:" not in warning


def test_source_cells_follow_those_of_the_providers(dense_model, misbehaving):
    source = SourceTask(misbehaving("fine"))
    onnx_cell, source_cell = bench(dense_model, batches=[3], threads=[1], source=source).cells
    assert onnx_cell.provider == "CPUExecutionProvider"
    assert (source_cell.provider, source_cell.batch, source_cell.threads) == ("source", 3, 1)
    assert (source_cell.status, source_cell.reason) == ("measured", None)
    assert source_cell.latency.percentiles[2].value_s > 0
    assert source_cell.session_s > 0
    assert source_cell.model_memory_bytes > 0
    assert source_cell.placement == source_cell.providers == []


def test_source_gets_its_threads_and_the_provider_does_not(dense_model, misbehaving, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    source = SourceTask(misbehaving("tell threads"))
    cells = bench(dense_model, threads=[None, 3], source=source).cells
    assert [cell.reason for cell in cells] == [
        None, None, "RuntimeError: OMP_NUM_THREADS is not set", "RuntimeError: OMP_NUM_THREADS is 3",
    ]  # fmt: skip


def test_source_is_opened_with_its_options(dense_model, misbehaving):
    options = LoadOptions(signature="mine", data={"city": np.array(["Ulm"], dtype=object)})
    cell = bench(dense_model, source=SourceTask(misbehaving("fine"), options)).cells[1]
    assert cell.status == "failed"
    assert "mine" in cell.reason
    assert "Ulm" in cell.reason


def test_torch_module_is_measured_with_its_threads(dense_model, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "small_modules.py").write_text("""
import torch

class Small(torch.nn.Module):
    def __init__(self, threads):
        super().__init__()
        self.layer, self.threads = torch.nn.Linear(4, 3), threads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch.get_num_threads() == self.threads, f"{torch.get_num_threads()} threads"
        return self.layer(x)

def build():
    return Small(threads=1)
""")
    options = LoadOptions(inputs=(TensorSpec("x", "float32", ("batch", 4)),))
    source = SourceTask("small_modules:build", options)
    one, three = bench(dense_model, batches=[2], threads=[1, 3], source=source).cells[2:]
    assert (one.status, one.reason) == ("measured", None)
    assert one.model_memory_bytes > 10_000_000  # the framework's own memory is the model's
    assert one.latency.samples > 100
    assert three.status == "failed"
    assert "3 threads" in three.reason


def test_source_that_nothing_recognises(dense_model, tmp_path):
    cell = bench(dense_model, source=SourceTask(str(tmp_path / "nothing.here"))).cells[1]
    assert cell.status == "failed"
    assert "nothing.here: no such file" in cell.reason


def test_what_cannot_be_benched_is_refused_before_a_worker_starts(dense_model, tmp_path):
    with pytest.raises(UsageError):
        bench(dense_model, providers=["gpu"])
    with pytest.raises(UsageError):
        bench(dense_model, batches=[0])
    with pytest.raises(UsageError):
        bench(dense_model, duration_s=0)
    with pytest.raises(DataError, match=r"no values for the input x:float32\[batch,4\]"):
        bench(dense_model, {"z": ROWS["x"]})
    with pytest.raises(DataError, match="no rows"):
        bench(dense_model, {"x": ROWS["x"][:0]})
    with pytest.raises(ModelError):
        bench(tmp_path / "none.onnx")


def test_fixed_batch():
    assert fixed_batch([TensorSpec("x", "float32", (1, 3, 8, 8)), TensorSpec("s", "int64", ())]) == 1
    assert fixed_batch([TensorSpec("t", "float32", (5,)), TensorSpec("x", "float32", ("n", 4))]) is None
    assert fixed_batch([TensorSpec("s", "int64", ())]) is None
