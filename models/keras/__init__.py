"""Keras 3 models as sources: `.keras` and `.h5` files, and live models."""

from __future__ import annotations

import importlib
import inspect
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.errors import SourceError, UntrustedError, UsageError, require
from onnxtool.models.keras.backend import as_graph, backend, import_keras, run, version
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.rows.domain import Domain
from onnxtool.models.safety.archives import DAMAGE, members
from onnxtool.models.signature import BATCH, Tensors, TensorSpec, dtype_name
from onnxtool.models.source import LoadOptions, SourceModel, Step
from onnxtool.models.state import ModelState, keeping, weights_of
from onnxtool.models.tensorflow import override, quiet, reason, tensor_spec, unique

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
MEMBERS = ("metadata.json", "config.json")
"""What a `.keras` archive starts with; the weights follow."""

UNSAFE = {
    "Lambda": "Python bytecode",
    "__lambda__": "Python bytecode",
    "TFSMLayer": "the path of a SavedModel",
    "TorchModuleWrapper": "a PyTorch pickle",
}
"""Classes whose saved form holds code or names other files, and what it is."""


class KerasModel(SourceModel):
    """A Keras model, run with `training=False`.

    Attributes:
        outputs: Names of the outputs, in order: keys of a dict, else names of the layers they come from.
    """

    framework = "keras"
    _state: ModelState | None = None

    def __init__(self, model: Any, options: LoadOptions) -> None:
        keras = import_keras()
        self.model = model
        self.framework_version = version()
        self._declared = bool(getattr(model, "inputs", None))
        self.inputs = (
            override(_declared_inputs(model), options.inputs) if self._declared else _given_inputs(model, options)
        )
        if backend() == "torch" and any(spec.dtype == "string" for spec in self.inputs):
            raise SourceError(
                "The model reads text, and PyTorch has no tensors of text. Run again with KERAS_BACKEND=tensorflow."
            )
        if self._declared:
            result = _structures(model)[1]
        else:
            result = self._apply([keras.Input(batch_shape=_sizes(spec), dtype=spec.dtype) for spec in self.inputs])
        leaves = keras.tree.flatten(result)
        names = _output_names(result, layers=self._declared)
        self.outputs = unique(names, taken=[spec.name for spec in self.inputs])
        self.roles = {
            name: "probabilities" for name, leaf in zip(self.outputs, leaves, strict=True) if _is_softmax(leaf)
        }
        if names := [layer.name for layer in _stateful(model)]:
            self.notes = [
                f"{', '.join(names)}: stateful, but ONNX keeps nothing from one run to the next: each run "
                "starts from zero, here as in the source. Have the state as an input and an output to carry it on."
            ]
        # Called eagerly on TensorFlow, it would look 100 times slower than it is.
        # A graph of dynamic time is wrong in TimeDistributed (see `converters.keras`): one a shape is right.
        timed = any(isinstance(layer, keras.layers.TimeDistributed) for layer in model._flatten_layers())
        self._graph = as_graph(self.call, one_a_shape=timed)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put back the variables that a run changes; see `models.state`."""
        self._state = self._state or ModelState(weights_of(self.model))
        with keeping(self, self._state):
            yield

    @property
    def kind(self) -> str:
        """The model's class and name, as in `keras.Functional mobilenet`."""
        kind = type(self.model)
        return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__} {self.model.name}"

    def call(self, *tensors: Any) -> list[Any]:
        """Run the model on tensors of its backend, one an input; it can be traced."""
        outputs: list[Any] = import_keras().tree.flatten(self._apply(tensors))
        return outputs

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the model; see `SourceModel`. Recurrent layers that keep a state start anew."""
        reset_states(self.model)
        return run(self._graph, self.inputs, self.outputs, tensors)

    def steps(self, tensors: Tensors) -> Iterator[Step]:
        """The outputs of the layers, of a model that is a graph of them; those of nested models as one."""
        if not self._declared:
            return
        keras = import_keras()
        inputs, _ = _structures(self.model)
        layers = [layer for layer in self.model.layers if not isinstance(layer, keras.layers.InputLayer)]
        named = [
            (f"{layer.name}:{place}" if place else layer.name, type(layer).__name__, tensor)
            for layer in layers
            for place, tensor in enumerate(_made_by(layer))
        ]
        probe = keras.Model(inputs, [tensor for _, _, tensor in named])

        def call(*rows: Any) -> list[Any]:
            found: list[Any] = keras.tree.flatten(probe(keras.tree.pack_sequence_as(inputs, rows), training=False))
            return found

        reset_states(self.model)
        names = [name for name, _, _ in named]
        values = run(call, self.inputs, unique(names), tensors)
        for (name, kind, _), value in zip(named, values.values(), strict=True):
            yield Step(name, kind, value)

    def in_double(self, tensors: Tensors) -> Tensors | None:
        """Run a copy whose layers compute in float64; None for a model that no configuration builds."""
        if not self._declared:
            return None
        try:
            config = json.loads(json.dumps(self.model.get_config()).replace('"float32"', '"float64"'))
            with quiet():
                twin = type(self.model).from_config(config)
                twin.set_weights([np.asarray(weight, np.float64) for weight in self.model.get_weights()])
            specs = [replace(spec, dtype=spec.dtype.replace("float32", "float64")) for spec in self.inputs]
            inputs, _ = _structures(twin)
            tree = import_keras().tree
            return run(
                lambda *rows: tree.flatten(twin(tree.pack_sequence_as(inputs, rows), training=False)),
                specs,
                self.outputs,
                tensors,
            )
        except Exception:  # layers raise whatever they like on a configuration that does not suit them
            return None

    def domains(self) -> Mapping[str, Domain]:
        """The domains of the inputs, from the layers that read them: vocabularies, means and deviations."""
        if not self._declared:
            return {}
        tensors = import_keras().tree.flatten(_structures(self.model)[0])
        found = {}
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            domain = next(filter(None, map(_domain, _readers(self.model, tensor))), None)
            if domain is not None:
                found[spec.name] = domain
        return found

    def _apply(self, tensors: Sequence[Any]) -> Any:
        if self._declared:
            return self.model(
                import_keras().tree.pack_sequence_as(_structures(self.model)[0], tensors), training=False
            )
        if len(tensors) == 1:
            return self.model(tensors[0], training=False)
        named = {spec.name: tensor for spec, tensor in zip(self.inputs, tensors, strict=True)}
        if named.keys() <= inspect.signature(self.model.call).parameters.keys():
            return self.model(**named, training=False)
        return self.model(named, training=False)


def is_keras_file(path: Path) -> bool:
    """Whether a file is an HDF5 file, or a zip archive that Keras wrote, perhaps cut short."""
    if not path.is_file():
        return False
    if found := members(path):
        return set(MEMBERS) <= found
    with path.open("rb") as file:
        head = file.read(64)
    # The directory is at an archive's end: of one cut short, only the first member's name is left.
    return head.startswith(HDF5_SIGNATURE) or (
        head.startswith(ZIP_SIGNATURE) and head[30:].startswith(tuple(name.encode() for name in MEMBERS))
    )


def load_keras(path: Path, options: LoadOptions) -> Any:
    """Load a model in safe mode, without its optimizer and losses.

    Raises:
        SourceError: the file is damaged, or holds weights only.
        UntrustedError: it needs code that is not Keras's own; nothing of it has run.
    """
    with path.open("rb") as file:
        is_hdf5 = file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    config = _hdf5_config(path) if is_hdf5 else _archive_config(path)
    suffixes = (".h5", ".hdf5") if is_hdf5 else (".keras",)
    keras = import_keras()
    config.pop("compile_config", None)  # losses and optimizers are not loaded
    custom = _custom_objects(path, config, options.trust)
    try:
        with quiet(), warnings.catch_warnings(), _with_suffix(path, *suffixes) as file:
            warnings.filterwarnings("ignore", category=UserWarning, module="keras")
            return keras.models.load_model(file, custom_objects=custom, compile=False, safe_mode=True)
    except Exception as error:  # layers raise whatever they like on a config that does not suit them
        raise SourceError(f"{path} cannot be loaded by Keras {keras.__version__}: {reason(error)}") from error


def saved_version(path: Path) -> str | None:
    """The release of Keras that saved a file which `load_keras` could open, where the file names it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _parse(path, archive.read("metadata.json")).get("keras_version")
    with require("h5py", "keras").File(path, "r") as file:
        version = file.attrs.get("keras_version")
        return version.decode() if isinstance(version, bytes) else version


