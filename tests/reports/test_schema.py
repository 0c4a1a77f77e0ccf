import json
import runpy
from pathlib import Path

import jsonschema
import pytest

from onnxtool.reports import json as report_json
from onnxtool.reports.model import Report
from onnxtool.targets.mlnet import report as mlnet

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = runpy.run_path(str(ROOT / "docs" / "generate_schemas.py"))
SCHEMAS, schema = GENERATOR["SCHEMAS"], GENERATOR["schema"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_committed_schemas_are_in_step_with_the_models(name):
    assert (ROOT / name).read_text(encoding="utf-8") == schema(SCHEMAS[name]), "Run: make schema"


def test_no_other_schema_is_committed():
    assert {
        str(path.relative_to(ROOT))
        for folder in ("reports/schema", "onnxtool/targets/schema", "onnxtool/targets/mlnet/schema")
        for path in (ROOT / folder).glob("*.json")
    } == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(json.loads(schema(SCHEMAS[name])))


def test_the_schema_accepts_what_is_written(sample: Report):
    validator = jsonschema.Draft202012Validator(json.loads(schema(Report)))
    document = json.loads(report_json.render(sample))
    validator.validate(document)
    document["subjects"][0]["parity"]["outputs"][0]["max_absolute"] = "very large"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


def test_the_schema_accepts_a_report_for_mlnet(sample: Report):
    validator = jsonschema.Draft202012Validator(json.loads(schema(mlnet.MlnetReport)))
    document = json.loads(mlnet.render(sample))
    validator.validate(document)
    document["models"][0]["passed"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


def test_the_schema_refuses_unknown_fields(sample: Report):
    document = json.loads(report_json.render(sample)) | {"extra": 1}
    with pytest.raises(jsonschema.ValidationError, match="extra"):
        jsonschema.validate(document, json.loads(schema(Report)))
