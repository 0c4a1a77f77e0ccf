"""The folder of a bundle: what is in it, when it is written, and when it is not."""

import hashlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import joblib
import jsonschema
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool import cli, targets
from onnxtool.errors import ModelError, OutputError, UsageError
from onnxtool.targets import bundle as bundles
from onnxtool.targets import mlnet

SCHEMAS = [Path(package.__file__).parent / "schema" for package in (targets, mlnet)]


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """A folder with a model, its source and rows."""
    folder = tmp_path_factory.mktemp("iris")
    rows, truth = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(rows, truth)
    joblib.dump(model, folder / "iris.joblib")
    np.save(folder / "rows.npy", rows.astype(np.float32))
    onnxtool.convert(model, folder / "iris.onnx", target="mlnet", data=folder / "rows.npy")
    worse = LogisticRegression(max_iter=500, C=0.01).fit(rows, truth)
    joblib.dump(worse, folder / "worse.joblib")
    return folder


@pytest.fixture
def make(iris, tmp_path):
    def make(output=tmp_path / "bundle", source="iris.joblib", **options):
        given = {"data": iris / "rows.npy", "duration": 0.01, **options}
        return onnxtool.bundle(iris / "iris.onnx", iris / source, output, **{"sandbox": None, **given})

    return make


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- What is in it ----------------------------------------------------------------------------------------------


