"""Bundles, compiled and run: the generated program scores the golden rows in ML.NET 5."""

import hashlib
import json
import re
import shutil
import subprocess

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import xgboost
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import onnxtool
from onnxtool.errors import UsageError
from onnxtool.targets.mlnet import report as mlnet_report


def _name(bundle):
    return json.loads((bundle / "manifest.json").read_text())["name"]


def _library(bundle):
    return sorted((bundle / _name(bundle)).glob("*.cs"))


def _program(bundle):
    return [*_library(bundle), bundle / f"{_name(bundle)}.Check" / "Program.cs"]


def _bundle(folder, source, name, *, target="mlnet", **options):
    """Convert a source and bundle it."""
    assert onnxtool.convert(source, folder / f"{name}.onnx", target=target, **options)
    report = onnxtool.bundle(folder / f"{name}.onnx", source, folder / name, duration=0.05, **options)
    assert report, [check for check in report.subjects[0].checks if not check.passed]
    return folder / name


def _rehash(bundle):
    """Make the manifest agree with what was tampered with."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for file in ("model.onnx", "golden.json"):
        manifest["files"][file] = hashlib.sha256((bundle / file).read_bytes()).hexdigest()
    manifest["report"]["models"][0]["sha256"] = manifest["files"]["model.onnx"]
    path.write_text(json.dumps(manifest))


# -- Kinds of model -------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
IRIS = load_iris(return_X_y=True)
MATRIX = IRIS[0].astype(np.float32)


def _customers():
    frame = pd.DataFrame(
        {
            "age": RNG.normal(40, 10, 200).round().astype(np.float32),
            "home city": RNG.choice(["Oslo", "Rome", "København", ""], 200),
            "visits": RNG.poisson(3, 200),
        }
    )
    truth = np.where((frame["age"] > 40) ^ (frame["home city"] == "Rome"), "yes", "no")
    frame.loc[::7, "age"] = np.nan
    steps = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]), (OneHotEncoder(), ["home city"])
    )
    return make_pipeline(steps, LogisticRegression()).fit(frame, truth), {"data": frame}


def _xgboost():
    rows = MATRIX.copy()
    rows[::5, 1] = np.nan
    return xgboost.XGBClassifier(n_estimators=8, max_depth=3).fit(rows, IRIS[1]), {"data": rows}


class Ratings(torch.nn.Module):
    """Two inputs of different types."""

    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(50, 4)
        self.layers = torch.nn.Sequential(torch.nn.Linear(7, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

    def forward(self, item, features):
        return self.layers(torch.cat([self.items(item[:, 0]), features], dim=1))


def _mlp():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3), torch.nn.Softmax(1))


def _keras_cnn():
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )  # fmt: skip


def _keras_gru():
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((None, 3), name="series"), keras.layers.GRU(4), keras.layers.Dense(1)])


KINDS = {
    "classifier": lambda: (LogisticRegression(max_iter=500).fit(*IRIS), {"data": MATRIX}),
    "regressor": lambda: (RandomForestRegressor(5, max_depth=4).fit(*load_diabetes(return_X_y=True)), {}),
    "pipeline over text and numbers": _customers,
    "xgboost": _xgboost,
    "lightgbm": lambda: (lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(MATRIX, IRIS[1]), {}),
    "clusters": lambda: (KMeans(3, n_init=1, random_state=0).fit(MATRIX), {}),
    "neighbours": lambda: (KNeighborsClassifier().fit(*IRIS), {"data": MATRIX}),
    "torch mlp": lambda: (_mlp(), {"inputs": ["input:float32[batch,4]"]}),
    "torch of two inputs": lambda: (
        Ratings(),
        {"data": {"item": RNG.integers(0, 50, (60, 1)), "features": RNG.normal(size=(60, 3)).astype(np.float32)}},
    ),
    "keras cnn": lambda: (_keras_cnn(), {}),
    "keras of any length": lambda: (_keras_gru(), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_golden_rows_score_in_mlnet_as_in_the_source(kind, tmp_path, compiled):
    source, options = KINDS[kind]()
    bundle = _bundle(tmp_path, source, kind, **options)
    golden = json.loads((bundle / "golden.json").read_text())
    assert len(golden["rows"]) >= 20
    done = compiled(_program(bundle))(bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{len(golden['rows'])} golden rows agree")


# -- A bundle of a pipeline over text and numbers ---------------------------------------------------------------


@pytest.fixture(scope="module")
def customers(tmp_path_factory):
    """The folder that it lies in, the source and its data."""
    folder = tmp_path_factory.mktemp("customers")
    source, options = _customers()
    return _bundle(folder, source, "customers v2", **options), source, options["data"]


@pytest.fixture(scope="module")
def check(customers, compiled):
    """Its program."""
    return compiled(_program(customers[0]), customers[0])


@pytest.fixture
def copy(customers, tmp_path):
    """A bundle to tamper with."""
    return shutil.copytree(customers[0], tmp_path / "bundle")


def test_the_program_finds_its_files_where_a_build_puts_them(check):
    assert check().returncode == 0


def test_an_answer_that_differs_is_drift(check, copy):
    golden = json.loads((copy / "golden.json").read_text())
    golden["rows"][3]["outputs"]["probabilities"][1] += 0.001
    golden["rows"][5]["outputs"]["label"] = ["maybe"]
    (copy / "golden.json").write_text(json.dumps(golden))
    _rehash(copy)
    done = check(copy)
    assert done.returncode == 1
    assert done.stderr.startswith("Drift in ML.NET: 2 elements of 32 golden rows are out of tolerance.")
    assert 'row 3, output "probabilities", element 1:' in done.stderr
    assert re.search(r'row 5, output "label", element 0: "(yes|no)" instead of "maybe"', done.stderr)


def test_a_golden_infinity_or_nan_is_met_by_itself_alone(check, copy):
    golden = json.loads((copy / "golden.json").read_text())
    for row, expected in enumerate(["NaN", "Infinity", "-Infinity"]):
        golden["rows"][row]["outputs"]["probabilities"][0] = expected
    (copy / "golden.json").write_text(json.dumps(golden))
    _rehash(copy)
    assert check(copy).stderr.startswith("Drift in ML.NET: 3 elements")


def test_another_model_is_not_loaded(check, copy, customers, tmp_path):
    _, source, data = customers
    source[-1].coef_[0, 0] += 1
    try:
        onnxtool.convert(source, tmp_path / "model.onnx", target="mlnet", data=data)
    finally:
        source[-1].coef_[0, 0] -= 1
    shutil.move(tmp_path / "model.onnx", copy / "model.onnx")
    done = check(copy)
    assert done.returncode == 2
    assert "model.onnx is not the file that the bundle was made with" in done.stderr
    _rehash(copy)
    done = check(copy)
    assert done.returncode == 2
    assert "model.onnx is not the model that this code was made for: its SHA-256 is" in done.stderr


@pytest.mark.parametrize("file", ["golden.json", "model.onnx"])
def test_a_file_that_was_changed_is_named(check, copy, file):
    (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    done = check(copy)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file} is not the file that the bundle was made with: its SHA-256 is" in done.stderr


@pytest.mark.parametrize("file", ["golden.json", "model.onnx", "manifest.json"])
def test_a_damaged_file_is_an_error_and_no_crash(check, copy, file):
    (copy / file).write_bytes((copy / file).read_bytes()[:200])
    if file != "manifest.json":
        _rehash(copy)
    done = check(copy)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Cannot check the model: ")


def test_a_pointer_of_git_lfs_and_a_missing_runtime_say_what_to_do(check, copy, customers, compiled):
    (copy / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5678\n")
    _rehash(copy)
    done = check(copy)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a pointer of Git LFS instead of the model. Run: git lfs pull" in done.stderr
    alone = compiled(_program(customers[0]), customers[0])
    for native in alone.dll.parent.glob("*onnxruntime*.so"):
        native.unlink()
    done = alone(customers[0])
    assert (done.returncode, done.stdout) == (2, "")
    assert "The native ONNX Runtime is missing here" in done.stderr
    assert alone("--help").stdout.startswith("Usage: CustomersV2Onnx.Check [FOLDER] [PROVIDER]")


TWO = """
using System;
using FlowerOnnx;
using FlowerV2Onnx;

