"""Models of Keras 2 as sources, through the package tf_keras: `.keras` and `.h5` files, and live models."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onnxtool.errors import SourceError, UntrustedError, UsageError, require
from onnxtool.models import tensorflow
from onnxtool.models.keras.files import custom_objects, domain_of, parts, with_suffix
from onnxtool.models.rows.domain import Domain
from onnxtool.models.safety.tensorflow_operators import OPERATORS
from onnxtool.models.signature import BATCH, Tensors, TensorSpec, dtype_name
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.models.state import ModelState, keeping, weights_of
from onnxtool.models.tensorflow import override, quiet, reason, tensor_spec, unique

_COMPUTING = ("__operators__", "bitwise", "dtypes", "image", "linalg", "math", "nn", "signal", "strings")
"""Modules of `tf` whose functions touch neither files nor Python."""

_FUNCTIONS = frozenset({
    "abs", "add", "add_n", "argmax", "argmin", "argsort", "batch_to_space", "boolean_mask", "broadcast_to",
    "cast", "clip_by_norm", "clip_by_value", "concat", "cond", "constant", "convert_to_tensor", "cos",
    "cumsum", "divide", "dynamic_partition", "dynamic_stitch", "einsum", "ensure_shape", "equal", "erf",
    "exp", "expand_dims", "eye", "fill", "floor", "floordiv", "gather", "gather_nd", "greater",
    "greater_equal", "identity", "less", "less_equal", "linspace", "log", "logical_and", "logical_not",
    "logical_or", "logical_xor", "matmul", "maximum", "meshgrid", "minimum", "mod", "multiply", "negative",
    "norm", "not_equal", "one_hot", "ones", "ones_like", "pad", "pow", "range", "rank", "realdiv",
    "reduce_all", "reduce_any", "reduce_logsumexp", "reduce_max", "reduce_mean", "reduce_min", "reduce_prod",
    "reduce_sum", "repeat", "reshape", "reverse", "reverse_sequence", "roll", "round", "saturate_cast",
    "scatter_nd", "searchsorted", "sequence_mask", "shape", "sigmoid", "sign", "sin", "size", "slice", "sort",
    "space_to_batch", "split", "sqrt", "square", "squeeze", "stack", "stop_gradient", "strided_slice",
    "subtract", "tan", "tanh", "tensor_scatter_nd_add", "tensor_scatter_nd_max", "tensor_scatter_nd_min",
    "tensor_scatter_nd_sub", "tensor_scatter_nd_update", "tensordot", "tile", "to_float", "transpose",
    "truediv", "truncatediv", "truncatemod", "unique", "unstack", "where", "zeros", "zeros_like",
})  # fmt: skip
"""Functions of `tf` itself of which the same holds."""


class Keras2Model(SourceModel):
    """A model of Keras 2, run with `training=False`.

    Attributes:
        outputs: Names of the outputs, in order: keys of a dict, else names of the layers they come from.
    """

    framework = "keras"
    _state: ModelState | None = None

    def __init__(self, model: Any, options: LoadOptions) -> None:
        keras = import_keras2()
        tf = tensorflow.import_tensorflow()
        self.model = model
        self.framework_version = f"{keras.__version__} (tf_keras)"
        if model.inputs:
            self.inputs = override(_declared_inputs(model), options.inputs)
        else:
            self.inputs = _given_inputs(model, options)
        self._graph = tf.function(self.call, reduce_retracing=True)
        traced = self._trace()
        if isinstance(traced, Mapping):
            names = [str(name) for name in sorted(traced)]
        elif model.inputs:
            names = [tensor._keras_history.layer.name for tensor in tf.nest.flatten(model.outputs)]
        else:
            count = len(tf.nest.flatten(traced))
            names = ["output"] if count == 1 else [f"output_{position}" for position in range(count)]
        self.outputs = unique(names, taken=[spec.name for spec in self.inputs])
        last = [tensor._keras_history.layer for tensor in tf.nest.flatten(model.outputs)] if model.inputs else []
        softmax = keras.activations.softmax
        self.roles = {
            name: "probabilities"
            for name, layer in zip(self.outputs, last, strict=False)
            if isinstance(layer, keras.layers.Softmax) or getattr(layer, "activation", None) is softmax
        }

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put back the variables that a run changes; see `models.state`."""
        self._state = self._state or ModelState(weights_of(self.model))
        with keeping(self, self._state):
            yield

    @property
    def kind(self) -> str:
        """The model's class and name, as in `tf_keras.Functional mobilenet`."""
        kind = type(self.model)
        return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__} {self.model.name}"

    def call(self, *tensors: Any) -> list[Any]:
        """Run the model on `tf.Tensor`s, one an input; it can be traced."""
        outputs: list[Any] = tensorflow.import_tensorflow().nest.flatten(self._apply(*tensors))
        return outputs

    def predict(self, tensors: Tensors) -> Tensors:
        """Run the model; see `SourceModel`. Recurrent layers that keep a state start anew."""
        self.reset_states()
        with quiet():
            return tensorflow.run(self._graph, self.inputs, self.outputs, tensors)

    def reset_states(self) -> None:
        """Forget what stateful recurrent layers remember of earlier batches."""
        for layer in self.model._flatten_layers():
            if (
                getattr(layer, "stateful", False)
                and getattr(layer, "states", None)
                and layer.states[0] is not None
            ):
                layer.reset_states()

    def domains(self) -> Mapping[str, Domain]:
        """The domains of the inputs, from the layers that read them: vocabularies, means and deviations."""
        if not self.model.inputs:
            return {}
        tensors = tensorflow.import_tensorflow().nest.flatten(self.model.inputs)
        layers = import_keras2().layers
        found = {}
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            domains = (domain_of(layer, layers) for layer in _readers(self.model, tensor))
            if (domain := next(filter(None, domains), None)) is not None:
                found[spec.name] = domain
        return found

    def _apply(self, *tensors: Any) -> Any:
        if self.model.inputs:
            tf = tensorflow.import_tensorflow()
            sequential = isinstance(self.model, import_keras2().Sequential)
            structure = self.model.inputs[0] if sequential else self.model.input
            return self.model(tf.nest.pack_sequence_as(structure, tensors), training=False)
        if len(tensors) == 1:
            return self.model(tensors[0], training=False)
        named = {spec.name: tensor for spec, tensor in zip(self.inputs, tensors, strict=True)}
        return self.model(named, training=False)

    def _trace(self) -> Any:
        tf = tensorflow.import_tensorflow()
        specs = [
            tf.TensorSpec([None if isinstance(dim, str) else dim for dim in spec.shape], spec.dtype)
            for spec in self.inputs
        ]
        try:
            with quiet():
                return tf.function(self._apply).get_concrete_function(*specs).structured_outputs
        except Exception as error:  # layers raise whatever they like
            raise SourceError(
                f"The model cannot be traced on {', '.join(map(str, self.inputs))}: {reason(error)}"
            ) from error


