"""The difference that rounding alone makes between two runs of one model, measured on its own graph.

Two runtimes sum in other orders and fuse other operations, so that each result is off by its rounding errors.
What these amount to at the outputs depends on the model: on the terms of its sums, on their magnitude, on what
later layers make of them. It is measured here. A second copy of the graph runs next to the first, and each of its
nodes adds normal noise of the size of its own rounding error; the outputs of the two copies differ as two honest
runtimes do. (Monte Carlo arithmetic: Parker, "Monte Carlo Arithmetic", 1997; Denis, de Oliveira Castro and Petit,
"Verificarlo", 2016. Here a node at a time, with the standard deviations below.)

A sum of k products a*b, rounded with unit roundoff u, is off by about

    u * (sum |a b| / 2 + sqrt(k) * |sum a b| / 3)

The second term is for terms of one sign, whose partial sums grow with their number, and the first for terms of
either sign, whose error does not: Higham and Mary, "Sharper probabilistic backward error analysis for basic linear
algebra kernels with random data", SIAM J. Sci. Comput. 42 (2020), theorem 3.4. Their worst case, u * sqrt(k) *
sum |a b| (Higham and Mary, "A new approach to probabilistic rounding error analysis", SISC 41 (2019)), is larger
by up to sqrt(k), and would let errors of weights pass.

An element that is infinite, or nearly, masks others: it is written as it is by every runtime, and gets no noise.

Noise does not go through nodes whose output jumps (trees, comparisons, rounding): they are given the clean tensor.
A tensor that lands on the other side of a threshold is drift, and no tolerance is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.evaluate import attribute, evaluate, exposing, intermediate, open_session, whole
from onnxtool.models.signature import Tensors, dtype_name

DRAWS = 8

_LARGE_BYTES = 1 << 20
_TENSOR_BYTES = 1 << 30
"""What all tensors of the graph may take, of which there are several copies."""

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# Applied to the magnitudes of their inputs, these give the sum of the magnitudes of their terms.
_LINEAR = {
    "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "ReduceSum", "ReduceMean", "AveragePool",
    "GlobalAveragePool", "Sum", "Mean", "CumSum", "Add", "Sub",
}  # fmt: skip
# They hand elements on as they are.
_EXACT = {
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Gather",
    "GatherND", "GatherElements", "Expand", "Tile", "Pad", "Relu", "Abs", "Neg", "Max", "Min", "Clip", "MaxPool",
    "GlobalMaxPool", "ReduceMax", "ReduceMin", "Dropout", "Where", "ScatterND", "ScatterElements", "DepthToSpace",
    "SpaceToDepth", "ConstantOfShape", "Constant", "Shape", "Size", "Range", "LeakyRelu", "ThresholdedRelu",
    "FeatureVectorizer", "ArrayFeatureExtractor", "Imputer", "Trilu", "ReverseSequence", "OneHot", "EyeLike",
}  # fmt: skip
# Their output jumps where their input passes a threshold.
_JUMPS = {
    "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Floor", "Ceil", "Round", "Sign", "TopK",
    "OneHotEncoder", "LabelEncoder", "Binarizer", "CategoryMapper", "NonMaxSuppression", "Mod", "RoiAlign",
}  # fmt: skip
# Whole numbers in place of reals: noise goes through them, and steps are noise.
_INTEGER = {"QuantizeLinear", "MatMulInteger", "ConvInteger"}
_PRODUCTS = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"}
_TREES = {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}
_RECURRENT = {"LSTM", "GRU", "RNN"}
# Normalised by a sum over many elements: each element is off by the error of that sum too.
_NORMALIZING = {
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "Normalizer", "ReduceL2", "ReduceL1",
    "ReduceLogSumExp", "ReduceSumSquare", "ReduceProd", "LpPool", "LRN", "SkipLayerNormalization",
}  # fmt: skip
_ELEMENTARY = 4.0
"""Error of Exp, Tanh, Erf and their like in roundings: vectorised versions are good to a few units."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The effect of rounding on one output.

    Attributes:
        clean: The output, [rows, ...].
        deviations: Largest deviation of each element over the draws, as `clean`.
        mean: Mean deviation over elements and draws.
        longest: Terms of the longest sum in the graph, and the node that adds them up.
        coarsest: The least precise floating dtype in the graph.
        quantized: Whether the graph computes in whole numbers in between.
        steps: Whether the output is whole numbers itself, of which noise makes others.
    """

    clean: NDArray[np.float64]
    deviations: NDArray[np.float64]
    mean: float
    longest: tuple[int, str]
    coarsest: str
    quantized: bool
    steps: bool = False


def rounding_noise(
    model: OnnxModel, feeds: Tensors, draws: int = DRAWS, *, tensor_cores: bool = False
) -> dict[str, Noise]:
    """Measure what rounding does to each output that is floating or quantized.

    Args:
        model: The ONNX model.
        feeds: A few rows of its inputs.
        draws: How often noise is drawn.
        tensor_cores: Whether products of float32 are rounded to TF32 (10 bits of fraction) first.

    Returns:
        By the output's name. Empty where the graph cannot be opened up.

    Raises:
        ModelError: ONNX Runtime cannot run the copies.
    """
    proto = whole(model)
    if proto is None:
        return {}
    graph = proto.graph
    names = intermediate(graph)
    opened = open_session(exposing(proto, names), optimized=False)
    feeds = _affordable(opened, feeds)
    known = evaluate(opened, feeds) | feeds
    del opened  # which holds as much memory as the tensors do
    known |= {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = [value.name for value in graph.output]
    noisy = _Instrumented(proto, known, tensor_cores)
    session = open_session(exposing(noisy.proto, [*outputs, *(noisy.renamed.get(name, name) for name in outputs)]))
    deviations = noisy.deviations(feeds)
    clean: dict[str, NDArray[np.float64]] = {}
    worst: dict[str, NDArray[np.float64]] = {}
    means: dict[str, list[float]] = {}
    broken: set[str] = set()  # noise that made a number NaN does not measure rounding
    for draw in range(draws):
        found = evaluate(session, feeds | noisy.noise(deviations, np.random.default_rng(draw)))
        for name in outputs:
            if name not in found or not (dtype_name(found[name]) in UNIT_ROUNDOFF or name in noisy.renamed):
                continue
            clean[name] = found[name].astype(np.float64)
            other = found[noisy.renamed.get(name, name)].astype(np.float64)
            if np.any(np.isfinite(clean[name]) & ~np.isfinite(other)):
                broken.add(name)
            with np.errstate(invalid="ignore"):
                distance = np.abs(other - clean[name])
            deviation = np.where(np.isfinite(distance), distance, 0)
            worst[name] = np.maximum(worst.get(name, deviation), deviation)
            means.setdefault(name, []).append(float(deviation.mean()) if deviation.size else 0.0)
    dtypes = {dtype_name(array) for array in known.values()} & set(UNIT_ROUNDOFF)
    coarsest = max(dtypes, key=lambda name: UNIT_ROUNDOFF[name], default="float32")
    return {
        name: Noise(
            clean[name],
            worst[name],
            float(np.mean(means[name])),
            noisy.longest,
            coarsest,
            noisy.quantized,
            steps=dtype_name(known[name]) not in UNIT_ROUNDOFF,
        )
        for name in clean
        if name not in broken
    }


def _affordable(session: Any, feeds: Tensors) -> Tensors:
    """Fewer rows of large inputs, such as images, where the tensors of all rows would fill gigabytes."""
    fixed = any(not value.shape or isinstance(value.shape[0], int) for value in session.get_inputs())
    if fixed or sum(tensor.nbytes for tensor in feeds.values()) < _LARGE_BYTES:
        return feeds
    first = {name: tensor[:1] for name, tensor in feeds.items()}
    row_bytes = sum(tensor.nbytes for tensor in evaluate(session, first).values())
    rows = max(1, _TENSOR_BYTES // max(row_bytes, 1))
    return {name: tensor[:rows] for name, tensor in feeds.items()}


Deviation: TypeAlias = Callable[[Tensors], NDArray[Any]]
"""From the sums of magnitudes, by the tensor's name, to the standard deviations of a tensor's noise."""


class _Instrumented:
    """A model with a noisy copy of each node in addition to the clean one.

    Attributes:
        proto: The model. Its noise comes as further inputs, since operators that draw some differ between opsets.
        renamed: Name of a clean tensor to that of its noisy copy, for those that have one.
        longest: Terms of the longest sum, and its node.
        quantized: Whether some nodes compute in whole numbers.
    """

    def __init__(
        self, proto: onnx.ModelProto, known: Mapping[str, NDArray[np.generic]], tensor_cores: bool
    ) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self.renamed: dict[str, str] = {}
        self.longest = (1, "")
        self.quantized = False
        self._known, self._tensor_cores = known, tensor_cores
        self._taken = {*known, *intermediate(proto.graph)}
        if not any(entry.domain in ("", "ai.onnx") for entry in self.proto.opset_import):
            self.proto.opset_import.append(helper.make_opsetid("", 17))
        self._sums = onnx.ModelProto()
        self._sums.CopyFrom(self.proto)
        # Only what deviations are made of is kept: all tensors of a network of images fill gigabytes.
        self._totals: list[str] = []
        self._drawn: dict[str, tuple[str, Deviation]] = {}  # by the noise's name: the clean tensor's, how much
        del self.proto.graph.node[:]
        for node in proto.graph.node:
            self.proto.graph.node.append(node)
            self._add_noisy(node)

    def deviations(self, feeds: Tensors) -> Tensors:
        """Standard deviations of the noise, by its name; 0 where an element is a mask."""
        sums = evaluate(open_session(exposing(self._sums, self._totals)), feeds) if self._totals else {}
        found = {}
        for name, (clean, deviation) in self._drawn.items():
            value = self._known[clean]
            with np.errstate(all="ignore"):
                size = np.broadcast_to(deviation(sums), value.shape)
            known = np.isfinite(size)
            if value.dtype.kind != "i":
                known &= np.abs(_wide(value)) < _largest(value.dtype) / 4
            found[name] = np.where(known, size, 0).astype(np.float64 if value.dtype == np.float64 else np.float32)
        return found

    def noise(self, deviations: Tensors, generator: np.random.Generator) -> Tensors:
        """Draw noise, by its name."""
        return {
            name: np.asarray(generator.standard_normal(deviation.shape, deviation.dtype.type) * deviation)
            for name, deviation in deviations.items()
        }

    def _add_noisy(self, node: onnx.NodeProto) -> None:
        jumps = node.op_type in _JUMPS or _has_graph(node)
        inputs = [name if jumps else self.renamed.get(name, name) for name in node.input]
        carried = [name for name in node.output if name and (self._is_float(name) or node.op_type in _INTEGER)]
        noise = self._noise(node, carried[0]) if carried else None
        if not carried or (noise is None and inputs == list(node.input)):
            return
        copy = self._copy(node, inputs, self.proto.graph)
        for name, noisy in zip(node.output, copy.output, strict=True):
            if name in carried:
                self.renamed[name] = self._with_noise(noisy, name, noise(name)) if noise else noisy

    def _copy(self, node: onnx.NodeProto, inputs: Sequence[str], graph: onnx.GraphProto) -> onnx.NodeProto:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = ""
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(self._fresh(name) if name else "" for name in node.output)
        return copy

    def _noise(self, node: onnx.NodeProto, output: str) -> Callable[[str], Deviation] | None:
        """From the name of a clean output to the standard deviation of its noise."""
        value = self._known[output]
        kind = node.op_type
        if kind in _INTEGER:
            self.quantized = True
            step = self._integer_step(node) if kind in ("MatMulInteger", "ConvInteger") else 0.0
            return (lambda name: _constant(step)) if step else None
        unit = UNIT_ROUNDOFF[dtype_name(value)]
        if kind in _EXACT:
            return None
        if kind == "Cast":
            given = self._known[node.input[0]].dtype if node.input[0] in self._known else value.dtype
            narrower = given.kind == "f" and given.itemsize > value.dtype.itemsize
            return (lambda name: self._scaled(name, unit)) if narrower else None
        if kind == "DequantizeLinear":
            self.quantized = True
            step = float(np.max(np.abs(self._known[node.input[1]].astype(np.float64))))
            return lambda name: _constant(step / 12**0.5)
        terms = self._terms(node, value)
        if terms > self.longest[0]:
            self.longest = (terms, node.name or f"{kind} {output}")
        if kind in _PRODUCTS and self._tensor_cores and value.dtype == np.float32:
            unit = UNIT_ROUNDOFF["float16"]  # TF32 has as many bits of fraction
        if kind in _LINEAR:
            return lambda name: self._of_sum(node, name, terms, unit)
        if kind == "BatchNormalization":
            return lambda name: self._of_sum(node, name, 2, unit)
        if kind in _TREES:
            return lambda name: _constant(unit * terms**0.5 * _tree_magnitude(node))
        if kind in ("Softmax", "LogSoftmax"):
            return lambda name: self._of_softmax(name, kind == "LogSoftmax", terms, unit)
        if kind in ("LayerNormalization", "RMSNormalization"):
            return lambda name: self._of_layer(node, name, unit)
        if kind == "Resize" and attribute(node, "mode", b"nearest") != b"nearest":
            return lambda name: self._of_resize(node, name, unit)
        if kind in _NORMALIZING | _RECURRENT or _has_graph(node) or node.domain not in ("", "ai.onnx"):
            size = float(np.max(np.abs(value), initial=0, where=np.isfinite(value)))
            return lambda name: _constant(unit * (_ELEMENTARY + terms**0.5 / 3) * size)
        exact = kind in ("Mul", "Div", "Sqrt", "Reciprocal")
        return lambda name: self._scaled(name, unit * (0.5 if exact else _ELEMENTARY))

    def _terms(self, node: onnx.NodeProto, output: NDArray[np.generic]) -> int:
        """The number of terms that are added up in one element of the output."""
        shapes = [self._known[name].shape for name in node.input if name in self._known]
        kind = node.op_type
        if kind in ("MatMul", "MatMulInteger") and shapes[0]:
            return int(shapes[0][-1])
        if kind == "Gemm":
            return int(shapes[0][0 if attribute(node, "transA", 0) else 1])
        if kind in ("Conv", "ConvInteger", "ConvTranspose"):
            weights = shapes[1]
            inputs = weights[1] if kind != "ConvTranspose" else weights[0] // attribute(node, "group", 1)
            return int(inputs * np.prod(weights[2:]))
        if kind in _RECURRENT:
            steps = shapes[0][1 if attribute(node, "layout", 0) else 0]
            return int((shapes[1][-1] + shapes[2][-1]) * steps)
        if kind in _TREES:
            trees = attribute(node, "nodes_treeids") or attribute(node, "tree_roots") or [0]
            return len(set(trees))
        if kind in ("Add", "Sub"):
            return 2
        if kind in ("LinearRegressor", "LinearClassifier", "SVMRegressor", "SVMClassifier"):
            return max(int(np.prod(shapes[0][1:])), len(attribute(node, "coefficients", ())))
        if _has_graph(node):
            return max((int(np.prod(shape)) for shape in shapes), default=1)
        if kind in ("Softmax", "LogSoftmax"):
            return int(output.shape[attribute(node, "axis", -1)]) if output.ndim else 1
        if kind in _NORMALIZING and shapes and output.size == np.prod(shapes[0]):
            return int(shapes[0][-1]) if len(shapes[0]) < 4 else int(np.prod(shapes[0][2:]))
        if kind in _LINEAR | _NORMALIZING and shapes:
            return max(1, int(np.prod(shapes[0]) // max(output.size, 1)))
        return 1

    def _of_sum(self, node: onnx.NodeProto, clean: str, terms: int, unit: float) -> Deviation:
        """u * (sum of the magnitudes / 2 + sqrt(k) * |sum| / 3)."""
        inputs = []
        for place, name in enumerate(node.input):
            magnitude = self._node("Abs", name) if name and self._is_float(name) else name
            if (node.op_type, place) in (("BatchNormalization", 3), ("Sub", 1)):
                magnitude = self._node("Neg", magnitude)
            inputs.append(magnitude)
        total = self._copy(node, inputs, self._sums.graph).output[0]
        self._totals.append(total)
        value = self._known[clean]
        return lambda sums: unit * (_wide(sums[total]) / 2 + terms**0.5 / 3 * np.abs(_wide(value)))

    def _of_softmax(self, clean: str, logarithm: bool, terms: int, unit: float) -> Deviation:
        """exp(x - max) is off by the rounding of its argument, u * |ln p| / 2, and its own; their sum as others."""
        value = self._known[clean]

        if logarithm:
            return lambda _: unit * (-_wide(value) / 2 + 1 + terms**0.5 / 3)
        tiny = np.finfo(np.float64).tiny  # a probability of 0
        return lambda _: unit * (-np.log(_wide(value) + tiny) / 2 + 1 + terms**0.5 / 3) * _wide(value)

    def _of_layer(self, node: onnx.NodeProto, clean: str, unit: float) -> Deviation:
        """The rounding of layer norms: x less its mean by a rounding of x, the variance by one of the mean square."""
        rows = _wide(self._known[node.input[0]])
        axes = tuple(range(attribute(node, "axis", -1) % rows.ndim, rows.ndim))
        scale, value = _wide(self._known[node.input[1]]), self._known[clean]
        square = np.mean(rows**2, axis=axes, keepdims=True)
        centred = node.op_type == "LayerNormalization"
        variance = rows.var(axis=axes, keepdims=True) if centred else square
        cancelled = square / (variance + attribute(node, "epsilon", 1e-5))
        return lambda _: unit * ((0.5 + cancelled / 2) * np.abs(_wide(value)) + cancelled**0.5 / 2 * np.abs(scale))

    def _of_resize(self, node: onnx.NodeProto, clean: str, unit: float) -> Deviation:
        """A place between two pixels is off by a rounding of itself, and the value by that share of their difference.

        At 512 pixels that is more than the rounding of the value, and no two runtimes compute places alike; but in a
        size halved or doubled they are fractions of 2, and nobody rounds them.
        """
        source, value = _wide(self._known[node.input[0]]), self._known[clean]
        places = [
            (np.arange(new) + 0.5) * old / new - 0.5 if old != new else np.arange(new)
            for old, new in zip(source.shape, value.shape, strict=True)
        ]
        pixels = np.ix_(*(np.clip(np.floor(place), 0, None).astype(int) for place in places))
        deviation = _ELEMENTARY * unit * np.abs(_wide(value))
        corners = attribute(node, "coordinate_transformation_mode", b"") == b"align_corners"
        for axis, place in enumerate(places):
            old, new = source.shape[axis], value.shape[axis]
            if old != new and (corners or np.log2(new / old) % 1):
                steps = np.abs(np.diff(source, axis=axis, append=source.take([-1], axis)))
                shape = [-1 if other == axis else 1 for other in range(value.ndim)]
                deviation = deviation + unit * (np.abs(place) + 1).reshape(shape) * steps[pixels]
        return lambda sums: deviation

    def _scaled(self, clean: str, factor: float) -> Deviation:
        value = self._known[clean]
        return lambda sums: factor * np.abs(_wide(value))

    def _integer_step(self, node: onnx.NodeProto) -> float:
        """Standard deviation of a sum of products whose factors are each off by up to half a step."""
        factors = []
        for place in (0, 1):
            zero = self._known[node.input[place + 2]] if len(node.input) > place + 2 else np.zeros(1)
            factors.append(self._known[node.input[place]].astype(np.float64) - np.mean(zero.astype(np.float64)))
        terms = self._terms(node, self._known[node.output[0]])
        return float(np.sqrt(terms / 12 * sum(np.mean(factor**2) for factor in factors)))

    def _with_noise(self, noisy: str, clean: str, deviation: Deviation) -> str:
        value, noise, cast, moved = self._known[clean], *map(self._fresh, ("noise", "cast", "moved"))
        self._drawn[noise] = clean, deviation
        given = TensorProto.DOUBLE if value.dtype == np.float64 else TensorProto.FLOAT
        self.proto.graph.input.append(helper.make_tensor_value_info(noise, given, value.shape))
        self.proto.graph.node.extend(
            [
                helper.make_node("Cast", [noise], [cast], to=helper.np_dtype_to_tensor_dtype(value.dtype)),
                helper.make_node("Add", [noisy, cast], [moved]),
            ]
        )
        return moved

    def _node(self, kind: str, name: str) -> str:
        """Add a node of one input to the sums of magnitudes."""
        fresh = self._fresh(kind)
        self._sums.graph.node.append(helper.make_node(kind, [name], [fresh]))
        return fresh

    def _fresh(self, name: str) -> str:
        fresh = f"{name}~{len(self._taken)}"
        self._taken.add(fresh)
        return fresh

    def _is_float(self, name: str) -> bool:
        return name in self._known and dtype_name(self._known[name]) in UNIT_ROUNDOFF


def _constant(deviation: float) -> Deviation:
    size = np.array(deviation)
    return lambda sums: size


def _largest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _wide(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(entry.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for entry in node.attribute)


def _tree_magnitude(node: onnx.NodeProto) -> float:
    """Sum over trees of the typical magnitude of a leaf."""
    for prefix in ("class", "target"):
        weights = np.abs(np.array(attribute(node, f"{prefix}_weights", ()), dtype=np.float64))
        if weights.size:
            trees = np.array(attribute(node, f"{prefix}_treeids"))
            return float(sum(weights[trees == tree].max() for tree in np.unique(trees)))
    leaves = attribute(node, "leaf_weights")
    if leaves is None:
        return 1.0
    return float(np.abs(numpy_helper.to_array(leaves)).max() * len(attribute(node, "tree_roots", (0,))))
