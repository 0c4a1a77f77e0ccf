"""The manifest of a bundle for ML.NET."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from onnxtool.reports.model import Record
from onnxtool.targets.bundle import Manifest, Origin
from onnxtool.targets.mlnet.report import MlnetReport

MANIFEST_SCHEMA_VERSION: Literal["2.1"] = "2.1"


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
    row_shape: list[int] = Field(description="Shape of one row: ML.NET runs one row at a time.")
    any_length: bool = Field(
        default=False, description="Whether rows may differ in the number of elements: a vector of unknown size."
    )
    class_labels: list[str] = Field(default=[], description="Names of the row's elements, where they are classes.")


class MlnetManifest(Manifest):
    """A bundle. All but `report.created` and each measurement's `timing` follows from its model and rows."""

    schema_version: Literal["2.1"] = MANIFEST_SCHEMA_VERSION
    format: Literal["mlnet"] = "mlnet"
    name: str = Field(description="Namespace of the generated classes, and name of the project.")
    type_name: str = Field(default="Model", description="What the names of the generated types begin with.")
    mlnet_version: str = Field(description="Version of Microsoft.ML and Microsoft.ML.OnnxTransformer.")
    onnxruntime_version: str = Field(description="Version of the native ONNX Runtime's package.")
    source: Origin
    inputs: list[Column]
    outputs: list[Column]
    report: MlnetReport
