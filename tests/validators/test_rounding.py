"""Tolerances derived from a model's own rounding: no false alarm, and no error passed."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import onnxtool
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.validators.numerics import rounding
from onnxtool.validators.numerics.tolerance import derive


class Block(nn.Module):
    """The parts in which conversions go wrong: norms with an epsilon, an activation with two formulas, a scale."""

    def __init__(self, epsilon=1e-5, approximate="none", scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.first, self.second = nn.Linear(64, 128), nn.Linear(128, 10)
        self.norm = nn.LayerNorm(128, eps=epsilon)
        self.gelu = nn.GELU(approximate=approximate)

    def forward(self, x):
        return self.second(self.gelu(self.norm(self.first(x) / 8) * self.scale))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("rounding") / "block.onnx"
    assert onnxtool.convert(Block(), path, inputs=["x:float32[batch,64]"])
    return path


def verify(model, source, **options):
    return onnxtool.verify(model, source, inputs=["x:float32[batch,64]"], **options)


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_model_passes_on_other_rows(model, seed):
    parity = verify(model, Block(), seed=seed).subjects[0].parity
    assert parity.passed
    assert parity.outputs[0].tolerance.reason.startswith("derived: ")


def _weight(block):
    with torch.no_grad():
        block.first.weight[3, 5] *= 1.01
    return block


@pytest.mark.parametrize(
    "wrong",
    [
        Block(epsilon=1e-3),
        Block(epsilon=1e-6),
        Block(approximate="tanh"),
        Block(scale=1.0002),
        _weight(Block()),
    ],
    ids=["a larger epsilon", "a smaller epsilon", "GELU by tanh", "a scale off by 2e-4", "one weight off by 1 %"],
)
def test_a_wrong_model_fails(model, wrong):
    assert not verify(model, wrong)


def test_more_and_larger_terms_are_allowed_more(tmp_path):
    def allowed(terms, size):
        weights = np.full((terms, 1), size, np.float32)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "sum",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", terms])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
            [numpy_helper.from_array(weights, "w")],
        )
        path = tmp_path / "sum.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        x = np.random.default_rng(0).normal(size=(64, terms)).astype(np.float32)
        return derive(OnnxModel.read(path), {"x": x})[0]["y"].atol

    assert allowed(16, 1.0) < allowed(1024, 1.0) < allowed(1024, 100.0)


@pytest.mark.parametrize(
    ("batch", "limit", "rows"), [("batch", 1 << 30, 4), ("batch", 3 << 20, 1), (4, 3 << 20, 4)]
)
def test_large_rows_are_run_as_memory_allows(tmp_path, monkeypatch, batch, limit, rows):
    width = 1 << 19  # 2 MiB a row
    graph = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["y"])],
        "image",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
    )
    path = tmp_path / "image.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    monkeypatch.setattr(rounding, "_TENSOR_BYTES", limit)
    noise = rounding.rounding_noise(OnnxModel.read(path), {"x": np.ones((4, width), np.float32)}, draws=1)["y"]
    assert noise.clean.shape == (rows, width)
    assert noise.deviations.min() >= 0 < noise.deviations.max()


@pytest.mark.parametrize("opset", [11, 13, 15, 18, 21, 22, 23])
@pytest.mark.parametrize("mask", [-np.inf, np.finfo(np.float32).min, -1e9])
def test_derived_in_every_opset_and_behind_masks(tmp_path, opset, mask):
    rng = np.random.default_rng(0)
    masked = np.where(np.tri(8, dtype=bool), 0, mask).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("Add", ["s", "m"], ["a"]),
            helper.make_node("Softmax", ["a"], ["y"], axis=-1),
        ],
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 8])],
        [
            numpy_helper.from_array(rng.normal(size=(4, 8)).astype(np.float32), "w"),
            numpy_helper.from_array(masked, "m"),
        ],
    )
    path = tmp_path / "attention.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    found, reason = derive(OnnxModel.read(path), {"x": rng.normal(size=(64, 8, 4)).astype(np.float32)})
    assert not reason
    assert 1e-7 < found["y"].atol + found["y"].rtol < 1e-4


def test_one_output_is_overridden_and_the_others_are_not(model):
    loose = verify(model, Block(approximate="tanh"), atol={"output": 1.0})
    assert loose
    assert loose.subjects[0].parity.outputs[0].tolerance.atol == 1.0
    with pytest.raises(onnxtool.OnnxtoolError, match="no such output"):
        verify(model, Block(), atol={"logits": 1.0})


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_place_between_pixels_is_rounded_and_not_moved(tmp_path, mode):
    class Smaller(torch.nn.Module):
        def forward(self, image):
            return torch.nn.functional.interpolate(image, size=(50, 70), mode=mode)

    images = np.random.default_rng(0).uniform(size=(20, 1, 128, 128)).astype(np.float32)
    path, source = tmp_path / "m.onnx", Smaller()
    report = onnxtool.convert(source, path, inputs=["image:float32[batch,1,128,128]"], data=images)
    assert report, report.subjects[0].checks
    assert report.subjects[0].parity.outputs[0].max_absolute > 2e-6  # more than the rounding of a value below 1

    model = onnx.load(path)
    [resize] = [node for node in model.graph.node if node.op_type == "Resize"]
    for attribute in resize.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"align_corners"
    onnx.save(model, path)
    assert not onnxtool.verify(path, source, inputs=["image:float32[batch,1,128,128]"], data=images)


def test_pixels_halfway_are_not_rounded(tmp_path):
    double = torch.nn.Upsample(scale_factor=2.0, mode="bilinear")
    images = np.random.default_rng(0).uniform(size=(20, 1, 64, 64)).astype(np.float32)
    report = onnxtool.convert(double, tmp_path / "m.onnx", inputs=["input:float32[batch,1,64,64]"], data=images)
    [output] = report.subjects[0].parity.outputs
    assert output.passed
    assert output.tolerance.atol < 1e-6
