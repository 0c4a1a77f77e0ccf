"""Charts as inline SVG: pure functions from numbers to markup.

Colours are CSS variables of the page, so that dark mode and print have their own. Every chart has a title
for those who cannot see it, and labels with units. Text is escaped by `Markup.format`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeAlias

from markupsafe import Markup

from onnxtool.reports import units
from onnxtool.reports.model import Bin, Comparison, Percentile

Format: TypeAlias = Callable[[float], str]
Series: TypeAlias = tuple[str, Sequence[tuple[float, float]]]
"""A name and its points, in the order of x."""

COLOURS = 8
"""Number of series that colours and marks can distinguish in a chart."""

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 20, 34
BAND = 34
"""Width of the two bars drawn off the axis: values equal to zero, and the far tail."""
GAP = 14


@dataclass(frozen=True, slots=True)
class Scale:
    """A mapping of values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values beyond the ends are drawn at them."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return round(self.start + (value - low) / (high - low) * (self.stop - self.start), 1)

    def ticks(self, most: int) -> list[float]:
        """Round values within the scale: at most `most` of them, more only where a decade holds them all."""
        if not self.log:
            step = _round_step((self.high - self.low) / most)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [index * step for index in range(first, last + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        decades = self._within(10.0**power for power in powers)
        if len(decades) > 2:
            return decades[:: math.ceil(len(decades) / most)]
        return self._within(factor * 10.0**power for power in powers for factor in (1, 2, 5))

    def _within(self, values: Iterable[float]) -> list[float]:
        return [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]


def fit(values: Sequence[float], start: float, stop: float, *, zero: bool = False) -> Scale:
    """A scale that holds all values: logarithmic where they span more than a factor of eight.

    Args:
        values: Finite numbers.
        start: Pixel of the low end.
        stop: Pixel of the high end.
        zero: Whether a linear scale starts at zero.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high / low > 8:
        return Scale(low / 1.15, high * 1.15, start, stop, log=True)
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return Scale(0.0 if zero and low >= 0 else low - margin, high + margin, start, stop)


def histogram(
    bins: Sequence[Bin],
    *,
    title: str,
    label: str,
    text: Format,
    marks: Sequence[tuple[str, float]] = (),
    zeros: int = 0,
    log_counts: bool = False,
) -> Markup:
    """A histogram.

    Args:
        bins: In order, without gaps. A last bin much wider than the others is drawn separately, as the tail.
        title: Text for screen readers.
        label: The quantity that is counted, with its unit where `text` has none.
        text: How a value of the horizontal axis is written.
        marks: Named values to draw a line at.
        zeros: Number of values that are exactly zero, drawn separately.
        log_counts: Whether the counts are on a logarithmic axis, so that single outliers stay visible.
    """
    bins = [entry for entry in bins if math.isfinite(entry.low + entry.high)]
    body, tail = _split_tail(bins)
    left = LEFT + (BAND + GAP if zeros else 0)
    right = WIDTH - RIGHT - (BAND + GAP if tail else 0)
    x = _bins_scale(body, [value for _, value in marks], left, right)
    most = max([zeros, *(entry.count for entry in bins)], default=0)
    y = _counts_scale(most, log=log_counts)
    parts = [_y_axis(y, units.rate), _x_axis(x, text, clear=20 if tail else 0), _label(label)]
    bars = [
        (x(entry.low), x(entry.high), entry.count, f"{text(entry.low)} to {text(entry.high)}") for entry in body
    ]
    if zeros:
        bars.append((LEFT, LEFT + BAND, zeros, "equal"))
        parts.append(_text(LEFT + BAND / 2, HEIGHT - BOTTOM + 13, "0", "tick"))
    if tail:
        bars.append((WIDTH - RIGHT - BAND, WIDTH - RIGHT, tail.count, f"{text(tail.low)} to {text(tail.high)}"))
        name = f"to {_short(text(tail.high))}"
        parts.append(_text(WIDTH - RIGHT - BAND / 2, HEIGHT - BOTTOM + 13, name, "tick"))
    parts += [_bar(low, high, y(count), f"{name}: {count:,}") for low, high, count, name in bars if count]
    for row, (name, value) in enumerate(marks):
        parts.append(_mark(x(value), name, row))
    return _svg(title, WIDTH, HEIGHT, parts)


def lines(
    series: Sequence[Series], *, title: str, x_label: str, text: Format, reference: float | None = None
) -> Markup:
    """Lines over whole numbers, such as batch sizes, both axes logarithmic where they span much.

    Args:
        series: At most `COLOURS` of them.
        title: Text for screen readers.
        x_label: Label of the horizontal axis.
        text: How a value of the vertical axis is written.
        reference: A value to draw a line at.
    """
    xs = sorted({point[0] for _, points in series for point in points})
    ys = [point[1] for _, points in series for point in points] + ([reference] if reference else [])
    x = Scale(xs[0], xs[-1], LEFT + 12, WIDTH - RIGHT - 12, log=xs[0] > 0) if len(xs) > 1 else fit(xs, LEFT, WIDTH)
    y = fit(ys, HEIGHT - BOTTOM, TOP, zero=True)
    parts = [_y_axis(y, text), _label(x_label)]
    shown = xs if len(xs) <= 9 else xs[:: math.ceil(len(xs) / 9)]
    parts += [_text(x(value), HEIGHT - BOTTOM + 13, f"{value:,.0f}", "tick") for value in shown]
    if reference is not None:
        parts.append(_line(LEFT, y(reference), WIDTH - RIGHT, y(reference), "reference"))
    for index, (name, points) in enumerate(series):
        path = " ".join(f"{x(px)},{y(py)}" for px, py in points)
        marks = Markup("").join(_point(index, x(px), y(py), f"{name}, {px:g}: {text(py)}") for px, py in points)
        parts.append(
            Markup('<g class="series s{}"><polyline points="{}"/>{}</g>').format(index % COLOURS, path, marks)
        )
    return _svg(title, WIDTH, HEIGHT, parts)


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a scatter plot.

    Attributes:
        name: Name of its series.
        x: Above 0.
        y: Above 0.
        on_front: Whether nothing beats it.
    """

    name: str
    x: float
    y: float
    on_front: bool


def front(dots: Sequence[Dot], *, title: str, label: str, x_text: Format, y_text: Format) -> Markup:
    """A scatter plot, those that nothing beats connected.

    Args:
        dots: At least one.
        title: Text for screen readers.
        label: Label of the horizontal axis.
        x_text: How a value of the horizontal axis is written.
        y_text: How a value of the vertical axis is written.
    """
    x = fit([dot.x for dot in dots], LEFT + 8, WIDTH - RIGHT - 8)
    y = fit([dot.y for dot in dots], HEIGHT - BOTTOM, TOP)
    best = sorted((dot for dot in dots if dot.on_front), key=lambda dot: dot.x)
    path = " ".join(f"{x(dot.x)},{y(dot.y)}" for dot in best)
    drawn = [
        (
            dot,
            _point(0 if dot.on_front else 1, x(dot.x), y(dot.y), f"{dot.name}: {x_text(dot.x)}, {y_text(dot.y)}"),
        )
        for dot in dots
    ]
    beaten = Markup("").join(mark for dot, mark in drawn if not dot.on_front)
    kept = Markup("").join(mark for dot, mark in drawn if dot.on_front)
    parts = [
        _y_axis(y, y_text),
        _x_axis(x, x_text, clear=0),
        _label(label),
        Markup('<g class="series beaten">{}</g>').format(beaten),
        Markup('<g class="series s0"><polyline points="{}"/>{}</g>').format(path, kept),
    ]
    return _svg(title, WIDTH, HEIGHT, parts)


def swatch(index: int) -> Markup:
    """The colour and mark of a series, for a legend."""
    mark = _point(index, 8, 6, "")
    return Markup(
        '<svg class="swatch" viewBox="0 0 16 12" aria-hidden="true"><g class="series s{}">{}{}</g></svg>'
    ).format(index % COLOURS, Markup('<polyline points="0,6 16,6"/>'), mark)


def trace(values: Sequence[float], *, title: str, label: str, text: Format) -> Markup:
    """A series over time, its median as a line."""
    values = [value for value in values if math.isfinite(value)]
    x = Scale(0, max(1, len(values) - 1), LEFT, WIDTH - RIGHT)
    y = fit(values, HEIGHT - BOTTOM, TOP)
    path = " ".join(f"{x(index)},{y(value)}" for index, value in enumerate(values))
    base = HEIGHT - BOTTOM
    parts = [
        _y_axis(y, text),
        _line(LEFT, base, WIDTH - RIGHT, base, "axis"),
        _text(WIDTH / 2, base + 15, label, "label"),
    ]
    if values:
        middle = y(median(values))
        parts.append(_line(LEFT, middle, WIDTH - RIGHT, middle, "reference"))
    parts.append(Markup('<polyline class="trace" points="{}"/>').format(path))
    return _svg(title, WIDTH, HEIGHT, parts)


def timeline(values: Sequence[float], changes: Sequence[int], *, title: str, text: Format) -> Markup:
    """A number over runs: a line, the median between changes, and a mark at each change.

    Args:
        values: Finite numbers, at least one. Of more than 300, neighbours are drawn as their median.
        changes: Places of the changes: the number of values before each.
        title: Text for screen readers.
        text: How a value is written.
    """
    width, height, most = 300, 60, 300
    size = math.ceil(len(values) / most)
    drawn = [median(values[start : start + size]) for start in range(0, len(values), size)]
    x = Scale(0, max(1, len(values) - 1), 2, width - 2)
    y = fit(drawn, height - 4, 4)
    path = " ".join(f"{x(index * size):g},{y(value):g}" for index, value in enumerate(drawn))
    parts = [Markup('<polyline points="{}"/>').format(path)]
    for start, stop in pairwise([0, *changes, len(values)]):
        middle = y(median(values[start:stop]))
        parts.append(_line(x(start), middle, x(stop - 1), middle, "level"))
    parts += [_line(x(at - 0.5), 0, x(at - 0.5), height, "change") for at in changes]
    about = f"{title}: {text(min(values))} to {text(max(values))}"
    return Markup(
        '<svg class="timeline" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img"><title>{}</title>{}</svg>'
    ).format(width, height, about, Markup("").join(parts))


SPREAD_WIDTH, SPREAD_HEIGHT = 230, 30


def spread_scale(percentiles: Sequence[Percentile]) -> Scale:
    """One scale for the spreads of all cells of a table."""
    values = [value for entry in percentiles for value in (entry.value_s, entry.low_s, entry.high_s) if value]
    return fit(values, 8, SPREAD_WIDTH - 8)


def spread(percentiles: Sequence[Percentile], scale: Scale, *, title: str) -> Markup:
    """A cell's latency in a row of a table: the median with its interval, and a tick at each higher percentile."""
    known = [(entry, entry.value_s) for entry in percentiles if entry.value_s]
    middle = SPREAD_HEIGHT / 2
    parts = [_line(scale(tick), 0, scale(tick), SPREAD_HEIGHT, "grid") for tick in scale.ticks(4)]
    if known:
        parts.append(_line(scale(known[0][1]), middle, scale(known[-1][1]), middle, "whisker"))
        parts += [_line(scale(value), middle - 5, scale(value), middle + 5, "whisker") for _, value in known[1:]]
        first, value = known[0]
        if first.low_s and first.high_s:
            parts.append(_line(scale(first.low_s), middle, scale(first.high_s), middle, "interval"))
        parts.append(Markup('<circle class="dot" cx="{}" cy="{}" r="3.5"/>').format(scale(value), middle))
    return _svg(title, SPREAD_WIDTH, SPREAD_HEIGHT, parts, "spread")


def spread_axis(scale: Scale) -> Markup:
    """The axis over a column of spreads."""
    ticks = scale.ticks(4)
    parts = [
        _text(
            scale(tick), 11, _short(units.seconds(tick)), "tick end" if scale(tick) > SPREAD_WIDTH - 20 else "tick"
        )
        for tick in ticks
    ]
    parts += [_line(scale(tick), 15, scale(tick), 20, "grid") for tick in ticks]
    return _svg("Latency axis" + (", logarithmic" if scale.log else ""), SPREAD_WIDTH, 20, parts, "spread")


def ratio_scale(comparisons: Sequence[Comparison]) -> Scale:
    """One scale for the ratios of a table: both ends of each band and each interval."""
    ends = [value for found in comparisons for value in (found.low, found.high, 1 + found.effect, 1.0) if value]
    return fit(ends, 8, SPREAD_WIDTH - 8)


def ratio(comparison: Comparison, scale: Scale, *, title: str) -> Markup:
    """A ratio with its interval. The band from 1 is the smallest effect that matters."""
    middle = SPREAD_HEIGHT / 2
    edge = 1 + comparison.effect
    parts = [
        Markup('<rect class="band" x="{}" y="3" width="{}" height="{}"/>').format(
            scale(1), round(scale(edge) - scale(1), 1), SPREAD_HEIGHT - 6
        ),
        _line(scale(1), 0, scale(1), SPREAD_HEIGHT, "grid"),
        _line(scale(edge), 0, scale(edge), SPREAD_HEIGHT, "reference"),
    ]
    if comparison.ratio and comparison.low and comparison.high:
        parts.append(_line(scale(comparison.low), middle, scale(comparison.high), middle, "whisker"))
        ends = (scale(comparison.low), scale(comparison.high))
        parts += [_line(end, middle - 5, end, middle + 5, "whisker") for end in ends]
        parts.append(
            Markup('<circle class="dot" cx="{}" cy="{}" r="3.5"/>').format(scale(comparison.ratio), middle)
        )
    return _svg(title, SPREAD_WIDTH, SPREAD_HEIGHT, parts, "spread")


# -- Elements -----------------------------------------------------------------------------------------------


def _svg(title: str, width: float, height: float, parts: Sequence[Markup], kind: str = "chart") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        kind, width, height, title, Markup("").join(parts)
    )


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, x, y, text)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _bar(left: float, right: float, top: float, title: str) -> Markup:
    base = HEIGHT - BOTTOM
    width = max(1.0, round(right - left - 1, 1))
    return Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
        left, top, width, round(base - top, 1), title
    )


