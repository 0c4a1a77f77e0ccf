"""Operators of TensorFlow that work on text, as functions inside the ONNX model; tf2onnx has none of them.

A rewriter of tf2onnx puts calls of functions where an operator was, and the complete model gets the functions that it
calls. They are of opset 20, the first with operators of text, where tf2onnx ends at 18.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, parser

from onnxtool.converters.tensorflow.graph import constant
from onnxtool.converters.tensorflow.graph import node as write
from onnxtool.errors import ConversionError
from onnxtool.models.onnx.artifact import all_nodes

DOMAIN = "onnxtool"
OPSET = 20
_IR = 9  # the first for opset 20
_REWRITTEN_AT = 18
_CHANGED_SINCE = frozenset({"DFT", "GridSample"})
"""What takes other attributes or inputs at 20 than at 18; all other operators only take more types."""

_WHITESPACE = "\t\n\v\f\r"
"""What TensorFlow splits at besides a space; ONNX's StringSplit splits at spaces alone."""

# Every occurrence of `found` becomes `by`. The pieces of a text between them are joined in pairs, then pairs of
# pairs: rows with few pieces have empty ones at the end, and get `by` only where a piece of theirs follows.
_REPLACE = """<found, by> (x) => (y) {
    all = Constant<value_ints=[-1]>()
    zero = Constant<value_ints=[0]>()
    one = Constant<value_ints=[1]>()
    two = Constant<value_ints=[2]>()
    end = Constant<value_ints=[9223372036854775807]>()
    trips = Constant<value_int=64>()
    first = Constant<value_int=0>()
    next = Constant<value_int=1>()
    nothing = Constant<value_string="">()
    by = Constant<value_string: string = @by>()
    shape = Shape(x)
    flat = Reshape(x, all)
    rows = Shape(flat)
    pieces, counts = StringSplit<delimiter: string = @found>(flat)
    width = Shape<start=1>(pieces)
    last = Squeeze(width)
    columns = Range(first, last, next)
    count = Unsqueeze(counts, one)
    within = Less(columns, count)
    later = Greater(columns, first)
    follows = And(within, later)
    between = Where(follows, by, nothing)
    parts = StringConcat(between, pieces)
    several_1 = Equal(width, one)
    several_0 = Not(several_1)
    several = Squeeze(several_0)
    joined = Loop(trips, several, parts) <body = join (int64 trip, bool going, string[N, P] now)
        => (bool again, string[N, Q] paired)
    {
        size = Shape<start=1>(now)
        odd = Mod(size, two)
        lacking = Sub(two, size)
        missing = Max(odd, lacking)
        empty_shape = Concat<axis=0>(rows, missing)
        empty = Expand(nothing, empty_shape)
        even = Concat<axis=1>(now, empty)
        left = Slice(even, zero, end, one, two)
        right = Slice(even, one, end, one, two)
        paired = StringConcat(left, right)
        left_over = Shape<start=1>(paired)
        more = Greater(left_over, one)
        again = Squeeze(more)
    }>
    text = Reshape(joined, all)
    y = Reshape(text, shape)
}"""

# Like tf.strings.split: the words of all texts one after another, with text and place of each, and both numbers.
_SPLIT = """(x) => (indices, values, shape) {
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    last = Constant<value_ints=[1]>()
    words, counts = StringSplit(x)
    shape = Shape(words)
    width_1 = Shape<start=1>(words)
    width = Squeeze(width_1)
    columns = Range(zero, width, one)
    count = Unsqueeze(counts, last)
    there = Less(columns, count)
    places = NonZero(there)
    indices = Transpose(places)
    values = GatherND(words, indices)
}"""

# The row of each value, from where the rows start and end.
_ROWS = """(splits, x) => (rows) {
    first = Constant<value_ints=[0]>()
    second = Constant<value_ints=[1]>()
    beyond = Constant<value_ints=[-1]>()
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    total = Shape(x)
    room = Add(total, second)
    marks = Expand(zero, room)
    bounds = Cast<to=7>(splits)
    starts = Slice(bounds, second, beyond)
    count = Shape(starts)
    ones = Expand(one, count)
    marked = ScatterElements<reduction="add">(marks, starts, ones)
    counted = CumSum(marked, zero)
    rows = Slice(counted, first, beyond)
}"""

