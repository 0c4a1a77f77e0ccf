"""TensorFlow to ONNX, through tf2onnx; Keras shares it."""

from __future__ import annotations

import gc
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework
from onnxtool.converters.tensorflow.graph import cast, constant
from onnxtool.converters.tensorflow.graph import node as write
from onnxtool.converters.tensorflow.resize import rewrite_resize
from onnxtool.converters.tensorflow.signal import rewrite_rfft
from onnxtool.converters.tensorflow.text import DOMAIN, add_functions, rewrite_text
from onnxtool.errors import ConversionError, require
from onnxtool.models.onnx.artifact import all_nodes
from onnxtool.models.signature import BATCH, Dim, Tensors, TensorSpec, numpy_dtype
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.tensorflow import (
    TensorFlowModel,
    import_tensorflow,
    is_saved_model,
    load_saved_model,
    quiet,
    quiet_native,
    reason,
)
from onnxtool.models.tensorflow.tflite import TFLiteFile, TFLiteModel, is_tflite, load_tflite
from onnxtool.models.versions import saved_by
from onnxtool.reports.model import SavedBy

MAX_OPSET = 18
"""The highest that tf2onnx 1.17 writes; every core layer of Keras was found to convert alike at 17 and 18."""


HASHING = frozenset({"StringToHashBucketFast", "StringToHashBucketStrong", "SparseCross", "SparseCrossHashed"})
"""Operators that hash text: no operator of ONNX sees a string's bytes, so that no graph of them can."""


_CONTRIB = "com.microsoft"
"""ONNX Runtime's own operators, which the report names; it refuses one that it does not have."""

_LARGE_BYTES = 100_000_000
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
_REWRITERS = frozenset({__name__, rewrite_resize.__module__, rewrite_rfft.__module__, rewrite_text.__module__})
"""Whose failures end a conversion, where tf2onnx goes on with the operator as it was."""