def import_keras2() -> Any:
    """Import tf_keras, without chatter.

    Raises:
        MissingExtraError: it is not installed.
    """
    tensorflow.import_tensorflow()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return require("tf_keras", "keras2")


def has_keras2() -> bool:
    """Whether tf_keras is installed."""
    return find_spec("tf_keras") is not None


def load_keras2(path: Path, config: dict[str, Any], options: LoadOptions, *, hdf5: bool) -> Any:
    """Load a model that Keras 2 saved, without its optimizer and losses.

    Args:
        path: The file.
        config: The configuration in it.
        options: What is trusted.
        hdf5: Whether it is an HDF5 file.

    Raises:
        SourceError: the configuration does not fit the weights or Keras.
        UntrustedError: it needs code that is not Keras's own; nothing of it has run.
    """
    keras = import_keras2()
    custom = custom_objects(path, config, options.trust, keras, own=("keras", "tf_keras"))
    _check(path, config, keras)
    try:
        with (
            quiet(),
            warnings.catch_warnings(),
            with_suffix(path, *((".h5", ".hdf5") if hdf5 else (".keras",))) as file,
        ):
            warnings.simplefilter("ignore")
            return keras.models.load_model(file, custom_objects=custom, compile=False, safe_mode=True)
    except Exception as error:  # layers raise whatever they like on a config that does not suit them
        if unknown := re.search(r"Unknown [\w ]+: '?(?:\w+>)?(\w+)", str(error)):
            raise UntrustedError(
                f"{path} needs {unknown[1]}, which is not Keras's own. Pass --trust MODULE.{unknown[1]} with the "
                "module that has it, which lies next to the model or in the folder of --code."
            ) from error
        raise SourceError(f"{path} cannot be loaded by Keras {keras.__version__}: {reason(error)}") from error


