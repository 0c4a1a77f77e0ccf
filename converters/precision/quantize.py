"""Int8, by ONNX Runtime's quantizer: calibrated on rows, or with the ranges found while the model runs."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from onnxtool.converters.graph.finish import default_opset
from onnxtool.converters.graph.repairs import consumed, fresh_name
from onnxtool.converters.precision.graph import PRODUCTS, put_in_order
from onnxtool.errors import ConversionError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.onnx.evaluate import attribute
from onnxtool.models.signature import Tensors

Method: TypeAlias = Literal["MinMax", "Percentile", "Entropy"]
METHODS: Sequence[Method] = ("MinMax", "Percentile", "Entropy")

QUANTIZED = (*PRODUCTS, "LSTM")
"""Operators whose weights can be int8; of LSTM only with ranges that are found in each run."""

OLDEST_OPSET = 13
"""From it on, QuantizeLinear has a scale a channel."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Options of a quantization.

    Attributes:
        method: How the range of a tensor is found from what it was on the rows: its ends, all but its outermost
            thousandths of a percent, or the range that loses the least information (Kullback-Leibler).
        per_channel: Whether weights have a scale a channel, or one a tensor.
        reduce_range: Whether weights have 7 bits: without VNNI, a processor's sums of products of 8 bits saturate.
        products_only: Whether everything but `PRODUCTS` stays in float32.
    """

    method: Method = "MinMax"
    per_channel: bool = True
    reduce_range: bool = False
    products_only: bool = False

    def __str__(self) -> str:
        """The text for the report."""
        return ", ".join(
            (
                self.method,
                "a scale a channel" if self.per_channel else "a scale a tensor",
                "weights of 7 bits" if self.reduce_range else "weights of 8 bits",
                "products only" if self.products_only else "all operators",
            )
        )


class Calibrated:
    """A model and the ranges of its tensors.

    Args:
        model: As `graph.prepared` makes it.
        batches: Rows of its inputs.

    Raises:
        ConversionError: the opset is too old.
    """

    def __init__(self, model: onnx.ModelProto, batches: Sequence[Tensors]) -> None:
        if default_opset(model) < OLDEST_OPSET:
            raise ConversionError(
                f"--precision int8 needs opset {OLDEST_OPSET}: give --opset {OLDEST_OPSET} or later."
            )
        self.model, self._batches = onnx.ModelProto(), batches
        self.model.CopyFrom(model)
        _spread_biases(self.model.graph)
        self._ranges: dict[Method, Any] = {}

    def quantized(self, recipe: Recipe, kept: Collection[str] = ()) -> onnx.ModelProto:
        """The model with QuantizeLinear and DequantizeLinear around what computes in int8.

        Args:
            recipe: How.
            kept: Names of nodes that stay in float32.

        Raises:
            ConversionError: ONNX Runtime's quantizer fails.
        """
        with _quantizing():
            tools = require("onnxruntime.quantization", "cpu")
            copy = onnx.ModelProto()
            copy.CopyFrom(self.model)
            quantizer = tools.QDQQuantizer(
                copy, recipe.per_channel, recipe.reduce_range, tools.QuantType.QInt8, tools.QuantType.QUInt8,
                self._range(recipe.method), [], [*kept], PRODUCTS if recipe.products_only else quantizable(), {},
            )  # fmt: skip
            quantizer.quantize_model()
            quantized: onnx.ModelProto = quantizer.model.model
            put_in_order(quantized.graph)
            return quantized

    def _range(self, method: Method) -> Any:
        if method not in self._ranges:
            calibrate = require("onnxruntime.quantization.calibrate", "cpu")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(self.model.SerializeToString())
                calibrator = calibrate.create_calibrator(
                    path,
                    augmented_model_path=str(Path(folder) / "augmented.onnx"),
                    calibrate_method=calibrate.CalibrationMethod[method],
                )
                for batch in self._batches:  # one by one: it holds all tensors of what it is given
                    calibrator.collect_data(SimpleNamespace(get_next=partial(next, iter([batch]), None)))
                self._ranges[method] = calibrator.compute_data()
        return self._ranges[method]


def _spread_biases(graph: onnx.GraphProto) -> None:
    """Give each constant bias of a Gemm a number a column, in place: the quantizer takes no other shape of it.

    ONNX lets a bias broadcast, and optimisers that fuse MatMul and Add leave it as [1, columns].
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    replaced = set()
    for node in graph.node:
        if node.op_type != "Gemm" or not {*node.input[1:3]} <= constants.keys() or len(node.input) < 3:
            continue
        bias, weight = numpy_helper.to_array(constants[node.input[2]]), constants[node.input[1]]
        columns = weight.dims[0 if attribute(node, "transB", 0) else 1]
        if bias.shape == (columns,) or bias.size not in (1, columns) or bias.shape[:-1] not in ((), (1,)):
            continue  # as it should be, or with a number a row
        name = fresh_name(graph, f"{node.input[2]}_columns")
        spread = np.broadcast_to(bias.reshape(-1), (columns,))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(spread), name))
        replaced.add(node.input[2])
        node.input[2] = name
    for name in replaced - consumed(graph):
        graph.initializer.remove(constants[name])


def dynamically_quantized(
    model: onnx.ModelProto, kept: Collection[str] = (), *, reduce_range: bool = False
) -> onnx.ModelProto:
    """The model with int8 weights, and activations that are quantized by their range in each run.

    Args:
        model: As `graph.prepared` makes it.
        kept: Names of nodes that stay in float32.
        reduce_range: Whether weights have 7 bits; see `Recipe`.

    Raises:
        ConversionError: ONNX Runtime's quantizer fails.
    """
    with _quantizing(), tempfile.TemporaryDirectory() as folder:
        tools = require("onnxruntime.quantization", "cpu")
        path = Path(folder) / "model.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        tools.quantize_dynamic(
            copy,
            path,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=tools.QuantType.QInt8,
            nodes_to_exclude=[*kept],
        )
        quantized = onnx.load(path)
        put_in_order(quantized.graph)
        return quantized


def quantizable() -> list[str]:
    """Operators that the quantizer knows."""
    return [*require("onnxruntime.quantization.registry", "cpu").QDQRegistry]


@contextlib.contextmanager
def _quantizing() -> Iterator[None]:
    """Hold back what the quantizer prints and logs, and turn what it raises into our error."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:  # whatever it may raise
        raise ConversionError(f"--precision int8: ONNX Runtime's quantizer fails: {first_line(error)}") from error
    finally:
        logging.disable(before)
