"""TensorFlow Lite models as sources: `.tflite` files, looked through before any native code reads them."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.errors import DataError, SourceError, UntrustedError, UsageError
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.tensorflow import import_tensorflow, override, quiet_native, reason, tensor_spec, unique
from onnxtool.sandbox import confine

IDENTIFIER = b"TFL3"
CUSTOM = 32
"""`BuiltinOperator.CUSTOM`: an operator that a library, or TensorFlow itself (`Flex...`), brings."""

PROBE_S = 120
_PROBE = """
import sys
from onnxtool.models.tensorflow.tflite import interpreter
interpreter(sys.stdin.buffer.read()).invoke()
"""


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a signature, or of the graph where there is none.

    Attributes:
        inputs: Index of the tensor by the input's name.
        outputs: Index of the tensor by the output's name.
        graph: Index of the graph that it runs.
    """

    inputs: dict[str, int]
    outputs: dict[str, int]
    graph: int


@dataclass(frozen=True, slots=True)
class TFLiteFile:
    """A model whose structure was checked.

    Attributes:
        content: The bytes of the file.
        signatures: By name; empty where the file has none.
    """

    content: bytes
    signatures: dict[str, Signature]


class TFLiteModel(SourceModel):
    """A TensorFlow Lite model, run by its interpreter with built-in kernels and no delegate.

    Attributes:
        file: The model.
        tensors: Names that the file gives to the inputs' and outputs' tensors, in order.
        outputs: Names of the outputs, in order.
    """

    framework = "tensorflow"

    def __init__(self, file: TFLiteFile, options: LoadOptions) -> None:
        self.model = self.file = file
        self.framework_version = import_tensorflow().__version__
        self._interpreter = interpreter(file.content)
        taken = {detail["index"]: detail for detail in self._interpreter.get_input_details()}
        made = {detail["index"]: detail for detail in self._interpreter.get_output_details()}
        chosen = _chosen(file.signatures, options.signature)
        if chosen is None:
            chosen = Signature(
                {detail["name"].removesuffix(":0"): index for index, detail in taken.items()},
                {detail["name"].removesuffix(":0"): index for index, detail in made.items()},
                0,
            )
        if not (set(chosen.inputs.values()) <= taken.keys() and set(chosen.outputs.values()) <= made.keys()):
            raise SourceError("The signature names tensors that the graph neither takes nor returns.")
        specs = []
        for name, index in chosen.inputs.items():
            sizes = [None if size < 0 else int(size) for size in taken[index]["shape_signature"]]
            dtype = np.dtype(taken[index]["dtype"]).name
            specs.append(tensor_spec(name, dtype, sizes, alone=len(chosen.inputs) == 1))
        self.inputs: tuple[TensorSpec, ...] = override(specs, options.inputs)
        self.outputs = unique(chosen.outputs, taken=[spec.name for spec in self.inputs])
        self._taken, self._made = tuple(chosen.inputs.values()), tuple(chosen.outputs.values())
        self.tensors = (
            [taken[index]["name"] for index in self._taken],
            [made[index]["name"] for index in self._made],
        )
        self.shapes = [
            [None if size < 0 else int(size) for size in made[index]["shape_signature"]] for index in self._made
        ]

    @property
    def kind(self) -> str:
        """The kind of model, for display."""
        return "TensorFlow Lite model"

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the interpreter; see `SourceModel`."""
        try:
            for spec, index in zip(self.inputs, self._taken, strict=True):
                self._interpreter.resize_tensor_input(index, tensors[spec.name].shape)
            self._interpreter.allocate_tensors()
            for spec, index in zip(self.inputs, self._taken, strict=True):
                self._interpreter.set_tensor(index, tensors[spec.name])
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise DataError(f"The source model fails on these rows: {reason(error)}") from error
        found = (self._interpreter.get_tensor(index) for index in self._made)
        return dict(zip(self.outputs, found, strict=True))


def is_tflite(path: Path) -> bool:
    """Whether a file has the identifier of TensorFlow Lite's flatbuffers."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] == IDENTIFIER