def _check(path: Path, config: dict[str, Any], keras: Any) -> None:
    """Check what tf_keras would look up by name: in any of its modules, and in all of TensorFlow."""
    kinds = (
        keras.layers.Layer, keras.initializers.Initializer, keras.regularizers.Regularizer,
        keras.constraints.Constraint, keras.mixed_precision.Policy,
    )  # fmt: skip
    for part in parts(config):
        kind, module = str(part["class_name"]), str(part.get("module") or "")
        inner = part.get("config")
        if kind in ("TFOpLambda", "SlicingOpLambda"):
            function = str(inner.get("function")) if isinstance(inner, dict) else ""
            if not _computes(function):
                raise _refusal(path, f"calls tf.{function}")
        elif kind == "TensorFlowOpLayer":
            if not isinstance(inner, dict) or _operator(inner) not in OPERATORS:
                raise _refusal(path, "holds an operator that is none of TensorFlow's that only compute")
        elif kind in ("ClassMethod", "InstanceMethod", "InstanceProperty"):
            raise _refusal(path, f"holds a {kind}, which calls any method by its name")
        elif module.partition(".")[0] in ("keras", "tf_keras"):
            if kind == "function":
                if not module.endswith("activations"):
                    raise _refusal(path, f"calls {module}.{inner}")
                continue
            try:
                found = getattr(importlib.import_module(f"tf_keras{module[module.index('keras') + 5 :]}"), kind)
            except (ImportError, AttributeError) as error:
                raise SourceError(
                    f"{path} needs {module}.{kind}, which Keras {keras.__version__} does not have."
                ) from error
            if not (isinstance(found, type) and issubclass(found, kinds)):
                raise _refusal(path, f"calls {module}.{kind}")


def _computes(function: str) -> bool:
    name = function.removeprefix("compat.v1.")
    return name in _FUNCTIONS or name.partition(".")[0] in _COMPUTING


def _operator(config: Mapping[str, Any]) -> str:
    node = config.get("node_def")
    if isinstance(node, dict):
        return str(node.get("op"))
    found = re.search(r'"op": *"(\w+)"|\bop: "(\w+)"', str(node))
    return next(filter(None, found.groups()), "") if found else ""


def _refusal(path: Path, what: str) -> UntrustedError:
    return UntrustedError(
        f"{path} {what}; none of it was run. Load the model yourself, and pass it to onnxtool.convert."
    )


def _declared_inputs(model: Any) -> list[TensorSpec]:
    specs = []
    for tensor in model.inputs:
        name = tensor._keras_history.layer.name
        if not isinstance(tensor.type_spec, tensorflow.import_tensorflow().TensorSpec):
            raise SourceError(f"Input {name!r} is sparse or ragged; ONNX has dense tensors only.")
        shape = tuple(tensor.shape)
        if isinstance(model, import_keras2().Sequential) and not model.stateful:
            shape = (None, *shape[1:])  # one built by a call keeps that call's number of rows
        specs.append(tensor_spec(name, tensor.dtype.name, shape, alone=len(model.inputs) == 1))
    return specs


def _given_inputs(model: Any, options: LoadOptions) -> tuple[TensorSpec, ...]:
    if options.inputs:
        return tuple(options.inputs)
    if not options.data:
        raise UsageError(
            f"The {type(model).__name__} does not define its inputs. "
            "Pass --input NAME:DTYPE[batch,DIMS] or --data, or build it from tf_keras.Input."
        )
    return tuple(
        TensorSpec(name, "float32" if array.dtype.kind == "f" else dtype_name(array), (BATCH, *array.shape[1:]))
        for name, array in options.data.items()
    )


def _readers(model: Any, tensor: Any) -> Iterator[Any]:
    """The layers that read an input, those inside nested models included."""
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for position, read in enumerate(node.keras_inputs):
                if read is not tensor or node.is_input:
                    continue
                if getattr(layer, "layers", None) and getattr(layer, "inputs", None):
                    yield from _readers(layer, layer.inputs[position])
                else:
                    yield layer