def reset_states(model: Any) -> None:
    """Forget what stateful recurrent layers remember of earlier batches."""
    for layer in _stateful(model):
        layer.reset_state()


def _stateful(model: Any) -> list[Any]:
    layers = model._flatten_layers()
    return [layer for layer in layers if getattr(layer, "stateful", False) and hasattr(layer, "reset_state")]


def _made_by(layer: Any) -> list[Any]:
    """The output tensors of a layer; none of one that is used in several places."""
    try:
        return list(import_keras().tree.flatten(layer.output))
    except (AttributeError, ValueError):
        return []


def _structures(model: Any) -> tuple[Any, Any]:
    """The nested inputs and outputs of a model that is a graph of layers."""
    if isinstance(model, import_keras().Sequential):
        return model.inputs[0], model.outputs  # .input and .output are missing until it is part of a graph
    return model.input, model.output


def _declared_inputs(model: Any) -> list[TensorSpec]:
    keras = import_keras()
    tensors = keras.tree.flatten(_structures(model)[0])
    specs = []
    for tensor in tensors:
        name = tensor._keras_history.operation.name  # the tensor's own name counts up with each loading
        if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
            raise SourceError(f"Input {name!r} is sparse or ragged; ONNX has dense tensors only.")
        specs.append(tensor_spec(name, tensor.dtype, tensor.shape, alone=len(tensors) == 1))
    if isinstance(model, keras.Sequential) and not _stateful(model):
        # A Sequential built by a call keeps that call's number of rows, and limits nobody to it.
        return [replace(spec, shape=(BATCH, *spec.shape[1:])) for spec in specs]
    return specs