# Like RaggedBincount without weights: how often each number below `size` is in each row; `top` caps it.
_COUNT = """<top> (splits, x, size, weights) => (y) {
    last = Constant<value_ints=[-1]>()
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    first = Constant<value_ints=[1]>()
    number = Cast<to=7>(x)
    sizes = Cast<to=7>(size)
    size_1 = Reshape(sizes, last)
    rows = onnxtool.RowOfEach(splits, number)
    start = Mul(rows, size_1)
    place = Add(start, number)
    below = Less(number, size_1)
    negative = Less(number, zero)
    positive = Not(negative)
    valid = And(positive, below)
    places = Compress(place, valid)
    ends = Shape(splits)
    height = Sub(ends, first)
    shape = Concat<axis=0>(height, size_1)
    cells = Mul(height, size_1)
    none = Expand(zero, cells)
    many = Shape(places)
    ones = Expand(one, many)
    flat = ScatterElements<reduction="add">(none, places, ones)
    top = Constant<value_int: int = @top>()
    capped = Min(flat, top)
    grid = Reshape<allowzero=1>(capped, shape)
    y = CastLike(grid, weights)
}"""

# Like RaggedTensorToTensor of rows of values: negative sizes of a shape are those that the rows need.
_PAD = """(shape, values, default, height, rows) => (y) {
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    none = Constant<value_ints=[0]>()
    last = Constant<value_ints=[-1]>()
    row = Cast<to=7>(rows)
    heights = Cast<to=7>(height)
    height_1 = Reshape(heights, last)
    empty = Expand(zero, height_1)
    total_1 = Shape(row)
    total = Squeeze(total_1)
    ones = Expand(one, total_1)
    lengths = ScatterElements<reduction="add">(empty, row, ones)
    starts = CumSum<exclusive=1>(lengths, zero)
    start = Gather(starts, row)
    place = Range(zero, total, one)
    column = Sub(place, start)
    some_length = Concat<axis=0>(none, lengths)
    width = ReduceMax(some_length)
    needed = Concat<axis=0>(height_1, width)
    given = Cast<to=7>(shape)
    free = Less(given, none)
    sizes = Where(free, needed, given)
    row_1 = Unsqueeze(row, last)
    column_1 = Unsqueeze(column, last)
    indices = Concat<axis=1>(row_1, column_1)
    inside = Less(indices, sizes)
    both = Cast<to=7>(inside)
    least = ReduceMin<keepdims=0>(both, last)
    kept = Cast<to=9>(least)
    kept_indices = Compress<axis=0>(indices, kept)
    kept_values = Compress<axis=0>(values, kept)
    background = Expand(default, sizes)
    y = ScatterND(background, kept_indices, kept_values)
}"""

# Each run of words made one word longer, with its row, and whether it lies in that row as a whole.
_LONGER = """<offset, separator> (runs, run_rows, x, rows) => (longer, longer_rows, whole) {
    first = Constant<value_ints=[0]>()
    beyond = Constant<value_ints=[-1]>()
    end = Constant<value_ints=[9223372036854775807]>()
    offset = Constant<value_ints: ints = @offset>()
    separator = Constant<value_string: string = @separator>()
    left = Slice(runs, first, beyond)
    right = Slice(x, offset, end)
    half = StringConcat(left, separator)
    longer = StringConcat(half, right)
    longer_rows = Slice(run_rows, first, beyond)
    last_rows = Slice(rows, offset, end)
    whole = Equal(longer_rows, last_rows)
}"""

# Runs of words row by row, and where each row's then end; within a row they keep their order.
_GATHER = """(runs, run_rows, splits) => (sorted, bounds) {
    none = Constant<value_ints=[0]>()
    first = Constant<value_ints=[1]>()
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    many = Shape(runs)
    total = Squeeze(many)
    place = Range(zero, total, one)
    major = Mul(run_rows, many)
    key = Add(major, place)
    _, order = TopK<axis=0, largest=0, sorted=1>(key, many)
    sorted = Gather(runs, order)
    ends = Shape(splits)
    height = Sub(ends, first)
    empty = Expand(zero, height)
    ones = Expand(one, many)
    lengths = ScatterElements<reduction="add">(empty, run_rows, ones)
    stops = CumSum(lengths, zero)
    all_bounds = Concat<axis=0>(none, stops)
    bounds = CastLike(all_bounds, splits)
}"""

