"""TensorFlow models as sources: SavedModel folders, and live functions and modules."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.errors import DataError, SourceError, UsageError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.safety.saved_model import check
from onnxtool.models.signature import BATCH, DTYPES, Dim, Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.state import ModelState, keeping, weights_of

GRAPH_FILE = "saved_model.pb"
DEFAULT_SIGNATURE = "serving_default"


class TensorFlowModel(SourceModel):
    """A TensorFlow function with names for its inputs and outputs.

    Attributes:
        outputs: Names of the outputs, in order.
    """

    framework = "tensorflow"
    _state: ModelState | None = None

    def __init__(self, model: Any, options: LoadOptions) -> None:
        tf = import_tensorflow()
        self.model = model
        self.framework_version = tf.__version__
        self._signature = (options.signature or DEFAULT_SIGNATURE) if getattr(model, "signatures", None) else None
        self._function = _concrete_function(model, self._signature, options)
        self._structure = self._function.structured_input_signature
        self._leaves = tf.nest.flatten(self._structure)  # tensors, and Python values that tracing has fixed
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, tf.TypeSpec)]
        specs = []
        for position, tensor in enumerate(tensors):
            name = getattr(tensor, "name", None) or f"input_{position}"
            shape = _shape(tensor, name, options)
            specs.append(tensor_spec(name, tensor.dtype.name, shape, alone=len(tensors) == 1))
        self.inputs = override(specs, options.inputs)
        names = list(_leaf_names(self._function.structured_outputs))
        if not isinstance(self._function.structured_outputs, Mapping):
            names = ["output"] if len(names) == 1 else [f"output_{name}" for name in names]
        self.outputs = unique(names, taken=[spec.name for spec in self.inputs])

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put back the variables that a run changes; see `models.state`."""
        self._state = self._state or ModelState(weights_of(self.model))
        with keeping(self, self._state):
            yield

    @property
    def kind(self) -> str:
        """`SavedModel` and its signature; a live object's class."""
        return f"SavedModel {self._signature}" if self._signature else super().kind

    def call(self, *tensors: Any) -> list[Any]:
        """Run the function on `tf.Tensor`s, one an input; it can be traced."""
        tf = import_tensorflow()
        feed = iter(tensors)
        flat = [next(feed) if isinstance(leaf, tf.TypeSpec) else leaf for leaf in self._leaves]
        args, kwargs = tf.nest.pack_sequence_as(self._structure, flat)
        outputs: list[Any] = tf.nest.flatten(self._function(*args, **kwargs))
        return outputs

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the function; see `SourceModel`."""
        return run(self.call, self.inputs, self.outputs, tensors)


def is_saved_model(folder: Path) -> bool:
    """Whether a path is a folder with a SavedModel's graph."""
    return (folder / GRAPH_FILE).is_file()


def load_saved_model(folder: Path) -> Any:
    """Load a SavedModel whose graph touches neither files nor Python.

    Raises:
        SourceError: it is damaged.
        UntrustedError: its graph reaches beyond its folder (`saved_model`); nothing of it has run.
    """
    tf = import_tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    content = SavedModel()
    try:
        content.ParseFromString((folder / GRAPH_FILE).read_bytes())
    except DecodeError:
        content.Clear()
    if not content.meta_graphs:
        raise SourceError(f"{folder} is no SavedModel, or is cut short: its {GRAPH_FILE} cannot be parsed.")
    check(content, folder)
    try:
        with quiet():
            return tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow's errors have no common base
        raise SourceError(f"{folder} cannot be loaded by TensorFlow: {reason(error)}") from error


def import_tensorflow() -> Any:
    """Import TensorFlow without its chatter.

    Raises:
        MissingExtraError: TensorFlow is not installed.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_native():
        return require("tensorflow", "tensorflow")


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what TensorFlow logs below an error."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def tensor_spec(name: str, dtype: str, shape: Iterable[int | None], *, alone: bool) -> TensorSpec:
    """Describe a tensor whose unknown sizes are None: the first is the batch.

    Args:
        name: The tensor's name.
        dtype: TensorFlow's name of the dtype.
        shape: Sizes.
        alone: Whether it is the only input. Sizes of several inputs are not known to be the same, so
            the names of their dimensions differ.

    Raises:
        SourceError: ONNX Runtime has no such dtype.
    """
    if dtype not in DTYPES:
        raise SourceError(
            f"Input {name!r} has the dtype {dtype}, which cannot be fed. Known: {', '.join(DTYPES)}."
        )
    dims: list[Dim] = []
    for position, size in enumerate(shape):
        unknown = BATCH if position == 0 else f"dim_{position}" if alone else f"{name}_dim_{position}"
        dims.append(unknown if size is None else int(size))
    return TensorSpec(name, dtype, tuple(dims))


def override(specs: Sequence[TensorSpec], given: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Replace the shapes of a model's own inputs by the user's, where they are given.

    Raises:
        UsageError: an input is not the model's, or has another dtype or rank than it says.
    """
    own = {spec.name: spec for spec in specs}
    for spec in given:
        mine = own.get(spec.name)
        if mine is None:
            raise UsageError(f"--input {spec}: the model has no such input. It has {_list(specs)}.")
        if mine.dtype != spec.dtype or (mine.shape and len(mine.shape) != len(spec.shape)):
            raise UsageError(f"--input {spec} does not fit the model's own input {mine}.")
        own[spec.name] = replace(mine, shape=spec.shape)
    return tuple(own.values())