def test_a_bundle_made_twice_is_the_same_except_for_times(make, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("first", "second"):
        assert make(tmp_path / name)
    first, second = _files(tmp_path / "first"), _files(tmp_path / "second")
    manifests = [json.loads(files.pop("manifest.json")) for files in (first, second)]
    assert first == second
    for manifest in manifests:
        assert manifest["report"]["created"] == "2023-11-14T22:13:20Z"
        for measurement in manifest["report"]["models"][0]["measurements"]:
            assert measurement.pop("timing")["samples"] > 0
    assert manifests[0] == manifests[1]


def test_manifest_and_golden_rows_keep_their_schemas(make, tmp_path):
    make(data=None)
    for name in ("manifest", "golden"):
        content = json.loads((tmp_path / "bundle" / f"{name}.json").read_text())
        [schema] = [path for folder in SCHEMAS for path in folder.glob(f"{name}-*.json")]
        jsonschema.validate(content, json.loads(schema.read_text()))


def test_the_manifest_says_what_is_in_the_folder(make, iris, tmp_path):
    make()
    files = _files(tmp_path / "bundle")
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert list(manifest["files"]) == sorted(files)
    assert files["model.onnx"] == (iris / "iris.onnx").read_bytes()
    assert manifest["name"] == "IrisOnnx"
    assert manifest["source"]["kind"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert manifest["source"]["sha256"] == hashlib.sha256((iris / "iris.joblib").read_bytes()).hexdigest()
    assert manifest["inputs"][0] | {"name": "", "column": "", "property": ""} == {
        "name": "", "column": "", "property": "", "csharp_type": "float[]", "dtype": "float32",
        "shape": ["batch", 4], "row_shape": [1, 4], "any_length": False, "class_labels": [],
    }  # fmt: skip
    [model] = manifest["report"]["models"]
    assert model["passed"]
    assert model["sha256"] == manifest["files"]["model.onnx"]
    assert [output["mismatched_rows"] for output in model["outputs"]] == [0, 0]
    assert all(
        str(iris) not in text.decode() for name, text in files.items() if name not in ("golden.json", "model.onnx")
    )


def test_golden_rows_are_spread_over_the_rows_and_say_what_the_source_says(make, iris, tmp_path):
    make()
    golden = json.loads((tmp_path / "bundle" / "golden.json").read_text())
    rows, model = np.load(iris / "rows.npy"), joblib.load(iris / "iris.joblib")
    [name] = golden["rows"][0]["inputs"]
    given = np.array([row["inputs"][name] for row in golden["rows"]], np.float32)
    picked = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in given]
    assert len(picked) == 32
    assert {row // 50 for row in picked} == {0, 1, 2}  # the rows are sorted by class
    assert [row["outputs"]["label"] for row in golden["rows"]] == model.predict(given)[:, None].tolist()
    expected = model.predict_proba(given)
    found = [row["outputs"]["probabilities"] for row in golden["rows"]]
    assert np.allclose(found, expected, rtol=1e-12, atol=0)  # alone, a row may take other sums than in a batch
    assert golden["shapes"] == {name: [1, 4], "label": [1], "probabilities": [1, 3]}


def test_several_targets_have_their_own_class_labels(tmp_path):
    rows, truth = load_iris(return_X_y=True)
    targets = np.stack([truth + 10, truth % 2], axis=1)
    model = RandomForestClassifier(3, max_depth=3, random_state=0).fit(rows, targets)
    for target in ("ort", "mlnet"):  # with slot names and without
        onnxtool.convert(model, tmp_path / f"{target}.onnx", target=target, data=rows)
        assert onnxtool.bundle(tmp_path / f"{target}.onnx", model, tmp_path / target, data=rows, duration=0.01)
        outputs = json.loads((tmp_path / target / "manifest.json").read_text())["outputs"]
        assert [output["class_labels"] for output in outputs] == [
            [], ["10", "11", "12"], ["0", "1"],
        ]  # fmt: skip


def test_projects_are_xml_and_pin_their_versions(make, tmp_path):
    make(mlnet_version="4.0.2")
    folder = tmp_path / "bundle"
    projects = list(folder.rglob("*.csproj"))
    assert sorted(path.relative_to(folder).as_posix() for path in projects) == [
        "IrisOnnx.Check/IrisOnnx.Check.csproj",
        "IrisOnnx.Tests/IrisOnnx.Tests.csproj",
        "IrisOnnx/IrisOnnx.csproj",
    ]  # fmt: skip
    settings = {node.tag: node.text for node in ET.parse(folder / "Directory.Build.props").iter()}  # noqa: S314 - ours
    assert settings["MLNetVersion"] == "4.0.2"
    assert settings["OnnxRuntimeVersion"] == "1.18.1"
    assert settings["OnnxRuntimePackage"] == "Microsoft.ML.OnnxRuntime"
    for path in projects:
        for node in ET.parse(path).iter("PackageReference"):  # noqa: S314 - ours
            assert re.fullmatch(r"\$\(\w+Version\)|\d+\.\d+\.\d+", node.get("Version"))
            assert re.sub(r"\$\((\w+)\)", lambda match: settings[match[1]], node.get("Version"))[0].isdigit()
        for node in ET.parse(path).iter():  # noqa: S314 - ours
            reference = node.get("Include", "") if node.tag in ("ProjectReference", "None") else ""
            assert not reference or (path.parent / reference).is_file()


@pytest.mark.parametrize("version", ["3.0.1", "1.5", "99", "new"])
def test_a_release_that_lacks_what_the_code_uses_is_refused(make, version, tmp_path):
    with pytest.raises(UsageError, match="--mlnet-version"):
        make(mlnet_version=version)
    assert not (tmp_path / "bundle").exists()


def test_providers_and_threads_are_measured_and_reported(make, tmp_path):
    assert make(providers=["cpu", "cuda"], threads=[1, 2])
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    cells = manifest["report"]["models"][0]["measurements"]
    assert [(cell["provider"], cell["threads"], cell["status"]) for cell in cells] == [
        ("CPUExecutionProvider", 1, "measured"), ("CPUExecutionProvider", 2, "measured"),
        ("CUDAExecutionProvider", 1, "unavailable"), ("CUDAExecutionProvider", 2, "unavailable"),
    ]  # fmt: skip
    assert cells[1]["settings"] == {
        "package": "Microsoft.ML.OnnxRuntime", "gpu_device_id": None, "fallback_to_cpu": False,
        "intra_op_num_threads": 2, "create_session_options": False,
    }  # fmt: skip
    assert cells[2]["settings"]["gpu_device_id"] == 0
    assert "onnxruntime-gpu" in cells[2]["reason"]
    assert cells[2]["timing"] is None


# -- When it is not written ---------------------------------------------------------------------------------------


def test_a_model_that_drifts_is_not_bundled(make, tmp_path):
    report = make(source="worse.joblib")
    assert not report
    assert report.subjects[0].bench is None
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_breaks_a_rule_is_not_bundled(iris, tmp_path):
    model = onnx.load(iris / "iris.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float16), "unused"))
    onnx.save(model, tmp_path / "half.onnx")
    report = onnxtool.bundle(
        tmp_path / "half.onnx", iris / "iris.joblib", tmp_path / "bundle", duration=0.01, sandbox=None
    )
    assert not report
    assert report.subjects[0].lint.findings[0].location == "initializer 'unused'"
    assert not (tmp_path / "bundle").exists()


def test_a_fixed_batch_is_refused(iris, tmp_path):
    model = onnx.load(iris / "iris.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, tmp_path / "eight.onnx")
    report = onnxtool.bundle(
        tmp_path / "eight.onnx", iris / "iris.joblib", tmp_path / "bundle", duration=0.01, sandbox=None
    )
    assert not report
    assert any("batch is fixed at 8" in check.message for check in report.subjects[0].checks)
    assert not (tmp_path / "bundle").exists()


def test_an_output_that_the_source_does_not_have_is_an_error(iris, tmp_path):
    model = onnx.load(iris / "iris.onnx")
    model.graph.node.append(onnx.helper.make_node("Identity", ["probabilities"], ["more"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["batch", 3]))
    onnx.save(model, tmp_path / "more.onnx")
    with pytest.raises(ModelError, match="The source has no output 'more'"):
        onnxtool.bundle(
            tmp_path / "more.onnx", iris / "iris.joblib", tmp_path / "bundle", duration=0.01, sandbox=None
        )
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_is_no_bundle_stays(make, tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"is no bundle.*--force"):
        make()
    assert _files(folder) == {"thesis.tex": b"years of work"}
    assert make(force=True)
    assert "thesis.tex" not in _files(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"format": "mlnet"}'])
def test_a_manifest_of_somebody_else_makes_no_bundle(make, tmp_path, content):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text(content)
    with pytest.raises(OutputError, match="is no bundle"):
        make()


def test_force_does_not_delete_what_the_bundle_is_made_of(make, iris, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"would delete .*iris"):
        make(iris, force=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (".", ".."):
        with pytest.raises(OutputError, match="would delete"):
            make(folder, force=True)
    assert (iris / "iris.onnx").is_file()


def test_a_bundle_is_replaced_as_a_whole(make, tmp_path):
    assert make()
    (tmp_path / "bundle" / "IrisOnnx" / "Old.cs").write_text("// of an earlier version")
    (tmp_path / "bundle" / "README.md").write_text("edited")
    assert make()
    files = _files(tmp_path / "bundle")
    assert "IrisOnnx/Old.cs" not in files
    assert files["README.md"].startswith(b"# IrisOnnx")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failure_leaves_the_old_bundle(make, tmp_path, monkeypatch):
    assert make()
    before = _files(tmp_path / "bundle")
    rename = bundles.Path.rename

    def fail_at_the_last_step(path, target):
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(bundles.Path, "rename", fail_at_the_last_step)
    with pytest.raises(OutputError, match="No space left on device"):
        make()
    assert _files(tmp_path / "bundle") == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("output", ["missing/bundle", "file"])
def test_a_place_that_cannot_be_written_is_an_error_before_any_work(make, tmp_path, output):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        make(tmp_path / output, source="worse.joblib")


# -- The command --------------------------------------------------------------------------------------------------


def test_the_command_writes_a_bundle_and_says_where(iris, tmp_path, monkeypatch, capsys):
    for source, code, words in (("worse.joblib", 1, "No bundle was written."), ("iris.joblib", 0, "Bundle: out")):
        monkeypatch.chdir(tmp_path)
        arguments = [
            "bundle",
            str(iris / "iris.onnx"),
            str(iris / source),
            "-o",
            "out",
            "--data",
            str(iris / "rows.npy"),
        ]
        assert cli.cli.main([*arguments, "--duration", "0.01", "--threads", "1"], standalone_mode=False) == code
        assert words in capsys.readouterr().err
        assert (tmp_path / "out").exists() == (code == 0)
