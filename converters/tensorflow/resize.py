"""Resizing of images in TensorFlow graphs, with the weights that TensorFlow itself gives to each pixel.

ONNX Runtime's Resize rounds the places of pixels: it is off by 2e-4 of their values at 512 to 224, TensorFlow by
1e-6. TensorFlow takes its cubic weights from a table, and has kernels that ONNX has not.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxtool.converters.tensorflow.graph import cast, constant
from onnxtool.converters.tensorflow.graph import node as write
from onnxtool.errors import ConversionError
from onnxtool.models.tensorflow import import_tensorflow

Weights: TypeAlias = NDArray[np.float32]
"""Of each pixel of the source in each pixel of the result, along one axis: [result, source]."""

_SIMPLE = ("ResizeBilinear", "ResizeNearestNeighbor")
_OPERATORS = frozenset({*_SIMPLE, "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"})


def rewrite_resize(graph: Any, nodes: list[Any]) -> list[Any]:
    """Write what resizes images; by two methods, also those of a size that only the model's run knows.

    Raises:
        ConversionError: another method needs the size to be known.
    """
    for node in list(nodes):
        shape = graph.get_shape(node.input[0]) if node.type in _OPERATORS else None
        if not shape or len(shape) != 4:
            continue
        movements = _movements(node, shape[1:3]) if node.type == "ScaleAndTranslate" else [{}, {}]
        image = None
        if min(shape[1:3]) > 0 and node.inputs[1].is_const() and movements:
            old, new = shape[1:3], _sizes(node)
            if not _is_exact(graph, node, old, new):  # ONNX's own moves less memory
                weights = [_weights(node, old[axis], new[axis], movements[axis]) for axis in (0, 1)]
                image = _resized(graph, node, *weights)
        elif node.type in _SIMPLE and not node.get_attr_value("align_corners"):
            image = _resized_as_it_runs(graph, node)
        elif node.type in ("ResizeArea", "ScaleAndTranslate"):
            raise ConversionError(
                f"{node.name} resizes images of a size that only the run knows by {node.type}. Give the input its "
                "height and width, or resize by bilinear or nearest."
            )
        if image is not None:
            graph.replace_all_inputs(node.output[0], image)
            graph.remove_node(node.name)
    return list(graph.get_nodes())


def _sizes(node: Any) -> list[int]:
    return [int(size) for size in node.inputs[1].get_tensor_value()]


def _is_exact(graph: Any, node: Any, old: list[int], new: list[int]) -> bool:
    """Whether ONNX's own Resize does: the places of pixels are fractions of 2, so that nobody rounds them."""
    powers = all(math.log2(new[axis] / old[axis]) % 1 == 0 for axis in (0, 1))
    plain = node.type == "ResizeBilinear" and not node.get_attr_value("align_corners")
    return powers and plain and bool(graph.get_dtype(node.input[0]) == TensorProto.FLOAT)


def _movements(node: Any, old: list[int]) -> list[dict[str, Any]]:
    """Scale and translation of each axis alone; none where only the model's run knows them."""
    size, scale, translation = node.inputs[1:]
    if not (size.is_const() and translation.is_const()):
        return []
    if scale.is_const():
        scales = scale.get_tensor_value()
    elif scale.type == "RealDiv" and _is_size(scale.inputs[1], node.input[0]):  # as tf.image.resize writes it
        scales = np.array(_sizes(node), np.float32) / np.array(old, np.float32)
    else:
        return []
    shifts = translation.get_tensor_value()
    return [{"scale": [scales[axis], 1.0], "translation": [shifts[axis], 0.0]} for axis in (0, 1)]


def _is_size(node: Any, image: str) -> bool:
    """Whether a node is float(shape(image)[1:3])."""
    part = node.inputs[0] if node.type == "Cast" else None
    return (
        part is not None
        and part.type == "StridedSlice"
        and part.inputs[0].type == "Shape"
        and part.inputs[0].input[0] == image
        and [given.get_tensor_value() for given in part.inputs[1:3]] == [[1], [3]]
    )


def _weights(node: Any, old: int, new: int, movement: dict[str, Any]) -> Weights:
    """TensorFlow's weights, from images that are white in one row only, one row for each channel."""
    tf = import_tensorflow()
    flags = ("align_corners", "half_pixel_centers", "antialias")
    attrs = {name: bool(node.get_attr_value(name)) for name in flags if name in node.attr} | movement
    if "kernel_type" in node.attr:
        attrs["kernel_type"] = node.get_attr_value("kernel_type").decode()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        rows = np.eye(old, dtype=np.float32).reshape(1, old, 1, old)
        found = session.run(getattr(tf.raw_ops, node.type)(images=rows, size=[new, 1], **attrs))
    return np.asarray(found, np.float32).reshape(new, old)