def _given_inputs(model: Any, options: LoadOptions) -> tuple[TensorSpec, ...]:
    if options.inputs:
        return options.inputs
    if not options.data:
        raise UsageError(
            f"The {type(model).__name__} does not define its inputs. "
            "Pass --input NAME:DTYPE[batch,DIMS] or --data, or build it from keras.Input."
        )
    floatx = import_keras().config.floatx()
    return tuple(
        TensorSpec(name, floatx if array.dtype.kind == "f" else dtype_name(array), (BATCH, *array.shape[1:]))
        for name, array in options.data.items()
    )


def _sizes(spec: TensorSpec) -> list[int | None]:
    return [None if isinstance(dim, str) else dim for dim in spec.shape]


def _output_names(result: Any, *, layers: bool) -> Iterable[str]:
    tree = import_keras().tree
    if isinstance(result, Mapping):
        return ["_".join(map(str, path)) for path, _ in tree.flatten_with_path(result)]
    leaves = tree.flatten(result)
    if layers:
        return [leaf._keras_history.operation.name for leaf in leaves]
    return ["output"] if len(leaves) == 1 else [f"output_{position}" for position in range(len(leaves))]


def _is_softmax(tensor: Any) -> bool:
    """Whether an output is [batch, classes] out of a softmax."""
    keras = import_keras()
    layer = tensor._keras_history.operation
    softmax = isinstance(layer, keras.layers.Softmax) or (
        getattr(layer, "activation", None) is keras.activations.softmax
    )
    return softmax and len(tensor.shape) == 2


def _readers(model: Any, tensor: Any) -> Iterator[Any]:
    """The layers that read an input, those inside nested models included."""
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for position, read in enumerate(node.input_tensors):
                if read is not tensor:
                    continue
                if getattr(layer, "layers", None) and getattr(layer, "inputs", None):
                    yield from _readers(layer, layer.inputs[position])
                else:
                    yield layer


