"""Steps that users wrote: `FunctionTransformer`, and estimators of their own classes.

Their code is run on traced rows; see `converters.tracing`. What a step is given, a matrix or a data frame with which
columns, is seen by running the source once on a few rows. Estimators that such a step holds convert as they do
elsewhere.
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxtool.converters.sklearn.graph import number_type
from onnxtool.converters.tracing import Given, Made, Tensor, input_name, trace
from onnxtool.converters.tracing.arrays import CURRENT, ROWS, Traced, astype, concatenate, is_traced, reshape
from onnxtool.converters.tracing.converters import converter_of
from onnxtool.converters.tracing.functions import take
from onnxtool.converters.tracing.recording import element, rename
from onnxtool.errors import ConversionError, require
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import TensorSpec, in_double
from onnxtool.models.sklearn.contrib import library_of
from onnxtool.models.sklearn.lineage import steps
from onnxtool.models.source import LoadOptions

METHODS = ("transform", "predict", "predict_proba", "decision_function")
_ROWS_SEEN = 64


@contextlib.contextmanager
def custom_steps(source: Any) -> Iterator[None]:
    """Register the classes of a model's steps that nothing else converts; within `scoping.registered` alone.

    Args:
        source: A `SklearnModel` or `BoostingModel`.
    """
    aliases = require("skl2onnx._supported_operators", "sklearn").sklearn_operator_name_map
    traced: list[Any] = []
    before: list[tuple[Any, Any]] = []
    for step, _ in steps(source.model, ()):
        inner = [part for _, part in getattr(step, "steps", ()) if hasattr(part, "fit")]
        before += pairwise(inner)
        kind = type(step)
        if kind.__name__ == "FunctionTransformer":
            if step.func is not None and not _only_checks(step.func):
                traced.append(step)
        elif kind not in aliases and any(hasattr(step, method) for method in METHODS):
            base = _known_base(kind, aliases)
            if base is not None:
                aliases[kind] = aliases[base]
            elif kind.__module__.partition(".")[0] not in ("sklearn", "skl2onnx") or converter_of(kind):
                traced.append(step)
    if not traced:
        yield
        return
    seen = _seen(source, traced)
    own = {id(step) for step in traced}
    separate = {id(step) for step, after in before if id(after) in own or hasattr(after, "transformers_")}
    update = require("skl2onnx", "sklearn").update_registered_converter
    for step in traced:
        if type(step).__name__ == "FunctionTransformer":
            continue
        kind = type(step)
        update(
            kind, f"Traced{kind.__module__}{kind.__name__}", _shapes, _write, parser=_parser(seen, separate),
            options={"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True],
                     "raw_scores": [True, False]} if _classifies(step) else None,
        )  # fmt: skip
    if any(type(step).__name__ == "FunctionTransformer" for step in traced):
        kind = require("sklearn.preprocessing", "sklearn").FunctionTransformer
        update(kind, "TracedFunctionTransformer", _shapes, _write, parser=_parser(seen, separate))
    yield


def _only_checks(function: Any) -> bool:
    return getattr(getattr(function, "func", None), "__name__", "") == "check_array"


def _known_base(kind: type, aliases: Mapping[Any, Any]) -> type | None:
    """A class that converts, and whose answers a class gives without changing them."""
    if converter_of(kind):
        return None
    for base in kind.__mro__[1:]:
        if base in aliases:
            same = all(getattr(kind, method, None) is getattr(base, method, None) for method in METHODS)
            return base if same else None
    return None


def _classifies(step: Any) -> bool:
    return bool(require("sklearn.base", "sklearn").is_classifier(step))


# -- What a step is given ---------------------------------------------------------------------------------------


def _seen(source: Any, watched: list[Any]) -> dict[int, Given]:
    """What each step is given when the source runs on a few rows."""
    seen: dict[int, Given] = {}

    def watch(step: Any, method: str, undo: contextlib.ExitStack) -> None:
        real = getattr(step, method)

        def watching(rows: Any, *args: Any, **kwargs: Any) -> Any:
            seen.setdefault(id(step), _given(rows))
            return real(rows, *args, **kwargs)

        vars(step)[method] = watching
        undo.callback(vars(step).pop, method)

    rows = getattr(source, "example", None) or make_inputs(source.rows_as, _ROWS_SEEN, 0, source.domains())
    with contextlib.ExitStack() as undo:
        for step in watched:
            for method in METHODS:
                if hasattr(step, method):
                    watch(step, method, undo)
        # A step that fails on these rows has been seen all the same, or is traced on a matrix.
        with contextlib.suppress(Exception):
            source.predict({name: tensor[:_ROWS_SEEN] for name, tensor in rows.items()})
    return seen


def _given(rows: Any) -> Given:
    if hasattr(rows, "columns") and hasattr(rows, "iloc"):
        return Given(tuple(_plain(rows.iloc[:, place]) for place in range(rows.shape[1])), tuple(rows.columns))
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    matrix = np.asarray(rows)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.dtype == object:
        return Given(tuple(_plain(matrix[:, place]) for place in range(matrix.shape[1])))
    return Given(tuple(matrix[:, place] for place in range(matrix.shape[1])))


def _plain(column: Any) -> NDArray[Any]:
    values = np.asarray(column)
    if values.dtype.kind not in "OUST":
        return values
    if all(isinstance(value, bool | int | float | np.number) for value in values):
        return values.astype(np.result_type(*(np.asarray(value).dtype for value in values)))
    return np.array([value if isinstance(value, str) else "" for value in values], dtype=object)


# -- Tracing a step ---------------------------------------------------------------------------------------------


def _parser(seen: Mapping[int, Given], separate: set[int]) -> Callable[..., Any]:
    """Trace a step as soon as its inputs are known: only then is it known what comes out.

    Args:
        seen: What each step is given, by its id.
        separate: Ids of the steps whose columns the next step picks by name, so that they stay separate.
    """

    def parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
        operator = scope.declare_local_operator(_alias(type(model)), model)
        operator.inputs = inputs
        given = seen.get(id(model))
        tensors = _tensors(inputs, given)
        made = _trace_step(model, tensors, given, scope.target_opset)
        operator.traced_ = made
        # What the steps before give is known for certain later, when shapes are worked out.
        operator.traced_again_ = lambda found: _trace_step(model, found, given, scope.target_opset)
        operator.tensors_, operator.given_ = tensors, given
        numbers = number_type(operator)
        for name, parts in made.items():
            frame = parts.names is not None
            kinds = {example.dtype == object for _, example in parts.outputs}
            if frame and len(kinds) > 1 and id(model) not in separate:
                raise ConversionError(
                    f"{type(model).__name__} gives columns of numbers and of text, "
                    "which one tensor of ONNX cannot hold. Let a ColumnTransformer that picks them by name come next."
                )
            if frame and id(model) in separate:
                for column, (_, example) in zip(parts.names or (), parts.outputs, strict=True):
                    variable = scope.declare_local_variable(str(column), _type(example, numbers, 1))
                    variable.raw_name_ = str(column)
                    operator.outputs.append(variable)
                continue
            example = parts.outputs[0][1]
            width = len(parts.outputs) if frame else None
            operator.outputs.append(scope.declare_local_variable(name, _type(example, numbers, width, name)))
        return operator.outputs

    return parse


def _alias(kind: type) -> str:
    return str(require("skl2onnx._supported_operators", "sklearn").sklearn_operator_name_map[kind])


def _type(example: NDArray[Any], numbers: Any, width: int | None, name: str = "") -> Any:
    types_ = require("skl2onnx.common.data_types", "sklearn")
    kind = types_.StringTensorType if example.dtype == object else numbers
    if name == "label" and kind is numbers:
        kind = types_.Int64TensorType
    if width is None and example.ndim == 1:
        return kind([None])
    return kind([None, width if width is not None else example.shape[1]])


def _tensors(inputs: Any, given: Given | None) -> list[Tensor]:
    """What comes in. The width of one that is not known yet is that of the rows that were seen."""
    widths = [_width(value.type) for value in inputs]
    if widths.count(0) == 1 and given is not None:
        widths[widths.index(0)] = len(given.columns) - sum(widths)
    if 0 in widths:
        raise ConversionError("A step of a user's own is given a matrix of unknown width, which is not traced.")
    return [Tensor(_numpy_dtype(value.type), width) for value, width in zip(inputs, widths, strict=True)]


def _trace_step(model: Any, tensors: list[Tensor], given: Given | None, opset: Any) -> dict[str, Made]:
    """Each output of a step, by the name that it has in ONNX."""
    total = sum(tensor.width for tensor in tensors)
    if given is None or len(given.columns) != total:
        columns = [np.ones(2, dtype=t.dtype) if t.dtype != object else np.array(["a", "b"], dtype=object)
                   for t in tensors for _ in range(t.width)]  # fmt: skip
        given = Given(tuple(columns))
    version = opset.get("", 20) if isinstance(opset, dict) else int(opset)
    what = type(model).__name__
    if what == "FunctionTransformer":
        written = _unchanged if model.func is None or _only_checks(model.func) else model.func
        function = with_delegates(written)
        arguments = (model.kw_args or {}) if model.func is written else {}
        named = getattr(model.func, "__name__", what)
        found = _trace(
            lambda rows: function(_validated(model, rows), **arguments),
            tensors, given, version, modules=_modules(model.func), what=f"FunctionTransformer({named})",
        )  # fmt: skip
        return {"variable": found}
    return {
        name: _trace(
            function,
            tensors,
            given,
            version,
            modules=_modules(type(model)),
            what=what,
            checks_pass=library_of(model) == "feature_engine",
        )
        for name, function in _functions(model).items()
    }


def _trace(*args: Any, **kwargs: Any) -> Made:
    # Whether rows are finite is for scikit-learn's checks in the source; an ONNX graph has no way to refuse them.
    with require("sklearn", "sklearn").config_context(assume_finite=True):
        return trace(*args, **kwargs)


def _unchanged(rows: Any) -> Any:
    return rows


def _validated(model: Any, rows: Any) -> Any:
    return rows.to_numpy() if model.validate and hasattr(rows, "to_numpy") else rows


def _functions(model: Any) -> dict[str, Callable[[Any], Any]]:
    """What a step of a user's own class gives, by the name that the answer has."""
    base = require("sklearn.base", "sklearn")
    own = delegating(model)

    def method(name: str) -> Callable[[Any], Any]:
        replacement = converter_of(type(model), name)
        if replacement is not None:
            return lambda rows: replacement(own, rows)
        bound = getattr(type(model), name)
        plain = getattr(bound, "__wrapped__", bound) if name == "transform" else bound
        return lambda rows: plain(own, rows)

    if hasattr(model, "predict") and (
        base.is_classifier(model) or base.is_regressor(model) or not hasattr(model, "transform")
    ):
        if not base.is_classifier(model):
            return {"variable": method("predict")}
        found = {"label": method("predict")}
        if hasattr(model, "predict_proba"):
            found["probabilities"] = method("predict_proba")
        elif hasattr(model, "decision_function"):
            found["scores"] = method("decision_function")
        return found
    return {"variable": method("transform")}


