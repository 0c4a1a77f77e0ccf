"""Optimised graphs: what survives, what is refused, and what the report says of it."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import onnxtool
from onnxtool.api import optimizing
from onnxtool.converters.graph.optimizers import Optimizer, optimizers, rewrite
from onnxtool.errors import ConversionError, UsageError
from onnxtool.reports.render import render

ALL = {optimizer.name: optimizer for optimizer in optimizers("full")}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """What is measured is no business of these tests."""
    monkeypatch.setattr(optimizing, "BUDGET_S", 0.1)


def run(model, rows):
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})


def border(model):
    return [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]


def properties(model):
    return {entry.key: entry.value for entry in model.metadata_props}


@pytest.mark.parametrize("kind", ["cnn", "transformer", "keras", "sklearn"])
@pytest.mark.parametrize("name", ALL)
def test_names_dimensions_and_metadata_survive(converted, kind, name):
    path, rows = converted(kind)
    plain = onnx.load(path)
    rewritten = rewrite(plain, ALL[name])
    assert border(rewritten) == border(plain)
    assert properties(rewritten) == properties(plain)
    assert (rewritten.producer_name, rewritten.ir_version) == (plain.producer_name, plain.ir_version)
    domains = {node.domain for node in rewritten.graph.node} | {""}
    assert {entry.domain for entry in rewritten.opset_import} <= domains | {"ai.onnx"}
    for batch in (1, 5):
        for before, after in zip(run(plain, rows[:batch]), run(rewritten, rows[:batch]), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_one_graph_is_kept_and_each_has_its_reason(converted, networks, tmp_path):
    path, rows = converted("sklearn")
    report = onnxtool.convert(networks("sklearn"), tmp_path / "fast.onnx", data=rows, optimize="full")
    assert report
    found = report.subjects[0].conversion.candidates
    assert [candidate.name for candidate in found] == ["converted graph", *ALL]
    assert all(candidate.reason for candidate in found)
    (kept,) = [candidate for candidate in found if candidate.outcome == "kept"]
    written = onnx.load(tmp_path / "fast.onnx")
    assert len(written.graph.node) == kept.nodes
    assert found[0].nodes == len(onnx.load(path).graph.node)
    timed = [candidate for candidate in found if candidate.comparisons]
    assert timed
    for candidate in timed:
        assert [found.batch for found in candidate.comparisons] == [1, 64]
        assert candidate.mismatched_rows == 0
        assert all(found.method == "paired" and found.ratio for found in candidate.comparisons)
    text = re.sub(r"\s+", " ", render(report, "text"))
    page = render(report, "html")
    for candidate in found:
        assert candidate.reason in text
        assert candidate.name in page


def test_an_optimiser_that_changes_an_answer_is_refused(graph, tmp_path):
    """onnxsim makes one factor of two, of which the first overflows for large numbers."""
    nodes = [helper.make_node("Mul", ["x", "up"], ["big"]), helper.make_node("Mul", ["big", "down"], ["y"])]
    source = graph(nodes, up=np.float32(1e30), down=np.float32(1e-30))
    rows = np.ones((20, 4), np.float32)
    rows[7, 2] = 1e9
    assert np.isinf(run(source, rows)[0][7, 2])
    assert np.isfinite(run(rewrite(onnx.load(source), ALL["onnxsim"]), rows)[0]).all()
    report = onnxtool.convert(str(source), tmp_path / "fast.onnx", data=rows, optimize="basic")
    assert report
    by_name = {candidate.name: candidate for candidate in report.subjects[0].conversion.candidates}
    assert by_name["onnxsim"].outcome == "refused"
    assert by_name["onnxsim"].reason.startswith("y: 1 of 20 rows are out of tolerance.")
    assert not by_name["onnxsim"].comparisons
    assert np.isinf(run(tmp_path / "fast.onnx", rows)[0][7, 2])


def test_without_the_row_that_shows_it_is_not_found(graph, tmp_path):
    """Candidates are compared with the source on the rows that are given, no others."""
    nodes = [helper.make_node("Mul", ["x", "up"], ["big"]), helper.make_node("Mul", ["big", "down"], ["y"])]
    source = graph(nodes, up=np.float32(1e30), down=np.float32(1e-30))
    report = onnxtool.convert(str(source), tmp_path / "f.onnx", data=np.ones((9, 4), np.float32), optimize="basic")
    by_name = {candidate.name: candidate for candidate in report.subjects[0].conversion.candidates}
    assert by_name["onnxsim"].mismatched_rows == 0


def test_what_drifts_already_is_not_optimised(networks, digits, tmp_path):
    rows = digits[0][:40]
    report = onnxtool.convert(
        networks("sklearn"), tmp_path / "m.onnx", data=rows, optimize="basic", rtol=0.0, atol=0.0
    )
    assert not report
    (only,) = report.subjects[0].conversion.candidates
    assert only.outcome == "kept"
    assert "drifts" in only.reason


def _renamed(model):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output[0].name = "other"
    return copy


def _cut(model):
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    del copy.graph.node[0]
    return copy


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda model: onnx.ModelProto(), "changes the model's input"),
        (lambda model: 1 / 0, "division by zero"),
        (_renamed, "changes the model's output"),
        (_cut, "invalid model"),
    ],
)
def test_a_graph_that_is_none_is_refused(converted, broken, complaint):
    with pytest.raises(ConversionError, match=complaint):
        rewrite(onnx.load(converted("sklearn")[0]), Optimizer("broken", broken))


def test_only_standard_operators_for_mlnet(networks, converted, tmp_path):
    _, rows = converted("sklearn")
    report = onnxtool.convert(
        networks("sklearn"), tmp_path / "net.onnx", data=rows, optimize="full", target="mlnet"
    )
    assert report
    extended = report.subjects[0].conversion.candidates[-1]
    assert extended.outcome == "refused"
    assert "com.microsoft.FusedGemm" in extended.reason
    assert onnxtool.lint(tmp_path / "net.onnx").passed
    assert {node.domain for node in onnx.load(tmp_path / "net.onnx").graph.node} <= {"", "ai.onnx.ml"}


def test_operators_of_onnx_runtimes_own_are_named(converted, tmp_path, monkeypatch):
    """Of a model that is faster with them than without, as recorded: what is measured may differ here."""
    path, rows = converted("cnn")
    monkeypatch.setattr(optimizing, "choose", lambda first, rest: [first, *rest[:-1], _kept(rest[-1])])
    report = onnxtool.convert(str(path), tmp_path / "fast.onnx", data=rows, optimize="full")
    assert report
    (sentence,) = report.subjects[0].conversion.choices
    assert sentence == "Only ONNX Runtime runs it: it has com.microsoft.FusedConv."


def _kept(candidate):
    return candidate.model_copy(update={"outcome": "kept", "reason": "Faster."})


def test_an_onnx_file_is_optimised_and_keeps_where_it_came_from(converted, tmp_path):
    path, rows = converted("cnn")
    report = onnxtool.convert(str(path), tmp_path / "fast.onnx", data=rows, optimize="basic")
    assert report
    assert report.subjects[0].source.framework == "onnx"
    before, after = (properties(onnx.load(file)) for file in (path, tmp_path / "fast.onnx"))
    assert before["onnxtool.source.framework"].startswith("torch")
    assert after["onnxtool.graph"] in {"converted graph", *ALL}
    assert {key: after[key] for key in before if "source" in key} == {
        key: before[key] for key in before if "source" in key
    }


def test_external_weights_survive(converted, tmp_path, monkeypatch):
    path, rows = converted("cnn")
    source = tmp_path / "outside.onnx"
    onnx.save_model(onnx.load(path), source, save_as_external_data=True, location="weights")
    report = onnxtool.convert(str(source), tmp_path / "fast.onnx", data=rows, optimize="basic")
    assert report
    (tmp_path / "weights").unlink()
    np.testing.assert_allclose(run(tmp_path / "fast.onnx", rows)[0], run(path, rows)[0], rtol=1e-4, atol=1e-5)

    onnx.save_model(onnx.load(path), source, save_as_external_data=True, location="weights")
    monkeypatch.setattr("onnxtool.models.onnx.artifact.INLINE_LIMIT", 1000)  # in place of 2 GB
    report = onnxtool.convert(str(source), tmp_path / "large.onnx", data=rows, optimize="full")
    assert report
    assert {candidate.reason for candidate in report.subjects[0].conversion.candidates[1:]} == {
        "It takes no model above 2 GB."
    }
    assert (tmp_path / "large.onnx.data").exists()


def test_a_source_is_not_overwritten(converted, tmp_path, monkeypatch):
    path, _ = converted("cnn")
    monkeypatch.chdir(path.parent)
    with pytest.raises(UsageError, match="the source itself"):
        onnxtool.convert(str(path), optimize="basic")
    with pytest.raises(UsageError, match="--no-verify"):
        onnxtool.convert(str(path), tmp_path / "o.onnx", optimize="basic", verify=False)


def test_the_opset_of_an_onnx_file_changes_by_option(converted, tmp_path):
    path, rows = converted("keras")
    report = onnxtool.convert(str(path), tmp_path / "later.onnx", data=rows, opset=21)
    assert report
    assert report.subjects[0].model.opsets["ai.onnx"] == 21


def test_onnxslim_gets_no_model_with_thousands_of_inputs():
    values = [helper.make_tensor_value_info(f"x{number}", onnx.TensorProto.FLOAT, [1]) for number in range(2001)]
    graph = helper.make_graph([helper.make_node("Sum", [value.name for value in values], ["y"])], "wide", values,
                              [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])])  # fmt: skip
    with pytest.raises(ConversionError, match="each of 2,002 inputs and outputs with every other"):
        rewrite(helper.make_model(graph), ALL["onnxslim"])