class TensorFlow(Framework):
    """SavedModel folders, `.tflite` files, and live functions, modules and loaded SavedModels."""

    name = "tensorflow"
    extra = "tensorflow"
    max_opset = MAX_OPSET
    default_opset = MAX_OPSET

    def recognises(self, source: str) -> bool:
        """Whether a path is a folder that holds a SavedModel's graph, or a TensorFlow Lite file."""
        return is_saved_model(Path(source)) or is_tflite(Path(source))

    def owns(self, model: object) -> bool:
        """Whether it is a function or a module of TensorFlow, or a loaded SavedModel."""
        if isinstance(model, TFLiteFile):
            return True
        tf = sys.modules.get("tensorflow")
        libraries = [sys.modules[name] for name in ("keras", "tf_keras") if name in sys.modules]
        if tf is None or any(isinstance(model, keras.Model) for keras in libraries):
            return False
        types = tf.types.experimental
        if isinstance(model, tf.Module | types.ConcreteFunction | types.PolymorphicFunction):
            return True
        return isinstance(model, tf.__internal__.tracking.AutoTrackable) and hasattr(model, "signatures")

    def load(self, source: str, options: LoadOptions) -> object:
        """Load a SavedModel or a TensorFlow Lite file; see `models.tensorflow` and `models.tflite`."""
        if is_tflite(Path(source)):
            return load_tflite(Path(source))
        return load_saved_model(Path(source))

    def saved_by(self, source: str, model: object) -> list[SavedBy]:
        """TensorFlow's release, which a SavedModel names."""
        version = getattr(model, "tensorflow_version", "")
        return [saved_by("tensorflow", version, import_tensorflow().__version__, "later")] if version else []

    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """Wrap a function, or one signature of a SavedModel or of a TensorFlow Lite file, as a source model."""
        if isinstance(model, TFLiteFile):
            return TFLiteModel(model, options)
        return TensorFlowModel(model, options)

    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert; see `convert_function` and `convert_tflite`."""
        if isinstance(source, TFLiteModel):
            return convert_tflite(source, options.opset or self.default_opset)
        assert isinstance(source, TensorFlowModel)  # noqa: S101 -- what `wrap` returned
        return convert_function(source.call, source.inputs, source.outputs, options.opset or self.default_opset)


def convert_function(
    call: Callable[..., Sequence[Any]], inputs: Sequence[TensorSpec], outputs: Sequence[str], opset: int
) -> Conversion:
    """Trace a function of tensors and convert its graph.

    It is what `tf2onnx.convert.from_function` does, in its steps, since that one takes captured constants
    for inputs, loses lookup tables, and returns a broken model where it should fail.

    Args:
        call: Takes one `tf.Tensor` for each input, and returns one for each output.
        inputs: The inputs that the model gets. A string in a shape is a dynamic dimension.
        outputs: The names that the outputs get.
        opset: Version of the default operator set.

    Raises:
        ConversionError: the function cannot be traced, or ONNX has no form for an operator.
    """
    tf = import_tensorflow()
    require("tf2onnx", "tensorflow")
    from tf2onnx import tf_loader
    from tf2onnx.tfonnx import process_tf_graph

    signature = [
        tf.TensorSpec(
            [None if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype, f"input_{position}"
        )
        for position, spec in enumerate(inputs)
    ]
    with _contained() as records:
        try:
            traced = tf.function(lambda *tensors: list(call(*tensors)), input_signature=signature)
            function = traced.get_concrete_function()
            if len(function.outputs) != len(outputs):
                raise ConversionError("an output is ragged or sparse, and ONNX has dense tensors only")
            input_names = [tensor.name for tensor in function.inputs[: len(inputs)]]
            output_names = [tensor.name for tensor in function.outputs]
            with tf.device("/cpu:0"):
                graph_def, tables = tf_loader.from_trackable(None, function, input_names, output_names, False)
                large = graph_def.ByteSize() > _LARGE_BYTES
                if large:
                    gc.collect()  # graphs are cycles, and each holds all weights
                graph_def = _inline_compiled(graph_def, input_names, output_names)
                if large:
                    gc.collect()
                with tf.Graph().as_default() as graph:
                    tf.import_graph_def(graph_def, name="")
                    del graph_def
                    converted = process_tf_graph(
                        graph,
                        continue_on_error=True,
                        opset=opset,
                        custom_rewriter=[
                            _rewrite_erfc,
                            _rewrite_bucketize,
                            _rewrite_select,
                            rewrite_resize,
                            rewrite_rfft,
                            rewrite_text,
                            lambda graph, nodes: _rewrite_integer_tables(graph, nodes, tables),
                        ],
                        input_names=input_names,
                        output_names=output_names,
                        tensors_to_rename=dict(
                            zip([*input_names, *output_names], [*(s.name for s in inputs), *outputs], strict=True)
                        ),
                        initialized_tables=tables,
                    )
                    model = _optimized(converted)
        except Exception as error:  # tracing runs the model's own code; tf2onnx raises what comes up
            raise ConversionError(f"tf2onnx cannot convert the model: {reason(error)}") from error
    _check(model, records, opset)
    raised = add_functions(model)
    shapes = [tuple(tensor.shape) if tensor.shape.rank is not None else None for tensor in function.outputs]
    _set_signature(model, inputs, shapes, outputs)
    wrote = f"tf2onnx wrote opset {opset} from the traced graph; layouts are the model's own."
    return Conversion(model, [wrote, *raised])


def convert_tflite(source: TFLiteModel, opset: int) -> Conversion:
    """Convert a TensorFlow Lite model; quantized ones become float arithmetic between (de)quantizing operators.

    Raises:
        ConversionError: ONNX has no form for an operator.
    """
    require("tf2onnx", "tensorflow")
    from tf2onnx.tfonnx import process_tf_graph

    names = [name for side in source.tensors for name in side]
    ours = [*(spec.name for spec in source.inputs), *source.outputs]
    # tf2onnx opens the file itself, and must find in it what was checked.
    with _contained() as records, quiet_native(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", category=UserWarning, module="tensorflow.lite")
        path = Path(folder) / "model.tflite"
        path.write_bytes(source.file.content)
        try:
            converted = process_tf_graph(
                None,
                opset=opset,
                custom_rewriter=[_rewrite_select],
                tflite_path=str(path),
                input_names=source.tensors[0],
                output_names=source.tensors[1],
                tensors_to_rename=dict(zip(names, ours, strict=True)),
            )
            model = _optimized(converted)
        except Exception as error:  # tf2onnx raises what comes up
            raise ConversionError(f"tf2onnx cannot convert the model: {reason(error)}") from error
    _check(model, records, opset)
    _set_signature(model, source.inputs, source.shapes, source.outputs)
    return Conversion(model, [f"tf2onnx wrote opset {opset} from the TensorFlow Lite file."])


def _optimized(graph: Any) -> onnx.ModelProto:
    """The model, optimised by tf2onnx.

    tf2onnx copies the graph before each optimisation. Each leaves the former nodes behind, with their weights: in
    cycles, and in what protobuf keeps as long as one part of it lives; of large models they would fill memory.
    """
    from tf2onnx import optimizer

    def collecting(kind: Callable[[], Any]) -> Any:
        gc.collect()
        return kind()

    kinds = optimizer._get_optimizers()
    if sum(node.attr["value"].ByteSize() for node in graph.get_nodes() if node.is_const()) > _LARGE_BYTES:
        kinds = {name: partial(collecting, kind) for name, kind in kinds.items()}
    model: onnx.ModelProto = optimizer.optimize_graph(graph, optimizers=kinds).make_model("onnxtool")
    declared = {entry.domain for entry in model.opset_import}
    if _CONTRIB not in declared and any(node.domain == _CONTRIB for node in all_nodes(model.graph)):
        model.opset_import.append(onnx.helper.make_opsetid(_CONTRIB, 1))  # tf2onnx leaves it out inside of loops
    return model


@contextmanager
def _contained() -> Iterator[list[logging.LogRecord]]:
    """Keep the chatter of TensorFlow and tf2onnx to ourselves; yield what tf2onnx logs as an error."""
    logger = logging.getLogger("tf2onnx")
    level, propagate = logger.level, logger.propagate
    handler = BufferingHandler(sys.maxsize)
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        with quiet(), warnings.catch_warnings():
            # tf2onnx uses deprecated features of NumPy, protobuf and TensorFlow: no user can fix that.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield handler.buffer
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _inline_compiled(graph_def: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Inline the functions that are marked for XLA, as Keras marks grouped convolutions."""
    from tf2onnx import tf_loader

    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    marked = [part for part in [*nodes, *graph_def.library.function] if "_XlaMustCompile" in part.attr]
    if not marked:
        return graph_def
    for part in marked:
        part.attr.pop("_XlaMustCompile")
        part.attr.pop("_noinline", None)
    tf = import_tensorflow()
    with tf.Graph().as_default():
        return tf_loader.tf_optimize(inputs, outputs, graph_def)


