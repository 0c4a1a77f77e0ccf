"""Arguments of the public functions: paths, progress, and options of opening a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeAlias, TypedDict, cast

from onnxtool.api import notebook
from onnxtool.errors import UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.onnx.isolated import isolated
from onnxtool.models.rows.data import Data, fit_data, to_arrays
from onnxtool.models.rows.ragged import by_length
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.opening import open_source
from onnxtool.reports.model import Report
from onnxtool.sandbox.limits import Limits
from onnxtool.validators.parity.pairs import Block, Rows

P = ParamSpec("P")

PathLike: TypeAlias = str | os.PathLike[str]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage, the work done in it, and its total work (0 where that is not known)."""


IN_GROUPS = "Rows of unequal lengths ran in groups of equal lengths, and are numbered in that order."


class LoadArguments(TypedDict, total=False):
    """Options of opening the source model, the same for every public function.

    Attributes:
        inputs: `NAME:DTYPE[DIMS]`, one for each input, for models that carry no signature.
        trust: Full names, `package.Class`, of what a pickle may use besides what is known to be safe, or of modules
            all of which it may use; a module may lie next to the file.
        code: Folders of your own modules that it names, and the script or notebook (`.py`, `.ipynb`) that saved it:
            its functions and classes stand for `__main__`, and nothing else of it is run.
        plugins: Modules to import before a source file is opened, for the converters that they register.
        weights: Weights (safetensors, or a state dict) for a module built by a callable.
        base: Folder of the base model of a PEFT adapter; without it the one next to the adapter.
        signature: Name of a SavedModel's signature.
        sandbox: Limits of the process of a source file: `onnxtool.Limits()` by default. `"require"` refuses the
            file where the system cannot keep every promise of the sandbox; None opens it in this process. A live
            object and a `package.module:callable` are your own code and run in this process.
    """

    inputs: Sequence[str | TensorSpec]
    trust: Sequence[str]
    code: Sequence[PathLike]
    plugins: Sequence[str]
    weights: PathLike | None
    base: PathLike | None
    signature: str | None
    sandbox: Limits | Literal["require"] | None


def split_arguments(arguments: Mapping[str, Any]) -> tuple[LoadArguments, dict[str, Any]]:
    """Those of `LoadArguments`, and the rest, which are the target's own options."""
    names = LoadArguments.__annotations__
    load = cast(LoadArguments, {name: value for name, value in arguments.items() if name in names})
    return load, {name: value for name, value in arguments.items() if name not in names}


def silent(stage: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def isolating(verb: Callable[P, Report]) -> Callable[P, Report]:
    """Have a verb run ONNX models on the CPU in a process of its own, with the limits of its argument `sandbox`.

    What it converts of a live object, or of a `package.module:callable`, is its own model. In a notebook, a verb that
    reports its progress shows it.
    """
    reports_progress = "on_progress" in signature(verb).parameters

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> Report:
        source = kwargs.get("source", args[0] if args else None)
        own = verb.__name__ == "convert" and not (isinstance(source, str | os.PathLike) and Path(source).exists())
        limits = _limits(cast(Any, kwargs.get("sandbox", Limits())))
        with ExitStack() as stack:
            stack.enter_context(isolated(None if own else limits))
            if reports_progress and kwargs.get("on_progress") is None:
                kwargs["on_progress"] = stack.enter_context(notebook.progress())
            return verb(*args, **kwargs)

    return run


def _limits(sandbox: Limits | str | None) -> Limits | None:
    if isinstance(sandbox, str):
        if sandbox != "require":
            raise UsageError(f"sandbox={sandbox!r} is not valid: give onnxtool.Limits(), 'require' or None.")
        return Limits(require=True)
    return sandbox


def load_options(raw: Tensors, load: LoadArguments, provider: str = "cpu") -> LoadOptions:
    """Options for `open_source` from a public function's arguments and its rows."""
    weights, base = load.get("weights"), load.get("base")
    return LoadOptions(
        trust=tuple(load.get("trust", ())),
        code=tuple(map(Path, load.get("code", ()))),
        plugins=tuple(load.get("plugins", ())),
        inputs=tuple(TensorSpec.parse(spec) if isinstance(spec, str) else spec for spec in load.get("inputs", ())),
        weights=Path(weights) if weights is not None else None,
        base=Path(base) if base is not None else None,
        signature=load.get("signature"),
        data=raw,
        provider=provider,
        limits=_limits(load.get("sandbox", Limits())),
    )


def open_counterpart(model: OnnxModel, source: Any, options: LoadOptions) -> SourceModel:
    """Open a source; one that carries no signature of its own takes the ONNX model's."""
    try:
        return open_source(source, options)
    except UsageError:
        if options.inputs:
            raise
        return open_source(source, replace(options, inputs=model.inputs, data={}))


def read_groups(data: Data | None, refused: Mapping[str, object]) -> tuple[list[Tensors], str]:
    """The user's rows in groups of equal lengths, and where they came from; one group without rows for None.

    Args:
        data: What the user gave.
        refused: As for `groups_of`.

    Raises:
        DataError: the data cannot be read.
        UsageError: rows have unequal lengths, and an option does not go with them.
    """
    if data is None:
        return [{}], ""
    raw, origin = to_arrays(data)
    return groups_of(raw, refused), origin


def groups_of(raw: Tensors, refused: Mapping[str, object]) -> list[Tensors]:
    """Rows in groups of equal lengths.

    Args:
        raw: The rows.
        refused: By name, options that take rows in their own order or of one length; those that are None, or name a
            column of the rows, are no matter.

    Raises:
        UsageError: rows have unequal lengths, and such an option is given.
    """
    groups = by_length(raw)
    given = [option for option, value in refused.items() if value is not None and not _is_column(value, raw)]
    if len(groups) > 1 and given:
        raise UsageError(
            f"The rows have unequal lengths, and run in {len(groups)} groups of equal lengths; {given[0]} takes rows "
            "of one length. Pad them, or give those of one length."
        )
    return groups


def _is_column(value: object, raw: Tensors) -> bool:
    return isinstance(value, str) and value in raw


def fit_rows(groups: Sequence[tuple[Tensors, Tensors]], model: SourceModel, origin: str) -> Rows:
    """Rows as the source takes them, from what the user gave.

    Args:
        groups: Rows of equal lengths, with the columns that no model reads.
        model: The source.
        origin: Where they came from.
    """
    notes: list[str] = []
    blocks = []
    for raw, auxiliary in groups:
        tensors, messages = fit_data(raw, model.inputs, origin, as_they_came=model.any_number)
        notes += [message for message in messages if message not in notes]
        blocks.append(Block(tensors, auxiliary))
    first, *later = blocks
    if later:
        notes.append(IN_GROUPS)
    return Rows(first.tensors, origin, notes=notes, auxiliary=first.auxiliary, later=later or None)
