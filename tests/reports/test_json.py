import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtool.errors import DataError, OutputError
from onnxtool.reports import json as report_json
from onnxtool.reports.model import Bin, Difference, OutputParity, Report, Tensor, Tolerance


def test_a_report_comes_back_as_it_was(sample: Report, tmp_path: Path):
    path = tmp_path / "report.json"
    report_json.write(sample, path)
    back = report_json.read(path)
    assert report_json.render(back) == report_json.render(sample)
    assert back.subjects[0] == sample.subjects[0]  # the others hold NaN, which differs from itself
    assert back.environment == sample.environment
    assert back.created == sample.created


def test_what_is_not_finite_comes_back_as_a_number(sample: Report, tmp_path: Path):
    report_json.write(sample, tmp_path / "report.json")
    worst = report_json.read(tmp_path / "report.json").subjects[1].parity.outputs[0].worst
    assert math.isnan(worst[0].source)
    assert worst[2].source == -math.inf
    metric = report_json.read(tmp_path / "report.json").subjects[2].drift.metrics[0]
    assert math.isnan(metric.source)
    assert metric.onnx == math.inf


def test_json_without_constants_that_json_does_not_have(sample: Report):
    json.loads(report_json.render(sample), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_label_called_nan_stays_a_label():
    output = _output(Difference(row=0, index=[], source="NaN", onnx="Infinity"), "string")
    back = OutputParity.model_validate_json(output.model_dump_json())
    assert (back.worst[0].source, back.worst[0].onnx) == ("NaN", "Infinity")


@given(
    st.one_of(st.floats(), st.booleans(), st.integers(-(2**63), 2**64 - 1)),
    st.floats(allow_nan=False),
)
def test_elements_round_trip_with_their_type(source: float | int | bool, high: float):
    back = OutputParity.model_validate_json(
        _output(Difference(row=0, index=[1], source=source, onnx=0.5), "float64").model_dump_json()
    )
    assert type(back.worst[0].source) is type(source)
    assert _bits(back.worst[0].source) == _bits(source)
    assert Bin.model_validate_json(Bin(low=0, high=high, count=1).model_dump_json()).high == high


def test_a_file_name_that_is_no_text_can_be_written(sample: Report, tmp_path: Path):
    sample.subjects[0].model.inputs = [Tensor(name="caf\udce9", dtype="float32", shape=[])]
    report_json.write(sample, tmp_path / "report.json")
    assert report_json.read(tmp_path / "report.json").subjects[0].model.inputs[0].name == "caf\\udce9"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"schema_version": "1.0", "subjects": [', "cut short"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "no schema_version"),
        (b'"text"', "no schema_version"),
        (b"{}", "no schema_version"),
        (b'{"schema_version": 1}', "no schema_version"),
        (b'{"schema_version": "2.99"}', "newer onnxtool"),
        (b'{"schema_version": "3.0"}', "Upgrade onnxtool"),
        (b'{"schema_version": "10.0\\u001b[31m"}', "newer onnxtool"),
        (b'{"schema_version": "1.0"}', "command"),
        (b'{"schema_version": "2.0"}', "command"),
        (b'{"schema_version": "0.9"}', "schema_version"),
        (b'{"schema_version": "1.7"}', "schema_version"),
        (b'{"schema_version": "nonsense"}', "schema_version"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_report_is_an_error_of_one_line(content: bytes, complaint: str, tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        report_json.read(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=60))
def test_bytes_are_a_report_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(content)
    with pytest.raises(DataError):
        report_json.read(path)


def test_a_wrong_field_is_named(sample: Report, tmp_path: Path):
    document = json.loads(report_json.render(sample))
    document["subjects"][1]["bench"]["cells"][0]["batch"] = "many"
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=r"subjects\.1\.bench\.cells\.0\.batch"):
        report_json.read(path)


def test_no_such_file(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        report_json.read(tmp_path / "none.json")
    with pytest.raises(DataError, match="Is a directory"):
        report_json.read(tmp_path)


def test_nothing_is_left_of_a_report_that_cannot_be_written(sample: Report, tmp_path: Path):
    with pytest.raises(OutputError, match="does not exist"):
        report_json.write(sample, tmp_path / "none" / "report.json")
    assert not list(tmp_path.iterdir())


def _output(difference: Difference, dtype: str) -> OutputParity:
    return OutputParity(
        name="y",
        role="values",
        source_dtype=dtype,
        onnx_dtype=dtype,
        rows=1,
        elements=1,
        tolerance=Tolerance(rtol=0, atol=0, reason="test"),
        worst=[difference],
        passed=False,
    )


def _bits(value: float | int | bool) -> bytes | int:
    if isinstance(value, float):
        return b"NaN" if math.isnan(value) else struct.pack("d", value)  # NaN's payload is not kept
    return value
