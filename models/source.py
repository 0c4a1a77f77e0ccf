"""A source model: the reference that an ONNX model is compared with."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from onnxtool.models.own_code import files_of_code
from onnxtool.models.parts import file_and_part
from onnxtool.models.rows.domain import Domain
from onnxtool.models.signature import Role, Tensors, TensorSpec
from onnxtool.reports.model import SavedBy
from onnxtool.sandbox.limits import Limits


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of opening a source model.

    Attributes:
        trust: Full names, `package.Class`, of what a pickle may use besides what is known to be safe, or of modules
            all of which it may use.
        code: Folders of the user's own modules, and scripts or notebooks whose definitions stand for `__main__`.
        plugins: Modules to import before a source is opened: they register converters.
        inputs: Input signature given by the user, for models that carry none.
        weights: Weights for a model built by a callable.
        base: Folder of the base model of an adapter.
        signature: Name of a SavedModel's signature.
        data: Rows of the user's, from which a missing signature is read (name to array, first axis rows).
        provider: Execution provider of a source that is an ONNX model.
        limits: Limits of the process of a source file; None opens the file in this one.
    """

    __pydantic_config__: ClassVar = ConfigDict(arbitrary_types_allowed=True)

    trust: tuple[str, ...] = ()
    code: tuple[Path, ...] = ()
    plugins: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    weights: Path | None = None
    base: Path | None = None
    signature: str | None = None
    data: Tensors = field(default_factory=dict)
    provider: str = "cpu"
    limits: Limits | None = None


def files_of(source: str, options: LoadOptions) -> list[Path]:
    """The files that are read to open a source."""
    weights = [options.weights] if options.weights else []
    file, _ = file_and_part(source)
    return [Path(file), *weights, *files_of_code(file, options.trust, options.code)]


@dataclass(frozen=True, slots=True)
class Step:
    """The output of a step or layer of a source model for some rows.

    Attributes:
        name: Name of the layer, node or pipeline step.
        kind: Its class or operator.
        value: Its output, rows along the first axis.
    """

    name: str
    kind: str
    value: NDArray[Any]


class SourceModel(ABC):
    """A trained model in its own framework, seen as a function from named tensors to named tensors.

    Attributes:
        framework: Name of the framework, as registered.
        framework_version: Its version.
        model: The live object: an estimator, a module, a Keras model, ...
        inputs: The inputs of `predict`. Shapes have `batch` for the rows where the model allows any number.
        any_number: Whether `predict` takes numbers of any dtype, as libraries of tables do. It then gets the rows
            as they came, and the dtypes of `inputs` are those that the ONNX model is to take. Other sources get rows
            cast to the dtypes that they declare, as whoever runs them must do.
        roles: The roles of outputs that are labels or probabilities; all others are `values`.
        path: The file that it came from, or None for a live object.
        notes: Notes for the report on how it runs.
        effects: What its runs did besides answering: a sentence for each subject. Known after `answer`.
        saved_by: The releases that saved its file, as far as the file names them.
        bounds: Name of a dynamic dimension to the least and the greatest size that it was exported for. Beyond, it
            may answer, and the answer means nothing.
    """

    framework: str
    framework_version: str
    model: Any
    inputs: tuple[TensorSpec, ...]
    any_number: bool = False
    roles: Mapping[str, Role] = {}
    path: Path | None = None
    notes: Sequence[str] = ()
    effects: Mapping[str, str] = {}
    saved_by: Sequence[SavedBy] = ()
    bounds: Mapping[str, tuple[int, int]] = {}

    @property
    def kind(self) -> str:
        """The kind of model, for display: its class, or a name that its owner knows."""
        kind = type(self.model)
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """Names of the classes of each target, by scikit-learn's convention `classes_`; empty where it has none."""
        found = getattr(self.model, "classes_", None)
        if found is None:
            return ()
        targets = found if isinstance(found, list) else [found]
        return tuple(tuple(str(name) for name in names) for names in targets)

    @abstractmethod
    def predict(self, tensors: Tensors) -> Tensors:
        """Run the source model.

        Args:
            tensors: One array an input, of the shape that `inputs` says, and of its dtype unless `any_number`.

        Returns:
            One array an output, in the model's order, under the names the ONNX model gives them.
        """

    def answer(self, tensors: Tensors) -> Tensors:
        """Run `predict` on a copy of the rows, and leave the model as it was.

        What it does to its rows or to itself reaches nobody else; `effects` says it.

        Args:
            tensors: As for `predict`.
        """
        return self.answers([tensors])[0]

    def answers(self, batches: Sequence[Tensors]) -> list[Tensors]:
        """Run `predict` on one batch after the other, each in the state in which the one before left the model.

        Args:
            batches: As for `predict`, each.
        """
        found = []
        with self.kept():
            for batch in batches:
                given = {name: array.copy() for name, array in batch.items()}
                outputs = dict(self.predict(given))
                # An output may be a view of what the model keeps, which changes with the next run.
                found.append({name: np.array(outputs.pop(name)) for name in list(outputs)})
                for name, array in batch.items():
                    if not _unchanged(given[name], array):
                        self.remark(
                            name,
                            f"The source changes its input {name!r} in place. Each model got its own copy of the "
                            "rows; the ONNX model leaves its inputs as they are.",
                        )
        return found

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the model as it was before; a framework whose models change when they run overrides it."""
        yield

    def remark(self, subject: str, effect: str) -> None:
        """Put a sentence into `effects`, in place of an earlier one about the same."""
        self.effects = {**self.effects, subject: effect}

    @property
    def rows_as(self) -> tuple[TensorSpec, ...]:
        """The inputs in the dtypes in which rows come in production: what rows are made up in."""
        return self.inputs

    def domains(self) -> Mapping[str, Domain]:
        """The values that each input takes, as far as the fitted model shows; see `models.rows.domain`."""
        return {}

    def steps(self, tensors: Tensors) -> Iterator[Step]:
        """The outputs of the parts that the model is made of, in the order in which they run.

        Args:
            tensors: As for `predict`.
        """
        yield from ()

    def step_runs(self, batches: Sequence[Tensors]) -> list[list[Step]]:
        """The steps of one batch after the other, each in the state in which the one before left the model.

        Args:
            batches: As for `predict`, each.
        """
        with self.kept():
            return [list(self.steps(batch)) for batch in batches]

    def alternatives(self, tensors: Tensors) -> list[Tensors]:
        """Answers that are as right as the usual one by the model's own definition, as among equally far neighbours.

        Args:
            tensors: As for `predict`.

        Returns:
            Answers to all rows; a row without another right answer has its usual one in them. Empty where the
            definition leaves no choice.
        """
        return []

    def in_double(self, tensors: Tensors) -> Tensors | None:
        """The model's outputs if it computed in float64, or None where that is not possible.

        Args:
            tensors: As for `predict`, floats in float64.
        """
        return None


def _unchanged(given: NDArray[Any], array: NDArray[Any]) -> bool:
    """Whether a copy that was given away still holds what the array does, NaN included."""
    if given.dtype.hasobject:
        return all(new is old for new, old in zip(given.flat, array.flat, strict=True))
    return given.shape == array.shape and bool(given.tobytes() == array.tobytes())


def sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files, in hexadecimal."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file_path.relative_to(path).as_posix()}\0{sha256(file_path)}\n".encode())
    return digest.hexdigest()