def _point(index: int, x: float, y: float, title: str) -> Markup:
    """A mark whose shape goes with its colour."""
    shape = (
        Markup('<circle cx="{x}" cy="{y}" r="3.5">{title}</circle>'),
        Markup('<rect x="{left}" y="{top}" width="6.4" height="6.4">{title}</rect>'),
        Markup('<path d="M{x} {high}l4.4 7.6h-8.8z">{title}</path>'),
        Markup('<path d="M{x} {high}l4.6 4.6l-4.6 4.6l-4.6-4.6z">{title}</path>'),
    )[index % 4]
    return shape.format(
        x=x,
        y=y,
        left=round(x - 3.2, 1),
        top=round(y - 3.2, 1),
        high=round(y - 4.6, 1),
        title=Markup("<title>{}</title>").format(title) if title else "",
    )


def _mark(x: float, name: str, row: int) -> Markup:
    """A named line; the name stands on the side that has room."""
    right_half = x > WIDTH * 0.7
    label = _text(x + (-4 if right_half else 4), TOP - 8 + 11 * row, name, "mark end" if right_half else "mark")
    return _line(x, TOP - 14, x, HEIGHT - BOTTOM, "mark") + label


def _label(text: str) -> Markup:
    return _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, text, "label")


def _y_axis(scale: Scale, text: Format) -> Markup:
    parts = []
    for tick in scale.ticks(4):
        parts.append(_line(LEFT, scale(tick), WIDTH - RIGHT, scale(tick), "grid"))
        parts.append(_text(LEFT - 6, scale(tick) + 3.5, _short(text(tick)), "tick end"))
    return Markup("").join(parts)


