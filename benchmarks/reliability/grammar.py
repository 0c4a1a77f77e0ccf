"""Files that are well-formed and mean harm: pickles of admitted names only, and ONNX models with hostile structure.

`mutated` of `fuzz` damages bytes, which readers refuse early; these come through to what acts on them.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxtool.models.safety import admission

# -- Pickles ------------------------------------------------------------------------------------------------------


@functools.cache
def names() -> list[tuple[str, str]]:
    """Names that are admitted at one level or another."""
    import importlib

    full = [*admission.STAND_INS, *admission.CALLABLE, *admission.CONSTRUCTIBLE, *admission.VALUES]
    found = [tuple(name.rsplit(".", 1)) for name in full]
    for module in (*admission.COMPUTING_MODULES, *admission.METRIC_MODULES, "sklearn.linear_model._logistic"):
        with contextlib.suppress(ModuleNotFoundError):  # of another version of its library
            found += [(module, name) for name in dir(importlib.import_module(module))]
    return [(module, name) for module, name in found if _is_admitted(module, name)]


def _is_admitted(module: str, name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return admission.admit(module, name) is not None
    except Exception:
        return False


KEYS = (
    "filename",
    "mode",
    "w+",
    "shape",
    "dtype",
    "predict",
    "__class__",
    "__dict__",
    "coef_",
    "data",
    "out",
    "u1",
)
"""Words that constructors and states give a meaning to."""


def pickled(_content: bytes, _other: bytes, rng: np.random.Generator) -> bytes:
    """A program of 3 to 40 operations that keeps pickle's grammar."""
    parts = [pickle.PROTO + b"\x04"]
    height = 0
    for _ in range(int(rng.integers(3, 41))):
        kind = int(rng.integers(0, 14))
        if kind <= 3 or height < 2:
            parts.append(_item(rng))
            height += 1
        elif kind <= 5:
            parts.append(pickle.TUPLE1 if rng.random() < 0.5 else pickle.EMPTY_TUPLE)
            height += 0 if parts[-1] == pickle.TUPLE1 else 1
        elif kind == 6:
            parts.append(pickle.TUPLE2)
            height -= 1
        elif kind <= 9:
            parts.append((pickle.REDUCE, pickle.NEWOBJ)[int(rng.integers(0, 2))])
            height -= 1
        elif kind == 10:
            parts.append(pickle.BUILD)
            height -= 1
        elif kind == 11 and height >= 3:
            parts.append(pickle.SETITEM)
            height -= 2
        elif kind == 12:
            parts.append(pickle.APPEND)
            height -= 1
        else:
            parts.append(pickle.MEMOIZE if rng.random() < 0.5 else pickle.DUP)
            height += parts[-1] == pickle.DUP
    return b"".join(parts) + pickle.STOP


def _item(rng: np.random.Generator) -> bytes:
    kind = int(rng.integers(0, 8))
    if kind <= 2:
        module, name = names()[int(rng.integers(0, len(names())))]
        return _text(module) + _text(name) + pickle.STACK_GLOBAL
    if kind == 3:
        return _text(str(rng.choice(KEYS)))
    if kind == 4:
        return pickle.BININT1 + bytes([int(rng.integers(0, 9))])
    if kind == 5:
        return pickle.EMPTY_DICT + _text(str(rng.choice(KEYS))) + _item(rng) + pickle.SETITEM
    return (pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.NONE, pickle.EMPTY_TUPLE)[int(rng.integers(0, 4))]


def _text(word: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(word)]) + word.encode()


EFFECTS = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir", "os.chmod", "os.link",
    "os.symlink", "os.truncate", "subprocess.Popen", "shutil.", "socket.", "mmap.", "ctypes.dlopen",
)  # fmt: skip
effects: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and (
        (isinstance(args[1], str) and set(args[1]) & set("wax+")) or (isinstance(args[2], int) and args[2] & 0o3)
    )
    if writes or event.startswith(EFFECTS):
        effects.append(f"{event} {args!r}"[:200])


@functools.cache
def watch() -> None:
    """Note, from now on, what this process does to files, to others and to the network."""
    sys.addaudithook(_watch)


def read_pickle(path: Path) -> None:
    """Open it outside of the sandbox.

    Raises:
        AssertionError: it had an effect.
    """
    from onnxtool.models.safety import pickles

    names()
    watch()
    effects.clear()
    try:
        pickles.load(path)
    finally:
        if effects:
            raise AssertionError(f"effect: {effects[0]}")


