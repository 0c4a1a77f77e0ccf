"""Writing C#: names, literals and comments from untrusted text."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Collection, Sequence

# Unicode 3.2 never changes, is a part of what every C# compiler knows, and Python brings it along.
from unicodedata import ucd_3_2_0 as unicode

from onnxtool.reports.units import shortened, visible

TYPES = {
    "bool": "bool", "int8": "sbyte", "int16": "short", "int32": "int", "int64": "long",
    "uint8": "byte", "uint16": "ushort", "uint32": "uint", "uint64": "ulong",
    "float32": "float", "float64": "double", "string": "string",
}  # fmt: skip
"""Name of a dtype to the C# type that ML.NET maps to it. ML.NET has no type for the others."""

_SUFFIXES = {"float32": "f", "float64": "d", "int64": "L", "uint32": "u", "uint64": "ul"}

_TYPE_NAMES = {
    *TYPES.values(), *TYPES, "boolean", "char", "decimal", "guid", "integer", "intptr", "object", "ptr", "single",
    "pointer", "uintptr", "unsigned", "signed",
}  # fmt: skip
"""What rule CA1720 takes for the name of a type, and a few more: in lower case."""

_SAYS_NOTHING = {"", "export", "exported", "final", "model", "net", "network", "onnx", "output", "saved"}

_LETTERS = {"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"}
_IDENTIFIER_CATEGORIES = _LETTERS | {"Mn", "Mc", "Nd"}

# What a class inherits from object, which a property of the name would hide, and methods of the classes.
_TAKEN = {
    "Equals", "Finalize", "GetHashCode", "GetType", "MemberwiseClone", "ReferenceEquals", "ToString",
    "ThrowIfInvalid", "Require",
}  # fmt: skip


def identifiers(names: Sequence[str], types: Collection[str] = ()) -> list[str]:
    """A property's name for each name: valid in C#, and never two that differ in nothing but case.

    Args:
        names: Of inputs or outputs.
        types: Names of the classes that have the properties, which no property may have.

    A name's identifier depends on the names before it alone, so that an output added at the end renames nothing.
    """
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        identifier = pascal_case(name) or "Unnamed"
        if not _starts(identifier[0]):
            identifier = f"_{identifier}"
        if identifier in _TAKEN or identifier in types:
            identifier += "_"
        seen[identifier.casefold()] += 1
        nth = seen[identifier.casefold()]
        # No underscore stands between words, so that no other name has this identifier.
        found.append(identifier if nth == 1 else f"{identifier}_{nth}")
    return found


def pascal_case(text: str) -> str:
    """The words of a text, each with a capital, without what stands between: `petal length` is PetalLength."""
    parts = "".join(char if _in_identifier(char) else " " for char in unicode.normalize("NFC", text))
    return "".join(_capitalised(word) for word in parts.split())


def type_name(text: str) -> str:
    """The beginning of the names of generated types, of ASCII letters and digits: `churn v2` is ChurnV2.

    It is empty where the text says nothing of the model, as that of `model.onnx`.
    """
    plain = "".join(char for char in pascal_case("".join(c if c.isascii() else " " for c in text)))[:60]
    plain = plain.removesuffix("Model")
    if plain.casefold() in _SAYS_NOTHING:
        return ""
    return f"Model{plain}" if plain[0].isdigit() else plain


def is_unusual(identifier: str) -> bool:
    """Whether .NET's analysers would have another name for a property: rules CA1707 and CA1720."""
    return "_" in identifier or identifier.casefold() in _TYPE_NAMES


def literal(text: str) -> str:
    """A string literal: what is not plain ASCII is escaped, so that nothing ends the literal or the line."""
    return f'"{"".join(map(_escaped, text))}"'


def value(item: float | str, dtype: str) -> str:
    """A literal of a dtype's type, of an item as JSON has it: a float that is not finite may be a text."""
    if dtype == "string":
        return literal(str(item))
    if dtype == "bool":
        return str(bool(item)).lower()
    if dtype in ("float32", "float64") and not math.isfinite(float(item)):
        name = "NaN" if math.isnan(float(item)) else f"{'Positive' if float(item) > 0 else 'Negative'}Infinity"
        return f"{TYPES[dtype]}.{name}"
    return f"{item}{_SUFFIXES.get(dtype, '')}"


def comment(text: str) -> str:
    """Text within an XML comment: on one line, and no element of its own."""
    return html.escape(visible(shortened(text, 120)))


def _starts(char: str) -> bool:
    return (char.isascii() and char.isalpha()) or unicode.category(char) in _LETTERS


def _in_identifier(char: str) -> bool:
    return ord(char) < 0x10000 and unicode.category(char) in _IDENTIFIER_CATEGORIES


def _capitalised(word: str) -> str:
    capital = word[0].upper()
    return (capital if len(capital) == 1 and _in_identifier(capital) else word[0]) + word[1:]


def _escaped(char: str) -> str:
    if char.isascii() and char.isprintable():
        return f"\\{char}" if char in '"\\' else char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02X}{units[place + 1]:02X}" for place in range(0, len(units), 2))