def _resized(graph: Any, node: Any, rows: Weights, columns: Weights) -> str:
    image = node.input[0]
    if node.type == "ResizeNearestNeighbor":
        picked = _picked(graph, image, 1, constant(graph, rows.argmax(1)))
        return _picked(graph, picked, 2, constant(graph, columns.argmax(1)))
    image = cast(graph, image, TensorProto.FLOAT)
    if node.type == "ResizeBilinear":
        for axis, weights in ((2, columns), (1, rows)):
            given = weights != 0
            first, second = given.argmax(1), weights.shape[1] - 1 - given[:, ::-1].argmax(1)
            share = np.where(first == second, 0, weights[np.arange(len(weights)), second])
            places = constant(graph, first), constant(graph, second), constant(graph, share.astype(np.float32))
            image = _between(graph, image, axis, places)
        return image
    return _weighted(graph, image, rows, columns)


def _resized_as_it_runs(graph: Any, node: Any) -> str:
    """With the places of pixels as TensorFlow computes them, in the order of its roundings."""
    image: str = node.input[0]
    half = bool(node.get_attr_value("half_pixel_centers"))
    nearest = node.type == "ResizeNearestNeighbor"
    shape = cast(graph, write(graph, "Shape", image, dtype=TensorProto.INT64), TensorProto.FLOAT)
    sizes = cast(graph, node.input[1], TensorProto.FLOAT)
    number = {value: constant(graph, np.float32(value)) for value in (0.0, 0.5, 1.0)}
    image = image if nearest else cast(graph, image, TensorProto.FLOAT)
    for axis in (2, 1):
        old, new = (
            _arithmetic(graph, "Gather", whole, constant(graph, np.int64(place)))
            for whole, place in ((shape, axis), (sizes, axis - 1))
        )
        place = _arithmetic(graph, "Range", number[0.0], new, number[1.0])
        place = _arithmetic(graph, "Add", place, number[0.5]) if half else place
        place = _arithmetic(graph, "Mul", place, _arithmetic(graph, "Div", old, new))
        if half and not nearest:
            place = _arithmetic(graph, "Sub", place, number[0.5])
        below, last = _arithmetic(graph, "Floor", place), _arithmetic(graph, "Sub", old, number[1.0])
        bounded = _arithmetic(graph, "Max", _arithmetic(graph, "Min", below, last), number[0.0])
        first = cast(graph, bounded, TensorProto.INT64)
        if nearest:
            image = _picked(graph, image, axis, first)
        else:
            above = _arithmetic(graph, "Min", _arithmetic(graph, "Ceil", place), last)
            share = _arithmetic(graph, "Sub", place, below)
            image = _between(graph, image, axis, (first, cast(graph, above, TensorProto.INT64), share))
    return image


def _picked(graph: Any, image: str, axis: int, places: str) -> str:
    return write(graph, "Gather", image, places, axis=axis, dtype=graph.get_dtype(image))


def _between(graph: Any, image: str, axis: int, between: tuple[str, str, str]) -> str:
    """Between two neighbours as TensorFlow computes it, to the bit: the first, and a share of the difference."""
    *neighbours, share = between
    start, end = (_picked(graph, image, axis, places) for places in neighbours)
    shape = constant(graph, [-1] + [1] * (3 - axis))
    part = _arithmetic(
        graph, "Mul", _arithmetic(graph, "Sub", end, start), _arithmetic(graph, "Reshape", share, shape)
    )
    return _arithmetic(graph, "Add", start, part)


def _weighted(graph: Any, image: str, rows: Weights, columns: Weights) -> str:
    """The sums of all pixels of a column, then of all of a row."""
    flat = _arithmetic(graph, "Reshape", image, constant(graph, [0, rows.shape[1], -1]))
    fewer = _arithmetic(graph, "MatMul", constant(graph, rows), flat)
    shape = constant(graph, [0, rows.shape[0], columns.shape[1], -1])
    return _arithmetic(graph, "MatMul", constant(graph, columns), _arithmetic(graph, "Reshape", fewer, shape))


def _arithmetic(graph: Any, kind: str, *inputs: str) -> str:
    return write(graph, kind, *inputs, dtype=TensorProto.FLOAT)
