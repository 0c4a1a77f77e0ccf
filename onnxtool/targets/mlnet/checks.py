"""The checks and repairs of the rules in `rules.py`.

A check yields the places where its rule is broken. A fix repairs, in place, those that can be repaired, and says what
it did.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper

from onnxtool.converters.graph import repairs
from onnxtool.converters.graph.finish import default_opset, name_dimensions
from onnxtool.errors import ModelError
from onnxtool.models.onnx.artifact import INLINE_LIMIT, OnnxModel, all_nodes, all_tensors, fits_inline
from onnxtool.models.onnx.shapes import with_inferred_shapes
from onnxtool.models.signature import BATCH
from onnxtool.reports import units
from onnxtool.targets.lint import Place
from onnxtool.targets.mlnet.releases import Deployment
from onnxtool.targets.mlnet.slots import slot_names, zipmap_to_tensor

DTYPES = frozenset({
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.STRING, TensorProto.BOOL,
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
})  # fmt: skip
"""Element types that OnnxTypeParser.GetScalarDataViewType knows."""

PROFILE = frozenset({TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING})
"""Element types whose columns every loader and trainer of ML.NET makes and takes."""

_WHOLE = frozenset({
    TensorProto.BOOL, TensorProto.INT4, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32,
    TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
})  # fmt: skip
_COMPLEX = frozenset({TensorProto.COMPLEX64, TensorProto.COMPLEX128})
_INT32_MAX = 2**31 - 1
_NO_OPSET = 2**31
NESTING = 10
_FUNCTIONS_IR = 8
_OLDEST_OPSET = 7  # from which on ONNX Runtime has all operators
_HIDDEN = re.compile(r"mlnet\..*\.unused(Input|Output)", re.DOTALL)
_OUTPUT = ".output"
_DOMAINS = frozenset({
    "", "ai.onnx", repairs.ML, "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training",
    "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc",
})  # fmt: skip


def column(output: str) -> str:
    """The name of the column that ML.NET makes of an output (OnnxTransform.cs, GetOutputColumnsCore)."""
    return output.replace(_OUTPUT, "") if output.endswith(_OUTPUT) else output


# -- What is looked at ----------------------------------------------------------------------------------------


def _values(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ValueInfoProto]]:
    yield from ((f"input {value.name!r}", value) for value in model.graph.input)
    yield from ((f"output {value.name!r}", value) for value in model.graph.output)


def _fed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that must be fed: those with an initializer have a default."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in defaults]


def _visible_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [value for value in _fed(model) if not _HIDDEN.fullmatch(value.name)]


def _is_tensor(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type")


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return _is_tensor(value) and value.type.tensor_type.HasField("shape")


def _rank(value: onnx.ValueInfoProto) -> int | None:
    return len(_dims(value)) if _has_shape(value) else None


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _known(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value > 0


def _shown(value: onnx.ValueInfoProto) -> str:
    dims = (
        (dim.dim_param or "?") if not dim.HasField("dim_value") else str(dim.dim_value) for dim in _dims(value)
    )
    return f"[{', '.join(dims)}]"


def _dtype(elem_type: int) -> str:
    if elem_type not in TensorProto.DataType.values():
        return f"dtype {elem_type}"
    name = str(TensorProto.DataType.Name(elem_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _into_profile(elem_type: int) -> int:
    return TensorProto.INT64 if elem_type in _WHOLE else TensorProto.FLOAT


# -- Loading --------------------------------------------------------------------------------------------------


def foreign_dtype(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for place, value in _values(model):
        if _is_tensor(value) and value.type.tensor_type.elem_type not in DTYPES:
            yield place, f"ML.NET has no {_dtype(value.type.tensor_type.elem_type)}."


def recast_foreign(model: onnx.ModelProto, _: Deployment) -> Iterator[str]:
    return _recast(model, lambda dtype: dtype not in DTYPES)


def other_inputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in _fed(model):
        if _is_tensor(value) and value.type.tensor_type.elem_type in DTYPES - PROFILE:
            yield (
                f"input {value.name!r}",
                f"Its column must hold {_dtype(value.type.tensor_type.elem_type)} exactly.",
            )


def other_outputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        if _is_tensor(value) and value.type.tensor_type.elem_type in DTYPES - PROFILE:
            yield f"output {value.name!r}", f"Its column holds {_dtype(value.type.tensor_type.elem_type)}."


def recast_outputs(model: onnx.ModelProto, _: Deployment) -> Iterator[str]:
    return _recast(model, lambda dtype: dtype in DTYPES - PROFILE, inputs=False)


def _recast(model: onnx.ModelProto, selected: Callable[[int], bool], inputs: bool = True) -> Iterator[str]:
    graph = model.graph
    fed = _fed(model) if inputs else []
    for values, recast in ((fed, repairs.recast_input), (list(graph.output), repairs.recast_output)):
        for value in values:
            dtype = value.type.tensor_type.elem_type
            if _is_tensor(value) and selected(dtype) and dtype not in _COMPLEX:
                recast(graph, value, _into_profile(dtype))
                yield f"{value.name}: {_dtype(dtype)} became {_dtype(_into_profile(dtype))}, with a Cast inside."


def foreign_weights(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for tensor in model.graph.initializer:
        if tensor.data_type not in DTYPES:
            yield f"initializer {tensor.name!r}", f"ML.NET has no {_dtype(tensor.data_type)}."


def weights_to_constants(model: onnx.ModelProto, _: Deployment) -> Iterator[str]:
    kinds = {tensor.data_type for tensor in model.graph.initializer} - DTYPES
    names = repairs.initializers_to_constants(model, kinds)
    dtypes = ", ".join(sorted(map(_dtype, kinds)))
    yield f"{len(names)} {dtypes} weights became Constant nodes, which ML.NET does not look at; no bit changed."


def no_tensor(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    alone = all(_is_sequence(value) for value in model.graph.output)
    for place, value in _values(model):
        kind = str(value.type.WhichOneof("value")).removesuffix("_type")
        element = value.type.sequence_type.elem_type
        if kind in ("sequence", "map") and place.startswith("input"):
            yield place, f"No column of ML.NET can hold a {kind} that a model takes."
        elif kind not in ("tensor", "sequence", "map"):
            yield place, f"It is of type {kind}."
        elif element.HasField("tensor_type") and not element.tensor_type.HasField("shape"):
            yield place, "It is a sequence whose tensors have no shape."
        elif element.HasField("tensor_type") and element.tensor_type.elem_type not in DTYPES:
            yield place, f"It is a sequence of {_dtype(element.tensor_type.elem_type)}."
        elif alone and _is_sequence(value):
            yield place, "It is a sequence of tensors, and there is no other output."


def sequences(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        if _is_sequence(value):
            yield f"output {value.name!r}", "It is a sequence of tensors."


def _is_sequence(value: onnx.ValueInfoProto) -> bool:
    """Whether it is a sequence of something else than maps."""
    return (
        value.type.HasField("sequence_type")
        and value.type.sequence_type.elem_type.WhichOneof("value") != "map_type"
    )


def maps(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        sequence = value.type.sequence_type.elem_type if value.type.HasField("sequence_type") else value.type
        if sequence.HasField("map_type"):
            yield f"output {value.name!r}", "It gives a map for each row."


def maps_to_tensors(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    broken = {place for place, _ in maps(model, deployment)}
    for value in model.graph.output:
        if f"output {value.name!r}" in broken and zipmap_to_tensor(model, value):
            yield f"{value.name}: ZipMap is gone; its classes are the names of the column's slots."


def nameless_shape(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for place, value in _values(model):
        if _is_tensor(value) and not _has_shape(value):
            yield place, "It has no shape."


def infer_shapes(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    before = {place for place, _ in nameless_shape(model, deployment)}
    name_dimensions(model, OnnxModel(Path(), model).inputs)
    repaired = before - {place for place, _ in nameless_shape(model, deployment)}
    yield from (f"{place} got the shape that ONNX infers." for place in sorted(repaired))


# -- Shapes ---------------------------------------------------------------------------------------------------


def scalar_outputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        if _rank(value) == 0:
            yield f"output {value.name!r}", "It is a scalar, of rank 0."


def unsqueeze_outputs(model: onnx.ModelProto, _: Deployment) -> Iterator[str]:
    for value in model.graph.output:
        if _rank(value) == 0:
            repairs.reshape_output(model.graph, value, [1])
            yield f"{value.name}: the scalar became a vector of 1."


def narrow_inputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in _fed(model):
        if _rank(value) not in (None, 0, 2) and not any(_known(dim) and dim.dim_value > 1 for dim in _dims(value)):
            yield f"input {value.name!r}", f"Its shape is {_shown(value)}, and a scalar column feeds [1, 1]."


def widen_inputs(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    broken = {place for place, _ in narrow_inputs(model, deployment)}
    for value in [value for value in _fed(model) if f"input {value.name!r}" in broken]:
        dims = _dims(value)
        if any(not _known(dim) for dim in dims[1:]):
            continue  # as many numbers as the row has
        batch = 1 if _known(dims[0]) else dims[0].dim_param or BATCH
        repairs.reshape_input(model.graph, value, [batch, 1], [-1, *([1] * (len(dims) - 1))])
        yield f"{value.name}: its shape became {_shown(value)}, with a Reshape inside."


def empty_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for place, value in _values(model):
        for axis, dim in enumerate(_dims(value)):
            if dim.WhichOneof("value") is None:
                yield place, f"Dimension {axis} is empty: neither a size nor a name."


def nameless_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for place, value in _values(model):
        for axis, dim in enumerate(_dims(value)):
            if not _known(dim) and not dim.dim_param and not (dim.HasField("dim_value") and dim.dim_value == 0):
                yield place, f"Dimension {axis} has neither a size nor a name."


def zero_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.input:
        for axis, dim in enumerate(_dims(value)):
            if dim.HasField("dim_value") and dim.dim_value == 0:
                yield f"input {value.name!r}", f"Dimension {axis} is 0."


def name_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[str]:
    name_dimensions(model, OnnxModel(Path(), model).inputs)
    yield "Every dimension without a size has a name."


def huge_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    fed = {f"input {value.name!r}" for value in _fed(model)}
    for place, value in _values(model):
        for axis, dim in enumerate(_dims(value)):
            if dim.dim_value > _INT32_MAX:
                yield place, f"Dimension {axis} is {dim.dim_value}."
                break
        else:
            size = _size(value)
            # An output whose size is no positive number in 32 bits becomes a vector of unknown size instead.
            if size > _INT32_MAX and (place in fed or not _loses_its_size(value)):
                yield place, f"It has {size} elements a row."


def _size(value: onnx.ValueInfoProto) -> int:
    """Elements a row, unknown dimensions as 1."""
    return math.prod(dim.dim_value for dim in _dims(value) if _known(dim))


def _loses_its_size(value: onnx.ValueInfoProto) -> bool:
    """Whether the size, of which ML.NET keeps 32 bits, is above 2147483647 and no positive number there."""
    size = _size(value)
    return size > _INT32_MAX and not 0 < size % 2**32 <= _INT32_MAX


def _unknown_dims(value: onnx.ValueInfoProto) -> int:
    return sum(not _known(dim) for dim in _dims(value)[1:])


def any_unknown_dim(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in _fed(model):
        if _unknown_dims(value):
            yield f"input {value.name!r}", f"Its shape is {_shown(value)}."


def one_unknown_dim(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in _visible_inputs(model):
        if _unknown_dims(value) == 1:
            yield f"input {value.name!r}", f"Its shape is {_shown(value)}."


def several_unknown_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in _visible_inputs(model):
        if _unknown_dims(value) > 1:
            yield f"input {value.name!r}", f"Its shape is {_shown(value)}."


def unknown_output_dims(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        if _unknown_dims(value) or _loses_its_size(value):
            yield f"output {value.name!r}", f"Its shape is {_shown(value)}."


def fixed_batch(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in _fed(model):
        dims = _dims(value)
        if len(dims) > 1 and dims[0].dim_value > 1:
            yield f"input {value.name!r}", f"Its shape is {_shown(value)}."


# -- Names ----------------------------------------------------------------------------------------------------


def lost_columns(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    columns = Counter(column(value.name) for value in model.graph.output)
    for value in model.graph.output:
        name = column(value.name)
        if not name:
            yield f"output {value.name!r}", "Nothing is left of its name."
        elif columns[name] > 1:
            yield f"output {value.name!r}", f"Another output becomes the column {name!r} too, and hides it."


def stripped_names(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        if column(value.name) not in ("", value.name):
            yield f"output {value.name!r}", f"Its column is {column(value.name)!r}."


def strip_names(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    lost = {place for place, _ in lost_columns(model, deployment)}
    for value in model.graph.output:
        old, new = value.name, column(value.name)
        if new not in ("", old) and f"output {old!r}" not in lost and repairs.fresh_name(model.graph, new) == new:
            repairs.rename_output(model.graph, value, new)
            yield f"{old}: the output is called {new}, as its column is."


def hidden_inputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    read = repairs.consumed(model.graph)
    for value in _fed(model):
        if _HIDDEN.fullmatch(value.name) and value.name in read:
            yield f"input {value.name!r}", "ML.NET feeds no input of such a name."


def hidden_outputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for value in model.graph.output:
        if _HIDDEN.fullmatch(value.name):
            yield f"output {value.name!r}", "ML.NET makes no column of such a name."


def unread_inputs(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    read = repairs.consumed(model.graph)
    for value in _fed(model):
        if value.name not in read and not _HIDDEN.fullmatch(value.name):
            yield f"input {value.name!r}", "No node reads it."


def remove_unread_inputs(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    broken = {place for place, _ in unread_inputs(model, deployment)}
    for value in [value for value in model.graph.input if f"input {value.name!r}" in broken]:
        model.graph.input.remove(value)
        yield f"{value.name}: the input is gone, since nothing reads it."


def wrong_slots(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    named = slot_names(model.graph)
    for value in model.graph.output:
        names = named.get(value.name)
        dims = _dims(value)
        width = dims[-1].dim_value if len(dims) > 1 else 1
        if names is not None and width and len(names) != width:
            yield f"output {value.name!r}", f"It has {width} elements a row and {len(names)} slot names."


# -- File and versions ----------------------------------------------------------------------------------------


def external(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    count = sum(tensor.data_location == TensorProto.EXTERNAL for tensor in all_tensors(model.graph))
    if count:
        yield "file", f"The data of {units.plural(count, 'tensor')} is in external files."


def inline(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    if not _oversized(model, deployment):
        onnx.load_external_data_for_model(model, str(deployment.folder))
        yield "The weights have moved into the model's file."


def too_large(model: onnx.ModelProto, deployment: Deployment) -> Iterator[Place]:
    if _oversized(model, deployment):
        yield "file", "The model with its weights is above 2 GB."


def _oversized(model: onnx.ModelProto, _: Deployment) -> bool:
    outside = sum(
        int(np.prod(tensor.dims, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in all_tensors(model.graph)
        if tensor.data_location == TensorProto.EXTERNAL
    )
    return not fits_inline(model) or model.ByteSize() + outside >= INLINE_LIMIT


def too_deep(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    depth = _nesting(model)
    if depth > NESTING:
        yield "file", f"Messages lie {depth} deep in it."


def _nesting(message: Message) -> int:
    """Depth of nested messages, without the outermost."""
    deepest = 0
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if isinstance(value, Iterable) else (value,):
                deepest = max(deepest, 1 + _nesting(inner))
    return deepest


def high_opset(model: onnx.ModelProto, deployment: Deployment) -> Iterator[Place]:
    release = deployment.release
    if default_opset(model) > release.opset:
        yield "opset", f"It is {default_opset(model)}; ONNX Runtime {release.runtime} takes up to {release.opset}."


def lower_opset(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    before, selected = default_opset(model), deployment.release.opset
    if repairs.lower_opset(model, "", selected):
        yield f"Opset {before} became {selected}."


def _ml_opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain == repairs.ML), default=0)


def high_ml_opset(model: onnx.ModelProto, deployment: Deployment) -> Iterator[Place]:
    release = deployment.release
    if _ml_opset(model) > release.ml_opset:
        yield (
            f"opset of {repairs.ML}",
            f"It is {_ml_opset(model)}; ONNX Runtime {release.runtime} takes up to {release.ml_opset}.",
        )


def lower_ml_opset(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    before, selected = _ml_opset(model), deployment.release.ml_opset
    if repairs.lower_opset(model, repairs.ML, selected):
        yield f"Opset {before} of {repairs.ML} became {selected}."


def high_ir(model: onnx.ModelProto, deployment: Deployment) -> Iterator[Place]:
    release = deployment.release
    if model.ir_version > release.ir_version:
        yield (
            "IR version",
            f"It is {model.ir_version}; ONNX Runtime {release.runtime} takes up to {release.ir_version}.",
        )


def lower_ir(model: onnx.ModelProto, deployment: Deployment) -> Iterator[str]:
    before, selected = model.ir_version, deployment.release.ir_version
    if selected >= _FUNCTIONS_IR or not model.functions:
        model.ir_version = selected
        yield f"IR version {before} became {selected}."


def foreign_operators(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    functions = {(function.domain, function.name) for function in model.functions}
    bodies = [(model.opset_import, all_nodes(model.graph))]
    bodies += [(function.opset_import, _nodes(function.node)) for function in model.functions]
    found: dict[Place, None] = {}
    for opsets, nodes in bodies:
        versions = {entry.domain: entry.version for entry in opsets}
        for node in nodes:
            if (node.domain, node.op_type) not in functions and (why := _unknown(node, versions)):
                found[f"operator {node.op_type!r}", why] = None
    yield from sorted(found)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes of a function, with those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from all_nodes(graph)


def _unknown(node: onnx.NodeProto, versions: Mapping[str, int]) -> str | None:
    """Why an operator is none of ONNX's or ONNX Runtime's; None where it is, or where only ONNX Runtime knows."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in _DOMAINS:
        return f"ONNX Runtime has no operators of the domain {domain!r}."
    if domain not in ("", repairs.ML):
        return None  # `lint` loads the model
    version = versions.get(domain, versions.get("ai.onnx", 0) if not domain else 0)
    if not 0 <= version < _NO_OPSET:
        return f"{domain or 'ai.onnx'} has no opset {version}."
    try:
        onnx.defs.get_schema(node.op_type, version or onnx.defs.onnx_opset_version(), domain)
    except onnx.defs.SchemaError:
        if not domain and version > onnx.defs.onnx_opset_version():
            return None
        return f"{domain or 'ai.onnx'} has no such operator in opset {version}."
    return None