using var first = new FlowerScorer();
using var second = new FlowerV2Scorer();
using var batches = new FlowerV2BatchScorer();
float[] row = [5.1f, 3.5f, 1.4f, 0.2f];
Console.WriteLine(first.Score(new FlowerInput { X = row }).Label[0]);
Console.WriteLine(second.Score(new FlowerV2Input { X = row }).Label[0]);
Console.WriteLine(batches.ScoreBatch([new FlowerV2Input { X = row }])[0].Label[0]);

internal sealed class Flower;

internal sealed class FlowerModel;
"""


def test_two_versions_of_a_bundle_answer_for_themselves_in_one_program(tmp_path, dotnet):
    """As a solution has them: a program with a project reference to each."""
    for name, offset in (("Flower", 0), ("FlowerV2", 10)):
        model = LogisticRegression(max_iter=500).fit(IRIS[0], IRIS[1] + offset)
        onnxtool.convert(model, tmp_path / "model.onnx", target="mlnet", data=MATRIX)
        assert onnxtool.bundle(
            tmp_path / "model.onnx", model, tmp_path / name, data=MATRIX, duration=0.05, name=name
        )
    with pytest.raises(UsageError, match="--name Flower makes FlowerScorer"):
        onnxtool.bundle(tmp_path / "model.onnx", model, tmp_path / "unnamed", data=MATRIX)
    (tmp_path / "Two").mkdir()
    (tmp_path / "Two" / "Program.cs").write_text(TWO)
    references = "".join(
        f'<ProjectReference Include="../{name}/{name}Onnx/{name}Onnx.csproj" />' for name in ("Flower", "FlowerV2")
    )
    (tmp_path / "Two" / "Two.csproj").write_text(
        '<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><OutputType>Exe</OutputType>'
        "<TargetFramework>net10.0</TargetFramework><Nullable>enable</Nullable>"
        "<TreatWarningsAsErrors>true</TreatWarningsAsErrors></PropertyGroup>"
        f"<ItemGroup>{references}</ItemGroup></Project>"
    )
    command = [dotnet, "run", "--project", tmp_path / "Two"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "10", "10"]), done.stdout + done.stderr
    # The rows of the data stay with the bundle's own programs.
    assert not list((tmp_path / "Two").rglob("golden.json"))


def test_a_missing_file_is_an_error_and_no_crash(check, tmp_path):
    done = check(tmp_path)
    assert done.returncode == 2
    assert "manifest.json" in done.stderr


def test_a_schema_of_the_future_is_refused(check, copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"schema_version": "3.0"}))
    done = check(copy)
    assert done.returncode == 2
    assert "has schema 3.0; this program reads 2.x" in done.stderr


def test_a_model_whose_checks_failed_is_refused(check, copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    model = manifest["report"]["models"][0]
    model["passed"] = model["checks"][0]["passed"] = False
    model["checks"][0]["message"] = "label: 3 of 9 rows are out of tolerance."
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = check(copy)
    assert done.returncode == 2
    assert "customers v2.onnx must not be deployed. label: 3 of 9 rows" in done.stderr


def test_a_provider_is_requested_by_name(check, customers):
    assert check(customers[0], "CPUExecutionProvider").returncode == 0
    done = check(customers[0], "CUDAExecutionProvider")
    assert done.returncode == 2
    assert "was not measured with batch 1 on CUDAExecutionProvider" in done.stderr


@pytest.mark.parametrize("provider", ["CUDA", "Tensorrt"])
def test_settings_reach_onnx_runtime_and_nothing_falls_back_to_the_processor(check, copy, provider):
    """This ONNX Runtime has neither provider, and says so when one is requested."""
    manifest = json.loads((copy / "manifest.json").read_text())
    measurement = manifest["report"]["models"][0]["measurements"][0]
    settings = {"gpu_device_id": 0} if provider == "CUDA" else {"create_session_options": True}
    measurement["provider"] = f"{provider}ExecutionProvider"
    measurement["settings"] |= settings
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = check(copy, f"{provider}ExecutionProvider")
    assert (done.returncode, done.stdout) == (2, "")
    assert "was built without the GPU. Reference Microsoft.ML.OnnxRuntime.Gpu" in done.stderr


def test_the_xunit_tests_pass_and_fail(copy, dotnet):
    command = [dotnet, "test", copy / f"{_name(copy)}.Tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    golden = json.loads((copy / "golden.json").read_text())
    golden["rows"][0]["outputs"]["label"] = ["maybe"]
    (copy / "golden.json").write_text(json.dumps(golden))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "GoldenRowsScoreInMLNetAsInTheSourceModel" in done.stdout
    assert "TheFilesAreThoseOfTheBundle" in done.stdout


def test_the_examples_of_the_readme_compile(customers, compiled, tmp_path):
    bundle = customers[0]
    examples = re.findall(r"^```csharp\n(.*?)^```", (bundle / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    paths = []
    for place, example in enumerate(examples):
        paths.append(tmp_path / f"{place}.cs")
        paths[-1].write_text(example)
    done = compiled([*_library(bundle), *paths], bundle)()
    assert done.stdout in ("yes\n", "no\n")


DEPLOYMENT = """
using System;
using System.IO;
using CustomersV2Onnx;
using CustomersV2Onnx.Deployment;

