"""How far apart rounding alone can take two runs of one model: the noise of its arithmetic, by its own graph.

Two runtimes sum in other orders and fuse other operations, so that each result is off by its rounding errors.
What these amount to at the outputs depends on the model: on the terms of its sums, on their magnitude, on what
later layers make of them. It is measured here. A second copy of the graph runs beside the first, and each of its
nodes adds normal noise of the size of its own rounding error; the outputs of the two copies differ as two honest
runtimes do. (Monte Carlo arithmetic: Parker, "Monte Carlo Arithmetic", 1997; Denis, de Oliveira Castro and Petit,
"Verificarlo", 2016. Here a node at a time, with the standard deviations below.)

A sum of k products a*b, rounded with unit roundoff u, is off by about

    u * (sum |a b| / 2 + sqrt(k) * |sum a b| / 3)

The second part is for terms of one sign, whose partial sums grow with their number, and the first for terms of
either sign, whose error does not: Higham and Mary, "Sharper probabilistic backward error analysis for basic linear
algebra kernels with random data", SIAM J. Sci. Comput. 42 (2020), theorem 3.4. Their worst case, u * sqrt(k) *
sum |a b| (Higham and Mary, "A new approach to probabilistic rounding error analysis", SISC 41 (2019)), is larger
by up to sqrt(k), and would let errors of weights pass.

Noise does not go through nodes whose output jumps (trees, comparisons, rounding): they are given the clean tensor.
A tensor that lands on the other side of a threshold is drift, and no tolerance is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxtool.models.artifact import OnnxModel
from onnxtool.models.signature import Tensors, dtype_name
from onnxtool.validators.graph import attribute, evaluate, exposing, intermediate, open_session, whole

DRAWS = 8

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
    """What rounding does to one output.

    Attributes:
        clean: The output, [rows, ...].
        deviations: Largest deviation of each element over the draws, as `clean`.
        longest: Terms of the longest sum in the graph, and the node that adds them up.
        coarsest: The least precise floating dtype in the graph.
        quantized: Whether the graph computes in whole numbers in between.
    """

    clean: NDArray[np.float64]
    deviations: NDArray[np.float64]
    longest: tuple[int, str]
    coarsest: str
    quantized: bool


def rounding_noise(
    model: OnnxModel, feeds: Tensors, draws: int = DRAWS, *, tensor_cores: bool = False
) -> dict[str, Noise]:
    """Measure what rounding does to each floating output.

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
    known = evaluate(open_session(exposing(proto, names), optimized=False), feeds) | feeds
    known |= {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = [value.name for value in graph.output]
    noisy = _Instrumented(proto, known, tensor_cores)
    session = open_session(exposing(noisy.proto, [*outputs, *(noisy.renamed.get(name, name) for name in outputs)]))
    clean: dict[str, NDArray[np.float64]] = {}
    worst: dict[str, NDArray[np.float64]] = {}
    broken: set[str] = set()  # noise on an infinite mask is NaN, which says nothing of rounding
    for _ in range(draws):
        found = evaluate(session, feeds)
        for name in outputs:
            if name not in found or dtype_name(found[name]) not in UNIT_ROUNDOFF:
                continue
            clean[name] = found[name].astype(np.float64)
            other = found[noisy.renamed.get(name, name)].astype(np.float64)
            if np.any(np.isfinite(clean[name]) & ~np.isfinite(other)):
                broken.add(name)
            with np.errstate(invalid="ignore"):
                deviation = np.abs(other - clean[name])
            deviation[~np.isfinite(deviation)] = 0
            worst[name] = np.maximum(worst.get(name, deviation), deviation)
    dtypes = {dtype_name(array) for array in known.values()} & set(UNIT_ROUNDOFF)
    coarsest = max(dtypes, key=lambda name: UNIT_ROUNDOFF[name], default="float32")
    return {
        name: Noise(clean[name], worst[name], noisy.longest, coarsest, noisy.quantized)
        for name in clean
        if name not in broken
    }


class _Instrumented:
    """A model with a noisy copy of each node beside the clean one.

    Attributes:
        proto: The model.
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
        self._nodes: list[onnx.NodeProto] = []
        self._taken = {*known, *intermediate(proto.graph)}
        for node in proto.graph.node:
            self._nodes.append(node)
            self._add_noisy(node)
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(self._nodes)
        if not any(entry.domain in ("", "ai.onnx") for entry in self.proto.opset_import):
            self.proto.opset_import.append(helper.make_opsetid("", 17))

    def _add_noisy(self, node: onnx.NodeProto) -> None:
        jumps = node.op_type in _JUMPS or _has_graph(node)
        inputs = [name if jumps else self.renamed.get(name, name) for name in node.input]
        carried = [name for name in node.output if name and (self._is_float(name) or node.op_type in _INTEGER)]
        noise = self._noise(node, carried[0]) if carried else None
        if not carried or (noise is None and inputs == list(node.input)):
            return
        copy = self._copy(node, inputs)
        for name, noisy in zip(node.output, copy.output, strict=True):
            if name in carried:
                self.renamed[name] = self._with_noise(noisy, name, noise) if noise else noisy

    def _copy(self, node: onnx.NodeProto, inputs: Sequence[str]) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = ""
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(self._fresh(name) if name else "" for name in node.output)
        self._nodes.append(copy)
        return copy

    def _noise(self, node: onnx.NodeProto, output: str) -> Callable[[str], str] | None:
        """From the name of a clean output to that of the standard deviation of its noise."""
        value = self._known[output]
        kind = node.op_type
        if kind in _INTEGER:
            self.quantized = True
            step = self._integer_step(node) if kind in ("MatMulInteger", "ConvInteger") else 0.0
            return (lambda name: self._constant(name, step)) if step else None
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
            return lambda name: self._constant(name, step / 12**0.5)
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
            return lambda name: self._constant(name, unit * terms**0.5 * _tree_magnitude(node))
        if kind in _NORMALIZING | _RECURRENT or _has_graph(node) or node.domain not in ("", "ai.onnx"):
            size = float(np.max(np.abs(value), initial=0, where=np.isfinite(value)))
            return lambda name: self._constant(name, unit * (_ELEMENTARY + terms**0.5 / 3) * size)
        exact = kind in ("Mul", "Div", "Sqrt", "Reciprocal")
        return lambda name: self._scaled(name, unit * (0.5 if exact else _ELEMENTARY))

    def _terms(self, node: onnx.NodeProto, output: NDArray[np.generic]) -> int:
        """How many terms are added up in one element of the output."""
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
        if kind in _NORMALIZING and shapes and output.size == np.prod(shapes[0]):
            return int(shapes[0][-1]) if len(shapes[0]) < 4 else int(np.prod(shapes[0][2:]))
        if kind in _LINEAR | _NORMALIZING and shapes:
            return max(1, int(np.prod(shapes[0]) // max(output.size, 1)))
        return 1

    def _of_sum(self, node: onnx.NodeProto, clean: str, terms: int, unit: float) -> str:
        """u * (sum of the magnitudes / 2 + sqrt(k) * |sum| / 3)."""
        inputs = []
        for place, name in enumerate(node.input):
            magnitude = self._node("Abs", [name]) if name and self._is_float(name) else name
            if (node.op_type, place) in (("BatchNormalization", 3), ("Sub", 1)):
                magnitude = self._node("Neg", [magnitude])
            inputs.append(magnitude)
        copy = self._copy(node, inputs)
        total = self._node("Abs", [clean])
        dtype = self._known[node.output[0]].dtype
        first = self._node("Mul", [copy.output[0], self._scalar(unit / 2, dtype)])
        second = self._node("Mul", [total, self._scalar(unit * terms**0.5 / 3, dtype)])
        return self._node("Add", [first, second])

    def _scaled(self, clean: str, factor: float) -> str:
        magnitude = self._node("Abs", [clean])
        return self._node("Mul", [magnitude, self._scalar(factor, self._known[clean].dtype)])

    def _constant(self, clean: str, deviation: float) -> str:
        return self._scalar(deviation, self._known[clean].dtype)

    def _integer_step(self, node: onnx.NodeProto) -> float:
        """Standard deviation of a sum of products whose factors are each off by up to half a step."""
        factors = []
        for place in (0, 1):
            zero = self._known[node.input[place + 2]] if len(node.input) > place + 2 else np.zeros(1)
            factors.append(self._known[node.input[place]].astype(np.float64) - np.mean(zero.astype(np.float64)))
        terms = self._terms(node, self._known[node.output[0]])
        return float(np.sqrt(terms / 12 * sum(np.mean(factor**2) for factor in factors)))

    def _with_noise(self, noisy: str, clean: str, noise: Callable[[str], str]) -> str:
        dtype = self._known[clean].dtype
        # RandomNormalLike knows float32 and float64 only.
        native = dtype in (np.float32, np.float64)
        wide = clean if native else self._node("Cast", [clean], to=onnx.TensorProto.FLOAT)
        normal = self._node("RandomNormalLike", [wide], seed=float(len(self._nodes) + 1))
        if dtype.kind == "i":
            moved = self._node("Mul", [normal, noise(clean)])
            return self._node("Add", [noisy, self._cast(moved, dtype)])
        return self._node(
            "Add", [noisy, self._node("Mul", [normal if native else self._cast(normal, dtype), noise(clean)])]
        )

    def _cast(self, name: str, dtype: np.dtype[np.generic]) -> str:
        return self._node("Cast", [name], to=helper.np_dtype_to_tensor_dtype(dtype))

    def _scalar(self, value: float, dtype: np.dtype[np.generic]) -> str:
        name = self._fresh("scalar")
        self.proto.graph.initializer.append(
            numpy_helper.from_array(np.array(value, dtype=np.float32 if dtype.kind == "i" else dtype), name)
        )
        return name

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = self._fresh(kind)
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _fresh(self, name: str) -> str:
        fresh = f"{name}~{len(self._taken)}"
        self._taken.add(fresh)
        return fresh

    def _is_float(self, name: str) -> bool:
        return name in self._known and dtype_name(self._known[name]) in UNIT_ROUNDOFF


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
