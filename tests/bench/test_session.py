"""A cell's session on the CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxtool.bench import engines
from onnxtool.bench.engines import TENSORRT, cache_of, engine_key
from onnxtool.bench.plan import CellPlan
from onnxtool.bench.session import open_session, runs_of, session_options, with_engine
from onnxtool.bench.throttling import Taken, taken, warnings
from onnxtool.errors import UsageError

CPU = "CPUExecutionProvider"
ROWS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def plan(**options: object) -> CellPlan:
    return CellPlan(CPU, 2, None, **options)


def test_options_of_the_session_have_a_dot(dense_model):
    options = session_options(plan(options=(("session.intra_op.allow_spinning", "0"),)), {"session.a": "b"})
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.a") == "b"
    assert session_options(CellPlan(CPU, 1, 3)).intra_op_num_threads == 3


def test_an_option_that_the_provider_does_not_have_is_refused(dense_model):
    """ONNX Runtime's CPU provider ignores what it is given."""
    with pytest.raises(UsageError, match=r"CPUExecutionProvider has no option 'enable_cuda_graph'. It has none."):
        open_session(str(dense_model), plan(options=(("enable_cuda_graph", "1"),)))


def outputs_of(run, monkeypatch) -> list[dict[str, np.ndarray]]:
    """What a bound session computed, in the order of the runs."""
    found = []
    original = onnxruntime.InferenceSession.run_with_iobinding

    def watch(self, binding, *rest):
        original(self, binding, *rest)
        found.append(binding.copy_outputs_to_cpu())

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", watch)
    return found


@pytest.mark.parametrize("kept", [False, True], ids=["fresh outputs", "outputs in one place"])
def test_bound_runs_compute_the_same(dense_model, monkeypatch, kept):
    session = open_session(str(dense_model), plan())
    found = outputs_of(session, monkeypatch)
    options = (("enable_cuda_graph", "1"),) if kept else ()  # the CPU's own session does not have it
    for run in runs_of(session, str(dense_model), plan(io_binding=True, options=options), [ROWS]):
        run(None, ROWS)
        run(None, ROWS)
    expected = session.run(None, ROWS)[0]
    assert len(found) == 2
    for (output,) in found:
        np.testing.assert_array_equal(output, expected)


def test_each_caller_has_its_own_binding(dense_model):
    session = open_session(str(dense_model), plan())
    bound = runs_of(session, str(dense_model), plan(io_binding=True, concurrency=3), [ROWS])
    assert len(set(map(id, bound))) == 3
    assert runs_of(session, str(dense_model), plan(concurrency=2), [ROWS]) == [session.run] * 2


def test_each_batch_has_its_own_binding(dense_model, monkeypatch):
    session = open_session(str(dense_model), plan())
    found = outputs_of(session, monkeypatch)
    batches = [{"x": ROWS["x"] + step} for step in range(3)]
    (run,) = runs_of(session, str(dense_model), plan(io_binding=True), batches)
    for batch in (*batches, batches[1]):
        run(None, batch)
    expected = [session.run(None, batch)[0] for batch in (*batches, batches[1])]
    for (output,), right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(output, right)


def test_strings_cannot_be_bound(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["t"])],
        "strings",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["batch"])],
    )
    path = str(tmp_path / "strings.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(UsageError, match="inputs of strings"):
        runs_of(open_session(path, plan()), path, plan(io_binding=True), [{"s": np.array(["a"], dtype=object)}])


def test_only_tensorrt_has_an_engine_here(dense_model):
    assert cache_of(str(dense_model), plan(), ROWS) is None
    assert with_engine(str(dense_model), plan(), ROWS) == (plan(), None)
    own = CellPlan(TENSORRT, 2, None, options=(("trt_engine_cache_path", "mine"),))
    assert cache_of(str(dense_model), own, ROWS) is None


def test_the_engine_of_a_cell_has_a_folder_of_its_own(dense_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cell = CellPlan(TENSORRT, 2, None, options=(("trt_fp16_enable", "1"),))
    cache = cache_of(str(dense_model), cell, ROWS)
    assert cache.folder.is_dir() and cache.folder.is_relative_to(tmp_path / "onnxtool")
    assert cache.options["trt_engine_cache_enable"] == "1"
    assert cache.options["trt_engine_cache_path"] == str(cache.folder)
    assert not cache.is_filled()
    (cache.folder / "TensorrtExecutionProvider_graph_1_0_0_fp16_sm90.engine").touch()
    assert cache_of(str(dense_model), cell, ROWS).is_filled()
    filled, built = with_engine(str(dense_model), cell, ROWS)
    assert built is None
    assert dict(filled.options) == {**dict(cell.options), **cache.options}
    assert not cache_of(str(dense_model), cell, {"x": ROWS["x"][:1]}).is_filled()


def test_building_is_timed_separately(dense_model, tmp_path, monkeypatch):
    """The real session and run, the CPU in the place of a provider that leaves an engine behind."""
    cache = engines.EngineCache(tmp_path, {"session.intra_op.allow_spinning": "0"})
    monkeypatch.setattr("onnxtool.bench.engines.cache_of", lambda *_: cache)
    cached, built = with_engine(str(dense_model), plan(), ROWS)
    assert 0 < built < 60
    assert cached.options == (("session.intra_op.allow_spinning", "0"),)


KEY = {
    "model_sha256": "a" * 64, "versions": {"onnxruntime": "1.32.0", "tensorrt": "10.13"}, "device": "H100, 560.35",
    "options": {"trt_fp16_enable": "1"}, "inputs": ROWS,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "b" * 64},
        {"versions": {"onnxruntime": "1.33.0", "tensorrt": "10.13"}},
        {"device": "H200, 560.35"},
        {"options": {"trt_fp16_enable": "0"}},
        {"inputs": {"x": np.zeros((3, 4), np.float32)}},
        {"inputs": {"x": np.zeros((2, 4), np.float16)}},
        {"inputs": {"z": ROWS["x"]}},
    ],
)
def test_an_engine_is_not_taken_for_another(change):
    assert engine_key(**KEY) == engine_key(**{**KEY, "inputs": {"x": np.ones((2, 4), np.float32)}})
    assert engine_key(**{**KEY, **change}) != engine_key(**KEY)


def test_what_the_system_takes_is_reported(tmp_path):
    (tmp_path / "cpu.stat").write_text("usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 77\n")
    assert taken(tmp_path).throttled == 4
    assert taken(tmp_path / "absent").throttled == 0
    now = taken()
    assert now.total_s > 0 and warnings(now, now) == []
    assert warnings(Taken(1, 0.0, 100.0), Taken(4, 5.0, 200.0)) == [
        "The quota of its control group stopped the processors in 3 periods.",
        "The host of this virtual machine gave 5% of the processors' time to others.",
    ]


def test_the_version_of_tensorrt_is_known_or_reported_as_unknown():
    assert isinstance(engines.tensorrt_version(), str) and engines.tensorrt_version()
    assert engines.runtime_version() == onnxruntime.__version__