public static class Deployment
{
    public static int Main(string[] args)
    {
        try
        {
            DeploymentModel model = DeploymentReport.Read(args[0]).For(args[1]);
            model.ThrowIfDrifted();
            Measurement best = model.Fastest("CPUExecutionProvider", "CUDAExecutionProvider");
            Console.WriteLine($"{best.Provider} {best.Settings?.IntraOpNumThreads} {best.Timing?.Typical}");
            return 0;
        }
        catch (InvalidDataException error)
        {
            Console.WriteLine(error.Message);
            return 1;
        }
    }
}
"""


def test_a_deployment_reads_the_report_and_refuses_what_drifted(customers, compiled, tmp_path):
    bundle, source, data = customers
    model = bundle / "model.onnx"
    (tmp_path / "Deployment.cs").write_text(DEPLOYMENT)
    run = compiled([*_library(bundle), tmp_path / "Deployment.cs"])

    def decide(report, path=model):
        (tmp_path / "report.json").write_text(mlnet_report.render(report))
        return run(tmp_path / "report.json", path)

    verified = onnxtool.verify(model, source, data=data)
    benched = onnxtool.bench(model, data=data, threads=[1, 2], batches=[1, 8], duration=0.05)
    done = decide(verified)
    assert done.returncode == 1
    assert done.stdout.startswith("model.onnx was not measured with batch 1 on CPUExecutionProvider, CUDA")
    assert decide(benched).stdout == "model.onnx was never compared with its source.\n"

    verified.subjects[0].bench = benched.subjects[0].bench
    done = decide(verified)
    assert done.returncode == 0
    provider, threads, typical = done.stdout.split()
    alone = [cell for cell in benched.subjects[0].bench.cells if cell.batch == 1]
    medians = {cell.threads: cell.latency.percentiles[0].value_s or cell.latency.mean_s for cell in alone}
    assert provider == "CPUExecutionProvider"
    assert float(typical) == pytest.approx(min(medians.values()))
    assert medians[int(threads)] == min(medians.values())

    assert "says nothing of" in decide(verified, bundle / "golden.json").stdout
    drifted = onnxtool.verify(
        model, source.__class__([*source.steps[:-1], ("last", _other(source, data))]), data=data
    )
    assert not drifted
    done = decide(drifted)
    assert done.returncode == 1
    assert re.match(r"model.onnx must not be deployed. .*rows are out of tolerance", done.stdout)


def _other(source, data):
    features = source[:-1].transform(data)
    return LogisticRegression(C=0.01).fit(features, source.predict(data))


def test_class_labels_are_the_slot_names_or_those_of_the_source(customers, tmp_path):
    manifest = json.loads((customers[0] / "manifest.json").read_text())
    assert [column["class_labels"] for column in manifest["outputs"]] == [[], ["no", "yes"]]
    assert '"no",' in (customers[0] / "CustomersV2Onnx" / "CustomersV2Output.cs").read_text()
    model = LogisticRegression(max_iter=500).fit(*IRIS)
    onnxtool.convert(model, tmp_path / "iris.onnx", data=MATRIX)  # no slot names without --target mlnet
    assert onnxtool.bundle(tmp_path / "iris.onnx", model, tmp_path / "iris", data=MATRIX, duration=0.05)
    manifest = json.loads((tmp_path / "iris" / "manifest.json").read_text())
    assert manifest["outputs"][1]["class_labels"] == ["0", "1", "2"]


# -- Names and types --------------------------------------------------------------------------------------------

HOSTILE = [
    "class", "1st", "petal length (cm)", "x", "X", "x ", "x_2", "return", "Equals",
    "EvilNamespaceXInput", "EvilNamespaceXClasses",
    "System", "get_x", "Größe", "GRÖSSE", "身長", "😀", "e\u0301te", "été", "\u202egnirts", "a:0", "a/0", "a\nb",
    "{0}", "${x}", "{{ 7 * 7 }}", "#if false", "int age; //", "*/ } class Evil { /*", "</summary><evil>",
    "a\u2028b", '"); System.Environment.Exit(3); //', "\\u0022);", "<script>", "|a|b|", "@someone", "`code`",
]  # fmt: skip


def test_hostile_names_compile_and_score(tmp_path, compiled):
    frame = pd.DataFrame(RNG.normal(size=(40, len(HOSTILE))).astype(np.float32), columns=HOSTILE)
    truth = frame["class"] > 0
    labels = np.where(truth, '"); evil("', "*/ evil")
    model = make_pipeline(make_column_transformer((StandardScaler(), HOSTILE)), LogisticRegression())
    bundle = _bundle(tmp_path, model.fit(frame, labels), "*evil* namespace X {", data=frame)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["name"] == "EvilNamespaceXOnnx"
    assert [column["name"] for column in manifest["inputs"]] == HOSTILE
    assert len({column["property"].casefold() for column in manifest["inputs"]}) == len(HOSTILE)
    done = compiled(_program(bundle))(bundle)
    assert (done.returncode, done.stderr) == (0, "")
    [example, _] = re.findall(
        r"^```csharp\n(.*?)^```", (bundle / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "Example.cs").write_text(example)
    assert compiled([*_library(bundle), tmp_path / "Example.cs"], bundle)().returncode == 0
    readme = (bundle / "README.md").read_text()
    assert "<script>" not in readme
    assert "| {{ 7 * 7 }} |" in readme.replace("\\", "")


class EveryType(torch.nn.Module):
    """An input and an output of each type that ML.NET and PyTorch share, as scalar and as vector."""

    def forward(self, flag, small, short, middle, long, octet, single, double):  # noqa: PLR0917
        return ~flag, small + 1, short + 1, middle + 1, long + 1, octet + 1, single * 2, double * 2


def test_every_type_goes_in_and_comes_out(tmp_path, compiled):
    dtypes = ["bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64"]
    names = ["flag", "small", "short", "middle", "long", "octet", "single", "double"]
    for width in (1, 2):
        data = {
            name: RNG.integers(0, 2, (8, width)).astype(dtype)
            if dtype == "bool"
            else RNG.normal(size=(8, width)).astype(dtype) * (100 if "int" in dtype else 1)
            for name, dtype in zip(names, dtypes, strict=True)
        }
        data["long"][0] = 2**62 + 1  # no double holds it
        data["single"][:3] = [[np.nan] * width, [np.inf] * width, [1e-45] * width]
        bundle = _bundle(tmp_path, EveryType(), f"width {width}", target="ort", data=data)
        manifest = json.loads((bundle / "manifest.json").read_text())
        types = {column["csharp_type"] for column in manifest["inputs"]}
        array = "" if width == 1 else "[]"
        expected = ("bool", "sbyte", "short", "int", "long", "byte", "float", "double")
        assert types == {f"{name}{array}" for name in expected}
        assert '"NaN"' in (bundle / "golden.json").read_text()
        done = compiled(_program(bundle))(bundle)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_output_whose_column_has_another_name_scores(tmp_path, compiled):
    source = LogisticRegression(max_iter=500).fit(*IRIS)
    onnxtool.convert(source, tmp_path / "plain.onnx", target="mlnet", data=MATRIX)
    model = onnx.load(tmp_path / "plain.onnx")
    names = {"label": "a.output.output", "probabilities": "class.output"}  # ML.NET takes .output out: a, class
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for output in model.graph.output:
        output.name = names[output.name]
    onnx.save(model, tmp_path / "suffixes.onnx")
    bundle = tmp_path / "bundle"
    assert onnxtool.bundle(tmp_path / "suffixes.onnx", source, bundle, data=MATRIX, duration=0.05)
    outputs = json.loads((bundle / "manifest.json").read_text())["outputs"]
    assert [(output["name"], output["column"]) for output in outputs] == [
        ("a.output.output", "a"), ("class.output", "class"),
    ]  # fmt: skip
    done = compiled(_program(bundle))(bundle)
    assert (done.returncode, done.stderr) == (0, "")


THREADS = """
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using SharedOnnx;
using SharedOnnx.Deployment;

