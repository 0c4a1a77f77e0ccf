"""Made-up inputs: valid rows for a model that came without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, product
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import onnx

from onnxtool.errors import ModelError, UsageError
from onnxtool.models.rows.batches import row_dimension
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.reports import units
from onnxtool.sandbox.limits import default_memory

# Sizes for dynamic dimensions other than the rows: images must survive five halvings, sequences be short.
_IMAGE_SIDE = 32
_SEQUENCE = 12
IMAGE_RANK = 4

# Nodes that hand values on unchanged, so that the readers of their output show something about the input.
_TRANSPARENT = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
# Operators that split text into words before the node that knows the vocabulary.
_TOKENIZERS = {"StringNormalizer", "Tokenizer", "StringSplit"}
_WORDS = 12
_ITEM_SIZE = 8  # bytes of a number while it is made
# Operators that pick columns by constant indices.
_PICKERS = {"Gather", "ArrayFeatureExtractor"}
# Attributes of nodes that know a vocabulary: of text, and of numbers.
_TEXTS = ("keys_strings", "cats_strings", "pool_strings", "string_vocabulary")
_NUMBERS = ("keys_int64s", "cats_int64s", "pool_int64s", "int64_vocabulary", "keys_floats")
# Nodes that map what is not in their vocabulary to a default.
_WITH_DEFAULT = {"LabelEncoder", "CategoryMapper"}
_UNKNOWN = "never seen"


Sizes: TypeAlias = tuple[tuple[str, int], ...]
"""Names and sizes of dynamic dimensions, sorted."""


def make_inputs(
    specs: Sequence[TensorSpec],
    rows: int,
    seed: int,
    domains: Mapping[str, Domain] | None = None,
    given: Mapping[str, int] = MappingProxyType({}),
) -> Tensors:
    """Make valid inputs, the same for the same arguments.

    Args:
        specs: The inputs. Dynamic dimensions other than the one that counts rows get a small size, the same wherever
            the name recurs.
        rows: Number of rows.
        seed: Seed of NumPy's PCG64.
        domains: What is known of each input's values; others are standard normal or small whole numbers.
        given: Sizes of dynamic dimensions by name.

    Raises:
        ModelError: an input is larger than this machine's memory.
    """
    rng = np.random.default_rng(seed)
    sizes: dict[str, int] = {}
    for spec in specs:
        side = _IMAGE_SIDE if len(spec.shape) >= IMAGE_RANK else _SEQUENCE
        for dim in spec.shape:
            if isinstance(dim, str):
                sizes[dim] = given.get(dim, max(side, sizes.get(dim, 0)))
    counting = row_dimension(specs)
    if counting is not None:
        sizes[counting] = rows
    tensors: Tensors = {}
    for spec in specs:
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape]
        if (size := math.prod(shape) * _ITEM_SIZE) > default_memory():
            raise ModelError(
                f"The input {spec.name!r} is {shape}: {units.size(size)}, more than this machine can hold. The model "
                "is damaged, or made for a larger machine."
            )
        domain = (domains or {}).get(spec.name, Domain())
        tensors[spec.name] = np.asarray(domain.sample(spec.dtype, tuple(shape), rng))  # a scalar too
    return tensors


def resized(rows: Tensors, specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> Tensors:
    """The same rows at other sizes of dynamic dimensions: values are left out or repeated, in their order."""
    found = dict(rows)
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and dim in sizes:
                array = found[spec.name]
                found[spec.name] = array.take(np.arange(sizes[dim]) * array.shape[axis] // sizes[dim], axis)
    return found


def combinations(shapes: Mapping[str, Sequence[int]], specs: Sequence[TensorSpec], raw: Tensors) -> list[Sizes]:
    """Every combination of the given sizes.

    Args:
        shapes: Name of a dynamic dimension to its sizes.
        specs: The inputs that have them.
        raw: The user's rows.

    Raises:
        UsageError: no such dimension is dynamic, a size is below 1, or rows are given, which have sizes.
    """
    if not shapes:
        return []
    if raw:
        raise UsageError("A shape is for made-up rows; the rows of --data have one. Leave out --shape or --data.")
    rows = row_dimension(specs)
    dynamic = {dim: None for spec in specs for dim in spec.shape if isinstance(dim, str) and dim != rows}
    for name, sizes in shapes.items():
        if name not in dynamic:
            has = f"It has {', '.join(dynamic)}." if dynamic else "It has none."
            raise UsageError(f"The model has no dynamic dimension {name!r} besides the batch. {has}")
        if not sizes or min(sizes) < 1:
            raise UsageError(f"The size of {name} is a whole number above 0.")
    names = sorted(shapes)
    return [tuple(zip(names, sizes, strict=True)) for sizes in product(*(shapes[name] for name in names))]


def sizes_of(specs: Sequence[TensorSpec], rows: Tensors) -> Sizes:
    """The sizes that rows give to the dynamic dimensions of a model, without the one that counts rows."""
    counting = row_dimension(specs)
    found: dict[str, int] = {}
    for spec in specs:
        shape = rows[spec.name].shape if spec.name in rows else ()
        named = zip(spec.shape, shape, strict=False)
        found |= {dim: size for dim, size in named if isinstance(dim, str) and dim != counting}
    return tuple(sorted(found.items()))


def sensible_rows(specs: Sequence[TensorSpec]) -> int:
    """The number of generated rows to verify with: 1,024 for tables, fewer for images, so that it takes seconds."""
    elements = sum(
        int(np.prod([dim if isinstance(dim, int) else _SEQUENCE for dim in spec.shape[1:]])) for spec in specs
    )
    return int(np.clip(2**22 // max(elements, 1), 32, 1024))


def graph_domains(proto: onnx.ModelProto) -> dict[str, Domain]:
    """The domains of an ONNX graph's inputs: vocabulary sizes and categories."""
    graph = proto.graph
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    handed_on = _handed_on(graph, weights)
    domains: dict[str, Domain] = {}
    for value in graph.input:
        found = [
            domain
            for node, name, words in _readers(value.name, consumers, handed_on)
            if (domain := _node_domain(node, name, weights, words, _is_text(value))) is not None
        ]
        if found:
            domains[value.name] = min(found, key=lambda domain: domain.high)
    return domains


