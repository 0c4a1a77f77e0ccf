"""Write the JSON Schemas of what onnxtool writes, for those who read it in other languages.

`make schema` runs it, and a test checks the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, RootModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from onnxtool.files import write_text
from onnxtool.reports.diagnosis import Diagnosis
from onnxtool.reports.model import SCHEMA_VERSION, ModelSummary, Report
from onnxtool.targets.golden import GOLDEN_SCHEMA_VERSION, Golden
from onnxtool.targets.mlnet.manifest import MANIFEST_SCHEMA_VERSION, MlnetManifest
from onnxtool.targets.mlnet.report import MLNET_SCHEMA_VERSION, MlnetReport

ROOT = Path(__file__).parents[1]

Output = RootModel[Report | ModelSummary | Diagnosis]
"""What `--json` of any command writes: a report, of inspect a model, of doctor a diagnosis."""

SCHEMAS: Mapping[str, type[BaseModel]] = {
    f"reports/schema/output-{SCHEMA_VERSION}.json": Output,
    f"reports/schema/report-{SCHEMA_VERSION}.json": Report,
    f"onnxtool/targets/mlnet/schema/report-{MLNET_SCHEMA_VERSION}.json": MlnetReport,
    f"onnxtool/targets/mlnet/schema/manifest-{MANIFEST_SCHEMA_VERSION}.json": MlnetManifest,
    f"onnxtool/targets/schema/golden-{GOLDEN_SCHEMA_VERSION}.json": Golden,
}
"""File in the repository to the record that it describes."""


def schema(record: type[BaseModel]) -> str:
    """The schema of a record as it is written, as JSON text."""
    content = record.model_json_schema(mode="serialization", schema_generator=_Generator)
    for part in (content, *content.get("$defs", {}).values()):
        # It would change the schema with every release.
        part.get("properties", {}).get("tool_version", {}).pop("default", None)
    return json.dumps({"$schema": GenerateJsonSchema.schema_dialect, **content}, indent=2) + "\n"


class _Generator(GenerateJsonSchema):
    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """JSON has no number for what is not finite: it stands as a string."""
        return {"anyOf": [super().float_schema(schema), {"enum": ["NaN", "Infinity", "-Infinity"]}]}

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        """No title: it would repeat the field's name."""
        return False


if __name__ == "__main__":
    for name, record in SCHEMAS.items():
        write_text(ROOT / name, schema(record))
