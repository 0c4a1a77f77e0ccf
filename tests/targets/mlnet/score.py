"""Score ONNX models in the real ML.NET: `python score.py FOLDER NATIVE JOBS.json RESULTS.json`.

The fixture `mlnet` of conftest.py runs it, in a process of its own, since CoreCLR is hosted in Python:

    def test_iris(mlnet):
        [result] = mlnet([{"model": path, "columns": {"x": {"dtype": "float32", "values": rows}}}])
        assert result["columns"]["probabilities"]["values"] == ...

A job is
    model: path of the ONNX file;
    columns: name to {dtype, values}. `values` has an entry a row: a number or a text makes a scalar column, a list
        (nested or flat) a vector column, of variable size where the rows differ in length. Arrays may be given;
    shapes: ML.NET's shape dictionary, name to list (optional);
    outputs: names of the output columns to read (optional; all otherwise);
    zip: true to save the fitted pipeline as ML.NET's zip, load it again and score with that (optional).

A result is
    columns: name to {type, values, slots}: ML.NET's name of the type, a list a row (outputs are always vectors,
        flat; a sequence is a list of maps), and the slot names or null;
or
    error: {stage, type, message}: of the innermost .NET exception. The stage `load` is ApplyOnnxModel, `fit` is
        Fit and Transform, `score` is reading the rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from clr_loader import get_coreclr
from pythonnet import set_runtime

FOLDER, NATIVE, JOBS, RESULTS = sys.argv[1:5]
set_runtime(get_coreclr(runtime_config=f"{FOLDER}/runtimeconfig.json", dotnet_root=f"{FOLDER}/dotnet"))

import clr  # noqa: E402 - there is none before the runtime is set

sys.path.append(f"{FOLDER}/{NATIVE}")
for name in ("Core", "DataView", "Data", "Transforms", "OnnxRuntime", "OnnxTransformer"):
    clr.AddReference(f"Microsoft.ML.{name}")

import System  # noqa: E402
from Microsoft import ML  # noqa: E402
from System import Array, Object  # noqa: E402

Text = System.ReadOnlyMemory[System.Char]
Numbers = ML.Data.NumberDataViewType
DTYPES = {
    "bool": (System.Boolean, ML.Data.BooleanDataViewType.Instance),
    "int8": (System.SByte, Numbers.SByte),
    "int16": (System.Int16, Numbers.Int16),
    "int32": (System.Int32, Numbers.Int32),
    "int64": (System.Int64, Numbers.Int64),
    "uint8": (System.Byte, Numbers.Byte),
    "uint16": (System.UInt16, Numbers.UInt16),
    "uint32": (System.UInt32, Numbers.UInt32),
    "uint64": (System.UInt64, Numbers.UInt64),
    "float32": (System.Single, Numbers.Single),
    "float64": (System.Double, Numbers.Double),
    "string": (Text, ML.Data.TextDataViewType.Instance),
}


def main() -> None:
    """Do every job."""
    jobs = json.loads(Path(JOBS).read_text())
    Path(RESULTS).write_text(json.dumps([answer(job) for job in jobs]))


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """What ML.NET says to one job."""
    stage = "load"
    try:
        ml = ML.MLContext(1)
        rows = data_view(ml, job["columns"])
        estimator = ML.OnnxCatalog.ApplyOnnxModel(ml.Transforms, *arguments(job))
        stage = "fit"
        model = estimator.Fit(rows)
        if job.get("zip"):
            model = through_zip(ml, model, rows)
        view = model.Transform(rows)
        outputs = [view.Schema[index] for index in range(rows.Schema.Count, view.Schema.Count)]
        stage = "score"
        return {"columns": {output.Name: read(view, output) for output in outputs}}
    except System.Exception as error:
        cause = error.GetBaseException()
        return {"error": {"stage": stage, "type": cause.GetType().FullName, "message": cause.Message}}


def arguments(job: dict[str, Any]) -> list[Any]:
    """The arguments of ApplyOnnxModel."""
    found: list[Any] = [job["model"]]
    if "outputs" in job:
        found = [Array[System.String](job["outputs"]), Array[System.String](list(job["columns"])), job["model"]]
    if "shapes" in job:
        shapes = System.Collections.Generic.Dictionary[System.String, Array[System.Int32]]()
        for name, shape in job["shapes"].items():
            shapes[name] = Array[System.Int32](shape)
        found.append(shapes)
    return [*found, None, False]  # the processor, and no falling back from anything else


def through_zip(ml: Any, model: Any, rows: Any) -> Any:
    """The pipeline as it comes back from ML.NET's own file."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.zip"
        ml.Model.Save(model, rows.Schema, path)
        return ml.Model.Load(path, None)[0]