def any_file(folder: Path) -> None:
    """A file whose content plays no part."""
    (folder / "model.pkl").write_bytes(pickle.dumps(None))


# -- ONNX ---------------------------------------------------------------------------------------------------------

SIZES = (0, 1, 2, 4, 7, -1, -2, -(2**63), 2**31, 2**62, 2**63 - 1)
LOCATIONS = ("w.bin", "../w.bin", "/etc/hostname", "", "a\0b", "*/_ORT_MEM_ADDR_/*", "w.bin/x", "C:\\w", "./w.bin")
OPSET = 21
WIDTH = 4

node = helper.make_node
Block: TypeAlias = Callable[["_Graph", str], str]


class _Graph:
    """A graph that grows: each block takes a value of float[batch, 4] and gives another one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []

    def name(self) -> str:
        return f"v{len(self.nodes)}_{len(self.constants)}"

    def add(self, operator: str, *feeds: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; the name of its last output."""
        names = [f"{self.name()}_{place}" for place in range(outputs)]
        self.nodes.append(node(operator, list(feeds), names, **attributes))
        return names[-1]

    def constant(self, values: object, kind: Any = np.int64) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=kind), f"c{self.name()}"))
        return str(self.constants[-1].name)

    def floats(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape), np.float32)


def _unary(g: _Graph, x: str) -> str:
    return g.add(
        str(g.rng.choice(["Relu", "Sigmoid", "Exp", "Neg", "Abs", "Floor", "Erf", "Sqrt", "Identity"])), x
    )


def _binary(g: _Graph, x: str) -> str:
    return g.add(str(g.rng.choice(["Add", "Sub", "Mul", "Div", "Max", "Pow"])), x, g.floats(WIDTH))


def _whole(g: _Graph, x: str) -> str:
    whole = g.add("Cast", x, to=TensorProto.INT64)
    operator = str(g.rng.choice(["Add", "Mul", "Div", "Mod", "Min"]))
    return g.add("Cast", g.add(operator, whole, g.constant([3, 5, 7, 9])), to=TensorProto.FLOAT)


def _linear(g: _Graph, x: str) -> str:
    if g.rng.random() < 0.5:
        return g.add("Gemm", x, g.floats(WIDTH, WIDTH), g.floats(WIDTH), transB=1)
    return g.add("LayerNormalization", g.add("MatMul", x, g.floats(WIDTH, WIDTH)), g.floats(WIDTH), axis=-1)


def _shaped(g: _Graph, x: str) -> str:
    flat = g.add("Reshape", g.add("Transpose", x, perm=[1, 0]), g.constant([-1]))
    return g.add("Transpose", g.add("Reshape", flat, g.constant([WIDTH, -1])), perm=[1, 0])


def _picked(g: _Graph, x: str) -> str:
    if g.rng.random() < 0.5:
        return g.add("Gather", x, g.constant([3, 1, 0, 2]), axis=1)
    both = g.add("Concat", x, x, axis=1)
    return g.add("Slice", both, g.constant([2]), g.constant([2 + WIDTH]), g.constant([1]), g.constant([1]))


def _spread(g: _Graph, x: str) -> str:
    total = g.add("ReduceSum", x, g.constant([1]), keepdims=1)
    if g.rng.random() < 0.5:
        return g.add("Tile", total, g.constant([1, WIDTH]))
    return g.add("Expand", total, g.constant([1, WIDTH]))


def _padded(g: _Graph, x: str) -> str:
    wide = g.add("Pad", x, g.constant([0, 1, 0, 1]))
    return g.add(
        "GatherElements", wide, g.add("Cast", g.add("Abs", g.add("Sign", x)), to=TensorProto.INT64), axis=1
    )


def _ranked(g: _Graph, x: str) -> str:
    g.add("TopK", x, g.constant([WIDTH]), outputs=2)
    values, places = g.nodes[-1].output
    return g.add("Add", values, g.add("Cast", places, to=TensorProto.FLOAT))


def _convolved(g: _Graph, x: str) -> str:
    wide = g.add("Unsqueeze", x, g.constant([1]))
    return g.add("Squeeze", g.add("Conv", wide, g.floats(1, 1, 3), pads=[1, 1], kernel_shape=[3]), g.constant([1]))


