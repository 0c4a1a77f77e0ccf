"""The JSON Schemas of what onnxtool writes, for those who read it in other languages.

`python -m onnxtool.reports.schema` writes them into `reports/schema/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from onnxtool.files import write_text
from onnxtool.reports.manifest import GOLDEN_SCHEMA_VERSION, MANIFEST_SCHEMA_VERSION, Golden, Manifest
from onnxtool.reports.mlnet import MLNET_SCHEMA_VERSION, MlnetReport
from onnxtool.reports.model import SCHEMA_VERSION, Record, Report

FOLDER = Path(__file__).parent / "schema"

SCHEMAS: Mapping[str, type[Record]] = {
    f"report-{SCHEMA_VERSION}.json": Report,
    f"mlnet-report-{MLNET_SCHEMA_VERSION}.json": MlnetReport,
    f"mlnet-manifest-{MANIFEST_SCHEMA_VERSION}.json": Manifest,
    f"mlnet-golden-{GOLDEN_SCHEMA_VERSION}.json": Golden,
}
"""File in `FOLDER` to the record that it describes."""


def schema(record: type[Record]) -> str:
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
        """A title made from the field's name says nothing new."""
        return False


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, record in SCHEMAS.items():
        write_text(FOLDER / name, schema(record))