public static class Threads
{
    public static void Main(string[] args)
    {
        Golden golden = Golden.Read(Path.Combine(SharedScorer.Folder, "golden.json"));
        SharedInput[] rows = Enumerable.Range(0, golden.Rows.Count).Select(golden.Input).ToArray();
        int calls = int.Parse(args[0], CultureInfo.InvariantCulture);
        var scorer = new SharedScorer();
        int wrong = 0;
        Parallel.For(0, 8, new ParallelOptions { MaxDegreeOfParallelism = 8 }, thread =>
        {
            for (int call = 0; call < calls; call++)
            {
                int row = (call + thread) % rows.Length;
                if (golden.Differences(row, scorer.Score(rows[row])).Any())
                {
                    Interlocked.Increment(ref wrong);
                }
            }
        });
        Console.WriteLine($"{wrong} wrong");

        using (var batches = new SharedBatchScorer(Path.Combine(SharedScorer.Folder, "model.onnx")) { ChunkSize = 7 })
        {
            SharedInput[] many = Enumerable.Range(0, 50).SelectMany(_ => rows).ToArray();
            bool IsWrong(SharedOutput output, int row) => golden.Differences(row % rows.Length, output).Any();
            wrong = Enumerable.Range(0, 8).AsParallel().WithDegreeOfParallelism(8)
                .Sum(_ => batches.ScoreBatch(many).Where(IsWrong).Count());
            Console.WriteLine($"{wrong} wrong in batches");
        }

        bool closed = false;
        IEnumerable<SharedInput> Source()
        {
            try
            {
                while (true)
                {
                    yield return rows[0];
                }
            }
            finally
            {
                closed = true;
            }
        }

        Console.WriteLine($"{scorer.Score(Source()).Take(3).Count()} of a source without an end, closed: {closed}");
        IEnumerable<SharedInput> Failing()
        {
            yield return rows[0];
            throw new OperationCanceledException("as it is");
        }

        try
        {
            Console.WriteLine(scorer.Score(Failing()).Count());
        }
        catch (OperationCanceledException error)
        {
            Console.WriteLine(error.Message);
        }

        // Calls that run while another thread disposes end well; later ones say that they are late.
        int late = 0;
        Task[] callers = Enumerable.Range(0, 4).Select(_ => Task.Run(() =>
        {
            try
            {
                while (true)
                {
                    scorer.Score(rows[0]);
                }
            }
            catch (ObjectDisposedException)
            {
                Interlocked.Increment(ref late);
            }
        })).ToArray();
        Thread.Sleep(50);
        scorer.Dispose();
        scorer.Dispose();
        Task.WaitAll(callers);
        Console.WriteLine($"{late} late");
    }
}
"""


@pytest.mark.parametrize(
    "kind", ["regressor", "pipeline over text and numbers", "keras cnn", "torch of two inputs"]
)
def test_threads_share_a_scorer(kind, tmp_path, compiled):
    source, options = KINDS[kind]()
    bundle = _bundle(tmp_path, source, "shared", **options)
    (tmp_path / "Threads.cs").write_text(THREADS)
    done = compiled([*_library(bundle), tmp_path / "Threads.cs"], bundle)(2500)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "0 wrong", "0 wrong in batches", "3 of a source without an end, closed: True", "as it is", "4 late",
    ]  # fmt: skip


STREAM = """
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using StreamedOnnx;
using StreamedOnnx.Deployment;

