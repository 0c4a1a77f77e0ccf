"""`onnxtool lint` and the options of `convert --target mlnet`, as their users meet them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import onnxtool
from onnxtool.cli import cli
from onnxtool.errors import ConversionError, UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.targets.mlnet.releases import NEWEST, RELEASES, Deployment, find_release
from onnxtool.targets.mlnet.rules import rules_of
from onnxtool.targets.mlnet.slots import slot_names

DOCS = Path(__file__).parents[3] / "docs"


def write(path: Path, dtype: int = TensorProto.FLOAT, output: str = "y", opset: int = 20) -> Path:
    """y = -x, in a dtype."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], [output])],
        "negative",
        [helper.make_tensor_value_info("x", dtype, ["batch", 3])],
        [helper.make_tensor_value_info(output, dtype, ["batch", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.onnx")


@pytest.fixture
def bad(tmp_path):
    return write(tmp_path / "bad.onnx", TensorProto.FLOAT16, "y.output")


def run(*arguments):
    return CliRunner().invoke(cli, ["lint", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def test_a_model_that_keeps_the_rules_passes(good):
    done = run(good)
    assert done.return_value == 0
    assert "nothing found" in done.output


def test_an_error_fails_and_says_what_and_why_and_what_to_do(bad):
    done = run(bad, "--format", "text")
    assert done.return_value == 1
    text = " ".join(done.output.split())
    assert "MLNET005 input 'x'" in text
    assert "ML.NET has no float16" in text
    for rule in ("MLNET005", "MLNET022"):
        assert rule in text
    assert not onnxtool.lint(bad)


def test_a_warning_does_not_fail(tmp_path):
    done = run(write(tmp_path / "doubles.onnx", TensorProto.DOUBLE), "--format", "json")
    report = json.loads(done.output)
    assert done.return_value == 0
    assert {finding["rule"] for finding in report["subjects"][0]["lint"]["findings"]} == {"MLNET006", "MLNET031"}


@pytest.mark.parametrize(
    ("kind", "domain", "inputs", "message"),
    [
        ("NoSuchOp", "com.microsoft", ["x"], "NoSuchOp"),  # only ONNX Runtime knows what it has
        ("Add", "", ["x", "i"], "Type"),
    ],
)
def test_what_onnx_runtime_does_not_load_does_not_pass(tmp_path, kind, domain, inputs, message):
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    values += [helper.make_tensor_value_info("i", TensorProto.INT64, ["N", 3])] if "i" in inputs else []
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph([helper.make_node(kind, inputs, ["y"], domain=domain)], "g", values, [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    report = onnxtool.lint(path)
    assert not report
    [finding] = report.subjects[0].lint.findings
    assert (finding.rule, finding.location) == ("LOAD", "file")
    assert message in finding.message
    [gate] = [check for check in report.subjects[0].checks if not check.passed]
    assert gate.id == "LOAD"


@pytest.mark.parametrize("release", ["1.5.0-preview2", "1.7.1", "3", "5.0.0"])
def test_the_release_decides(tmp_path, release):
    limit = find_release(release).opset
    path = write(tmp_path / "model.onnx", opset=limit + 1)
    broken = {finding.rule for finding in onnxtool.lint(path, mlnet_version=release).subjects[0].lint.findings}
    assert "MLNET027" in broken
    within = write(tmp_path / "within.onnx", opset=limit)
    kept = {finding.rule for finding in onnxtool.lint(within, mlnet_version=release).subjects[0].lint.findings}
    assert "MLNET027" not in kept


def test_sarif_holds_to_its_schema(bad):
    done = run(bad, "--format", "sarif")
    assert done.return_value == 1
    log = Sarif.model_validate_json(done.output)
    [result] = log.runs
    assert {rule.id for rule in result.tool.driver.rules} == {rule.id for rule in rules_of(Deployment()).rules}
    assert {entry.ruleId for entry in result.results} == {"MLNET005", "MLNET022"}
    for entry in result.results:
        assert result.tool.driver.rules[entry.ruleIndex].id == entry.ruleId
        assert entry.locations[0].physicalLocation.artifactLocation.uri.endswith("bad.onnx")
    levels = {entry.ruleId: entry.level.value for entry in result.results}
    assert levels == {"MLNET005": "error", "MLNET022": "warning"}


def test_junit_has_a_case_for_every_rule(bad):
    done = run(bad, "--format", "junit")
    root = ET.fromstring(done.output.encode())  # noqa: S314 - our own output
    [suite] = root
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [rule.id for rule in rules_of(Deployment()).rules]
    assert suite.get("failures") == "1"
    [failure] = suite.iter("failure")
    assert "input 'x'" in failure.text
    assert "output 'y.output'" in failure.text


def test_fix_writes_a_model_that_says_the_same(bad, tmp_path):
    done = run(bad, "--fix", "-o", tmp_path / "fixed.onnx", "--format", "json")
    assert done.return_value == 0
    subject = json.loads(done.output)["subjects"][0]
    assert len(subject["lint"]["repairs"]) == 3
    assert subject["lint"]["findings"] == []
    assert subject["parity"]["passed"]
    fixed = OnnxModel.read(tmp_path / "fixed.onnx")
    assert [str(spec) for spec in (*fixed.inputs, *fixed.outputs)] == ["x:float32[batch,3]", "y:float32[batch,3]"]
    x = np.array([[1, -2, 0.5]], np.float32)
    np.testing.assert_array_equal(fixed.predict(fixed.session(), {"x": x})["y"], -x)
    assert OnnxModel.read(bad).inputs[0].dtype == "float16"


def test_fix_in_place(bad):
    assert run(bad, "--fix").return_value == 0
    assert run(bad).return_value == 0


def test_a_repair_that_would_change_what_is_computed_is_not_written(bad, monkeypatch):
    def spoil(rules, model):
        model.graph.node[0].op_type = "Abs"
        return ["Something went wrong."]

    monkeypatch.setattr("onnxtool.targets.lint.RuleSet.repair", spoil)
    before = bad.read_bytes()
    report = onnxtool.lint(bad, fix=True)
    assert not report
    assert "parity" in {check.id for check in report.subjects[0].checks if not check.passed}
    assert bad.read_bytes() == before


def test_zipmap_becomes_a_matrix_with_slot_names(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    labels = np.array(["no", "maybe", "yes"])[(x[:, 0] > 0).astype(int) + (x[:, 1] > 0)]
    from skl2onnx import to_onnx

    model = to_onnx(LogisticRegression().fit(x, labels), x[:1], target_opset=15)
    path = tmp_path / "zipmap.onnx"
    onnx.save(model, path)
    assert {finding.rule for finding in onnxtool.lint(path).subjects[0].lint.findings} >= {"MLNET008"}
    assert onnxtool.lint(path, fix=True)
    fixed = OnnxModel.read(path)
    assert fixed.outputs[1].shape[1] == 3
    assert slot_names(fixed.proto.graph) == {fixed.outputs[1].name: ["maybe", "no", "yes"]}


def test_weights_move_into_the_file_and_large_ones_are_named(tmp_path):
    weights = numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = tmp_path / "outside.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="outside.data", size_threshold=0)
    assert [finding.rule for finding in onnxtool.lint(path).subjects[0].lint.findings] == ["MLNET002"]
    assert onnxtool.lint(path, fix=True, output=tmp_path / "inside.onnx")
    (tmp_path / "outside.data").unlink()
    inside = OnnxModel.read(tmp_path / "inside.onnx")
    assert inside.predict(inside.session(), {"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[3, 3, 3]]

    large = OnnxModel.read(path).proto
    large.graph.initializer[0].dims[:] = [2**15, 2**15]
    assert "MLNET001" in {finding.rule for finding in rules_of(Deployment()).find(large)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "other.onnx"], "give --fix"),
        (["--mlnet-version", "soon"], "is no version"),
        (["--mlnet-version", "0.11"], "known are"),
        (["--mlnet-version", "6.0"], "known are"),
    ],
)
def test_options_that_make_no_sense(good, arguments, message):
    with pytest.raises(UsageError, match=message):
        run(good, *arguments)


def test_every_release_finds_its_row():
    assert find_release(None) is NEWEST
    assert [find_release(release.version) for release in RELEASES] == list(RELEASES)
    for version, runtime in [
        ("1.5.3", "1.3.0"),
        ("1.7.1", "1.6.0"),
        ("3.0.1", "1.14.0"),
        ("4", "1.18.1"),
        ("5.0.1", "1.31.1"),
    ]:
        assert find_release(version).runtime == runtime


def test_the_page_of_rules_is_in_step():
    page = runpy.run_path(str(DOCS / "generate_mlnet_rules.py"))["page"]()
    assert (DOCS / "mlnet-rules.md").read_text(encoding="utf-8") == page, "run: make schema"


# -- convert --------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)


@pytest.mark.parametrize("release", ["1.5.0", "1.7.1", "2.0.0", "3.0.1", "4.0.3", "5.0.1"])
def test_the_conversion_stays_within_the_release(tmp_path, release):
    path = tmp_path / "model.onnx"
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    report = onnxtool.convert(model, path, target="mlnet", mlnet_version=release)
    assert report
    found, limits = report.subjects[0].model, find_release(release)
    assert found.opsets["ai.onnx"] == min(20, limits.opset)
    assert found.opsets["ai.onnx.ml"] <= limits.ml_opset
    assert found.ir_version <= limits.ir_version
    assert onnxtool.lint(path, mlnet_version=release)


def test_an_onnx_model_keeps_its_opset_or_takes_the_one_given(good, tmp_path):
    for opset, expected in ((None, OnnxModel.read(good).summary().opsets["ai.onnx"]), (13, 13)):
        report = onnxtool.convert(good, tmp_path / "model.onnx", target="mlnet", opset=opset)
        assert report.subjects[0].model.opsets["ai.onnx"] == expected


def test_what_cannot_be_repaired_is_an_error_that_names_the_rule(tmp_path):
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, X[:, 0] > 0)
    with pytest.raises(ConversionError, match=r"ai\.onnx\.ml.*MLNET028"):
        onnxtool.convert(model, tmp_path / "model.onnx", target="mlnet", mlnet_version="1.7.1")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "vector"}, "goes with --target mlnet"),
        ({"mlnet_version": "5"}, "goes with --target mlnet"),
        ({"target": "mlnet", "mlnet_version": "1.7.1", "opset": 17}, "up to opset 13"),
    ],
)
def test_options_of_convert_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        onnxtool.convert(LinearRegression().fit(X, X[:, 0]), tmp_path / "model.onnx", **options)


def test_the_columns_keep_their_names_and_the_report_says_what_was_done(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(X, columns=["length (cm)", "label", "X"])
    model = LogisticRegression().fit(frame, X[:, 0] > 0)
    report = onnxtool.convert(model, tmp_path / "model.onnx", target="mlnet", columns="separate", data=frame)
    assert report
    assert [tensor.name for tensor in report.subjects[0].model.inputs] == ["length (cm)", "label_", "X"]
    choices = " ".join(report.subjects[0].conversion.choices)
    assert "an input for each of its 3 columns" in choices
    assert "slot names" in choices


def test_a_table_feeds_the_vectors_and_the_source_verifies_them(tmp_path):
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.integers(18, 80, 60), "city": rng.choice(["Oslo", "Rome"], 60), "cars": X[:60, 0]}
    )
    steps = [("numbers", "passthrough", ["age", "cars"]), ("texts", OneHotEncoder(), ["city"])]
    model = make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(frame, frame.age > 40)
    path = tmp_path / "model.onnx"
    assert onnxtool.convert(model, path, target="mlnet", columns="vector", data=frame)
    written = OnnxModel.read(path)
    assert [(spec.name, spec.columns) for spec in written.inputs] == [("features", ("age", "cars")), ("city", ())]
    assert onnxtool.verify(path, model, data=frame)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert onnxtool.bench(path, data=tmp_path / "rows.csv", duration=0.05)
