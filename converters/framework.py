"""What a framework brings, and the registry that finds it.

A framework is registered through the entry-point group `onnxtool.frameworks`, the built-in ones too:

    [project.entry-points."onnxtool.frameworks"]
    paddle = "onnxtool_paddle:FRAMEWORK"

The module named there must import nothing heavy: it is imported to look at any source file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeAlias

import onnx

from onnxtool.errors import ConversionError, SourceError
from onnxtool.models.mlflow_folder import is_mlflow, model_in
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.sandbox.source import SandboxedSource

Target: TypeAlias = Literal["ort", "mlnet"]
GROUP = "onnxtool.frameworks"


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How a source model is converted.

    Attributes:
        opset: Version of the default operator set, or None for the framework's default.
        target: The runtime that will load the model.
        rows: The user's own rows, for converters that try several ways; none where there are none.
    """

    opset: int | None = None
    target: Target = "ort"
    rows: Tensors = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversion:
    """An ONNX model, and what was chosen on the way.

    Attributes:
        model: Inputs and outputs have the source's names; `finish` adds metadata and dimension names.
        choices: Sentences for the report: which option was taken and why.
    """

    model: onnx.ModelProto
    choices: list[str] = field(default_factory=list)


class Framework(ABC):
    """A framework whose models can be converted. Subclass it and register an instance.

    Attributes:
        name: Short name, shown to users and kept in reports.
        extra: The extra of onnxtool (or the distribution) that installs what it needs.
        max_opset: Highest default opset that its converter writes.
        default_opset: The opset used when none is asked for.
        confined: Whether its files are opened in a process of their own when limits are given.
    """

    name: str
    extra: str
    max_opset: int
    default_opset: int
    confined: bool = True

    @abstractmethod
    def recognises(self, source: str) -> bool:
        """Whether a path's *content*, or a `package.module:callable`, is a model of this framework."""

    @abstractmethod
    def owns(self, model: object) -> bool:
        """Whether a live object is a model of this framework. It must not import the framework."""

    @abstractmethod
    def load(self, source: str, options: LoadOptions) -> object:
        """Open a file that `recognises` accepted, and return the live object, of this framework or another.

        Raises:
            SourceError: the file is damaged or not safe.
            MissingExtraError: the framework is not installed.
        """

    @abstractmethod
    def wrap(self, model: object, options: LoadOptions) -> SourceModel:
        """See a live object as a function of named tensors."""

    @abstractmethod
    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert.

        Args:
            source: What `wrap` returned.
            example: A few valid rows, for converters that trace.
            options: As the user asked; the opset is within `max_opset`.

        Raises:
            ConversionError: ONNX, or the converter, cannot express the model.
        """


@cache
def frameworks() -> dict[str, Framework]:
    """All registered frameworks by name.

    Raises:
        ConversionError: two distributions register the same name, or one registers something else or broken.
    """
    found: dict[str, Framework] = {}
    for point in entry_points(group=GROUP):
        try:
            framework = point.load()
        except ImportError as error:
            raise ConversionError(
                f"The framework {point.name!r} ({point.value}) cannot be imported: {error}. "
                "Mend or uninstall the distribution that registers it."
            ) from error
        if not isinstance(framework, Framework):
            raise ConversionError(f"Entry point {point.value!r} in {GROUP!r} is not an onnxtool Framework.")
        if framework.name in found:
            raise ConversionError(
                f"Two distributions register the framework {framework.name!r} "
                f"({point.value} and {type(found[framework.name]).__module__}). Uninstall one of them."
            )
        found[framework.name] = framework
    return found


def open_source(source: object, options: LoadOptions) -> SourceModel:
    """Recognise and open a source model.

    Args:
        source: A path, a folder in MLflow's format, a `package.module:callable`, or a live estimator, module or
            Keras model.
        options: How to open it.

    Raises:
        SourceError: nothing recognises it, it cannot be opened, or it takes more than its limits.
    """
    if isinstance(source, SourceModel):
        return source
    path = None
    model = source
    if isinstance(source, str | Path):
        text = str(model_in(Path(source)) if is_mlflow(Path(source)) else source)
        framework = _by(lambda f: f.recognises(text), _unrecognised(text))
        path = Path(text) if Path(text).exists() else None
        if options.limits and framework.confined and path:
            return SandboxedSource(str(source), options, options.limits)
        model = framework.load(text, options)
    owner = _by(lambda f: f.owns(model), f"No framework knows what to do with a {_class_name(model)}.")
    wrapped = owner.wrap(model, options)
    wrapped.path = path
    return wrapped


def convert_source(source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
    """Convert a model that `open_source` opened, where it was opened; see `Framework.convert`."""
    if isinstance(source, SandboxedSource):
        return Conversion(*source.convert(example, options))
    return frameworks()[source.framework].convert(source, example, options)


def _by(test: Callable[[Framework], bool], otherwise: str) -> Framework:
    framework = next((framework for framework in frameworks().values() if test(framework)), None)
    if framework is None:
        raise SourceError(otherwise)
    return framework


def _class_name(model: Any) -> str:
    kind = type(model)
    return f"{kind.__module__}.{kind.__qualname__}"


def _unrecognised(source: str) -> str:
    path = Path(source)
    known = (
        "Known are scikit-learn pickles (.skops, .joblib, .pkl), PyTorch .pt2 files and package.module:callable, "
        "Keras .keras and .h5, TensorFlow SavedModel folders and .tflite files, XGBoost, LightGBM and CatBoost model "
        "files, MLflow model folders, and ONNX."
    )
    if not path.exists():
        return f"{source}: no such file or folder. {known}"
    if path.is_file() and path.stat().st_size == 0:
        return f"{source} is empty. Save the model again."
    if path.is_dir():
        return f"{source} is a folder, but no SavedModel (it holds no saved_model.pb). {known}"
    return f"{source} is not recognised by its content. {known}"