def _rewrite_erfc(graph: Any, nodes: list[Any]) -> list[Any]:
    """Write erfc(x) as 1 - erf(x): tf2onnx does not know Erfc, which is in every exact GELU."""
    for node in list(nodes):
        if node.type == "Erfc":
            dtype = graph.get_dtype(node.output[0])
            one = constant(graph, np.array(1, onnx.helper.tensor_dtype_to_np_dtype(dtype)))
            erf = write(graph, "Erf", node.input[0], dtype=dtype)
            graph.replace_all_inputs(node.output[0], write(graph, "Sub", one, erf, dtype=dtype))
    return list(graph.get_nodes())


def _rewrite_bucketize(graph: Any, nodes: list[Any]) -> list[Any]:
    """Write Bucketize, which tf2onnx does not know, as the number of boundaries that x is not below; NaN is last."""
    for node in list(nodes):
        if node.type != "Bucketize":
            continue
        # As TensorFlow compares: whole numbers as float32, double numbers as they are.
        double = graph.get_dtype(node.input[0]) == onnx.TensorProto.DOUBLE
        dtype = onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
        boundaries = constant(graph, np.array(node.get_attr("boundaries").floats, "f8" if double else "f4"))
        last = constant(graph, [-1])
        column = write(graph, "Unsqueeze", cast(graph, node.input[0], dtype), last, dtype=dtype)
        below = write(graph, "Less", column, boundaries, dtype=onnx.TensorProto.BOOL)
        passed = write(graph, "Not", below, dtype=onnx.TensorProto.BOOL)
        ones = cast(graph, passed, onnx.TensorProto.INT32)
        count = write(graph, "ReduceSum", ones, last, keepdims=0, dtype=onnx.TensorProto.INT32)
        graph.replace_all_inputs(node.output[0], count)
    return list(graph.get_nodes())


def _rewrite_select(graph: Any, nodes: list[Any]) -> list[Any]:
    """Write selections of floats as such: tf2onnx writes products, where 0 times the other branch's NaN is NaN."""
    for node in nodes:
        if node.type in ("Select", "SelectV2") and graph.get_dtype(node.output[0]) in _FLOATS:
            node.set_attr("handles_nan", True)
    return list(graph.get_nodes())