def _scattered(g: _Graph, x: str) -> str:
    places = g.add("Unsqueeze", g.add("Range", g.constant(0), g.constant(1), g.constant(1)), g.constant([1]))
    return g.add("ScatterND", x, places, g.floats(1, WIDTH))


def _filled(g: _Graph, x: str) -> str:
    zeros = g.add(
        "ConstantOfShape", g.add("Shape", x), value=helper.make_tensor("z", TensorProto.FLOAT, [1], [0.5])
    )
    return g.add("Where", g.add("Greater", x, zeros), x, zeros)


def _quantized(g: _Graph, x: str) -> str:
    scale, zero = g.constant(0.1, np.float32), g.constant(0, np.int8)
    return g.add("DequantizeLinear", g.add("QuantizeLinear", x, scale, zero), scale, zero)


def _sequenced(g: _Graph, x: str) -> str:
    parts = g.add("SplitToSequence", x, g.constant(2), axis=1)
    return g.add("ConcatFromSequence", parts, axis=1)


def _looped(g: _Graph, x: str) -> str:
    values = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["v", "v"], ["w"])],
        "body",
        [
            values("i", TensorProto.INT64, []),
            values("go", TensorProto.BOOL, []),
            values("v", TensorProto.FLOAT, None),
        ],
        [values("on", TensorProto.BOOL, []), values("w", TensorProto.FLOAT, None)],
    )
    return g.add("Loop", g.constant(2), g.constant(True, np.bool_), x, body=body)


def _chosen(g: _Graph, x: str) -> str:
    branches = [
        helper.make_graph(
            [node(operator, [x], ["chosen"])],
            operator,
            [],
            [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
        )
        for operator in ("Relu", "Neg")
    ]
    return g.add("If", g.constant(True, np.bool_), then_branch=branches[0], else_branch=branches[1])


def _called(g: _Graph, x: str) -> str:
    name = f"f{len(g.functions)}"
    callee = f"f{len(g.functions) - 1}" if g.functions else "Relu"
    inner = [node(callee, ["a"], ["m"], domain="own" if g.functions else ""), node("Add", ["m", "a"], ["b"])]
    g.functions.append(helper.make_function("own", name, ["a"], ["b"], inner, _opsets()))
    return g.add(name, x, domain="own")


def _tree(g: _Graph, x: str) -> str:
    scores = g.add(
        "TreeEnsembleRegressor", x, domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[2, 0, 0], nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0], target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )  # fmt: skip
    return g.add("Add", x, scores)


BLOCKS: tuple[Block, ...] = (
    _unary, _binary, _whole, _linear, _shaped, _picked, _spread, _padded, _ranked, _convolved, _scattered, _filled,
    _quantized, _sequenced, _looped, _chosen, _called, _tree,
)  # fmt: skip


def _opsets() -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid(*pair) for pair in (("", OPSET), ("ai.onnx.ml", 3), ("own", 1))]


