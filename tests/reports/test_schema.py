import json

import jsonschema
import pytest

from onnxtool.reports import json as report_json
from onnxtool.reports import schema
from onnxtool.reports.model import Report


def test_the_committed_schema_is_in_step_with_the_model():
    assert schema.PATH.read_text(encoding="utf-8") == schema.schema(), "Run: python -m onnxtool.reports.schema"


def test_the_schema_accepts_what_is_written(sample: Report):
    validator = jsonschema.Draft202012Validator(json.loads(schema.schema()))
    validator.check_schema(validator.schema)
    document = json.loads(report_json.render(sample))
    validator.validate(document)
    document["subjects"][0]["parity"]["outputs"][0]["max_absolute"] = "very large"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


def test_the_schema_refuses_unknown_fields(sample: Report):
    document = json.loads(report_json.render(sample)) | {"extra": 1}
    with pytest.raises(jsonschema.ValidationError, match="extra"):
        jsonschema.validate(document, json.loads(schema.schema()))
