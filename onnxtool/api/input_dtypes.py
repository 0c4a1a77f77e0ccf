"""The dtypes of an ONNX model's number inputs, chosen by what they cost: the source's answers to the rows decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import ConversionError, ModelError, SourceError, UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.batches import Batching
from onnxtool.models.signature import Tensors, TensorSpec, dtype_name, in_double
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import InputDtype as Record
from onnxtool.reports.model import InputRounding, Parity
from onnxtool.reports.units import plural
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.input_rounding import row_differences
from onnxtool.validators.parity.pairs import Pair, predict_source

InputDtype: TypeAlias = Literal["auto", "float32", "float64"]
"""What numbers go into the ONNX model as: float32 where that is harmless, else float64 or int64; or always one."""


@dataclass(frozen=True, slots=True)
class Built:
    """A conversion in its file.

    Attributes:
        model: The ONNX model.
        choices: What was chosen on the way, a sentence each.
        seconds: What the converter took, and what came after it.
    """

    model: OnnxModel
    choices: list[str]
    seconds: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The inputs that were chosen.

    Attributes:
        built: The conversion that takes them, which is in the file.
        parity: How it compares with the source.
        records: Why each number input has its dtype.
    """

    built: Built
    parity: Parity
    records: list[Record]


def first_inputs(source: SourceModel, requested: InputDtype) -> tuple[TensorSpec, ...]:
    """The inputs that a conversion starts with.

    Raises:
        UsageError: another dtype is requested than the one in which the source, or --input, declares its inputs.
    """
    if requested == "auto":
        return source.inputs
    if not source.any_number or source.rows_as == source.inputs:
        raise UsageError(
            f"--input-dtype {requested}: the model takes {', '.join(map(str, source.inputs))}, as it declares or as "
            "--input says. Leave --input-dtype out."
        )
    return in_double(source.inputs) if requested == "float64" else source.inputs


def inexact(specs: Iterable[TensorSpec], rows: Tensors) -> bool:
    """Whether rows hold numbers that float32 cannot hold."""
    return any(_inexact(rows[spec.name]) for spec in specs if spec.dtype == "float32" and spec.name in rows)


def choose_inputs(
    source: SourceModel,
    rows: Tensors,
    requested: InputDtype,
    *,
    first: Built,
    build: Callable[[Sequence[TensorSpec]], Built],
    compare: Callable[[Built], Parity],
    limits: tuple[Limit, Limit] = (None, None),
) -> Chosen:
    """Choose the dtypes of number inputs: float32 where it moves no row out of tolerance and flips no label.

    Where rows are off, the inputs of float32 whose rounding moves them become float64, or int64 where their rows are
    whole numbers. What is kept is what leaves the fewest rows off.

    Args:
        source: The truth.
        rows: The rows as they came.
        requested: The user's request.
        first: The conversion with the inputs that `first_inputs` says.
        build: Converts with other inputs, into the file of the one before.
        compare: Compares a conversion with the source on all rows.
        limits: Relative and absolute tolerance, if the user gave any.
    """
    specs, built = first_inputs(source, requested), first
    parity = compare(built)
    singles = [spec.name for spec in specs if spec.dtype == "float32"]
    lossy = [name for name in singles if _inexact(rows[name])]
    why = dict.fromkeys(singles, "float32 holds every number of the rows.")
    total = plural(Batching.of(source.inputs).count(rows), "row")
    rounding = parity.input_rounding
    why |= dict.fromkeys(lossy, f"{total}, of which none is moved out of tolerance by float32.")
    if rounding is not None and rounding.rows:
        why |= dict.fromkeys(lossy, _evidence(rounding, total))
    if (
        requested == "auto"
        and source.any_number
        and source.rows_as != source.inputs
        and lossy
        and not parity.passed
    ):
        moving = _moving(Pair(source, first.model), rows, lossy, limits)
        tries = [moving, lossy] if len(moving) < len(lossy) else [lossy]
        for names in tries:
            wide = tuple(_wider(spec, rows[spec.name]) if spec.name in names else spec for spec in specs)
            try:
                wider = build(wide)
                other = compare(wider)
            except (ConversionError, ModelError) as error:
                why |= dict.fromkeys(names, f"{why[names[0]]} It cannot be wider: {error}")
                continue
            if _mismatched_rows(other) < _mismatched_rows(parity):
                off = plural(_mismatched_rows(parity), "row")
                reason = (
                    _evidence(rounding, total)
                    if rounding is not None and rounding.rows
                    else f"{off} of {total} are off in float32."
                )
                why |= dict.fromkeys(
                    lossy, f"{total}, of which its rounding to float32 moves none out of tolerance."
                )
                why |= dict.fromkeys(names, reason)
                specs, parity, built = wide, other, wider
                break
        else:
            built = build(specs)
    chosen_here = source.any_number and source.rows_as != source.inputs
    records = [
        Record(
            name=spec.name,
            dtype=spec.dtype,
            rows=dtype_name(rows[spec.name]),
            requested=requested if chosen_here else "given",
            why=why.get(spec.name, f"Given with --input-dtype {requested}."),
        )
        for spec, first in zip(specs, source.inputs, strict=True)
        if first.dtype == "float32" and source.any_number
    ]
    return Chosen(built, parity, records)


