"""The interface of a framework, and the registry that finds frameworks.

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
from typing import TypeAlias, TypeGuard

import onnx

from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.plugins import registered
from onnxtool.reports.model import SavedBy

GROUP = "onnxtool.frameworks"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of comparing a conversion with its source.

    Attributes:
        off: Rows out of tolerance; None where ONNX Runtime refuses the model.
        finding: What was found, as half a sentence.
    """

    off: int | None
    finding: str


Compare: TypeAlias = Callable[[SourceModel, onnx.ModelProto, Tensors], Agreement]
"""Compares a conversion with its source, on the user's rows or, where there are none, on rows that are made up."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Options of a conversion.

    Attributes:
        opset: Version of the default operator set, or None for the framework's default.
        target: Name of the deployment target.
        rows: The user's own rows, for converters that try several ways; none where there are none.
        compare: How they find out which way agrees; None takes the first.
        inputs: What the model is to take, where that is not what the source says: the same inputs with other dtypes.
        inexact_rows: Whether rows have numbers that float32 cannot hold, so that a float32 input rounds them.
    """

    opset: int | None = None
    target: str = "ort"
    rows: Tensors = field(default_factory=dict)
    compare: Compare | None = None
    inputs: tuple[TensorSpec, ...] = ()
    inexact_rows: bool = False


@dataclass(frozen=True, slots=True)
class Conversion:
    """An ONNX model, and the options that were chosen.

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
        default_opset: The opset used when the user gives none.
        keeps_opset: Whether a model keeps its own opset when the user gives none.
        confined: Whether its files are opened in a separate process when limits are given.
    """

    name: str
    extra: str
    max_opset: int
    default_opset: int
    keeps_opset: bool = False
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
        """Wrap a live object as a function of named tensors."""

    def saved_by(self, source: str, model: object) -> list[SavedBy]:
        """The releases that saved a file, as far as it names them.

        Args:
            source: The file.
            model: What `load` made of it.
        """
        return []

    def register_steps(self) -> None:  # noqa: B027 - most frameworks have none
        """Make its estimators known to skl2onnx, so that they convert as steps of a scikit-learn pipeline."""

    @abstractmethod
    def convert(self, source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
        """Convert.

        Args:
            source: What `wrap` returned.
            example: A few valid rows, for converters that trace.
            options: The user's options; the opset is within `max_opset`.

        Raises:
            ConversionError: ONNX, or the converter, cannot express the model.
        """


@cache
def frameworks() -> dict[str, Framework]:
    """All registered frameworks by name.

    Raises:
        UsageError: two distributions register the same name, or one registers something else or broken.
    """
    return registered(GROUP, "framework", _is_framework)


def _is_framework(plugin: object) -> TypeGuard[Framework]:
    return isinstance(plugin, Framework)
