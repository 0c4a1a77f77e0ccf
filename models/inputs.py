"""Made-up inputs: valid rows for a model that came without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnxtool.models.domain import Domain
from onnxtool.models.signature import Tensors, TensorSpec

# Sizes for dynamic dimensions other than the rows: images must survive five halvings, sequences be short.
_IMAGE_SIDE = 32
_SEQUENCE = 12
_IMAGE_RANK = 4

# Nodes that hand values on unchanged, so that what reads their output says something about the input.
_TRANSPARENT = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
# Operators that split text into words before the node that knows the vocabulary.
_TOKENIZERS = {"StringNormalizer", "Tokenizer", "StringSplit"}
_WORDS = 12
# Operators that pick columns by constant indices.
_PICKERS = {"Gather", "ArrayFeatureExtractor"}
_CHOICES = ("keys_strings", "keys_int64s", "cats_strings", "cats_int64s", "pool_strings")


def make_inputs(
    specs: Sequence[TensorSpec], rows: int, seed: int, domains: Mapping[str, Domain] | None = None
) -> Tensors:
    """Make valid inputs, the same for the same arguments.

    Args:
        specs: The inputs. A dynamic first dimension counts rows; other dynamic dimensions get a small size,
            the same wherever the name recurs.
        rows: Number of rows.
        seed: Seed of NumPy's PCG64.
        domains: What is known of each input's values; others are standard normal or small whole numbers.
    """
    rng = np.random.default_rng(seed)
    sizes: dict[str, int] = {}
    for spec in specs:
        side = _IMAGE_SIDE if len(spec.shape) >= _IMAGE_RANK else _SEQUENCE
        for dim in spec.shape[1:]:
            if isinstance(dim, str):
                sizes[dim] = max(side, sizes.get(dim, 0))
    tensors: Tensors = {}
    for spec in specs:
        shape = [
            dim if isinstance(dim, int) else rows if axis == 0 else sizes[dim]
            for axis, dim in enumerate(spec.shape)
        ]
        domain = (domains or {}).get(spec.name, Domain())
        tensors[spec.name] = np.asarray(domain.sample(spec.dtype, tuple(shape), rng))  # a scalar too
    return tensors


def sensible_rows(specs: Sequence[TensorSpec]) -> int:
    """How many made-up rows to verify with: 1,024 for tables, fewer for images, so that it takes seconds."""
    elements = sum(
        int(np.prod([dim if isinstance(dim, int) else _SEQUENCE for dim in spec.shape[1:]])) for spec in specs
    )
    return int(np.clip(2**22 // max(elements, 1), 32, 1024))


def graph_domains(proto: onnx.ModelProto) -> dict[str, Domain]:
    """What an ONNX graph says of its inputs: vocabulary sizes and categories."""
    graph = proto.graph
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    widths = {value.name: _width(value) for value in graph.input}
    domains: dict[str, Domain] = {}
    for value in graph.input:
        found = [
            domain
            for node, name, words in _readers(value.name, 0, consumers, weights, widths)
            if (domain := _node_domain(node, name, weights, words)) is not None
        ]
        if found:
            domains[value.name] = min(found, key=lambda domain: domain.high)
    return domains


def _readers(
    name: str,
    column: int,
    consumers: Mapping[str, Sequence[onnx.NodeProto]],
    weights: Mapping[str, onnx.TensorProto],
    widths: Mapping[str, int],
    *,
    words: int = 0,
) -> Iterator[tuple[onnx.NodeProto, str, int]]:
    """The nodes that read a tensor's column, directly or through nodes that hand it on."""
    for node in consumers.get(name, ()):
        yield node, name, words
        following = words
        position: int | None = None
        if node.op_type in _TOKENIZERS:
            position, following = column, _WORDS
        elif node.op_type in _TRANSPARENT and node.input[0] == name:
            position = column
        elif node.op_type == "Concat" and all(other in widths for other in node.input):
            position = sum(widths[other] for other in node.input[: list(node.input).index(name)]) + column
        elif node.op_type in _PICKERS and node.input[0] == name and node.input[1] in weights:
            picked = onnx.numpy_helper.to_array(weights[node.input[1]]).reshape(-1).tolist()
            position = picked.index(column) if column in picked else None
        if position is not None:
            yield from _readers(node.output[0], position, consumers, weights, widths, words=following)


def _node_domain(
    node: onnx.NodeProto, name: str, weights: Mapping[str, onnx.TensorProto], words: int
) -> Domain | None:
    if node.op_type == "Gather" and node.input[1] == name and node.input[0] in weights:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return Domain(high=weights[node.input[0]].dims[axis])
    for attribute in node.attribute:
        if attribute.name in _CHOICES and (attribute.strings or attribute.ints):
            texts = tuple(text.decode("utf-8", "replace") for text in attribute.strings)
            return Domain(choices=texts or tuple(attribute.ints), words=words)
    return None


def _width(value: onnx.ValueInfoProto) -> int:
    """Columns of an input, 1 where that is not said."""
    dims = value.type.tensor_type.shape.dim
    return dims[-1].dim_value if len(dims) == 2 and dims[-1].dim_value > 0 else 1