public static class Streaming
{
    private static int read;
    private static bool closed;

    public static async Task Main()
    {
        string model = Path.Combine(StreamedScorer.Folder, "model.onnx");
        Golden golden = Golden.Read(Path.Combine(StreamedScorer.Folder, "golden.json"));
        var scorer = new StreamedBatchScorer(model) { ChunkSize = 5 };
        int row = 0;
        await foreach (StreamedOutput output in scorer.ScoreAsync(Source(golden, golden.Rows.Count)))
        {
            foreach (string difference in golden.Differences(row, output))
            {
                Console.WriteLine(difference);
            }

            row++;
        }

        Console.WriteLine($"{row == golden.Rows.Count} {closed}");
        read = 0;
        closed = false;
        using var cancel = new CancellationTokenSource();
        try
        {
            await foreach (StreamedOutput output in scorer.ScoreAsync(Source(golden, int.MaxValue), cancel.Token))
            {
                if (read > 12)
                {
                    cancel.Cancel();
                }
            }
        }
        catch (OperationCanceledException)
        {
            Console.WriteLine($"canceled after {read}, {closed}");
        }

        Console.WriteLine(scorer.ScoreBatch([]).Count);
        scorer.Dispose();
        scorer.Dispose();
        try
        {
            scorer.ScoreBatch(golden.Inputs());
        }
        catch (ObjectDisposedException)
        {
            Console.WriteLine("disposed");
        }
    }

