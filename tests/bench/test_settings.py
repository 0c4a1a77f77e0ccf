"""Options of sessions: what reaches ONNX Runtime, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import onnxtool
from onnxtool.bench.plan import plan_cells
from onnxtool.cli import cli
from onnxtool.errors import UsageError
from onnxtool.models.onnx import settings
from onnxtool.models.onnx.log import LONGEST, runtime_messages, tidy

CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"


def test_options_of_one_provider_reach_it_alone() -> None:
    given = {
        "device_id": "1",
        "openvino:device_type": "CPU",
        "openvino:device_id": "2",
        "session.disable_prepacking": "1",
    }
    openvino, cpu = plan_cells([OPENVINO, CPU], [1], [None], options=given)
    assert dict(openvino.options) == {"device_id": "2", "device_type": "CPU", "session.disable_prepacking": "1"}
    assert dict(cpu.options) == {"device_id": "1", "session.disable_prepacking": "1"}
    assert settings.provider_options(dict(openvino.options)) == {"device_id": "2", "device_type": "CPU"}


def test_properties_entries_and_free_dimensions_are_set() -> None:
    options = onnxruntime.SessionOptions()
    settings.apply(
        {
            "graph_optimization_level": "basic",
            "execution_mode": "parallel",
            "enable_cpu_mem_arena": "0",
            "enable_mem_pattern": "0",
            "inter_op_num_threads": "3",
            "session.disable_prepacking": "1",
        },
        options,
    )
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (False, False)
    assert options.inter_op_num_threads == 3
    assert options.get_session_config_entry("session.disable_prepacking") == "1"


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> str:
    """y = x + x over [batch, seq]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "seq"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y])
    path = str(tmp_path_factory.mktemp("settings") / "doubling.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("session.bogus=1", "has no entry 'session.bogus'"),
        ("session.intra_op.allow_spining=0", "Did you mean session.intra_op.allow_spinning?"),
        ("graph_optimization_level=99", "disable, basic, extended, layout, all"),
        ("enable_mem_pattern=yes", "it is 0, 1"),
        ("inter_op_num_threads=0", "a whole number above 0"),
        ("free_dimension:length=8", "no dynamic dimension 'length' to fix. It has batch, seq."),
        ("free_dimension:seq=many", "a size is a whole number above 0"),
        ("cuda:device_id=1", "is for CUDAExecutionProvider, which this run does not use. Add --provider cuda"),
        ("nowhere:device_id=1", "There is no provider 'nowhere'"),
        ("bogus=1", "CPUExecutionProvider has no option 'bogus'"),
    ],
)
def test_what_onnx_runtime_would_ignore_is_refused(doubling: str, option: str, message: str) -> None:
    found = CliRunner().invoke(cli, ["verify", doubling, doubling, "--option", option])
    assert isinstance(found.exception, UsageError)
    assert message in str(found.exception)
    if not option.startswith("bogus"):  # which the process of the cell finds out
        found = CliRunner().invoke(cli, ["bench", doubling, "--option", option])
        assert isinstance(found.exception, UsageError) and message in str(found.exception)


def test_the_remedy_of_a_misspelt_entry_is_taken(doubling: str) -> None:
    assert "session.intra_op.allow_spinning" in settings.entries()
    assert onnxtool.verify(doubling, doubling, options={"session.intra_op.allow_spinning": "0"}, sandbox=None)


@pytest.mark.parametrize("sandbox", [onnxtool.Limits(), None], ids=["confined", "here"])
def test_a_fixed_dimension_holds_for_the_session(doubling: str, sandbox: onnxtool.Limits | None) -> None:
    """ONNX Runtime itself refuses rows of another length then: the option has reached the session."""
    options = {"free_dimension:seq": "5"}
    right = {"x": np.ones((3, 5), np.float32)}
    report = onnxtool.verify(doubling, doubling, data=right, options=options, shapes={}, sandbox=sandbox)
    assert report.subjects[0].parity.options == options
    with pytest.raises(onnxtool.errors.ModelError, match=r"[Ii]nvalid dimension|Got: 6 Expected: 5"):
        onnxtool.verify(
            doubling, doubling, data={"x": np.ones((3, 6), np.float32)}, options=options, sandbox=sandbox
        )


def test_the_report_names_the_options(doubling: str) -> None:
    option = "graph_optimization_level=disable"
    found = CliRunner().invoke(cli, ["verify", doubling, doubling, "--option", option, "--json", "-"])
    assert json.loads(found.output)["subjects"][0]["parity"]["options"] == dict([option.split("=")])


def test_a_reason_of_several_lines_is_whole() -> None:
    error = "Exception from src/inference/core.cpp:107:\nCheck 'ok' failed\nNo device of the name 'NPU'.\n"
    assert (
        tidy(error) == "Exception from src/inference/core.cpp:107: Check 'ok' failed No device of the name 'NPU'."
    )
    log = (
        "\x1b[1;31m2026-12-01 15:33:59.681146694 [E:onnxruntime:Default, x.cc:2310 Create] "
        f"{error}\x1b[m\nnoise\n2026-12-01 15:34:00.1 [W:onnxruntime:, y.cc:1 F] without colour\nnoise\n"
    )
    assert runtime_messages(log) == [tidy(error), "without colour"]
    assert tidy("word " * LONGEST).endswith(" ...")
