import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxtool.validators.numerics.comparison import WORST_ROWS, OutputComparison, ulp_distance
from onnxtool.validators.numerics.tolerance import Tolerances, tolerance

FLOATS = st.sampled_from(["float16", "float32", "float64"])


def compare(source, onnx, role="values", rtol=None, atol=None):
    comparison = OutputComparison("y", role, Tolerances(rtol, atol))
    comparison.update(np.asarray(source), np.asarray(onnx))
    return comparison.result()


def test_equal_outputs_pass_without_difference():
    values = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
    result = compare(values, values.copy())
    assert result.passed
    assert result.max_absolute == result.mean_absolute == result.p99_absolute == result.max_ulps == 0
    assert result.zero_differences == result.elements == 12
    assert result.worst == []


@pytest.mark.parametrize(
    ("source", "onnx", "passes"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (-np.inf, -np.inf, True),
        (np.nan, 1.0, False),
        (1.0, np.nan, False),
        (np.inf, -np.inf, False),
        (np.inf, 3.4e38, False),
        (1e38, np.inf, False),
        (0.0, -0.0, True),
    ],
)
def test_what_is_not_finite(source, onnx, passes):
    result = compare(np.array([[1.0, source]], np.float32), np.array([[1.0, onnx]], np.float32))
    assert result.passed is passes
    assert result.mismatched_nonfinite == (0 if passes else 1)
    assert result.mismatched_rows == (0 if passes else 1)
    assert result.max_absolute == 0  # over the finite pairs


def test_tolerance_is_absolute_plus_relative():
    source = np.array([[100.0], [100.0], [0.0], [0.0]], np.float64)
    onnx = source + np.array([[1.05], [1.15], [0.09], [0.11]])
    result = compare(source, onnx, rtol=0.01, atol=0.1)
    assert (result.mismatched_rows, result.mismatched_elements) == (2, 2)
    assert [difference.row for difference in result.worst] == [3, 1, 0, 2]


def test_relative_difference_near_zero_is_left_to_the_absolute_tolerance():
    result = compare(
        np.array([[1e-9], [2.0]], np.float32), np.array([[3e-9], [2.0002]], np.float32), rtol=1e-3, atol=1e-6
    )
    assert result.passed
    assert result.below_floor == 1
    assert result.relative_floor == pytest.approx(1e-3)
    assert result.max_relative == pytest.approx(1e-4, rel=1e-2)


def test_labels_must_be_equal_and_flips_are_counted():
    result = compare(
        np.array(["cat", "dog", "cat"], object), np.array(["cat", "cat", "cat"], object), role="label"
    )
    assert not result.passed
    assert (result.label_flips, result.mismatched_rows) == (1, 1)
    assert (result.worst[0].row, result.worst[0].source, result.worst[0].onnx) == (1, "dog", "cat")


def test_integers_must_be_equal_even_by_one():
    assert compare(np.array([1, 2], np.int64), np.array([1, 2], np.int32)).passed
    assert not compare(np.array([1, 2], np.int64), np.array([1, 3], np.int64)).passed


def test_a_label_against_a_number_fails_rather_than_being_converted():
    assert not compare(np.array(["1"], object), np.array([1], np.int64), role="label").passed


def test_probabilities_count_flips_of_the_most_probable_class():
    source = np.array([[0.6, 0.4], [0.5000001, 0.4999999]], np.float32)
    onnx = np.array([[0.6, 0.4], [0.4999999, 0.5000001]], np.float32)
    result = compare(source, onnx, role="probabilities")
    assert result.passed
    assert result.label_flips == 1


def test_a_column_vector_is_a_vector_and_other_shapes_differ():
    assert compare(np.zeros(3, np.float32), np.zeros((3, 1), np.float32)).passed
    result = compare(np.zeros((3, 2), np.float32), np.zeros((3, 4), np.float32))
    assert not result.passed
    assert "[3, 2]" in result.problem
    assert "[3, 4]" in result.problem


