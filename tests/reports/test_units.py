import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtool.reports import charts, units
from onnxtool.reports.model import Bin


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0, "0 s"),
        (1e-9, "1.00 ns"),
        (8.441e-6, "8.44 µs"),
        (999.6e-6, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (1.5, "1.50 s"),
        (119.6, "120 s"),
        (200, "3 min 20 s"),
        (None, "\N{EN DASH}"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
    ],
)
def test_seconds(duration: float | None, text: str):
    assert units.seconds(duration) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.38e-7, "2.4e-7"),
        (1e-5, "1e-5"),
        (0.0413, "0.041"),
        (48123, "48,123"),
        (3.4e38, "3.4e38"),
        (-1, "-1"),
    ],
)
def test_numbers(value: float, text: str):
    assert units.number(value, 2) == text


def test_sizes_rates_and_ratios():
    assert [units.size(value) for value in (0, 1023, 1024, 91.6 * 2**20)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "91.6 MiB",
    ]
    assert [units.rate(value) for value in (0, 12.34, 999.9, 85_634, 1.13e6)] == [
        "0",
        "12.3",
        "1.00 k",
        "85.6 k",
        "1.13 M",
    ]
    ratios = [units.ratio(value).rstrip("\N{MULTIPLICATION SIGN}") for value in (0.5, 14.15, 237.4, 12_345)]
    assert ratios == ["0.500", "14.2", "237", "12,300"]


@given(st.floats(min_value=1e-9, max_value=100))
def test_three_digits_of_a_time_are_right(duration: float):
    text, unit = units.seconds(duration).split()
    scale = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(text) * scale == pytest.approx(duration, rel=0.0051)
    assert 1 <= float(text) < 1000


@given(st.floats())
def test_every_float_is_written(value: float):
    assert float(units.element(value).replace(",", "")) == pytest.approx(value, rel=1e-8, nan_ok=True)


@given(st.text())
def test_visible_text_can_be_written_and_hides_nothing(text: str):
    shown = units.visible(text)
    assert shown.encode("utf-8").decode() == shown
    assert all(character.isprintable() or character.isspace() for character in shown if ord(character) < 256)
    assert units.visible(shown) == shown


positive = st.floats(min_value=1e-12, max_value=1e12)


@given(st.lists(positive, min_size=1, max_size=20), st.booleans())
def test_scales_keep_values_within_and_in_order(values: list[float], zero: bool):
    scale = charts.fit(values, 10, 110, zero=zero)
    pixels = [scale(value) for value in sorted(values)]
    assert pixels == sorted(pixels)
    assert all(10 <= pixel <= 110 for pixel in pixels)
    ticks = scale.ticks(5)
    assert len(ticks) <= 12
    assert all(scale.low * (1 - 1e-6) <= tick <= scale.high * (1 + 1e-6) + 1e-12 for tick in ticks)


@given(st.lists(st.tuples(positive, st.integers(0, 10**9)), max_size=12), st.integers(0, 10**9))
def test_histograms_of_anything_are_drawn(steps: list[tuple[float, int]], zeros: int):
    edge, bins = 0.0, []
    for width, count in steps:
        bins.append(Bin(low=edge, high=edge + width, count=count))
        edge += width
    for log in (False, True):
        svg = charts.histogram(
            bins, title="t", label="l", text=units.number, marks=[("m", 1.0)], zeros=zeros, log_counts=log
        )
        assert "nan" not in svg
        assert "inf" not in svg