def unique(names: Iterable[str], taken: Iterable[str] = ()) -> tuple[str, ...]:
    """Number the names that are used twice, as in `lstm`, `lstm_1`."""
    used = set(taken)
    result = []
    for name in names:
        candidate, count = name, 0
        while candidate in used:
            count += 1
            candidate = f"{name}_{count}"
        used.add(candidate)
        result.append(candidate)
    return tuple(result)


def run(
    call: Callable[..., Sequence[Any]], specs: Sequence[TensorSpec], names: Sequence[str], rows: Tensors
) -> Tensors:
    """Call a function of `tf.Tensor`s with arrays, and name what it returns; text becomes arrays of `str`.

    Raises:
        DataError: the function fails on these rows.
        SourceError: an output is ragged or sparse.
    """
    tf = import_tensorflow()
    with running():
        values = call(*(tf.convert_to_tensor(rows[spec.name], dtype=spec.dtype) for spec in specs))
    result: Tensors = {}
    for name, value in zip(names, values, strict=True):
        if not tf.is_tensor(value) or isinstance(value, tf.RaggedTensor | tf.SparseTensor):
            raise SourceError(f"Output {name!r} is a {type(value).__name__}: only dense tensors can be compared.")
        array = np.asarray(value.numpy())
        if array.dtype.kind in "OS":
            array = np.vectorize(lambda text: text.decode("utf-8", "replace"), otypes=[object])(array)
        result[name] = array
    return result


@contextmanager
def running() -> Iterator[None]:
    """Raise a `DataError` for whatever a model's own code raises on rows."""
    try:
        yield
    except Exception as error:
        raise DataError(f"The source model fails on these rows: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The first line of an error's message, without what Keras and TensorFlow wrap around it."""
    text = re.sub(r"\x1b\[\d+m|\{\{.*?\}\} ?", "", str(error))
    if text.startswith("Graph execution error"):  # the cause stands below the traceback of the node's making
        lines = [line.strip() for line in text.splitlines()]
        text = next((line for line in reversed(lines) if line and not line.startswith(("[[", "File "))), text)
    if in_user_code := re.search(r"^ {4}(\w+: .*)", text, re.DOTALL | re.MULTILINE):  # AutoGraph's traceback
        text = in_user_code[1]
    text = re.sub(r"Exception encountered when calling (\S+)\.\s+", r"\1: ", text)
    return first_line(Exception(text)) if text.strip() else first_line(error)


def _concrete_function(model: Any, signature: str | None, options: LoadOptions) -> Any:
    tf = import_tensorflow()
    if isinstance(model, tf.types.experimental.ConcreteFunction):
        return model
    if signature:
        if signature not in model.signatures:
            raise UsageError(
                f"The model has no signature {signature!r}. "
                f"Pass --signature with one of: {', '.join(sorted(model.signatures))}."
            )
        return model.signatures[signature]
    traceable = tf.types.experimental.PolymorphicFunction
    function = model if isinstance(model, traceable) or not callable(model) else model.__call__
    if not isinstance(function, traceable):
        raise SourceError(
            f"The {type(model).__name__} has no signature and its __call__ is no tf.function. "
            "Save it with tf.saved_model.save(..., signatures=...)."
        )
    if function.input_signature is None and not options.inputs:
        raise SourceError(
            "The tf.function has no input_signature. Pass --input NAME:DTYPE[DIMS] for each argument."
        )
    signature_specs = [
        tf.TensorSpec([None if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype, spec.name)
        for spec in options.inputs
    ]
    try:
        return function.get_concrete_function(*(() if function.input_signature else signature_specs))
    except Exception as error:  # tracing runs the function's own code
        raise SourceError(f"The tf.function cannot be traced: {reason(error)}") from error


def _leaf_names(structure: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """A name for each leaf, made of keys and positions, in the order of `tf.nest.flatten`."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _leaf_names(structure[key], (*path, str(key)))
    elif isinstance(structure, list | tuple):
        for position, part in enumerate(structure):
            yield from _leaf_names(part, (*path, str(position)))
    else:
        yield "_".join(path)


def _shape(tensor: Any, name: str, options: LoadOptions) -> tuple[int | None, ...]:
    if not isinstance(tensor, import_tensorflow().TensorSpec):
        raise SourceError(f"Input {name!r} is a {tensor.value_type.__name__}; ONNX has dense tensors only.")
    if tensor.shape.rank is not None:
        return tuple(tensor.shape)
    if any(spec.name == name for spec in options.inputs):
        return ()
    raise SourceError(
        f"Input {name!r} has no known number of dimensions. Pass --input {name}:{tensor.dtype.name}[DIMS]."
    )


def _list(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


@contextmanager
def quiet_native() -> Iterator[None]:
    """Drop what native code prints while TensorFlow starts; no log level reaches it that early."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