    private static async IAsyncEnumerable<StreamedInput> Source(Golden golden, int rows)
    {
        try
        {
            for (int row = 0; row < rows; row++)
            {
                await Task.Yield();
                read++;
                yield return golden.Input(row % golden.Rows.Count);
            }
        }
        finally
        {
            closed = true;
        }
    }
}
"""


def test_rows_of_any_length_stream_through_the_batches(tmp_path, compiled):
    source, _ = KINDS["keras of any length"]()
    bundle = _bundle(tmp_path, source, "streamed")
    golden = json.loads((bundle / "golden.json").read_text())
    lengths = {len(row["inputs"]["series"]) // 3 for row in golden["rows"]}
    assert len(lengths) > 1
    assert "[VectorType]" in (bundle / "StreamedOnnx" / "StreamedInput.cs").read_text()
    assert "a multiple of 3" in (bundle / "README.md").read_text()
    (tmp_path / "Streaming.cs").write_text(STREAM)
    done = compiled([*_library(bundle), tmp_path / "Streaming.cs"], bundle)()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True True", "canceled after 16, True", "0", "disposed"]
    report = onnxtool.bundle(
        tmp_path / "streamed.onnx", source, tmp_path / "fixed", duration=0.05, shapes={"dim_1": [5]}
    )
    assert report
    golden = json.loads((tmp_path / "fixed" / "golden.json").read_text())
    assert {len(row["inputs"]["series"]) for row in golden["rows"]} == {15}
    assert "[VectorType(15)]" in (tmp_path / "fixed" / "StreamedOnnx" / "StreamedInput.cs").read_text()
    assert compiled(_program(tmp_path / "fixed"))(tmp_path / "fixed").returncode == 0


WRONG_ROWS = """
using System;
using System.Text.Json;
using CustomersV2Onnx;
using CustomersV2Onnx.Deployment;