def _x_axis(scale: Scale, text: Format, clear: float) -> Markup:
    """The horizontal axis, without ticks in the last `clear` pixels."""
    base = HEIGHT - BOTTOM
    parts = [_line(LEFT, base, WIDTH - RIGHT, base, "axis")]
    for tick in scale.ticks(6):
        if scale(tick) > scale.stop - clear:
            continue
        parts.append(_line(scale(tick), base, scale(tick), base + 3, "axis"))
        parts.append(_text(scale(tick), base + 13, _short(text(tick)), "tick"))
    return Markup("").join(parts)


def _bins_scale(bins: Sequence[Bin], also: Sequence[float], start: float, stop: float) -> Scale:
    edges = [edge for entry in bins for edge in (entry.low, entry.high)] + list(also)
    low, high = min(edges, default=0.0), max(edges, default=1.0)
    if low > 0 and high / low > 8:
        return Scale(low, high, start, stop, log=True)
    return Scale(low, high if high > low else low + 1.0, start, stop)


def _counts_scale(most: int, *, log: bool) -> Scale:
    if log:  # from one half, so that a count of one has a height
        return Scale(0.5, max(most, 2) * 1.3, HEIGHT - BOTTOM, TOP, log=True)
    return Scale(0.0, max(most, 1) * 1.05, HEIGHT - BOTTOM, TOP)


def _split_tail(bins: Sequence[Bin]) -> tuple[Sequence[Bin], Bin | None]:
    if len(bins) < 3:
        return bins, None
    *body, last = bins
    ordinary = median(entry.high - entry.low for entry in body)
    # Bins that grow by a factor have no tail: each is as wide as all before it.
    growing = all(second.high - second.low > 1.5 * (first.high - first.low) for first, second in pairwise(body))
    return (body, last) if not growing and last.high - last.low > 2 * ordinary else (bins, None)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def _short(text: str) -> str:
    """A tick's text without trailing zeros: 1.00 µs becomes 1 µs."""
    return re.sub(r"\.?0+(?=\D*$)", "", text) if re.search(r"\.\d*0(?=\D*$)", text) else text