def sound(rng: np.random.Generator) -> onnx.ModelProto:
    """A model of one to five blocks, which runs."""
    g, value = _Graph(rng), "x"
    for _ in range(int(rng.integers(1, 6))):
        value = BLOCKS[int(rng.integers(0, len(BLOCKS)))](g, value)
    g.nodes.append(node("Identity", [value], ["y"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy")
    graph = helper.make_graph(g.nodes, "g", [x], [y], g.constants)
    return helper.make_model(graph, opset_imports=_opsets(), functions=g.functions, ir_version=10)


def structured(_content: bytes, _other: bytes, rng: np.random.Generator) -> bytes:
    """A model that runs, with up to three changes: sizes, values, types, attributes, names, loops, external data."""
    model = sound(rng)
    for _ in range(int(rng.integers(0, 4))):
        HARMS[int(rng.integers(0, len(HARMS)))](model, rng)
    return model.SerializeToString()


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for place in graph.node:
        for attribute in place.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _any_node(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.NodeProto:
    lists = [graph.node for graph in _graphs(model.graph)] + [function.node for function in model.functions]
    return _one([found for nodes in lists for found in nodes], rng)


def _one(items: Sequence[Any], rng: np.random.Generator) -> Any:
    return items[int(rng.integers(0, len(items)))]


def _attribute(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    found = [a for graph in _graphs(model.graph) for place in graph.node for a in place.attribute]
    if not found:
        return
    attribute = _one(found, rng)
    if attribute.ints:
        attribute.ints[int(rng.integers(0, len(attribute.ints)))] = _one(SIZES, rng)
    elif attribute.strings:
        attribute.strings[0] = b"BRANCH_SOMETHING"
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = _one(SIZES, rng)
    elif rng.random() < 0.3:
        attribute.type = int(rng.integers(0, 15))


def _value(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Whole numbers of a constant: indices, sizes, trip counts."""
    found = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64 and len(t.raw_data) >= 8]
    if found:
        tensor = _one(found, rng)
        place = 8 * int(rng.integers(0, len(tensor.raw_data) // 8))
        number = int(_one(SIZES, rng)).to_bytes(8, "little", signed=True)
        tensor.raw_data = tensor.raw_data[:place] + number + tensor.raw_data[place + 8 :]


def _dims(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    if model.graph.initializer:
        tensor = _one(model.graph.initializer, rng)
        if tensor.dims and rng.random() < 0.8:
            tensor.dims[int(rng.integers(0, len(tensor.dims)))] = _one(SIZES, rng)
        else:
            tensor.dims.append(_one(SIZES, rng))


def _kind(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    kind = _one([0, 1, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 99], rng)
    if rng.random() < 0.5 or not model.graph.initializer:
        _one([*model.graph.input, *model.graph.output], rng).type.tensor_type.elem_type = kind
    else:
        _one(model.graph.initializer, rng).data_type = kind


def _size(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    value = _one([*model.graph.input, *model.graph.output], rng)
    if rng.random() < 0.2:
        value.type.tensor_type.ClearField("shape")
    else:
        _one(value.type.tensor_type.shape.dim, rng).dim_value = _one(SIZES, rng)


def _operator(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    names = ["Relu", "Add", "Loop", "If", "Scan", "Resize", "NoSuchOp", "f0", "Constant", "DFT", "LSTM", "OneHot"]
    _any_node(model, rng).op_type = _one(names, rng)


def _wire(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    changed, other = _any_node(model, rng), _any_node(model, rng)
    if rng.random() < 0.2:
        del changed.input[:1]
    elif changed.input:
        names = ["", "x", "nowhere", *other.output, *(tensor.name for tensor in model.graph.initializer)]
        changed.input[int(rng.integers(0, len(changed.input)))] = _one(names, rng)


def _name(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    changed = _any_node(model, rng)
    if changed.output:
        changed.output[0] = _one(["", "x", "y", "a" * 70_000, "\0", "y"], rng)


def _stored(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    if model.graph.initializer:
        tensor = _one(model.graph.initializer, rng)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            tensor.external_data.add(key="location", value=_one(LOCATIONS, rng))
        tensor.external_data.add(key="offset", value=str(_one(SIZES, rng)))


def _opset(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _one(model.opset_import, rng).version = _one([0, 1, 6, 9, 13, 17, 26, 99, -1, 2**62], rng)


def _circle(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    if model.functions:
        changed = _one(model.functions, rng).node[0]
        changed.op_type, changed.domain = f"f{int(rng.integers(0, len(model.functions)))}", "own"


def _twice(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.graph.node.append(_any_node(model, rng))


HARMS: tuple[Callable[[onnx.ModelProto, np.random.Generator], None], ...] = (
    _attribute, _attribute, _value, _value, _dims, _kind, _size, _operator, _wire, _name, _stored, _opset, _circle,
    _twice,
)  # fmt: skip


def models(folder: Path) -> None:
    """A model whose content plays no part."""
    onnx.save(sound(np.random.default_rng(0)), folder / "m.onnx")


@functools.cache
def _isolation() -> contextlib.ExitStack:
    """One confined process for every model that this one verifies: to start one takes half a second."""
    from onnxtool import Limits
    from onnxtool.models.onnx.isolated import isolated

    stack = contextlib.ExitStack()
    stack.enter_context(isolated(Limits(memory=2 << 30, timeout=3)))
    return stack


def inspected(path: Path) -> None:
    """Inspect and lint it."""
    import onnxtool
    from onnxtool.models.onnx.artifact import OnnxModel

    _isolation()
    path.with_name("w.bin").write_bytes(bytes(64))
    OnnxModel.read(path).summary()
    onnxtool.lint(path)


def verified(path: Path) -> None:
    """Inspect, lint and verify it."""
    import onnxtool

    inspected(path)
    onnxtool.verify(path, path)


def measured(path: Path) -> None:
    """Inspect, lint, verify and measure it; each cell takes a process of its own."""
    import onnxtool

    verified(path)
    onnxtool.bench(path, duration=0.01)