def _modules(written: Any) -> list[Any]:
    import sys

    name = getattr(written, "__module__", None) or ""
    found = sys.modules.get(name)
    return [found] if found is not None and name.partition(".")[0] not in ("numpy", "pandas", "onnxtool") else []


_DTYPES = {
    "FloatTensorType": np.float32, "DoubleTensorType": np.float64, "Int64TensorType": np.int64,
    "Int32TensorType": np.int32, "BooleanTensorType": np.bool_, "StringTensorType": np.object_,
}  # fmt: skip


def _numpy_dtype(kind: Any) -> np.dtype[Any]:
    found = _DTYPES.get(type(kind).__name__)
    if found is None:
        raise ConversionError(f"A step of a user's own is given {type(kind).__name__}, which is not traced.")
    return np.dtype(found)


def _width(kind: Any) -> int:
    """Columns of a tensor, 0 where they are not known yet."""
    shape = kind.shape
    return int(shape[1]) if len(shape) > 1 and isinstance(shape[1], int) else 0


def _shapes(operator: Any) -> None:
    """Trace again where the steps before give something else than they seemed to."""
    tensors = _tensors(operator.inputs, operator.given_)
    if tensors == operator.tensors_:
        return
    operator.traced_ = operator.traced_again_(tensors)
    numbers = number_type(operator)
    for output in operator.outputs:
        if "String" not in type(output.type).__name__ and "Int64" not in type(output.type).__name__:
            output.set_type(numbers(output.type.shape))


