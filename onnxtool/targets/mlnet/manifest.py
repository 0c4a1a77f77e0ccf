"""What a bundle for ML.NET holds: its manifest, and the rows that prove it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from onnxtool._version import __version__
from onnxtool.reports.model import Count, Record, Tolerance
from onnxtool.targets.mlnet.report import MlnetReport

MANIFEST_SCHEMA_VERSION: Literal["1.0"] = "1.0"
GOLDEN_SCHEMA_VERSION: Literal["1.0"] = "1.0"

Item = Annotated[bool, Strict()] | Annotated[int, Strict()] | Annotated[float, Strict()] | Annotated[str, Strict()]
Value = Item | list[Item]
"""A scalar column's value, or a vector column's, flat. A float that is not finite is a string."""


class Column(Record):
    """An input or output of the model as a column of ML.NET's."""

    name: str = Field(description="The tensor's name.")
    column: str = Field(
        description="ML.NET's name of the column: the tensor's, less the ending '.output' of an output."
    )
    property: str = Field(description="Name of the property in the generated class.")
    csharp_type: str = Field(description="Type of the property.")
    dtype: str
    shape: list[int | str] = Field(description="In the model. A string names a dynamic dimension.")
    row_shape: list[int] = Field(description="Of one row: ML.NET runs one row at a time.")
    class_labels: list[str] = Field(default=[], description="Of the row's elements, where they are classes.")


class Origin(Record):
    """The source model that the ONNX model was converted from."""

    framework: str
    framework_version: str
    kind: str = Field(description="Class of the model.")
    sha256: str | None = None


class Manifest(Record):
    """A bundle. All but `report.created` and each measurement's `timing` follows from its model and rows."""

    schema_version: Literal["1.0"] = MANIFEST_SCHEMA_VERSION
    tool_version: str = __version__
    format: Literal["mlnet"] = "mlnet"
    name: str = Field(description="Namespace of the generated classes, and name of the project.")
    mlnet_version: str = Field(description="Version of Microsoft.ML and Microsoft.ML.OnnxTransformer.")
    onnxruntime_version: str = Field(description="Version of the native ONNX Runtime's package.")
    source: Origin
    inputs: list[Column]
    outputs: list[Column]
    files: dict[str, str] = Field(description="Path in the bundle to SHA-256, for every file but this one.")
    report: MlnetReport


class GoldenRow(Record):
    """A row and what the source model says of it."""

    inputs: dict[str, Value] = Field(description="Tensor name to value.")
    outputs: dict[str, list[Item]] = Field(description="Tensor name to elements: outputs are always vectors.")


class Golden(Record):
    """Rows with the answers that are expected of the model."""

    schema_version: Literal["1.0"] = GOLDEN_SCHEMA_VERSION
    data: str = Field(description="The data file, or how the rows were made.")
    seed: int | None
    rows_compared: Count = Field(description="Rows that these were chosen from, evenly.")
    shapes: dict[str, list[int]] = Field(description="Tensor name to the shape of one row, whose values are flat.")
    tolerances: dict[str, Tolerance] = Field(description="Output's tensor name to tolerance.")
    rows: list[GoldenRow]
