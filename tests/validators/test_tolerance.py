import pytest

from onnxtool.validators.numerics.tolerance import coarser, tolerance


@pytest.mark.parametrize(
    ("source", "onnx", "expected"),
    [("float64", "float32", "float32"), ("float16", "bfloat16", "bfloat16"), ("float64", "float64", "float64")],
)
def test_the_coarser_dtype_decides(source, onnx, expected):
    assert coarser(source, onnx) == coarser(onnx, source) == expected
    assert expected in tolerance(source, onnx).reason


def test_coarser_dtypes_allow_more():
    allowed = [tolerance(name, name) for name in ("bfloat16", "float16", "float32", "float64")]
    assert sorted(allowed, key=lambda t: -t.rtol) == allowed
    assert sorted(allowed, key=lambda t: -t.atol) == allowed


def test_what_is_not_a_float_must_be_equal():
    exact = tolerance("int64", "int64", rtol=0.5, atol=0.5)
    assert (exact.rtol, exact.atol) == (0, 0)


def test_the_user_overrides_and_is_named():
    assert tolerance("float32", "float32", rtol=0.1).rtol == 0.1
    assert tolerance("float32", "float32", rtol=0.1).atol == tolerance("float32", "float32").atol
    assert "user" in tolerance("float32", "float32", atol=0.0).reason