def _write(scope: Any, operator: Any, container: Any) -> None:
    """Put the recorded nodes into skl2onnx's container."""
    outputs = iter(operator.outputs)
    for made in operator.traced_.values():
        names = _included(scope, operator, container, made)
        parts = [(names[name], example) for name, example in made.outputs]
        if made.names is None:
            _give(scope, container, parts[0], next(outputs))
            continue
        columns = [(_column(scope, container, name), example) for name, example in parts]
        separate = len(operator.outputs) == len(parts) and len(operator.traced_) == 1 and _separate(operator)
        if separate:
            for part in columns:
                _give(scope, container, part, next(outputs))
            continue
        output = next(outputs)
        kind = _numpy_dtype(output.type)
        cast = [_cast(scope, container, part, kind) for part in columns]
        container.add_node("Concat", cast, output.full_name, name=scope.get_unique_operator_name("Concat"), axis=1)


def _separate(operator: Any) -> bool:
    return all(getattr(output, "raw_name_", None) is not None for output in operator.outputs)


def _included(scope: Any, operator: Any, container: Any, made: Made) -> dict[str, str]:
    fresh = scope.get_unique_variable_name
    names = {input_name(place): value.full_name for place, value in enumerate(operator.inputs)}
    recording = made.recording
    if any(ROWS in node.input for node in recording.nodes):
        shape, first = fresh("shape"), fresh("first")
        names[ROWS] = fresh("rows")
        container.initializers.append(onnx.numpy_helper.from_array(np.array([0]), first))
        container.nodes.append(helper.make_node("Shape", [operator.inputs[0].full_name], [shape]))
        container.nodes.append(helper.make_node("Gather", [shape, first], [names[ROWS]], axis=0))
    for name, tensor in recording.constants.items():
        names[name] = fresh(name)
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        kept.name = names[name]
        container.initializers.append(kept)
    for node in recording.nodes:
        names |= {output: fresh(output) for output in node.output if output}
    for node in recording.nodes:
        kept_node = onnx.NodeProto()
        kept_node.CopyFrom(node)
        rename(kept_node, names)
        kept_node.name = scope.get_unique_operator_name(node.op_type)
        container.nodes.append(kept_node)
    container.node_domain_version_pair_sets.add(("", recording.opset))
    for domain, version in recording.domains.items():
        container.node_domain_version_pair_sets.add((domain, version))
    return names


