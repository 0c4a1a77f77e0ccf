import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtool.errors import UsageError
from onnxtool.reports import units
from onnxtool.sandbox.limits import GIB, Limits, default_memory, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * GIB), ("8g", 8 * GIB), ("500MB", 500_000_000), (" 1.5 KiB ", 1536), ("7", 7), ("7b", 7)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "8 apples", "1e9"])
def test_no_sizes(text):
    with pytest.raises(UsageError, match="amount of memory"):
        parse_size(text)


@given(st.integers(1, 999))
def test_what_is_shown_can_be_read(count):
    assert parse_size(units.size(count * GIB)) == count * GIB


@pytest.mark.parametrize("limits", [{"memory": 1000}, {"timeout": 0.0}, {"timeout": float("nan")}, {"files": 3}])
def test_limits_that_nothing_can_live_with(limits):
    with pytest.raises(UsageError):
        Limits(**limits)


def test_the_default_is_enough_for_a_model_of_2_gb():
    assert default_memory() >= 8 * GIB
