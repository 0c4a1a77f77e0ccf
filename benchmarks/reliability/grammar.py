"""Files that are well-formed and mean harm: pickles of admitted names only, and ONNX models with hostile structure.

`mutated` of `fuzz` damages bytes, which readers refuse early; these come through to what acts on them.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

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
            parts.append(_value(rng))
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


def _value(rng: np.random.Generator) -> bytes:
    kind = int(rng.integers(0, 8))
    if kind <= 2:
        module, name = names()[int(rng.integers(0, len(names())))]
        return _text(module) + _text(name) + pickle.STACK_GLOBAL
    if kind == 3:
        return _text(str(rng.choice(KEYS)))
    if kind == 4:
        return pickle.BININT1 + bytes([int(rng.integers(0, 9))])
    if kind == 5:
        return pickle.EMPTY_DICT + _text(str(rng.choice(KEYS))) + _value(rng) + pickle.SETITEM
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

SIZES = (0, 1, 2, 4, -1, -(2**63), 2**31, 2**62, 2**63 - 1)
OPERATORS = ("Relu", "Add", "Div", "Mod", "Reshape", "Gather", "Slice", "Concat", "ConstantOfShape", "Tile", "Loop",
             "If", "Expand", "Range", "Conv", "TopK", "Pad", "Resize", "Identity", "Cast", "f0", "f1")  # fmt: skip
LOCATIONS = ("w.bin", "../w.bin", "/etc/hostname", "", "a\0b", "*/_ORT_MEM_ADDR_/*", "w.bin/x", "C:\\w", "./w.bin")


def structured(_content: bytes, _other: bytes, rng: np.random.Generator) -> bytes:
    """A model that parses: sizes, types, attributes, loops, functions and external data are anything."""
    made = ["x"]
    constants = [_tensor(rng, f"c{place}") for place in range(int(rng.integers(0, 4)))]
    made += [tensor.name for tensor in constants]
    nodes = list(_nodes(rng, made, int(rng.integers(1, 6)), depth=0))
    kinds = [int(kind) for kind in rng.choice([1, 1, 1, 7, 9, 8, 11, 16], 2)]
    x, y = (
        helper.make_tensor_value_info(name, kind, ["batch", int(rng.choice([4, 4, 1, 0, 2**31]))])
        for name, kind in (("x", kinds[0]), (nodes[-1].output[0], kinds[1]))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    opsets = [helper.make_opsetid("", int(rng.choice([1, 13, 17, 21, 99]))), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function("own", f"f{place}", ["a"], ["b"], list(_function(rng, place)), opsets)
        for place in range(2)
    ]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8).SerializeToString()


def _function(rng: np.random.Generator, place: int) -> Iterator[onnx.NodeProto]:
    callee = str(rng.choice(["Relu", "f0", "f1"]))
    yield helper.make_node(callee, ["a"], ["b"], domain="own" if callee.startswith("f") else "")


def _tensor(rng: np.random.Generator, name: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=int(rng.choice([1, 7, 9, 11, 8, 0, 99])))
    tensor.dims.extend(
        int(size) for size in rng.choice(SIZES if rng.random() < 0.3 else (1, 4), int(rng.integers(0, 3)))
    )
    if rng.random() < 0.3:
        tensor.data_location = TensorProto.EXTERNAL
        for _ in range(int(rng.integers(0, 3))):
            tensor.external_data.add(key="location", value=str(rng.choice(LOCATIONS)))
        tensor.external_data.add(key="offset", value=str(rng.choice(SIZES)))
    else:
        tensor.raw_data = rng.bytes(int(rng.choice([0, 4, 16, 32])))
    return tensor


def _nodes(rng: np.random.Generator, made: list[str], count: int, depth: int) -> Iterator[onnx.NodeProto]:
    for place in range(count):
        operator = str(rng.choice(OPERATORS))
        attributes: dict[str, Any] = {}
        if rng.random() < 0.4:
            attributes[str(rng.choice(["axis", "to", "keepdims", "mode", "kernel_shape", "pads"]))] = _attribute(
                rng
            )
        if operator in ("Loop", "If") and depth < 2:
            inner = list(_nodes(rng, [*made], int(rng.integers(1, 3)), depth + 1))
            outputs = [helper.make_tensor_value_info(inner[-1].output[0], 1, None)]
            graph = helper.make_graph(inner, "b", [], outputs)
            attributes |= {"body": graph} if operator == "Loop" else {"then_branch": graph, "else_branch": graph}
        feeds = [str(name) for name in rng.choice([*made, ""], int(rng.integers(1, 4)))]
        output = f"t{depth}_{place}_{int(rng.integers(0, 99))}"
        domain = "own" if operator.startswith("f") else ""
        yield helper.make_node(operator, feeds, [output], domain=domain, **attributes)
        made.append(output)


def _attribute(rng: np.random.Generator) -> Any:
    return (int(rng.choice(SIZES)), [int(size) for size in rng.choice(SIZES, 2)], 1.5, "linear")[
        int(rng.integers(0, 4))
    ]


def models(folder: Path) -> None:
    """A file of weights, and one whose content plays no part."""
    value = helper.make_tensor_value_info("x", 1, ["batch", 4])
    out = helper.make_tensor_value_info("y", 1, ["batch", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx"
    )


def inspected(path: Path) -> None:
    """Inspect and lint it."""
    import onnxtool
    from onnxtool.models.onnx.artifact import OnnxModel

    OnnxModel.read(path).summary()
    onnxtool.lint(path)


def verified(path: Path) -> None:
    """Inspect, lint and verify it."""
    import onnxtool

    inspected(path)
    onnxtool.verify(path, path, sandbox=onnxtool.Limits(memory=2 << 30, timeout=5))


def measured(path: Path) -> None:
    """Measure it."""
    import onnxtool

    inspected(path)
    onnxtool.bench(path, duration=0.01)