public static class WrongRows
{
    public static void Main()
    {
        using var scorer = new CustomersV2Scorer();
        using var batches = new CustomersV2BatchScorer();
        string[] rows =
        [
            "{\\"age\\": 41, \\"home city\\": \\"Rome\\", \\"visits\\": 2}",
            "{\\"age\\": \\"NaN\\", \\"home city\\": \\"Oslo\\", \\"visits\\": \\"2\\"}",
            "{\\"age\\": 41, \\"home city\\": null, \\"visits\\": 2}",
            "{\\"age\\": 41, \\"HomeCity\\": \\"Rome\\", \\"visits\\": 2}",
            "{}",
        ];
        foreach (string row in rows)
        {
            foreach (bool batched in new[] { false, true })
            {
                try
                {
                    CustomersV2Input input = JsonSerializer.Deserialize<CustomersV2Input>(row)!;
                    CustomersV2Output output = batched ? batches.ScoreBatch([input])[0] : scorer.Score(input);
                    Console.WriteLine(JsonSerializer.Serialize(output));
                }
                catch (Exception error) when (error is ArgumentException or JsonException)
                {
                    Console.WriteLine(error.Message);
                }
            }
        }
    }
}
"""


def test_wrong_rows_are_refused_by_name_and_json_has_the_names_of_the_model(customers, tmp_path, compiled):
    bundle, source, _ = customers
    (tmp_path / "WrongRows.cs").write_text(WRONG_ROWS)
    done = compiled([*_library(bundle), tmp_path / "WrongRows.cs"], bundle)()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for place, (age, city) in enumerate([(41, "Rome")]):
        frame = pd.DataFrame({"age": [age], "home city": [city], "visits": [2]})
        for line in lines[2 * place : 2 * place + 2]:
            answer = json.loads(line)
            assert answer["label"] == source.predict(frame).tolist()
            assert np.allclose(answer["probabilities"], source.predict_proba(frame)[0], atol=1e-6)
    assert [len(json.loads(line)["probabilities"]) for line in lines[2:4]] == [2, 2]
    assert lines[4] == lines[5] == 'Input "home city" is null. A missing text is "". (Parameter \'input\')'
    assert all("missing required properties including: 'home city'" in line for line in lines[6:8])
    assert all("'age', 'home city', 'visits'" in line for line in lines[8:])


WRONG_LENGTHS = """
using System;
using ClustersOnnx;
using ClustersOnnx.Deployment;