def test_nothing_compared_is_no_pass():
    assert not OutputComparison("y").result().passed


def test_worst_rows_are_the_worst_of_all_chunks_and_name_the_element():
    comparison = OutputComparison("y")
    source = np.ones((400, 2, 3), np.float32)
    onnx = source.copy()
    onnx[[3, 101, 255, 399, 17, 40], 1, 2] += np.array([1, 6, 2, 5, 4, 3], np.float32)
    for start in range(0, 400, 50):
        comparison.update(source[start : start + 50], onnx[start : start + 50])
    result = comparison.result()
    assert result.mismatched_rows == 6
    assert len(result.worst) == WORST_ROWS
    assert [difference.row for difference in result.worst] == [101, 399, 17, 40, 255]
    assert all(difference.index == [1, 2] for difference in result.worst)


def test_bfloat16_counts_its_own_ulps():
    source = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    result = compare(source, np.array([1.0078125, 2.0], ml_dtypes.bfloat16))
    assert result.max_ulps == 1
    assert result.passed


@given(dtype=FLOATS, data=st.data())
def test_chunks_say_the_same_as_the_whole(dtype, data):
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 4)))
    arrays = hnp.arrays(dtype, shape, elements={"allow_subnormal": True})
    source, onnx = data.draw(arrays), data.draw(arrays)
    cut = data.draw(st.integers(0, shape[0]))
    pieces = OutputComparison("y", "probabilities")
    for part in (slice(0, cut), slice(cut, None)):
        if len(source[part]):
            pieces.update(source[part], onnx[part])
    whole = compare(source, onnx, role="probabilities")
    ignored = {"worst", "mean_absolute"}
    assert pieces.result().model_dump(exclude=ignored) == whole.model_dump(exclude=ignored)


@given(dtype=FLOATS, data=st.data())
def test_the_numbers_are_those_of_numpy(dtype, data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 3)))
    elements = st.floats(-1e4, 1e4, width=int(dtype[5:]))
    source = data.draw(hnp.arrays(dtype, shape, elements=elements))
    onnx = data.draw(hnp.arrays(dtype, shape, elements=elements))
    result = compare(source, onnx)
    difference = np.abs(onnx.astype(np.float64) - source.astype(np.float64))
    allowed = tolerance(dtype, dtype)
    off = difference > allowed.atol + allowed.rtol * np.abs(source.astype(np.float64))
    assert result.max_absolute == difference.max()
    assert result.mean_absolute == pytest.approx(difference.mean())
    assert result.mismatched_elements == off.sum()
    assert result.mismatched_rows == off.any(axis=1).sum()
    assert sum(bin_.count for bin_ in result.histogram) + result.zero_differences == difference.size
    exact = np.quantile(difference, 0.99, method="inverted_cdf")
    assert exact * (1 - 1e-6) <= result.p99_absolute <= max(exact * (1 + 1 / 128) + 1e-44, 0)


@given(dtype=FLOATS, data=st.data())
def test_ulps_count_steps_of_nextafter(dtype, data):
    width = int(dtype[5:])
    start = np.dtype(dtype).type(data.draw(st.floats(allow_nan=False, allow_infinity=False, width=width)))
    steps = data.draw(st.integers(0, 40))
    end = start
    with np.errstate(over="ignore"):
        for _ in range(steps):
            end = np.nextafter(end, np.dtype(dtype).type(np.inf))
    if np.isfinite(end):
        assert ulp_distance(np.array([start]), np.array([end]), dtype)[0] == steps


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
def test_ulps_are_symmetric_and_zero_only_for_equals(first, second):
    one, two = np.array([first], np.float32), np.array([second], np.float32)
    forth, back = ulp_distance(one, two, "float32")[0], ulp_distance(two, one, "float32")[0]
    assert forth == back
    assert (forth == 0) == (first == second)