_FUNCTIONS = {
    "CountInRows": _COUNT,
    "GatherRows": _GATHER,
    "LongerRuns": _LONGER,
    "PadRows": _PAD,
    "ReplaceText": _REPLACE,
    "RowOfEach": _ROWS,
    "SameText": "(a, b) => (y) { y = Equal(a, b) }",  # of text from opset 19
    "SplitText": _SPLIT,
}

_ONE_OF = re.compile(r"\[(?!\^|.*(--|&&|~~|\|\|))(\\[^\w]|[^\\\[\]])+\]")
"""A class of characters that means the same to Python as to RE2."""
_LITERAL = re.compile(r"(\\[^\w]|[^\\\[\](){}.*+?^$|])+")


def rewrite_text(graph: Any, nodes: list[Any]) -> list[Any]:
    """Put calls of the functions where operators of text are; what they do not cover stays, and is refused later."""
    for node in list(nodes):
        if rewrite := _REWRITES.get(node.type):
            outputs = rewrite(graph, node)
            for old, new in zip(node.output, outputs, strict=False):
                graph.replace_all_inputs(old, new)
            if outputs:
                graph.remove_node(node.name)
    return list(graph.get_nodes())


def _recased(graph: Any, node: Any) -> list[str]:
    if node.get_attr_value("encoding"):
        return []
    upper, lower = string.ascii_uppercase, string.ascii_lowercase  # only ASCII, without an encoding
    changes = zip(upper, lower, strict=True) if node.type == "StringLower" else zip(lower, upper, strict=True)
    return [_replaced(graph, node.input[0], dict(changes))]


def _replace(graph: Any, node: Any) -> list[str]:
    changes = _changes(node)
    return [_replaced(graph, node.input[0], changes)] if changes else []


def _same(graph: Any, node: Any) -> list[str]:
    if graph.get_dtype(node.input[0]) != TensorProto.STRING:
        return []
    same = _call(graph, "SameText", node.input, [TensorProto.BOOL], [graph.get_shape(node.output[0])])
    if node.type == "Equal":
        return same
    return [write(graph, "Not", *same, dtype=TensorProto.BOOL)]


def _split(graph: Any, node: Any) -> list[str]:
    separator = node.inputs[1].get_tensor_value() if node.inputs[1].is_const() else None
    if node.get_attr_value("maxsplit", -1) != -1 or separator not in (b"", ""):
        return []
    text = _replaced(graph, node.input[0], dict.fromkeys(_WHITESPACE, " "))
    dtypes = [TensorProto.INT64, TensorProto.STRING, TensorProto.INT64]
    return _call(graph, "SplitText", [text], dtypes, [[-1, 2], [-1], [2]])


def _count(graph: Any, node: Any) -> list[str]:
    if 0 not in (graph.get_shape(node.input[3]) or ()):  # weights
        return []
    top = 1 if node.get_attr_value("binary_output", False) else 2**63 - 1
    dtypes, shapes = [graph.get_dtype(node.output[0])], [graph.get_shape(node.output[0])]
    return _call(graph, "CountInRows", node.input, dtypes, shapes, top=top)


def _pad(graph: Any, node: Any) -> list[str]:
    shape, values, default, *rows = node.input
    if graph.opset < _REWRITTEN_AT or graph.get_rank(node.output[0]) != 2 or graph.get_rank(default) != 0:
        return []
    if graph.get_rank(shape) == 0:  # as large as the rows need
        shape = constant(graph, [-1, -1])
    kinds = node.get_attr_value("row_partition_types")
    if kinds == [b"ROW_SPLITS"]:
        bounds = write(graph, "Shape", *rows, dtype=TensorProto.INT64, shape=[1])
        height = write(graph, "Sub", bounds, constant(graph, [1]), dtype=TensorProto.INT64, shape=[1])
        rows = [height, *_call(graph, "RowOfEach", [rows[0], values], [TensorProto.INT64], [[-1]])]
    elif kinds != [b"FIRST_DIM_SIZE", b"VALUE_ROWIDS"]:
        return []
    dtypes, shapes = [graph.get_dtype(node.output[0])], [graph.get_shape(node.output[0])]
    return _call(graph, "PadRows", [shape, values, default, *rows], dtypes, shapes)


