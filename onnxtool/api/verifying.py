"""`verify`: compare an ONNX model with its source."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

from onnxtool.api.arguments import (
    IN_GROUPS,
    LoadArguments,
    PathLike,
    Progress,
    groups_of,
    isolating,
    load_options,
    open_counterpart,
    silent,
)
from onnxtool.api.records import report_of, source_summary
from onnxtool.errors import UsageError
from onnxtool.files import check_writable
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.rows.data import Data, count_rows, fit_data, text_columns, to_arrays
from onnxtool.models.rows.inputs import combinations
from onnxtool.models.rows.stream import stream_data
from onnxtool.models.signature import Tensors
from onnxtool.models.source import SourceModel
from onnxtool.reports.gates import (
    drift_gate,
    parity_gate,
    search_gate,
    version_gates,
)
from onnxtool.reports.model import (
    Report,
    Subject,
)
from onnxtool.validators.drift.labels import LabelColumns, Quality
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.expected import read_expected
from onnxtool.validators.parity.explain import explain as find_cause
from onnxtool.validators.parity.pairs import Block, Pair, Rows, check_parity, made_up_rows
from onnxtool.validators.parity.search import DEFAULT_BUDGET, search
from onnxtool.validators.parity.sizes import prove_sizes


@isolating
def verify(
    model: PathLike,
    source: Any,
    *,
    data: Data | None = None,
    labels: str | None = None,
    group: str | None = None,
    expected: Data | None = None,
    accept_version: Sequence[str] = (),
    accept_input_rounding: bool = False,
    accept_ties: bool = False,
    rtol: Limit = None,
    atol: Limit = None,
    provider: str = "cpu",
    options: Mapping[str, str] = MappingProxyType({}),
    against_provider: str = "cpu",
    explain: bool = False,
    adversarial: bool = False,
    budget: str | float = DEFAULT_BUDGET,
    save_worst: PathLike | None = None,
    shapes: Mapping[str, Sequence[int]] = MappingProxyType({}),
    seed: int = 0,
    on_progress: Progress | None = None,
    **load: Unpack[LoadArguments],
) -> Report:
    """Compare an ONNX model with its source: every output of every row.

    Args:
        model: The ONNX file.
        source: A path, a `package.module:callable`, or a live estimator, module or Keras model; or another ONNX
            file, or the same one on another provider.
        data: As for `convert`.
        labels: A column of the data, or a file, with the true label of each row: quality is compared too.
        group: A column of the data. Quality is compared in each of its groups too, since an average can hide a group.
        accept_input_rounding: As for `convert`.
        accept_ties: As for `convert`.
        expected: As for `convert`.
        accept_version: As for `convert`.
        rtol: Relative tolerance, for all outputs or by name; None derives it from the model's own rounding.
        atol: Absolute tolerance, likewise.
        provider: Execution provider that runs the model: `cpu`, `cuda`, `tensorrt`, or its full name.
        options: Options of that provider and of the session, as for `bench`; the source has ONNX Runtime's defaults.
        against_provider: Execution provider that runs the source, if that is an ONNX model.
        explain: Whether to find the first layer, node or step where the two diverge, and the cause.
        adversarial: Whether to search for rows on which the two diverge, starting from these rows.
        budget: Budget of the search: seconds, as in `30s`, or rows, as in `20000`.
        save_worst: File for the worst rows that the search finds; by default `<model>.worst.npz` in the current
            folder, if they drift.
        shapes: Sizes of dynamic dimensions by name: rows of every combination are made up.
        seed: Seed of made-up rows.
        on_progress: See `Progress`.
        load: See `LoadArguments`.

    Returns:
        The report. It is falsy when the models differ by more than the tolerance, or quality is lost.

    Raises:
        OnnxtoolError: a file or an option is at fault.

    >>> report = onnxtool.verify("model.onnx", model, data=x)
    >>> assert report, report[0].checks
    """
    progress = on_progress or silent
    if save_worst is not None:
        check_writable(Path(save_worst))
    onnx_model = OnnxModel.read(model)
    if group is not None and labels is None:
        raise UsageError(f"--group {group} goes with --labels.")
    if expected is not None and data is None:
        raise UsageError("--expected holds the answers to the rows of --data: give both.")
    refused = {"--expected": expected, "--labels FILE": labels}
    later, origin = _blocks(data, refused)
    raw = next(later, {})
    label_columns = LabelColumns(labels, group, raw, origin) if labels is not None else None
    progress("Loading the source", 0, 0)
    known = {name: array for name, array in raw.items() if name != labels}
    opened = open_counterpart(onnx_model, source, load_options(known, load, against_provider))
    if against_provider != "cpu" and opened.framework != "onnx":
        raise UsageError(f"--against-provider is for a source that is an ONNX model; {opened.kind} is none.")
    if isinstance(data, str | os.PathLike) and (text := text_columns(raw, opened.inputs)):
        later, _ = _blocks(data, refused, text)
        raw = next(later)
    if raw:
        combinations(shapes, opened.inputs, raw)
        rows = _stream(raw, later, opened, origin, label_columns)
    else:
        rows = made_up_rows(opened.inputs, opened, onnx_model, seed, shapes)
        rows = replace(
            rows,
            auxiliary=label_columns.take({}, count_rows(rows.tensors, opened.inputs), ())[1]
            if label_columns
            else {},
        )
    rows = replace(rows, expected=read_expected(expected))
    quality = Quality(label_columns.origin, opened.roles, group) if label_columns else None
    worst: dict[int, Tensors] | None = {} if explain else None
    pair = partial(Pair, opened, onnx_model, provider, options, accept_rounding=accept_input_rounding)
    parity = check_parity(
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        accept_rounding=accept_input_rounding,
        accept_ties=accept_ties,
        provider=provider,
        options=options,
        on_progress=lambda done, total: progress("Comparing rows", done, total),
        worst=worst,
        on_outputs=quality.update if quality else None,
    )
    progress("Comparing other sizes", 0, 0)
    parity = prove_sizes(
        parity,
        opened,
        onnx_model,
        rows,
        rtol=rtol,
        atol=atol,
        accept_rounding=accept_input_rounding,
        provider=provider,
        options=options,
        given=shapes,
    )
    if worst is not None:
        progress("Explaining the difference", 0, 0)
        failed = any(not output.passed for output in parity.outputs) and rows.expected is None
        found = find_cause(
            pair(), worst, rows.tensors, sizes=parity.batches if failed else (), rtol=rtol, atol=atol
        )
        parity = parity.model_copy(update={"explanation": found})
    checks = [parity_gate(parity), *version_gates(opened.saved_by, accept_version, parity)]
    searched = None
    if adversarial:
        searched = search(
            pair(),
            rows.tensors,
            rtol=rtol,
            atol=atol,
            budget=budget,
            seed=seed,
            save=Path(save_worst or f"{onnx_model.path.stem}.worst.npz"),
            always_save=save_worst is not None,
            on_progress=partial(progress, "Searching for drift"),
        )
        checks.append(search_gate(searched))
    drift = None
    if label_columns and quality:
        label_columns.finish()
        drift = quality.result()
        checks.append(drift_gate(drift))
    subject = Subject(
        name=onnx_model.path.name,
        model=onnx_model.summary(),
        source=source_summary(opened),
        parity=parity,
        search=searched,
        drift=drift,
        checks=checks,
    )
    return report_of("verify", [subject])


def _blocks(
    data: Data | None, refused: Mapping[str, object], text: Collection[str] = ()
) -> tuple[Iterator[Tensors], str]:
    """The rows as they are read, in groups of equal lengths, and where they came from; nothing for None."""
    if data is None:
        return iter(()), ""
    if isinstance(data, str | os.PathLike):
        read, origin = stream_data(Path(data), text), str(data)
    else:
        arrays, origin = to_arrays(data)
        read = iter([arrays])
    return (group for block in read for group in groups_of(block, refused)), origin


def _stream(
    raw: Tensors,
    later: Iterator[Tensors],
    model: SourceModel,
    origin: str,
    label_columns: LabelColumns | None,
) -> Rows:
    """Rows, fitted to the model as they are read; columns that no model reads become auxiliary columns."""
    notes: list[str] = []
    read = {name for spec in model.inputs for name in (spec.name, *spec.columns)}

    def fit(block: Tensors) -> Block:
        rest, columns = (
            label_columns.take(block, max(map(len, block.values())), read) if label_columns else (block, {})
        )
        tensors, messages = fit_data(rest, model.inputs, origin, as_they_came=model.any_number)
        shapes.add(tuple(array.shape[1:] for array in tensors.values()))
        if len(shapes) > 1:
            messages.append(IN_GROUPS)
        notes.extend(note for note in messages if note not in notes)
        return Block(tensors, columns)

    shapes: set[tuple[tuple[int, ...], ...]] = set()
    first, second = fit(raw), next(later, None)
    return Rows(
        first.tensors,
        origin,
        notes=notes,
        auxiliary=first.auxiliary,
        later=map(fit, chain([second], later)) if second is not None else None,
    )
