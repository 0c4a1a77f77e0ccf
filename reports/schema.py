"""The JSON Schema of reports, for those who read them in other languages.

`python -m onnxtool.reports.schema` writes it into `reports/schema/`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from onnxtool.files import write_text
from onnxtool.reports.model import SCHEMA_VERSION, Report

PATH = Path(__file__).parent / "schema" / f"report-{SCHEMA_VERSION}.json"


def schema() -> str:
    """The schema of a report as it is written, as JSON text."""
    content = Report.model_json_schema(mode="serialization", schema_generator=_Generator)
    del content["properties"]["tool_version"]["default"]  # it would change the schema with every release
    return json.dumps({"$schema": GenerateJsonSchema.schema_dialect, **content}, indent=2) + "\n"


class _Generator(GenerateJsonSchema):
    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """JSON has no number for what is not finite: it stands as a string."""
        return {"anyOf": [super().float_schema(schema), {"enum": ["NaN", "Infinity", "-Infinity"]}]}

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        """A title made from the field's name says nothing new."""
        return False


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    write_text(PATH, schema())