def _runs(graph: Any, node: Any) -> list[str]:
    words, splits = node.input
    if node.get_attr_value("pad_width", 0) or node.get_attr_value("preserve_short_sequences", False):
        return []
    separator = node.get_attr_value("separator").decode()
    (rows,) = _call(graph, "RowOfEach", [splits, words], [TensorProto.INT64], [[-1]])
    dtypes = [TensorProto.STRING, TensorProto.INT64, TensorProto.BOOL]
    by_width, last = {1: [words, rows]}, [words, rows]
    for width in range(2, max(node.get_attr_value("ngram_widths")) + 1):
        inputs = [*last, words, rows]
        *last, whole = _call(
            graph, "LongerRuns", inputs, dtypes, [[-1]] * 3, offset=[width - 1], separator=separator
        )
        by_width[width] = [
            write(graph, "Compress", part, whole, axis=0, dtype=dtype, shape=[-1])
            for part, dtype in zip(last, dtypes, strict=False)
        ]
    parts = zip(*(by_width[width] for width in node.get_attr_value("ngram_widths")), strict=True)
    runs = [
        write(graph, "Concat", *part, axis=0, dtype=dtype, shape=[-1])
        for part, dtype in zip(parts, dtypes, strict=False)
    ]
    dtypes = [TensorProto.STRING, graph.get_dtype(splits)]
    return _call(graph, "GatherRows", [*runs, splits], dtypes, [[-1], [-1]])


_REWRITES: dict[str, Callable[[Any, Any], list[str]]] = {
    "Equal": _same,
    "NotEqual": _same,
    "RaggedBincount": _count,
    "RaggedTensorToTensor": _pad,
    "StaticRegexReplace": _replace,
    "StringLower": _recased,
    "StringNGrams": _runs,
    "StringSplitV2": _split,
    "StringUpper": _recased,
}
"""By operator, what makes the outputs that take the place of its own; none where it is not covered."""


def add_functions(model: onnx.ModelProto) -> list[str]:
    """Give a model the functions that it calls, and their opset, in place.

    Returns:
        What was done, a sentence each.

    Raises:
        ConversionError: the graph was written for an opset that cannot be raised.
    """
    called = {node.op_type for node in all_nodes(model.graph) if node.domain == DOMAIN}
    if not called:
        return []
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions[""] < _REWRITTEN_AT or any(node.op_type in _CHANGED_SINCE for node in all_nodes(model.graph)):
        raise ConversionError(
            f"Text and ragged rows need opset {OPSET}, and the rest of the model is of {versions['']}."
        )
    for name in sorted(called | {"RowOfEach"} if "CountInRows" in called else called):
        text = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}, "{DOMAIN}": 1]> {name} {_FUNCTIONS[name]}'
        model.functions.append(parser.parse_function(text))
    del model.opset_import[:]
    versions |= {"": OPSET, DOMAIN: 1}
    model.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in versions.items())
    model.ir_version = max(model.ir_version, _IR)
    return [f"Text and ragged rows need operators of opset {OPSET}, to which the graph was raised."]


def _changes(node: Any) -> dict[str, str]:
    """The matches of a regular expression and their replacements; nothing where they are not known."""
    pattern, by = (node.get_attr_value(name).decode() for name in ("pattern", "rewrite"))
    if not node.get_attr_value("replace_global", True) or "\\" in by or not pattern.isascii():
        return {}
    if _LITERAL.fullmatch(pattern):
        return {re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL): by}
    if not _ONE_OF.fullmatch(pattern):
        return {}
    found = [character for character in map(chr, range(1, 128)) if re.fullmatch(pattern, character)]
    return {} if set(found) & set(by) else dict.fromkeys(found, by)


def _replaced(graph: Any, text: str, changes: dict[str, str]) -> str:
    for found, by in changes.items():
        shapes = [graph.get_shape(text)]
        (text,) = _call(graph, "ReplaceText", [text], [TensorProto.STRING], shapes, found=found, by=by)
    return text


def _call(
    graph: Any, name: str, inputs: list[str], dtypes: Sequence[int], shapes: list[Any], **attrs: Any
) -> list[str]:
    node = graph.make_node(
        name, inputs, attrs, len(dtypes), name=None, dtypes=dtypes, shapes=shapes, domain=DOMAIN
    )
    return list(node.output)