def _give(scope: Any, container: Any, part: tuple[str, NDArray[Any]], output: Any) -> None:
    name, example = part
    kind = _numpy_dtype(output.type)
    node = "Identity" if kind == example.dtype else "Cast"
    attributes: dict[str, Any] = {} if node == "Identity" else {"to": element(kind)}
    container.nodes.append(
        helper.make_node(node, [name], [output.full_name], name=scope.get_unique_operator_name(node), **attributes)
    )


def _cast(scope: Any, container: Any, part: tuple[str, NDArray[Any]], kind: np.dtype[Any]) -> str:
    name, example = part
    if kind == example.dtype:
        return name
    cast = str(scope.get_unique_variable_name("cast"))
    container.nodes.append(helper.make_node("Cast", [name], [cast], to=element(kind)))
    return cast


def _column(scope: Any, container: Any, name: str) -> str:
    shape, column = scope.get_unique_variable_name("shape"), scope.get_unique_variable_name("column")
    container.initializers.append(onnx.numpy_helper.from_array(np.array([-1, 1]), shape))
    container.nodes.append(helper.make_node("Reshape", [name, shape], [column]))
    return str(column)


# -- Estimators inside a step of a user's own -------------------------------------------------------------------


class Delegate:
    """Stands for a fitted estimator that a step holds: traced rows go through its own conversion."""

    def __init__(self, model: Any) -> None:
        self.__dict__["_model"] = model

    @property
    def __class__(self) -> Any:
        """What `isinstance` takes it for."""
        return type(self.__dict__["_model"])

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError("an estimator's class is changed")

    def __getattr__(self, name: str) -> Any:
        """What the estimator has, its methods on traced rows converted."""
        model = self.__dict__["_model"]
        found = getattr(model, name)
        if name not in METHODS:
            return found

        def answer(rows: Any, *args: Any, **kwargs: Any) -> Any:
            return _answer(model, name, rows) if _is_traced(rows) else found(rows, *args, **kwargs)

        return answer

    def __sklearn_is_fitted__(self) -> bool:
        """It is: it was saved so."""
        return True


def _is_traced(rows: Any) -> bool:
    return is_traced(rows) or type(rows).__name__ in ("TracedFrame", "TracedSeries")


def delegating(model: Any) -> Any:
    """A copy of a step whose estimators convert."""
    found = copy.copy(model)
    for name, value in list(vars(found).items()):
        vars(found)[name] = _delegated(value)
    return found


