"""Requests to a confined source model, and its answers: a length in 8 bytes, then a message of `channel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter

from onnxtool import errors
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Role, Tensors, TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.reports.model import SavedBy

Request = Literal[
    "confinement", "open", "predict", "answers", "alternatives", "in_double", "steps", "domains", "convert"
]

OPTIONS = TypeAdapter(LoadOptions)
"""`LoadOptions` as JSON; their arrays are sent separately."""

SPECS = TypeAdapter(tuple[TensorSpec, ...])
"""Inputs as JSON."""

ANSWER, CONVERTED = "answer", "model.onnx"
"""Name of a folder in the process's own, and of the file in there, to which it converts."""


class Description(BaseModel):
    """The attributes of a `SourceModel`."""

    framework: str
    framework_version: str
    kind: str
    inputs: tuple[TensorSpec, ...]
    rows_as: tuple[TensorSpec, ...]
    any_number: bool
    roles: dict[str, Role]
    classes: tuple[tuple[str, ...], ...]
    path: str | None
    notes: tuple[str, ...]
    saved_by: tuple[SavedBy, ...]
    bounds: dict[str, tuple[int, int]]


class PlainDomain(BaseModel):
    """A `Domain` without arrays."""

    choices: tuple[str | bool | int | float | None, ...]
    center: float | list[float]
    spread: float | list[float]
    landmarks: list[list[float]]
    low: int
    high: int
    words: int
    missing: float
    columns: tuple[PlainDomain, ...]

    @classmethod
    def of(cls, domain: Domain) -> PlainDomain:
        """From a domain."""
        return cls(
            choices=tuple(
                choice.item() if isinstance(choice, np.generic) else choice for choice in domain.choices
            ),
            center=np.asarray(domain.center).tolist(),
            spread=np.asarray(domain.spread).tolist(),
            landmarks=[np.asarray(marks).tolist() for marks in domain.landmarks],
            low=domain.low,
            high=domain.high,
            words=domain.words,
            missing=domain.missing,
            columns=tuple(cls.of(column) for column in domain.columns),
        )

    def domain(self) -> Domain:
        """The domain again."""
        return Domain(
            choices=self.choices,
            center=_numbers(self.center),
            spread=_numbers(self.spread),
            landmarks=tuple(np.asarray(marks, dtype=np.float64) for marks in self.landmarks),
            low=self.low,
            high=self.high,
            words=self.words,
            missing=self.missing,
            columns=tuple(column.domain() for column in self.columns),
        )


def error_class(name: str) -> type[errors.OnnxtoolError] | None:
    """The error of ours that has a name."""
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, errors.OnnxtoolError) else None


def joined(**groups: Tensors) -> Tensors:
    """Several groups of arrays as one."""
    return {f"{group}/{name}": array for group, tensors in groups.items() for name, array in tensors.items()}


def group_of(tensors: Mapping[str, NDArray[Any]], group: str) -> Tensors:
    """One of the groups that `joined` joined."""
    start = f"{group}/"
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}


def _numbers(value: float | list[float]) -> float | NDArray[np.float64]:
    return np.asarray(value, dtype=np.float64) if isinstance(value, list) else value
