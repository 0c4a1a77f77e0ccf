"""Numbers and names as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

NONE = "\N{EN DASH}"
"""Stands where there is nothing to show."""

# Controls, invisible characters, line separators, marks that reorder text, lone surrogates, noncharacters.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


def visible(text: str) -> str:
    r"""Text with control characters escaped, as `\x1b`: nothing in it acts on a terminal, browser or parser."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, in scientific notation where it would be long: 2.4e-7."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if 10**digits <= abs(value) < 1e7:
        return f"{value:,.0f}"
    if value == 0 or 1e-3 <= abs(value) < 10**digits:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def interval(low: float | None, high: float | None) -> str:
    """An interval by its ends."""
    return NONE if low is None else f"{number(low)} to {number(high)}"


def element(value: float | int | str | bool) -> str:
    """An element of a tensor: floats with all the digits that distinguish them, text in quotes."""
    if isinstance(value, float):
        return number(value, digits=9)
    return repr(shortened(value)) if isinstance(value, str) else str(value)


def shortened(text: str, limit: int = 48) -> str:
    """Text cut to `limit` characters, the cut marked."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def name(text: str) -> str:
    """A name, or a word for having none."""
    return text or "(unnamed)"


def count(quantity: int | None) -> str:
    """A whole number, its digits in groups of three."""
    return NONE if quantity is None else f"{quantity:,}"


def seconds(duration: float | None) -> str:
    """A time in the unit that suits it, from nanoseconds to minutes."""
    if duration is None or not math.isfinite(duration):
        return number(duration)
    if duration >= 120:
        minutes, rest = divmod(round(duration), 60)
        return f"{minutes} min {rest} s"
    return _scaled(duration, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def size(quantity: int | None) -> str:
    """A number of bytes in binary units."""
    if quantity is None:
        return NONE
    if quantity < 1024:
        return f"{quantity} B"
    return _scaled(quantity, (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)))


def rate(per_second: float | None) -> str:
    """A throughput, with its multiple but without its unit: 12.3 k."""
    if per_second is None or not math.isfinite(per_second):
        return number(per_second)
    return _scaled(per_second, (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))).rstrip()


def share(part: float | None) -> str:
    """A share as a percentage; what is less than all of it is never rounded up to 100 %."""
    if part is None:
        return NONE
    return f"{math.floor(part * 1000) / 10:g} %"


def quantile(q: float) -> str:
    """A percentile's short name: p99 for 0.99."""
    return f"p{100 * q:.6g}"


def ratio(factor: float | None) -> str:
    """A ratio with the multiplication sign."""
    return NONE if factor is None else f"{_significant(factor)}\N{MULTIPLICATION SIGN}"


def shape(dims: Sequence[int | str]) -> str:
    """The dimensions of a tensor."""
    return f"[{', '.join(map(str, dims))}]"


def provider(name: str) -> str:
    """An execution provider's short name: CPU for CPUExecutionProvider."""
    return name.removesuffix("ExecutionProvider").replace("Tensorrt", "TensorRT") or name


def plural(quantity: int, noun: str) -> str:
    """A count with its noun: 1 row, 2 rows, 2 queries."""
    several = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{quantity:,} {noun if quantity == 1 else several}"


def _scaled(quantity: float, units: Sequence[tuple[str, float]]) -> str:
    if quantity == 0:
        return f"0 {units[0][0] if units[-1][0] else ''}".rstrip()
    # 999.9 µs is 1.00 ms, not 1000 µs
    unit, scale = next((pair for pair in units if float(f"{quantity / pair[1]:.3g}") >= 1), units[-1])
    return f"{_significant(quantity / scale)} {unit}"


def _significant(quantity: float) -> str:
    """Three significant digits, trailing zeros kept, never in scientific notation below a million."""
    rounded = float(f"{quantity:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:#.3g}".rstrip(".")