class Table(np.ndarray[Any, np.dtype[Any]]):
    """An array that a step holds, of which traced places are looked up."""

    def __getitem__(self, key: Any) -> Any:
        """A part of it."""
        if is_traced(key) and key.dtype.kind in "iu":
            return take(np.asarray(self), key, axis=0)
        return super().__getitem__(key)


def _delegated(value: Any) -> Any:
    if _is_fitted_estimator(value):
        return Delegate(value)
    if type(value) is np.ndarray:
        return value.view(Table)
    if type(value) in (list, tuple):
        return type(value)(map(_delegated, value))
    if type(value) is dict:
        return {key: _delegated(each) for key, each in value.items()}
    return value


def _is_fitted_estimator(value: Any) -> bool:
    base = require("sklearn.base", "sklearn").BaseEstimator
    if isinstance(value, type) or not isinstance(value, base) or type(value) is Delegate:
        return False
    return any(name.endswith("_") and not name.startswith("__") for name in vars(value)) or hasattr(value, "steps")


def with_delegates(function: Any) -> Any:
    """A function of which the estimators that it uses, global or enclosed, convert."""
    if not isinstance(function, types.FunctionType):
        return function
    names = {
        name: _delegated(value)
        for name, value in function.__globals__.items()
        if name in function.__code__.co_names
    }
    changed = {name: value for name, value in names.items() if value is not function.__globals__[name]}
    cells = tuple(types.CellType(_delegated(cell.cell_contents)) for cell in function.__closure__ or ())
    if not changed and not any(type(cell.cell_contents) in (Delegate, Table) for cell in cells):
        return function
    scope = {**function.__globals__, **changed}
    made = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells or None)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_ANSWERS = {
    "transform": ("transformed",), "predict": ("label", "prediction"), "predict_proba": ("probabilities",),
    "decision_function": ("scores",),
}  # fmt: skip


def _answer(model: Any, method: str, rows: Any) -> Any:
    """What a fitted estimator answers to traced rows, through its own conversion."""
    from onnxtool.converters.sklearn import convert_registered

    trace_now = CURRENT.get()
    assert trace_now is not None  # noqa: S101 - rows are traced
    if type(rows).__name__ == "TracedSeries":
        rows = rows.to_frame()
    token = CURRENT.set(None)  # what follows runs on arrays of numbers, not on traced ones
    try:
        source, seen = _inner_source(model, rows)
        converted = convert_registered(source, trace_now.recording.opset).model
        answered = getattr(model, method)(seen)
    finally:
        CURRENT.reset(token)
    frame = type(rows).__name__ == "TracedFrame"
    feeds = {spec.name: _fed(spec, rows, frame).name for spec in source.inputs}
    outputs = trace_now.recording.include(converted, feeds)
    kinds = {value.name: value.type.tensor_type.elem_type for value in converted.graph.output}
    name = next((name for name in outputs if name.startswith(_ANSWERS[method])), None)
    if name is None:
        raise ConversionError(f"{type(model).__name__}.{method} has no conversion to ONNX.")
    answered = answered.toarray() if hasattr(answered, "toarray") else np.asarray(answered)
    answered = answered.astype(object) if answered.dtype.kind in "US" else answered
    dtype = np.dtype(object) if kinds[name] == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kinds[name])
    given = Traced(outputs[name], answered.reshape(len(answered), -1).astype(dtype))
    return astype(reshape(given, answered.shape), answered.dtype)


def _inner_source(model: Any, rows: Any) -> tuple[Any, Any]:
    """An estimator as a source for rows of the kind that it is given, and the example's rows."""
    from onnxtool.models.sklearn import SklearnModel

    if type(rows).__name__ != "TracedFrame":
        dtype = "string" if rows.dtype == object else str(rows.dtype)
        spec = TensorSpec("X", dtype, ("batch", rows.shape[1]))
        return SklearnModel(model, LoadOptions(inputs=(spec,))), rows.example
    example = {str(name): array.example for name, array in rows.columns_.items()}
    source = SklearnModel(model, LoadOptions(data=example))
    source.inputs = in_double(source.inputs)
    return source, require("pandas", "sklearn").DataFrame(example, copy=True)


def _fed(spec: TensorSpec, rows: Any, frame: bool) -> Traced:
    if not frame:
        return rows  # type: ignore[no-any-return]
    names = spec.columns or (spec.name,)
    known = {str(name): array for name, array in rows.columns_.items()}
    matrix = concatenate([known[name][:, None] for name in names], 1)
    return matrix if spec.dtype == "string" else astype(matrix, np.dtype(spec.dtype))