def load_tflite(path: Path) -> TFLiteFile:
    """Check a file's structure, then see in a separate process that the interpreter survives it.

    Raises:
        SourceError: it is damaged, or the interpreter cannot run it.
        UntrustedError: it needs custom operators.
    """
    content = path.read_bytes()
    signatures = check(content, path)
    if not confine.confined:  # or there is a separate process already
        _try_out(content, path)
    return TFLiteFile(content, signatures)


def _try_out(content: bytes, path: Path) -> None:
    """Check in another process that the interpreter survives a file."""
    import_tensorflow()
    try:
        tried = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], input=content, capture_output=True, timeout=PROBE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{path} keeps TensorFlow Lite busy for more than {PROBE_S} s.") from error
    if tried.returncode < 0:
        raise SourceError(f"{path} is damaged: it crashes TensorFlow Lite. Export the model again.")
    if tried.returncode:
        stderr_lines = tried.stderr.decode(errors="replace").strip().splitlines()
        why = stderr_lines[-1].partition(": ")[2] if stderr_lines else "without a message"
        raise SourceError(f"{path} cannot be run by TensorFlow Lite: {why}")


def interpreter(content: bytes) -> Any:
    """TensorFlow Lite's interpreter of a model whose structure was checked, without delegates or chatter."""
    tf = import_tensorflow()
    with quiet_native(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        found = tf.lite.Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        found.allocate_tensors()
    return found


# -- The structure of the file: TensorFlow Lite's schema, version 3 -------------------------------------------


def check(content: bytes, path: Path) -> dict[str, Signature]:
    """Check that everything that the interpreter follows lies within the file, and that there is no custom operator.

    Args:
        content: The bytes of the file.
        path: For messages.

    Returns:
        The signatures by name.

    Raises:
        SourceError: something points out of the file, or to what is not there.
        UntrustedError: it needs custom operators.
    """
    try:
        codes, signatures = _walk(_Buffer(content))
    except (_DamageError, struct.error, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} is a damaged TensorFlow Lite file, or is cut short. Export it again."
        ) from error
    if codes:
        raise UntrustedError(
            f"{path} needs the custom operators {', '.join(sorted(codes))}, which code outside of TensorFlow Lite "
            "brings; nothing was run. Export it with TFLITE_BUILTINS only."
        )
    return signatures


class _DamageError(Exception):
    """Something points where nothing is."""


class _Buffer:
    """A flatbuffer. Every access is checked against its bounds."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, code: str, place: int) -> int:
        if not 0 <= place <= len(self.content) - struct.calcsize(code):
            raise _DamageError
        number: int = struct.unpack_from(f"<{code}", self.content, place)[0]
        return number

    def field(self, table: int, slot: int) -> int | None:
        """The position of a field of a table, or None where it has its default."""
        layout = table - self.read("i", table)
        size, extent = self.read("H", layout), self.read("H", layout + 2)
        if size < 4 or size % 2 or layout + size > len(self.content) or table + extent > len(self.content):
            raise _DamageError
        offset = self.read("H", layout + 4 + 2 * slot) if 4 + 2 * slot < size else 0
        if offset >= max(extent, 1):
            raise _DamageError
        return table + offset if offset else None

    def number(self, table: int, slot: int, code: str) -> int:
        place = self.field(table, slot)
        return 0 if place is None else self.read(code, place)

    def table(self, table: int, slot: int) -> int | None:
        place = self.field(table, slot)
        if place is None:
            return None
        found = place + self.read("I", place)
        self.field(found, 0)
        return found

    def span(self, table: int, slot: int, width: int) -> tuple[int, int]:
        """The start of a vector's items, and their number."""
        place = self.field(table, slot)
        if place is None:
            return 0, 0
        start = place + self.read("I", place)
        count = self.read("I", start)
        if start + 4 + count * width > len(self.content):
            raise _DamageError
        return start + 4, count

    def numbers(self, table: int, slot: int) -> list[int]:
        start, count = self.span(table, slot, 4)
        return [self.read("i", start + 4 * place) for place in range(count)]

    def tables(self, table: int, slot: int) -> list[int]:
        start, count = self.span(table, slot, 4)
        found = [start + 4 * place + self.read("I", start + 4 * place) for place in range(count)]
        for place in found:
            self.field(place, 0)
        return found

    def text(self, table: int, slot: int) -> str:
        start, count = self.span(table, slot, 1)
        if start and self.read("B", start + count):  # native code reads names up to a zero
            raise _DamageError
        return self.content[start : start + count].decode()