def data_view(ml: Any, columns: dict[str, Any]) -> Any:
    """The rows as an IDataView with exactly the types and values given, which a CSV would not keep."""
    assembly = clr.GetClrType(ML.Data.ColumnCursorExtensions).Assembly
    kind = assembly.GetType("Microsoft.ML.Data.ArrayDataViewBuilder")  # internal, hence the reflection
    builder = System.Activator.CreateInstance(kind, Array[Object]([ml]))
    methods = {str(method): method for method in kind.GetMethods()}
    scalar, vector = (
        methods[f"Void AddColumn[T](System.String, Microsoft.ML.Data.PrimitiveDataViewType, {kind})"]
        for kind in ("T[]", "Microsoft.ML.Data.VBuffer`1[T][]")
    )
    for name, column in columns.items():
        item, view_type = DTYPES[column["dtype"]]
        method, values = scalar, column["values"]
        if values and isinstance(values[0], list):
            method, buffer = vector, ML.Data.VBuffer[item]
            values = Array[buffer]([buffer(len(row), array(item, row)) for row in map(flat, values)])
        else:
            values = array(item, values)
        method.MakeGenericMethod(clr.GetClrType(item)).Invoke(builder, Array[Object]([name, view_type, values]))
    return kind.GetMethod("GetDataView").Invoke(builder, Array[Object]([None]))


def flat(values: Any) -> list[Any]:
    """The elements of a nested list, row by row."""
    return [entry for value in values for entry in flat(value)] if isinstance(values, list) else [values]


def array(item: Any, values: list[Any]) -> Any:
    """An array of .NET's."""
    if item is Text:
        values = [System.MemoryExtensions.AsMemory(System.String(value)) for value in values]
    return Array[item](values)


def read(view: Any, column: Any) -> dict[str, Any]:
    """All rows of an output column."""
    method = next(
        method for method in clr.GetClrType(ML.Data.ColumnCursorExtensions).GetMethods()
        if method.Name == "GetColumn" and method.GetParameters()[1].ParameterType.Name == "Column"
    )  # fmt: skip
    rows = method.MakeGenericMethod(column.Type.RawType).Invoke(None, Array[Object]([view, column]))
    # A row is copied before the next is read: ML.NET hands out one buffer again and again.
    return {"type": column.Type.ToString(), "values": [plain(row) for row in rows], "slots": slots(column)}


def slots(column: Any) -> list[str] | None:
    """The names that a column's annotations give to its elements."""
    if column.Annotations.Schema.GetColumnOrNull("SlotNames") is None:
        return None
    annotations, arguments = column.Annotations, Array[Object](["SlotNames", None])
    getter = annotations.GetType().GetMethod("GetValue").MakeGenericMethod(clr.GetClrType(ML.Data.VBuffer[Text]))
    getter.Invoke(annotations, arguments)  # fills in its second argument
    return plain(arguments[1])


def plain(value: Any) -> Any:
    """A value of .NET's as JSON has it."""
    if hasattr(value, "DenseValues"):
        return [plain(entry) for entry in value.DenseValues()]
    if isinstance(value, Text):
        return value.ToString()
    if hasattr(value, "Keys"):
        return {str(key): plain(value[key]) for key in value.Keys}
    if isinstance(value, str | int | float):
        return value
    return [plain(entry) for entry in value]


if __name__ == "__main__":
    main()
