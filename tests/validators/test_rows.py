"""A verdict rests on the rows that were given."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import onnxtool
from onnxtool.errors import OnnxtoolError
from onnxtool.reports.render import render

RNG = np.random.default_rng(0)


class Sums(nn.Module):
    """Right only where the first number is small, once its limit is lowered."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        return torch.where(x[:, :1] > self.limit, x.sum(1, keepdim=True) * 1.1, x.sum(1, keepdim=True))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """An ONNX model with a batch of 1, right on the first of 40 rows alone, and the rows."""
    folder = tmp_path_factory.mktemp("fixed")
    rows = RNG.uniform(2, 3, (40, 4)).astype(np.float32)
    rows[0] = 1
    onnxtool.convert(Sums(1.5), folder / "wrong.onnx", inputs=["x:float32[1,4]"], target="mlnet", verify=False)
    np.savez(folder / "rows.npz", x=rows)
    return folder


def test_a_fixed_batch_is_run_once_a_row(fixed):
    source = Sums(9.0)
    for data, wrong in ((fixed / "rows.npz", 39), (None, None)):
        report = onnxtool.verify(fixed / "wrong.onnx", source, data=data, inputs=["x:float32[1,4]"])
        parity = report.subjects[0].parity
        assert not report
        assert parity.rows == 40 if data else parity.rows > 1024  # besides, rows at the edges
        assert parity.batches == [1]
        assert wrong is None or parity.outputs[0].mismatched_rows == wrong


def test_a_bundle_is_not_made_of_one_right_row(fixed, tmp_path):
    report = onnxtool.bundle(
        fixed / "wrong.onnx", Sums(9.0), tmp_path / "out", data=fixed / "rows.npz", inputs=["x:float32[1,4]"]
    )
    assert not report
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [1, 3])
def test_a_model_of_a_fixed_batch_converts_with_any_number_of_rows(tmp_path, size):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    torch.export.save(torch.export.export(module, (torch.randn(size, 3, 8, 8),)), tmp_path / "one.pt2")
    rows = RNG.random((40, 3, 8, 8), dtype=np.float32)
    report = onnxtool.convert(tmp_path / "one.pt2", tmp_path / "one.onnx", data={"input": rows})
    assert report, report.subjects[0].checks
    assert report.subjects[0].parity.rows == 40
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx")
    found = session.run(None, {"input": rows[:size]})[0]
    np.testing.assert_allclose(found, module(torch.tensor(rows[:size])).detach(), atol=1e-6)


class Streaming(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = nn.LSTM(8, 8, num_layers=2, batch_first=True)

    def forward(self, x, h, c):
        y, (h, c) = self.recurrent(x, (h, c))
        return y, h, c


STREAM = ["x:float32[batch,4,8]", "h:float32[2,batch,8]", "c:float32[2,batch,8]"]


def test_a_state_with_its_batch_second(tmp_path):
    path = tmp_path / "stream.onnx"
    report = onnxtool.convert(Streaming(), path, inputs=STREAM)
    assert report, report.subjects[0].checks
    assert [output.rows for output in report.subjects[0].parity.outputs] == [1024] * 3
    rows = {"x": RNG.normal(size=(5, 4, 8)), "h": RNG.normal(size=(2, 5, 8)), "c": RNG.normal(size=(2, 5, 8))}
    rows = {name: array.astype(np.float32) for name, array in rows.items()}
    report = onnxtool.verify(path, Streaming(), data=rows, inputs=STREAM)
    assert report, report.subjects[0].checks
    found = onnxruntime.InferenceSession(path).run(None, rows)
    truth = Streaming()(*map(torch.tensor, rows.values()))
    for output, expected in zip(found, truth, strict=True):
        np.testing.assert_allclose(output, expected.detach(), atol=1e-5)
    model = onnx.load(path)
    weight = next(w for w in model.graph.initializer if w.dims and w.data_type == 1 and np.prod(w.dims) > 100)
    changed = onnx.numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), weight.name))
    onnx.save(model, path)
    assert not onnxtool.verify(path, Streaming(), data=rows, inputs=STREAM)


class Graph(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.factor = nn.Linear(8, 4), factor

    def forward(self, x, edges):
        messages = self.linear(x)[edges[0]] * self.factor
        return torch.zeros(x.shape[0], 4).index_add(0, edges[1], messages)


GRAPH = ["x:float32[nodes,8]", "edges:int64[2,edges]"]


def test_a_graph_of_nodes_and_edges_is_one_row(tmp_path):
    path = tmp_path / "graph.onnx"
    report = onnxtool.convert(Graph(), path, inputs=GRAPH)
    assert report, report.subjects[0].checks
    assert report.subjects[0].parity.rows > 30
    rows = {"x": RNG.normal(size=(30, 8)).astype(np.float32), "edges": RNG.integers(0, 30, (2, 80))}
    report = onnxtool.verify(path, Graph(), data=rows, inputs=GRAPH)
    assert report, report.subjects[0].checks
    found = onnxruntime.InferenceSession(path).run(None, rows)[0]
    np.testing.assert_allclose(found, Graph()(*map(torch.tensor, rows.values())).detach(), atol=1e-5)
    assert not onnxtool.verify(path, Graph(1.01), data=rows, inputs=GRAPH)


def test_bags_of_words_convert_with_rows_of_the_users_own(tmp_path):
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.EmbeddingBag(50, 8, mode="sum")

        def forward(self, ids, offsets):
            return self.embedding(ids, offsets)

    inputs = ["ids:int64[tokens]", "offsets:int64[batch]"]
    rows = {"ids": np.arange(10), "offsets": np.array([0, 3, 7])}
    report = onnxtool.convert(Bags(), tmp_path / "bags.onnx", inputs=inputs, data=rows)
    assert report, report.subjects[0].checks
    with pytest.raises(OnnxtoolError, match="--data"):
        onnxtool.convert(Bags(), tmp_path / "bags.onnx", inputs=inputs)


def test_few_rows_are_in_the_verdict_itself(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 4))
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    onnxtool.convert(model, tmp_path / "m.onnx")
    few = onnxtool.verify(tmp_path / "m.onnx", model, data=x[:3])
    assert few
    for form in ("text", "md", "html", "junit", "json"):
        assert "3 rows, where 1,024 are usual" in " ".join(render(few, form).split()), form
    assert "usual" not in render(onnxtool.verify(tmp_path / "m.onnx", model), "text")