def _walk(buffer: _Buffer) -> tuple[set[str], dict[str, Signature]]:
    """The custom operators and the signatures."""
    model = buffer.read("I", 0)
    buffer.field(model, 0)
    codes = buffer.tables(model, 1)
    graphs = buffer.tables(model, 2)
    buffers = buffer.tables(model, 4)
    if not graphs:
        raise _DamageError
    for data in buffers:
        buffer.span(data, 0, 1)
    for entry in buffer.tables(model, 6):
        buffer.text(entry, 0)
        _within([buffer.number(entry, 1, "I")], len(buffers))
    buffer.numbers(model, 5)
    tensors = [_walk_graph(buffer, graph, len(codes), len(buffers)) for graph in graphs]
    signatures = {}
    for entry in buffer.tables(model, 7):
        graph = buffer.number(entry, 4, "I")
        _within([graph], len(graphs))
        taken, made = (dict(_named(buffer, entry, slot)) for slot in (0, 1))
        _within([*taken.values(), *made.values()], tensors[graph])
        signatures[buffer.text(entry, 2)] = Signature(taken, made, graph)
    custom = set()
    for code in codes:
        name = buffer.text(code, 1)
        if max(buffer.number(code, 0, "b"), buffer.number(code, 3, "i")) == CUSTOM or name:
            custom.add(name or "without a name")
    return custom, signatures


def _walk_graph(buffer: _Buffer, graph: int, codes: int, buffers: int) -> int:
    """Check a graph, and count its tensors."""
    tensors = buffer.tables(graph, 0)
    for tensor in tensors:
        if any(size < 0 for size in buffer.numbers(tensor, 0)):
            raise _DamageError
        buffer.numbers(tensor, 7)
        buffer.text(tensor, 3)
        _within([buffer.number(tensor, 2, "I")], buffers)
        quantization = buffer.table(tensor, 4)
        if quantization is not None:
            for slot, width in ((0, 4), (1, 4), (2, 4), (3, 8)):
                buffer.span(quantization, slot, width)
    for slot in (1, 2):
        _within(buffer.numbers(graph, slot), len(tensors))
    for operator in buffer.tables(graph, 3):
        _within([buffer.number(operator, 0, "I")], codes)
        buffer.table(operator, 4)
        buffer.span(operator, 5, 1)
        buffer.span(operator, 7, 1)
        for slot in (1, 2, 8):
            _within((index for index in buffer.numbers(operator, slot) if index != -1), len(tensors))
    return len(tensors)


def _named(buffer: _Buffer, signature: int, slot: int) -> Iterator[tuple[str, int]]:
    for entry in buffer.tables(signature, slot):
        yield buffer.text(entry, 0), buffer.number(entry, 1, "I")


def _within(indices: Iterable[int], count: int) -> None:
    if not all(0 <= index < count for index in indices):
        raise _DamageError


def _chosen(signatures: dict[str, Signature], requested: str | None) -> Signature | None:
    if requested is None and len(signatures) <= 1:
        return next(iter(signatures.values()), None)
    name = requested or "serving_default"
    if name not in signatures:
        raise UsageError(
            f"The model has no signature {name!r}. "
            + (f"Pass --signature with one of: {', '.join(sorted(signatures))}." if signatures else "It has none.")
        )
    if signatures[name].graph:
        raise SourceError(
            f"The signature {name!r} runs the file's graph {signatures[name].graph}; only the first can be converted "
            "by tf2onnx. Export the model with that signature alone."
        )
    return signatures[name]