def sentences(records: Sequence[Record]) -> list[str]:
    """The choice for the report: one sentence for all inputs of a dtype that have it for the same reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in records:
        groups.setdefault((record.dtype, record.why), []).append(record.name)
    found = []
    for (dtype, why), names in groups.items():
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        found.append(f"Input dtype {dtype} ({shown}): {why}")
    return found


def _evidence(rounding: InputRounding, total: str) -> str:
    flips = f", {plural(rounding.label_flips, 'label')} flip" if rounding.label_flips else ""
    accepted = " Accepted with --accept-input-rounding." if rounding.accepted else ""
    return f"{rounding.rows:,} of {total} change in float32{flips}.{accepted}"


def _mismatched_rows(parity: Parity) -> int:
    """Rows off in the worst output; an output that could not be compared counts as all of them, a pass as none."""
    if parity.passed:
        return 0
    failed = [output for output in parity.outputs if not output.passed]
    return max(parity.rows if output.problem else max(output.mismatched_rows, 1) for output in failed)


def _wider(spec: TensorSpec, rows: NDArray[np.generic]) -> TensorSpec:
    return replace(spec, dtype="int64" if rows.dtype.kind in "iu" else "float64")


def _inexact(array: NDArray[np.generic]) -> bool:
    if array.dtype.kind not in "iuf" or dtype_name(array) in ("float32", "float16"):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        back = array.astype(np.float32).astype(array.dtype)
    return not np.array_equal(back, array, equal_nan=array.dtype.kind == "f")


def _moving(pair: Pair, rows: Tensors, lossy: list[str], limits: tuple[Limit, Limit]) -> list[str]:
    """The inputs whose rounding to float32 moves a row out of tolerance, or flips a label.

    Found by halving, on the rows that the rounding of all moves; the rest is then rounded together on all rows, and
    where that moves one, all count.
    """
    if len(lossy) == 1:
        return lossy
    cast = pair.feeds.as_cast(rows)
    truth = _answers(pair, rows)
    tolerances = pair.tolerances(rows, truth, *limits)

    def moved(names: Sequence[str], places: NDArray[np.intp] | None = None) -> NDArray[np.bool_]:
        mixed = {name: cast[name] if name in names else tensor for name, tensor in rows.items()}
        picked = mixed if places is None else {name: tensor[places] for name, tensor in mixed.items()}
        expected = truth if places is None else {name: output[places] for name, output in truth.items()}
        count = len(next(iter(expected.values())))
        try:
            found = row_differences(expected, _answers(pair, picked), pair.source.roles, tolerances, count)
        except SourceError:
            return np.ones(count, dtype=bool)
        return found.off if found.flips is None else found.off | found.flips

    places = np.flatnonzero(moved(lossy))
    if not len(places):
        return lossy

    def search(names: list[str]) -> list[str]:
        if not moved(names, places).any():
            return []
        if len(names) == 1:
            return names
        middle = len(names) // 2
        return search(names[:middle]) + search(names[middle:])

    found = search(lossy)
    rest = [name for name in lossy if name not in found]
    return lossy if not found or (rest and moved(rest).any()) else found


def _answers(pair: Pair, rows: Tensors) -> Tensors:
    """What the source says of all rows."""
    parts: dict[str, list[NDArray[np.generic]]] = {}
    for batch in pair.batches(rows):
        truth = predict_source(pair.source, batch.tensors)
        if not pair.partners:
            pair.renamed(truth, pair.run_onnx(batch.tensors))
        for name, output in pair.cut(truth, batch).items():
            parts.setdefault(name, []).append(output)
    return {name: np.concatenate(part) for name, part in parts.items()}