def _rewrite_integer_tables(graph: Any, nodes: list[Any], tables: Mapping[str, Any]) -> list[Any]:
    """Write lookups from int64 to int64, which tf2onnx leaves out, as LabelEncoders."""
    for node in nodes:
        if node.type != "LookupTableFindV2" or not node.inputs[2].is_const():
            continue
        integers = {graph.get_dtype(name) for name in (node.input[1], node.output[0])}
        table = node.inputs[0]
        while table.type == "Identity":
            table = table.inputs[0]
        name = table.get_attr_value("shared_name")
        if integers != {onnx.TensorProto.INT64} or name not in tables:
            continue
        keys, values = tables[name]
        lookup = graph.make_node(
            "LabelEncoder",
            [node.input[1]],
            domain="ai.onnx.ml",
            attr={
                "keys_int64s": [int(key) for key in keys],
                "values_int64s": [int(value) for value in values],
                "default_int64": int(node.inputs[2].get_tensor_value()),
            },
            shapes=[graph.get_shape(node.input[1])],
            dtypes=[onnx.TensorProto.INT64],
        )
        graph.replace_all_inputs(node.output[0], lookup.output[0])
        graph.remove_node(node.name)
        if not graph.find_output_consumers(table.output[0]):
            graph.remove_node(table.name)
    return list(graph.get_nodes())


def _check(model: onnx.ModelProto, records: list[logging.LogRecord], opset: int) -> None:
    """Find out whether tf2onnx failed: it logs an error, leaves the operator as it was, and goes on.

    Raises:
        ConversionError: it did; the message names the operator and its place in the model.
    """
    for record in records:
        match record.args:
            case (rewriter, BaseException() as error) if getattr(rewriter, "__module__", "") in _REWRITERS:
                raise ConversionError(f"The model cannot be converted: {reason(error)}")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in all_nodes(model.graph):
        if node.op_type in HASHING:
            raise ConversionError(
                f"The operator {node.op_type} of {node.name} hashes text, and no ONNX operator sees a string's "
                "bytes. Use a vocabulary with one index for unknown values (StringLookup or IntegerLookup), or hash "
                "before the model."
            )
        if node.domain not in (DOMAIN, _CONTRIB) and not onnx.defs.has(
            node.op_type, versions.get(node.domain, 1), node.domain
        ):
            raise ConversionError(
                f"The operator {node.op_type} of {node.name} has no ONNX form in tf2onnx at opset {opset}. "
                "Replace that layer or operator."
            )
    for record in records:
        if record.exc_info and record.exc_info[1]:
            place = f" {record.args[0]}" if isinstance(record.args, tuple) and record.args else ""
            why = reason(record.exc_info[1]).removeprefix("make_sure failure: ")
            raise ConversionError(f"tf2onnx cannot convert{place}: {why}.")


def _set_signature(
    model: onnx.ModelProto,
    inputs: Sequence[TensorSpec],
    shapes: Sequence[Sequence[int | None] | None],
    outputs: Sequence[str],
) -> None:
    """Give inputs and outputs readable dimensions, and keep the inputs that the model does not read."""
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.output}
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.extend(onnx.helper.make_tensor_value_info(s.name, _onnx_dtype(s.dtype), s.shape) for s in inputs)
    graph.output.extend(onnx.helper.make_tensor_value_info(name, types[name], None) for name in outputs)
    certain = all(shape is not None and None not in shape[1:] for shape in shapes)
    inferred = {} if certain else _inferred_shapes(model)
    known = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    del graph.output[:]
    for name, shape in zip(outputs, shapes, strict=True):
        guesses = inferred.get(name, [None] * len(shape or ()))
        dims: list[Dim] = []
        for position, (size, guess) in enumerate(zip(guesses if shape is None else shape, guesses, strict=True)):
            otherwise = BATCH if position == 0 and BATCH in known else f"{name}_dim_{position}"
            dims.append(size if isinstance(size, int) else guess if guess in known else otherwise)
        unknown = shape is None and name not in inferred
        graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None if unknown else dims))


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, list[Dim | None]]:
    """The shapes of the outputs by ONNX's shape inference, where their rank is known."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return {
        value.name: [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]
        for value in inferred.graph.output
        if value.type.tensor_type.HasField("shape")
    }


def _onnx_dtype(name: str) -> int:
    if name == "string":
        return onnx.TensorProto.STRING
    return int(onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(name)))


FRAMEWORK = TensorFlow()
