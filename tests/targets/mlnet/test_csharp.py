"""Names and text from an untrusted model as C#. `test_bundle.py` has a compiler look at them."""

import re
import unicodedata
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from onnxtool.targets.mlnet import csharp

KEYWORDS = {
    "abstract", "as", "base", "bool", "break", "byte", "case", "catch", "char", "checked", "class", "const",
    "continue", "decimal", "default", "delegate", "do", "double", "else", "enum", "event", "explicit",
    "extern", "false", "finally", "fixed", "float", "for", "foreach", "goto", "if", "implicit", "in", "int",
    "interface", "internal", "is", "lock", "long", "namespace", "new", "null", "object", "operator", "out",
    "override", "params", "private", "protected", "public", "readonly", "ref", "return", "sbyte", "sealed",
    "short", "sizeof", "stackalloc", "static", "string", "struct", "switch", "this", "throw", "true", "try",
    "typeof", "uint", "ulong", "unchecked", "unsafe", "ushort", "using", "virtual", "void", "volatile",
    "while",
}  # fmt: skip
INHERITED = {"Equals", "Finalize", "GetHashCode", "GetType", "MemberwiseClone", "ReferenceEquals", "ToString"}

texts = st.text(max_size=12) | st.sampled_from(
    [*KEYWORDS, *INHERITED, "get_x", "1", "_", "", "ß", "ss", "ModelInput"]
)
names = st.lists(texts, max_size=20)


def _valid(identifier):
    """Whether it is an identifier by C#'s grammar (standard, 6.4.3), and no keyword."""
    categories = [unicodedata.category(char) for char in identifier]
    letters = {"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"}
    return (
        identifier not in KEYWORDS
        and (identifier[0] == "_" or categories[0] in letters)
        and all(
            char == "_" or category in letters | {"Mn", "Mc", "Nd"}
            for char, category in zip(identifier, categories, strict=True)
        )
    )


@given(names)
def test_identifiers_are_valid_and_hide_nothing(names):
    for identifier in csharp.identifiers(names):
        assert _valid(identifier), identifier
        assert identifier not in INHERITED | {"ThrowIfInvalid"}
    assert "ModelInput" not in csharp.identifiers([*names, "ModelInput"], ["ModelInput"])


@given(names)
def test_identifiers_differ_in_more_than_case(names):
    found = [identifier.casefold() for identifier in csharp.identifiers(names)]
    assert len(set(found)) == len(names)


@given(names, names)
def test_names_added_at_the_end_rename_nothing(names, more):
    assert csharp.identifiers([*names, *more])[: len(names)] == csharp.identifiers(names)


def test_identifiers_read_as_their_names():
    names = ["petal length (cm)", "Age", "age", "1st", "class", "größe", "x:0", "x/0", "Equals", "身長", "", "😀"]
    assert csharp.identifiers(names) == [
        "PetalLengthCm", "Age", "Age_2", "_1st", "Class", "Größe", "X0", "X0_2", "Equals_", "身長", "Unnamed",
        "Unnamed_2",
    ]  # fmt: skip


def test_letters_composed_or_not_are_one():
    assert csharp.identifiers(["é", "e\u0301"]) == ["É", "É_2"]


@given(st.text())
def test_the_name_of_the_types_is_plain(text):
    assert re.fullmatch(r"[A-Z][A-Za-z0-9]*|", csharp.type_name(text))


def test_types_are_named_for_their_files():
    texts = ["churn v2", "größe", "", "1a", "System", "flower.model", "model", "Onnx Model"]
    assert [csharp.type_name(text) for text in texts] == [
        "ChurnV2", "GrE", "", "Model1a", "System", "Flower", "", "",
    ]  # fmt: skip


@given(st.text() | st.text(alphabet='\\"\n\r\u2028u0041{}'))
def test_a_literal_says_what_the_text_says(text):
    literal = csharp.literal(text)
    assert re.fullmatch(r'"(?:[ !#-\[\]-~]|\\["\\]|\\u[0-9A-F]{4})*"', literal)
    units = re.sub(r"\\u([0-9A-F]{4})|\\(.)", lambda match: match[2] or chr(int(match[1], 16)), literal[1:-1])
    assert units.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


@given(st.text())
def test_a_comment_stays_on_its_line_and_is_xml(text):
    comment = csharp.comment(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", comment)
    ET.fromstring(f"<summary>{comment}</summary>")  # noqa: S314 - our own output


def test_values_are_literals_of_their_type():
    cases = [
        (True, "bool", "true"), (-3, "int8", "-3"), (7, "int64", "7L"), (2**63, "uint64", "9223372036854775808ul"),
        (0.1, "float32", "0.1f"), (1e-45, "float32", "1e-45f"), (5.0, "float64", "5.0d"),
        ("NaN", "float32", "float.NaN"), ("-Infinity", "float64", "double.NegativeInfinity"),
        ("Rome", "string", '"Rome"'),
    ]  # fmt: skip
    for item, dtype, expected in cases:
        assert csharp.value(item, dtype) == expected
