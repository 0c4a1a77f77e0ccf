"""Keras models as sources (those of Keras 2 are in `keras2`): `.keras` and `.h5` files, and live models."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.errors import SourceError, UsageError
from onnxtool.models.keras.backend import as_graph, backend, import_keras, run, version
from onnxtool.models.keras.files import custom_objects, domain_of, is_hdf5, read_config, saved_version, with_suffix
from onnxtool.models.keras.keras2 import has_keras2, load_keras2
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import BATCH, Tensors, TensorSpec, dtype_name
from onnxtool.models.source import LoadOptions, SourceModel, Step
from onnxtool.models.state import ModelState, keeping, weights_of
from onnxtool.models.tensorflow import override, quiet, reason, tensor_spec, unique


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
        layers = import_keras().layers
        found = {}
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            domain = next(filter(None, (domain_of(layer, layers) for layer in _readers(self.model, tensor))), None)
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


def load_keras(path: Path, options: LoadOptions) -> Any:
    """Load a model in safe mode, without its optimizer and losses: with tf_keras where Keras 2 saved it.

    Without tf_keras, a file of Keras 2 is loaded by Keras 3 as far as that takes it.

    Raises:
        SourceError: the file is damaged, or holds weights only.
        UntrustedError: it needs code that is not Keras's own; nothing of it has run.
    """
    config, hdf5, saved_by = read_config(path), is_hdf5(path), saved_version(path) or ""
    old = saved_by.startswith("2.")
    if old and has_keras2():
        return load_keras2(path, config, options, hdf5=hdf5)
    keras = import_keras()
    custom = custom_objects(path, config, options.trust, keras)
    suffixes = (".h5", ".hdf5") if hdf5 else (".keras",)
    try:
        with quiet(), warnings.catch_warnings(), with_suffix(path, *suffixes) as file:
            warnings.filterwarnings("ignore", category=UserWarning, module="keras")
            return keras.models.load_model(file, custom_objects=custom, compile=False, safe_mode=True)
    except Exception as error:  # layers raise whatever they like on a config that does not suit them
        if old:
            raise SourceError(
                f"{path} was saved by Keras {saved_by}, and Keras {keras.__version__} does not take it "
                f"({reason(error)}). Install Keras 2 too: pip install 'onnxtool[keras2]'."
            ) from error
        raise SourceError(f"{path} cannot be loaded by Keras {keras.__version__}: {reason(error)}") from error


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
