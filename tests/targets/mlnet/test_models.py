"""Models of every framework, converted for ML.NET and scored row by row in ML.NET itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxtool
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import Tensors, TensorSpec, numpy_dtype
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.opening import open_source
from onnxtool.targets.mlnet import csharp
from onnxtool.targets.mlnet.slots import slot_names
from onnxtool.validators.numerics.comparison import OutputComparison
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.pairs import match_outputs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROWS = 50
PROFILE = {"float32", "int64", "string"}


@dataclass
class Kind:
    """A kind of model.

    Attributes:
        model: What `convert` takes.
        rows: How many rows to score.
        columns: As for `convert`.
        inputs: The signature, for a model that carries none.
        shapes: ML.NET's shape dictionary, for a model whose rows differ in size.
    """

    model: Any
    rows: int = ROWS
    columns: str | None = None
    inputs: tuple[str, ...] = ()
    shapes: dict[str, list[int]] | None = None


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, Kind]:
    return {**_tables(), **_boosted(), **_networks(tmp_path_factory.mktemp("networks"))}


def _tables() -> dict[str, Kind]:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 1)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 300),
            "income (€)": rng.normal(40_000, 9_000, 300),
            "city": rng.choice(["Oslo", "Łódź", "New York"], 300),
            "plan": rng.choice(["free", "paid"], 300),
        }
    )
    prepared = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "income (€)"]), ("texts", OneHotEncoder(), ["city", "plan"])]
    )
    texts = ["a good film", "a bad film", "good fun", "bad and long", "good acting", "long and dull"]
    return {
        "classifier": Kind(LogisticRegression().fit(x, y)),
        "classifier, columns": Kind(LogisticRegression().fit(x, y), columns="separate"),
        "classifier of text labels": Kind(LogisticRegression().fit(x, np.array(["low", "mid", "very high"])[y])),
        "regressor": Kind(LinearRegression().fit(x, x @ [1.0, 2, 3, 4])),
        "pipeline": Kind(make_pipeline(prepared, LogisticRegression()).fit(frame, frame.age > 40)),
        "pipeline, vectors": Kind(
            make_pipeline(prepared, LogisticRegression()).fit(frame, frame.age > 40), columns="vector"
        ),
        "texts": Kind(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0, 1, 0])),
        "forest": Kind(RandomForestClassifier(20, max_depth=4, random_state=0).fit(x.astype(np.float32), y)),
        "hist gradient boosting": Kind(HistGradientBoostingRegressor(max_iter=20).fit(x, x[:, 0] * x[:, 1])),
    }


def _boosted() -> dict[str, Kind]:
    import lightgbm
    import xgboost

    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    return {
        "xgboost": Kind(xgboost.XGBClassifier(n_estimators=10).fit(x, y)),
        "lightgbm": Kind(lightgbm.LGBMRegressor(n_estimators=10, verbose=-1).fit(x, x[:, 0] - x[:, 2])),
    }


def _networks(folder: Path) -> dict[str, Kind]:
    import torch

    from onnxtool.models.reference import keras, tensorflow

    torch.manual_seed(0)
    perceptron = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    half = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval().half()
    convolution = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 4),
    ).eval()  # fmt: skip
    saved = {path.stem: str(path) for path in (*keras.save(folder), *tensorflow.save(folder))}
    return {
        "torch perceptron": Kind(perceptron, inputs=("input:float32[batch,6]",)),
        "torch in half precision": Kind(half, inputs=("input:float16[batch,6]",)),
        "torch convolution": Kind(convolution, 20, inputs=("input:float32[batch,3,16,16]",)),
        "keras convolution": Kind(saved["cnn"], 20),
        "keras lstm": Kind(saved["lstm"], 20, shapes={"tokens": [1, 12]}),
        "tensorflow, two inputs": Kind(saved["captioned"], 10, shapes={"tokens": [1, 12]}),
    }


NAMES = [
    "classifier", "classifier, columns", "classifier of text labels", "regressor", "pipeline", "pipeline, vectors",
    "texts", "forest", "hist gradient boosting", "xgboost", "lightgbm", "torch perceptron",
    "torch in half precision", "torch convolution", "keras convolution", "keras lstm", "tensorflow, two inputs",
]  # fmt: skip


@dataclass
class Scored:
    """A converted model, its source's answers and ML.NET's."""

    source: SourceModel
    model: OnnxModel
    truth: Tensors
    answer: dict[str, Any]


@pytest.fixture(scope="module")
def scored(mlnet5, kinds, tmp_path_factory) -> dict[str, Scored]:
    folder = tmp_path_factory.mktemp("models")
    assert list(kinds) == NAMES
    jobs, found = [], {}
    for number, (name, kind) in enumerate(kinds.items()):
        path = folder / f"{number}.onnx"
        report = onnxtool.convert(kind.model, path, target="mlnet", columns=kind.columns, inputs=kind.inputs)
        assert report, report.subjects[0].checks
        model = OnnxModel.read(path)
        options = LoadOptions(inputs=tuple(map(TensorSpec.parse, kind.inputs)))
        source = open_source(kind.model, options)
        rows = make_inputs(source.inputs, kind.rows, seed=7, domains=source.domains())
        feeds = match_inputs(source.inputs, model.inputs, [])
        columns = {
            spec.name: {"dtype": spec.dtype, "values": _columns(feeds(rows)[spec.name])} for spec in model.inputs
        }
        jobs.append({"model": path, "columns": columns, **({"shapes": kind.shapes} if kind.shapes else {})})
        found[name] = Scored(source, model, source.predict(feeds.as_cast(rows)), {})
    for entry, result in zip(found.values(), mlnet5(jobs), strict=True):
        entry.answer = result
    return found


def _columns(tensor: np.ndarray) -> list[Any]:
    """Scalar columns for [batch, 1], as plain C# properties make them; vector columns otherwise."""
    return (tensor[:, 0] if tensor.shape[1:] == (1,) else tensor).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_mlnet_says_what_the_source_says(scored, name):
    entry = scored[name]
    assert "error" not in entry.answer, entry.answer["error"]
    pairs = match_outputs(entry.truth, entry.answer["columns"], [])
    dtypes = {spec.name: spec.dtype for spec in entry.model.outputs}
    assert pairs
    for given, partner in pairs.items():
        truth = entry.truth[given]
        values = entry.answer["columns"][partner]["values"]
        got = np.array(values, dtype=numpy_dtype(dtypes[partner])).reshape(len(values), -1)
        comparison = OutputComparison(given, entry.source.roles.get(given, "values"))
        comparison.update(truth.reshape(len(truth), -1), got)
        result = comparison.result()
        assert result.rows == len(truth)
        assert result.mismatched_rows == 0, result


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_inside_the_safe_profile(scored, name, kinds):
    model = scored[name].model
    for spec in model.outputs:
        assert spec.dtype in PROFILE
    for spec in (*model.inputs, *model.outputs):
        assert spec.dtype in csharp.TYPES  # which ML.NET has
        assert len(spec.shape) >= 1
        assert spec.shape[0] == "batch"
    assert all(len(spec.shape) >= 2 for spec in model.inputs)
    values = [*model.proto.graph.input, *model.proto.graph.output]
    assert all(dim.dim_value > 0 or dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim)
    kept = {tensor.data_type for tensor in model.proto.graph.initializer}
    assert not kept & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    assert not any(node.op_type == "ZipMap" for node in model.proto.graph.node)
    assert [file.name for file in model.path.parent.glob(f"{model.path.name}*")] == [model.path.name]
    report = onnxtool.lint(model.path)
    assert report
    left = {finding.rule for finding in report.subjects[0].lint.findings} - {"MLNET006"}  # a note on inputs' types
    assert not left or kinds[name].shapes, "only a model whose rows differ in size may need a shape dictionary"


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("classifier", ["0", "1", "2"]),
        ("classifier of text labels", ["low", "mid", "very high"]),
        ("pipeline", ["False", "True"]),
        ("xgboost", ["0", "1", "2"]),
        ("regressor", None),
    ],
)
def test_mlnet_reads_the_class_names(scored, name, classes):
    entry = scored[name]
    columns = entry.answer["columns"]
    named = "probabilities" if classes else "prediction"
    assert columns[named]["slots"] == classes
    assert slot_names(entry.model.proto.graph) == ({named: classes} if classes else {})


def test_columns_are_separate_or_vectors_by_option(scored):
    def inputs(name: str) -> list[str]:
        return [str(spec) for spec in scored[name].model.inputs]

    assert inputs("classifier") == ["X:float32[batch,4]"]
    assert inputs("classifier, columns") == [f"X_{column}:float32[batch,1]" for column in range(4)]
    texts = ["city:string[batch,1]", "plan:string[batch,1]"]
    assert inputs("pipeline") == ["age:float32[batch,1]", "income (€):float32[batch,1]", *texts]
    assert inputs("pipeline, vectors") == ["features:float32[batch,2]", "features_string:string[batch,2]"]
    assert scored["pipeline, vectors"].model.inputs[0].columns == ("age", "income (€)")