def _domain(layer: Any) -> Domain | None:
    layers = import_keras().layers
    if isinstance(layer, layers.Embedding):
        return Domain(high=layer.input_dim)
    if isinstance(layer, layers.CategoryEncoding):
        return Domain(high=layer.num_tokens)
    if isinstance(layer, layers.TextVectorization):
        words = tuple(map(str, layer.get_vocabulary()))
        return Domain(choices=(*words, *(f"{word.upper()}!" for word in words)), words=8)
    if isinstance(layer, layers.StringLookup | layers.IntegerLookup) and layer.invert:
        return Domain(high=layer.vocabulary_size())
    if isinstance(layer, layers.StringLookup | layers.IntegerLookup):
        return Domain(choices=tuple(layer.get_vocabulary()))
    if isinstance(layer, layers.Normalization) and not layer.invert:
        mean, variance = (np.asarray(value, dtype=np.float64)[0] for value in (layer.mean, layer.variance))
        return Domain(center=mean, spread=np.sqrt(variance))
    if isinstance(layer, layers.Rescaling):
        scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
        return Domain(center=-offset / scale, spread=np.abs(1 / scale), high=256)
    return None


def _archive_config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json")
    except DAMAGE as error:
        raise SourceError(f"{path} is a damaged .keras file, or is cut short. Save the model again.") from error
    return _parse(path, text)


def _hdf5_config(path: Path) -> dict[str, Any]:
    h5py = require("h5py", "keras")
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise SourceError(f"{path} is a damaged HDF5 file, or is cut short. Save the model again.") from error
    if text is None:
        raise SourceError(
            f"{path} holds weights or data, but no model: it has no model_config. "
            "Load the weights into the model in Python, and save it as .keras."
        )
    return _parse(path, text)


def _parse(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, TypeError):
        config = None
    if not isinstance(config, dict):
        raise SourceError(f"{path} holds no configuration of a Keras model. Save the model again.")
    return config


def _custom_objects(path: Path, config: Any, trust: Sequence[str]) -> dict[str, Any]:
    """Import the classes and functions of other packages that a model is made of, as far as they are trusted.

    Raises:
        UntrustedError: one is not; or the file holds code, which no trust admits.
        SourceError: a trusted one cannot be imported.
    """
    saving = import_keras().saving
    custom: dict[str, Any] = {}
    for part in _parts(config):
        kind, module = str(part["class_name"]), str(part.get("module") or "")
        if kind in UNSAFE:
            raise UntrustedError(
                f"{path} holds a {kind}, which is {UNSAFE[kind]}; none of it was run. Replace it by a registered "
                "layer class and save again, or load the model yourself and pass it to onnxtool.convert."
            )
        key = str(part.get("config") if kind == "function" else part.get("registered_name") or kind)
        if (kind.startswith("__") and not module) or module.partition(".")[0] == "keras":
            continue
        if saving.get_registered_object(key):  # the program that calls us has imported it
            continue
        name = key.rpartition(">")[2] if kind == "function" else kind.rpartition(">")[2]
        known = module not in ("", "builtins")  # functions, and all of the old format, do not say where they are
        full = f"{module if known else 'package'}.{name}"
        trusted = [entry for entry in trust if entry == full or (not known and entry.endswith(f".{name}"))]
        if trusted:
            custom[key] = _import(trusted[0])
        elif module:  # without one it may be Keras's own: Keras looks among its own names only
            raise UntrustedError(
                f"{path} needs {full}, which is not Keras's own. Pass --trust {full} to import it."
            )
    return custom


def _import(full: str) -> Any:
    module, _, name = full.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SourceError(f"--trust {full}: it cannot be imported ({first_line(error)}).") from error


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every object of a saved model."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value)


@contextmanager
def _with_suffix(path: Path, *suffixes: str) -> Iterator[Path]:
    """Give a file the suffix that Keras goes by, through a link in a folder of its own."""
    if path.suffix in suffixes:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffixes[0]}"
        link.symlink_to(path.resolve())
        yield link
