"""The owner's own answers as the truth: saved with the release that trained a model, where another one reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import DataError
from onnxtool.models.rows.data import UNNAMED, Data, to_arrays
from onnxtool.models.signature import Tensors, dtype_name
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import OutputParity
from onnxtool.validators.numerics.comparison import OutputComparison
from onnxtool.validators.numerics.tolerance import Tolerances


@dataclass(frozen=True, slots=True)
class Expected:
    """Answers to all rows of the data.

    Attributes:
        tensors: By the output's name, or as the file has them; rows along the first axis.
        origin: The file.
    """

    tensors: Tensors
    origin: str


def read_expected(data: Data | None) -> Expected | None:
    """Read answers in any form that data has.

    Raises:
        DataError: the file cannot be read, or the answers differ in their number of rows.
    """
    if data is None:
        return None
    tensors, origin = to_arrays(data)
    if len({len(array) for array in tensors.values() if array.ndim}) != 1 or not all(
        array.ndim for array in tensors.values()
    ):
        raise DataError(f"{origin}: the answers differ in their number of rows.")
    return Expected(tensors, origin)


class Answers:
    """Puts the owner's answers in the place of the source's, and counts where the two differ.

    Args:
        expected: The owner's answers.
        source: The model whose outputs they are.
        answered: Its answers for the first rows, which show the shapes of its outputs.
        tolerances: What the ONNX model may differ by, and the source too.

    Raises:
        DataError: the answers fit no output.
    """

    def __init__(self, expected: Expected, source: SourceModel, answered: Tensors, tolerances: Tolerances) -> None:
        self._origin = expected.origin
        self._reader = f"{source.framework} {source.framework_version}"
        self._answers = _matched(expected, answered)
        self._classes = source.classes[0] if len(source.classes) == 1 else ()
        self._roles = source.roles
        self._label = next(
            (name for name, role in source.roles.items() if role == "label" and name in answered), None
        )
        self._ranked = next(
            (name for name, role in source.roles.items() if role == "probabilities" and name in self._answers),
            None,
        )
        if self._label in self._answers or not (self._ranked and self._classes):
            self._label = None  # it is in the file, or cannot be derived from the file
        self._own = {
            name: OutputComparison(name, source.roles.get(name, "values"), tolerances) for name in self._answers
        }

    def instead_of(self, answered: Tensors, start: int) -> Tensors:
        """The truth of some rows.

        Args:
            answered: The source's answers, which stay where the owner gave none.
            start: Position of the first of the rows.

        Raises:
            DataError: there are fewer answers than rows, or they are of another shape than the output.
        """
        truth = dict(answered)
        for name, answers in self._answers.items():
            rows = answers[start : start + len(answered[name])]
            if len(rows) < len(answered[name]):
                raise DataError(f"{self._origin} holds answers to {len(answers)} rows only; the data has more.")
            truth[name] = rows.reshape(answered[name].shape)
            self._own[name].update(truth[name], answered[name])
        if self._label and self._ranked:
            if np.array_equal(self._likeliest(answered), answered[self._label].reshape(-1)):
                truth[self._label] = self._likeliest(truth).reshape(answered[self._label].shape)
            else:
                self._label = None  # its label is not its likeliest class
        return truth

    def finish(self, results: Sequence[OutputParity], rows: int, data: str) -> list[OutputParity]:
        """The results, with what each output was compared with.

        Args:
            results: Results of the comparison with the ONNX model.
            rows: How many rows there were.
            data: Where they came from.

        Raises:
            DataError: there are more answers than rows.
        """
        for answers in self._answers.values():
            if len(answers) != rows:
                raise DataError(f"{self._origin} holds answers to {len(answers)} rows, and {data} has {rows}.")
        known = {*self._answers, self._label}
        return [
            result.model_copy(update={"truth": "expected" if result.name in known else "source"})
            for result in results
        ]

    @property
    def notes(self) -> list[str]:
        """Notes on the origin of the expected answers, and on how far the source agrees with them."""
        notes = [f"Compared with the answers in {self._origin}, not with the source: {', '.join(self._answers)}."]
        if self._label:
            notes.append(f"{self._label}: compared with the likeliest class by {self._origin}.")
        for name, comparison in self._own.items():
            found = comparison.result()
            if found.mismatched_rows:
                notes.append(
                    f"{name}: the source itself, read by {self._reader}, differs from {self._origin} on "
                    f"{found.mismatched_rows} of {found.rows} rows."
                )
        return notes

    def _likeliest(self, answers: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        assert self._label and self._ranked  # noqa: S101 - called only then
        places = answers[self._ranked].argmax(axis=1)
        names = np.array(self._classes, dtype=object)[places]
        return names if answers[self._label].dtype.kind == "O" else np.array([_number(name) for name in names])


def _number(name: str) -> int:
    """A class's number by its name in Python."""
    return {"True": 1, "False": 0}[name] if name in ("True", "False") else int(float(name))


def _matched(expected: Expected, answered: Tensors) -> Tensors:
    """The owner's answers by the source's output."""
    tensors = expected.tensors
    found = {name: tensors[name] for name in answered if name in tensors}
    if not found:
        alone = tensors[UNNAMED] if set(tensors) == {UNNAMED} else None
        if alone is None and all(array.ndim == 1 for array in tensors.values()):  # the columns of a table
            alone = np.stack(list(tensors.values()), axis=1)
        fitting = [name for name, answer in answered.items() if alone is not None and _fits(alone, answer)]
        if alone is not None and len(fitting) > 1:  # labels are whole numbers, predictions are not
            fitting = [name for name in fitting if _whole(alone) == _whole(answered[name])]
        if alone is not None and len(fitting) == 1:
            found = {fitting[0]: alone}
    off = [name for name, answers in found.items() if not _fits(answers, answered[name])]
    if off or not found:
        shown = ", ".join(f"{name}:{dtype_name(answer)}[rows{_rest(answer)}]" for name, answer in answered.items())
        given = ", ".join(
            f"{name or 'one array'}:{dtype_name(a)}[{len(a)}{_rest(a)}]" for name, a in tensors.items()
        )
        raise DataError(
            f"{expected.origin} holds no answers of this model. The model gives {shown}; the file has {given}. "
            "Save them by the output's name, as in numpy.savez(FILE, OUTPUT=...)."
        )
    return found


def _fits(answers: NDArray[Any], answered: NDArray[Any]) -> bool:
    """Whether answers have the size of an output's, and are text where it is."""
    sizes = [int(np.prod(array.shape[1:])) for array in (answers, answered)]
    return sizes[0] == sizes[1] and (answers.dtype.kind == "O") == (answered.dtype.kind == "O")


def _whole(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iub"


def _rest(array: NDArray[Any]) -> str:
    return "".join(f",{size}" for size in array.shape[1:])
