from itertools import accumulate

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtool.errors import DataError, ModelError, SourceError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.validators.parity.pairs import Rows, check_parity

WEIGHTS = np.array([[1.0, -2.0], [0.5, 3.0], [0.25, 0.0]], np.float32)


SPEC = TensorSpec("x", "float32", ("batch", 3))


class Linear(SourceModel):
    """A source in plain NumPy; `change` alters what it says."""

    framework = "numpy"
    framework_version = np.__version__

    def __init__(self, inputs=(SPEC,), outputs=("y",), change=lambda x, y: y):
        self.inputs, self._outputs, self._change = inputs, outputs, change
        self.batches = []

    def predict(self, tensors):
        x = next(iter(tensors.values()))
        self.batches.append(len(x))
        y = self._change(x, x @ WEIGHTS)
        return dict.fromkeys(self._outputs, y)


@pytest.fixture
def write(tmp_path):
    def make(batch="batch", inputs=("x",), outputs=("y",)):
        graph = helper.make_graph(
            [helper.make_node("MatMul", [inputs[0], "w"], [name]) for name in outputs],
            "linear",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in outputs],
            [numpy_helper.from_array(WEIGHTS, "w")],
        )
        path = tmp_path / "linear.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return OnnxModel.read(path)

    return make


def rows(count, name="x"):
    return Rows({name: np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)}, "test rows", 0)


@pytest.mark.parametrize("count", [1, 2, 4, 21, 22, 5000])
def test_every_row_is_compared_in_several_batch_sizes(write, count):
    source = Linear()
    parity = check_parity(source, write(), rows(count))
    assert parity.passed
    assert parity.rows == parity.outputs[0].rows == count
    assert count in accumulate(source.batches)  # what follows is asked again, to see whether it agrees with itself
    assert source.batches[:3] == [1, 3, 17][: len(source.batches[:3])] or count < 21
    assert set(parity.batches) <= set(source.batches)


def test_a_single_wrong_row_is_found_and_named(write):
    def wrong(x, y):
        y = y.copy()
        y[np.isclose(x[:, 0], marked)] += 1
        return y

    sample = rows(3000)
    marked = sample.tensors["x"][2345, 0]
    parity = check_parity(Linear(change=wrong), write(), sample)
    assert not parity.passed
    assert parity.outputs[0].mismatched_rows == 1
    assert parity.outputs[0].worst[0].row == 2345


@pytest.mark.parametrize("count", [4, 8, 10, 3])
def test_a_fixed_batch_is_padded_and_the_padding_not_compared(write, count):
    source = Linear(inputs=(TensorSpec("x", "float32", (4, 3)),))
    parity = check_parity(source, write(batch=4), rows(count))
    assert parity.passed
    assert parity.outputs[0].rows == count
    assert parity.batches == [4]
    assert set(source.batches) == {4}


def test_other_names_are_matched_by_position_and_reported(write):
    parity = check_parity(Linear(), write(inputs=("float_input",), outputs=("variable",)), rows(5))
    assert parity.passed
    assert [output.name for output in parity.outputs] == ["y"]
    assert any("float_input" in note for note in parity.notes)
    assert any("variable" in note for note in parity.notes)


def test_a_missing_output_fails(write):
    parity = check_parity(Linear(outputs=("y", "z")), write(), rows(5))
    assert not parity.passed
    assert [output.passed for output in parity.outputs] == [True, False]
    assert "no such output" in parity.outputs[1].problem


@pytest.mark.parametrize(
    "spec", [TensorSpec("x", "int64", ("batch", 3)), TensorSpec("x", "float32", ("batch", 3, 1))]
)
def test_other_inputs_are_an_error_that_shows_both(write, spec):
    with pytest.raises(DataError, match=r"float32\[batch,3\]"):
        check_parity(Linear(inputs=(spec,)), write(), rows(5))


def test_a_source_that_raises_is_our_error(write):
    def fail(x, y):
        raise ZeroDivisionError("no such luck")

    with pytest.raises(SourceError, match="no such luck"):
        check_parity(Linear(change=fail), write(), rows(5))


def test_a_runtime_that_raises_is_our_error(write):
    wide = Rows({"x": np.ones((5, 4), np.float32)}, "wrong", None)
    source = Linear()
    source.predict = lambda tensors: {"y": np.zeros((len(tensors["x"]), 2), np.float32)}
    with pytest.raises(ModelError, match="ONNX Runtime fails"):
        check_parity(source, write(), wide)


def test_progress_reaches_the_end(write):
    seen = []
    check_parity(Linear(), write(), rows(100), on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (100, 100)
    assert seen == sorted(seen)