Columns: TypeAlias = Callable[[str, int], int | None]
"""From an input of a node and one of its columns to the column of the node's output that it becomes, if any."""


def _handed_on(graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto]) -> dict[str, Columns]:
    """By the output of each node that hands columns on, where they go."""
    widths = {value.name: _width(value) for value in graph.input}
    found: dict[str, Columns] = {}
    for node in graph.node:
        if node.op_type in _TOKENIZERS:
            found[node.output[0]] = lambda _, column: column
        elif node.op_type in _TRANSPARENT:
            found[node.output[0]] = partial(_only, node.input[0], None)
        elif node.op_type == "Concat" and all(name in widths for name in node.input):
            starts = accumulate((widths[name] for name in node.input), initial=0)
            # of an input that is there twice, the first place
            offsets = dict(reversed(list(zip(node.input, starts, strict=False))))
            found[node.output[0]] = partial(_moved, offsets)
        elif node.op_type in _PICKERS and node.input[1] in weights:
            picked = onnx.numpy_helper.to_array(weights[node.input[1]]).reshape(-1).tolist()
            places = dict(reversed([(column, place) for place, column in enumerate(picked)]))
            found[node.output[0]] = partial(_only, node.input[0], places)
    return found


def _moved(offsets: Mapping[str, int], name: str, column: int) -> int | None:
    return offsets[name] + column


def _only(first: str, places: Mapping[int, int] | None, name: str, column: int) -> int | None:
    """The new position of a column of the first input; `places` is None where all keep theirs."""
    if name != first:
        return None
    return column if places is None else places.get(column)


def _readers(
    name: str, consumers: Mapping[str, Sequence[onnx.NodeProto]], handed_on: Mapping[str, Columns]
) -> Iterator[tuple[onnx.NodeProto, str, int]]:
    """The nodes that read an input's first column, directly or through nodes that hand it on, with its words."""
    waiting = [(name, 0, 0)]  # no recursion: graphs may be deep
    seen = {name}
    while waiting:
        name, column, words = waiting.pop()
        for node in consumers.get(name, ()):
            yield node, name, words
            output = node.output[0] if node.output else ""
            place = handed_on[output](name, column) if output in handed_on and output not in seen else None
            if place is not None:
                seen.add(output)
                waiting.append((output, place, _WORDS if node.op_type in _TOKENIZERS else words))


def _node_domain(
    node: onnx.NodeProto, name: str, weights: Mapping[str, onnx.TensorProto], words: int, text: bool
) -> Domain | None:
    if node.op_type == "Gather" and node.input[1] == name and node.input[0] in weights:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return Domain(high=weights[node.input[0]].dims[axis])
    for attribute in node.attribute:  # a CategoryMapper has one of either kind: the input's dtype decides
        if attribute.name in (_TEXTS if text else _NUMBERS):
            known: tuple[object, ...] = tuple(word.decode("utf-8", "replace") for word in attribute.strings)
            known = known or tuple(attribute.ints) or tuple(attribute.floats)
            if known and text and not words and node.op_type in _WITH_DEFAULT:
                known = (*known, _UNKNOWN)
            return Domain(choices=known, words=words) if known else None
    return None


def _is_text(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.STRING)


def _width(value: onnx.ValueInfoProto) -> int:
    """Number of columns of an input; 1 where the shape does not have it."""
    dims = value.type.tensor_type.shape.dim
    return dims[-1].dim_value if len(dims) == 2 and dims[-1].dim_value > 0 else 1