# -- What ONNX Runtime makes of it ------------------------------------------------------------------------------


def _inferred(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """The outputs as ONNX infers them, without what the model declares of them; none where it cannot."""
    free = onnx.ModelProto()
    free.CopyFrom(model)
    for value in free.graph.output:
        value.ClearField("type")
    try:
        inferred = with_inferred_shapes(free, values=True)
    except (ModelError, RuntimeError, ValueError, MemoryError):
        return {}
    return {value.name: value for value in inferred.graph.output if _is_tensor(value)}


def other_shapes(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    inferred = _inferred(model)
    for value in model.graph.output:
        found = inferred.get(value.name)
        if found is None or not _has_shape(found) or not _has_shape(value):
            continue
        pairs = list(zip(_dims(value), _dims(found), strict=False))
        if _rank(value) != _rank(found) or any(
            _known(one) and _known(other) and one.dim_value != other.dim_value for one, other in pairs
        ):
            yield f"output {value.name!r}", f"It declares {_shown(value)}, and computes {_shown(found)}."


def other_types(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    inferred = _inferred(model)
    for value in model.graph.output:
        found = inferred.get(value.name)
        if found is None or not _is_tensor(value) or not found.type.tensor_type.elem_type:
            continue
        declared, computed = value.type.tensor_type.elem_type, found.type.tensor_type.elem_type
        if declared != computed:
            yield f"output {value.name!r}", f"It declares {_dtype(declared)}, and computes {_dtype(computed)}."


def locales(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for node in all_nodes(model.graph):
        if node.op_type != "StringNormalizer":
            continue
        texts = {attribute.name: attribute.s.decode("utf-8", "replace") for attribute in node.attribute}
        locale = texts.get("locale") or "en_US.UTF-8"
        if texts.get("case_change_action", "NONE") != "NONE" and locale not in ("C", "C.UTF-8"):
            yield f"node {node.name or node.output[0]!r}", f"It needs the locale {locale}."


def low_opset(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    if 0 < default_opset(model) < _OLDEST_OPSET:
        yield "opset", f"It is {default_opset(model)}."


def mixed_opsets(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    if len({entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}) > 1:
        yield "opset", "The default domain is imported twice, with different versions."


def high_contrib_opset(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    for entry in model.opset_import:
        if entry.domain == "com.microsoft" and entry.version > 1:
            yield "opset of com.microsoft", f"It is {entry.version}."


def no_ir(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    if not model.HasField("ir_version"):
        yield "IR version", "There is none."


def ambiguous_names(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    kinds = {
        "input": [value.name for value in model.graph.input],
        "initializer": [tensor.name for tensor in model.graph.initializer],
    }
    for kind, names in kinds.items():
        yield from (
            (f"{kind} {name!r}", "Another has the name too.") for name, n in Counter(names).items() if n > 1
        )
    if "" in kinds["input"]:
        yield "input ''", "It has no name."


def nothing_to_see(model: onnx.ModelProto, _: Deployment) -> Iterator[Place]:
    if not _visible_inputs(model):
        yield "inputs", "There is none that ML.NET feeds."
    if all(_HIDDEN.fullmatch(value.name) for value in model.graph.output):
        yield "outputs", "There is none of which ML.NET makes a column."
