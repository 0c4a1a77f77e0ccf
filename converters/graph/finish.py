"""Steps after every conversion, whatever the framework: named dimensions, metadata, checks, writing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx

from onnxtool import clock
from onnxtool._version import __version__
from onnxtool.errors import ConversionError
from onnxtool.files import writing
from onnxtool.models.onnx.artifact import first_line, fits_inline
from onnxtool.models.onnx.shapes import with_inferred_shapes
from onnxtool.models.signature import BATCH, TensorSpec

# Names that converters make up for a dimension they know nothing of: unk__63, s77, ?, None, '', onnx::Dim_3.
_MADE_UP_DIM = re.compile(r"(unk_.*|[su]\d+|\?|None|N|unknown.*|dynamic_axes.*|.*::.*|)")


def finish(model: onnx.ModelProto, inputs: tuple[TensorSpec, ...], metadata: dict[str, str]) -> None:
    """Complete a converter's model in place.

    Args:
        model: Inputs and outputs have their final names.
        inputs: The source's signature, whose dimension names are taken over.
        metadata: What is known of the source.

    Raises:
        ConversionError: the model is not valid ONNX.
    """
    name_dimensions(model, inputs)
    for entry in model.metadata_props:
        metadata.setdefault(entry.key, entry.value)
    metadata |= {
        "onnxtool.version": __version__,
        "onnxtool.opset": str(default_opset(model)),
        "onnxtool.created": clock.now().isoformat(timespec="seconds"),
    }
    onnx.helper.set_model_props(model, metadata)
    if fits_inline(model):
        try:
            with _every_rank(model):
                onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ConversionError(f"The converter wrote an invalid model: {first_line(error)}") from error


@contextmanager
def _every_rank(model: onnx.ModelProto) -> Iterator[None]:
    """Give a shape, for a while, to the outputs whose rank depends on the rows, as that of a squeeze of all axes.

    ONNX's checker expects one; its format states an unknown rank by leaving it out, as converters do.
    """
    tensors = [value.type.tensor_type for value in model.graph.output if value.type.HasField("tensor_type")]
    unknown = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in unknown:
        tensor.shape.SetInParent()
    try:
        yield
    finally:
        for tensor in unknown:
            tensor.ClearField("shape")


def default_opset(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def name_dimensions(model: onnx.ModelProto, inputs: tuple[TensorSpec, ...]) -> None:
    """Give every dynamic dimension of inputs and outputs a readable name.

    That is the source's, else `batch`, else one made of the tensor's name. One symbol of the converter's gets
    one name wherever it stands, in the values between too.
    """
    by_name = {spec.name: spec for spec in inputs}
    renamed: dict[str, str] = {}
    batched = any(spec.batched for spec in inputs)
    values = [*model.graph.input, *model.graph.output]
    if any(not value.type.tensor_type.HasField("shape") for value in values if value.type.HasField("tensor_type")):
        _infer_output_shapes(model)
    for value in values:
        spec = by_name.get(value.name)
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
                continue
            old = dim.dim_param
            if spec and axis < len(spec.shape) and isinstance(spec.shape[axis], str):
                name = str(spec.shape[axis])
            elif old in renamed:
                name = renamed[old]
            elif old and not _MADE_UP_DIM.fullmatch(old):
                name = old
            else:
                name = BATCH if axis == 0 and batched else f"{value.name}_dim_{axis}"
            if old:
                renamed.setdefault(old, name)
            dim.dim_param = name
    for value in model.graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]


def _infer_output_shapes(model: onnx.ModelProto) -> None:
    """Fill in output shapes that the converter left out, as far as ONNX's shape inference knows them."""
    if not fits_inline(model):
        return
    inferred = {value.name: value for value in with_inferred_shapes(model).graph.output}
    for value in model.graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.CopyFrom(inferred[value.name])


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; weights beyond protobuf's 2 GB go to `<name>.data` in the same folder, with a relative name.

    Raises:
        OutputError: it cannot be written.
    """
    weights = path.with_name(f"{path.name}.data")
    with writing(path):
        with suppress(OSError):  # none is there, or the name would be too long
            weights.unlink()  # onnx would append to those of an earlier model
        if fits_inline(model):
            path.write_bytes(model.SerializeToString())
        else:
            onnx.save_model(model, path, save_as_external_data=True, location=weights.name)