using var scorer = new ClustersScorer();
using var batches = new ClustersBatchScorer();
foreach (float[] row in new float[][] { new float[4], new float[3], new float[8], [], null! })
{
    try
    {
        Console.WriteLine(scorer.Score(new ClustersInput { X = row }).Label.Length);
    }
    catch (ArgumentException error)
    {
        Console.WriteLine(error.Message);
    }

    try
    {
        ClustersInput[] rows = [new ClustersInput { X = row }, new ClustersInput { X = new float[4] }];
        Console.WriteLine(batches.ScoreBatch(rows).Count);
    }
    catch (ArgumentException error)
    {
        Console.WriteLine(error.Message);
    }
}
"""


def test_a_vector_of_the_wrong_length_is_an_exception_that_names_the_input(tmp_path, compiled):
    bundle = _bundle(tmp_path, KINDS["clusters"]()[0], "clusters")
    (tmp_path / "WrongLengths.cs").write_text(WRONG_LENGTHS)
    lines = compiled([*_library(bundle), tmp_path / "WrongLengths.cs"], bundle)().stdout.splitlines()
    assert lines[:2] == ["1", "2"]
    for place, size in enumerate([3, 8, 0]):
        expected = f"Input \"X\" has {size} elements. Expected: 4. (Parameter 'input')"
        assert lines[2 + 2 * place : 4 + 2 * place] == [expected, expected]
    assert lines[8:] == ["Input \"X\" is null. Elements expected: 4. (Parameter 'input')"] * 2
