"""`convert`: convert a source model to ONNX and verify it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from onnxtool.api.arguments import (
    PathLike,
    Progress,
    fit_rows,
    isolating,
    load_options,
    read_groups,
    silent,
    split_arguments,
)
from onnxtool.api.dimensions import settle_dimensions
from onnxtool.api.input_dtypes import (
    Built,
    Chosen,
    InputDtype,
    choose_inputs,
    first_inputs,
    inexact,
    sentences,
)
from onnxtool.api.lowering import Precision
from onnxtool.api.proving import ProofOptions, Proven, parity_of, prove, remember
from onnxtool.api.records import report_of, source_summary
from onnxtool.converters.framework import ConvertOptions, Framework, frameworks
from onnxtool.converters.graph.finish import default_opset, finish, write
from onnxtool.converters.graph.optimizers import Optimize, foreign_operators
from onnxtool.errors import OnnxtoolError, UsageError
from onnxtool.files import check_writable, staged_path
from onnxtool.models.onnx.artifact import ROWS, OnnxModel
from onnxtool.models.parts import file_and_part
from onnxtool.models.rows.batches import Batching
from onnxtool.models.rows.data import Data
from onnxtool.models.rows.inputs import make_inputs
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.opening import convert_source, open_source
from onnxtool.reports.gates import (
    parity_gate,
    precision_gate,
    version_gates,
)
from onnxtool.reports.model import (
    Check,
    ConversionRecord,
    Parity,
    Report,
    Subject,
)
from onnxtool.reports.model import InputDtype as InputDtypeRecord
from onnxtool.targets.target import Target, choose
from onnxtool.validators.drift.labels import LabelColumns
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.agreement import agreement
from onnxtool.validators.parity.expected import read_expected
from onnxtool.validators.parity.lengths import workable_sizes
from onnxtool.validators.parity.pairs import Rows, made_up_rows

# Two rows: an exporter that traces a single row takes the batch dimension for a constant 1.
_EXAMPLE_ROWS = 2
_CHOOSING_ROWS = 2048


@isolating
def convert(
    source: Any,
    output: PathLike | None = None,
    *,
    data: Data | None = None,
    opset: int | None = None,
    target: str = "ort",
    optimize: Optimize = "none",
    precision: Precision | None = None,
    labels: str | None = None,
    max_loss: float | None = None,
    verify: bool = True,
    expected: Data | None = None,
    accept_version: Sequence[str] = (),
    input_dtype: InputDtype = "auto",
    accept_input_rounding: bool = False,
    accept_ties: bool = False,
    rtol: Limit = None,
    atol: Limit = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    **more: Any,
) -> Report:
    """Convert a model to ONNX and prove that it gives the same results.

    Args:
        source: A path, a `package.module:callable`, or a live estimator, module or Keras model.
        output: The ONNX file to write; by default the source's name with `.onnx`, in the current folder.
        data: Real rows to verify with: a file, arrays by input name, an array or a data frame. Without them
            rows are made up from the model's signature.
        opset: Version of the default operator set, or None for the framework's default.
        target: Name of the deployment target, whose rules are kept.
        optimize: `none`; `basic` tries what onnxsim, onnxslim and ONNX Runtime make of the graph; `full` tries ONNX
            Runtime's extended optimisations too, whose operators only ONNX Runtime has. Each is compared with the
            source and timed; a graph that differs or is slower is refused.
        precision: `fp16` or `int8`, the latter calibrated on the data; None keeps the source's. Nodes with the
            largest error stay in float32, as few as possible.
        labels: A column of the data, or a file, with the true label of each row. A lower precision must
            then keep the quality.
        max_loss: Largest loss by the precision, as a share: of a score or, without labels, of labels that flip; or as
            relative error. None takes 0.01, 0.01 and 0.05.
        verify: Whether to compare the result with the source.
        expected: The right answers to the rows of `data`, which are the truth instead of the source's: a file or
            arrays by the output's name, as saved with the release that trained the model.
        accept_version: Releases that saved the source and whose files are taken to mean what the installed release
            reads, as `1.3.2`.
        input_dtype: `auto` takes float32 for numbers where that moves no row out of tolerance and flips no label,
            else float64, or int64 for whole numbers; a data frame's columns are decided one by one. `float32` and
            `float64` take that for all. For scikit-learn and boosting; others declare what they take.
        accept_input_rounding: Whether what float32 inputs cost is accepted: it is reported, and is no drift.
        accept_ties: Whether another right answer is accepted where the source's own definition has several, as among
            equally far neighbours: it is reported, and is no drift.
        rtol: Relative tolerance, for all outputs or by name; None derives it from the model's own rounding.
        atol: Absolute tolerance, likewise.
        seed: Seed of made-up rows.
        on_progress: See `Progress`.
        more: See `LoadArguments`; and the target's own options: of `mlnet`, `columns` ("separate", an input of shape
            [batch, 1] for each column of a table, or "vector", one input for all of a dtype) and `mlnet_version`.

    Returns:
        The report. It is falsy when the ONNX model drifts, or loses more by its precision than allowed; the file is
        kept.

    Raises:
        OnnxtoolError: the source, the data or the options are at fault; no file is left.

    >>> report = onnxtool.convert(model, "model.onnx", data=x)
    >>> report["model.onnx"].parity.mismatched_rows
    0
    """
    progress = on_progress or silent
    load, options = split_arguments(more)
    deployed = choose(target, "convert", options)
    path = Path(output) if output is not None else Path(f"{_source_name(source)}.onnx")
    check_writable(path)
    progress("Loading the source", 0, 0)
    groups, origin = read_groups(data, {"--expected": expected, "--precision": precision, "--labels FILE": labels})
    split = [_split_labels(labels, group, origin) if labels is not None else (group, {}) for group in groups]
    raw, _ = split[0]
    model = open_source(source, load_options(raw, load))
    if model.path is not None and path.exists() and path.samefile(model.path):
        raise UsageError(f"{path} is the source itself. Name another file with -o.")
    framework = frameworks()[model.framework]
    accepted = {"accept_rounding": accept_input_rounding, "accept_ties": accept_ties}
    proof = ProofOptions(optimize, precision, labels, max_loss, rtol, atol, seed, deployed, **accepted)
    _check_proof(proof, verify, answers=expected is not None, rows=bool(raw))
    opset = _opset(opset, framework, deployed)
    rows = replace(fit_rows(split, model, origin), expected=read_expected(expected)) if raw else None

    rounded = inexact(model.inputs, rows.tensors if rows else make_inputs(model.rows_as, _EXAMPLE_ROWS, seed))
    conversion_options = ConvertOptions(
        opset=opset, target=target, rows=rows.tensors if rows else {}, compare=agreement, inexact_rows=rounded
    )
    with staged_path(path) as staged:

        def build(specs: Sequence[TensorSpec]) -> Built:
            progress(f"Converting from {framework.name}", 0, 0)
            began = time.perf_counter()
            options_now = replace(conversion_options, inputs=tuple(specs))
            conversion = convert_source(model, _example(model, rows, seed), options_now)
            converted = time.perf_counter()
            proto = conversion.model
            adapted = deployed.adapt(proto, model)
            finish(proto, model.inputs, _provenance(model, proto, accept_version))
            write(proto, staged)
            times = converted - began, time.perf_counter() - converted
            return Built(OnnxModel(staged, proto), [*conversion.choices, *adapted], times)

        built = build(first_inputs(model, input_dtype))
        proven: Proven | None = None
        records: list[InputDtypeRecord] = []
        if verify or model.any_number:
            compared = rows or made_up_rows(model.inputs, model, built.model, seed)
            sample = compared if verify else _first_rows(compared, model)
            with suppress(*(() if verify else (OnnxtoolError,))):  # without a verdict, what cannot be run stays
                chosen = choose_inputs(
                    model,
                    sample.tensors,
                    input_dtype,
                    first=built,
                    build=build,
                    compare=lambda tried: parity_of(tried.model, model, sample, proof, progress),
                    limits=(rtol, atol),
                )
                built, records = chosen.built, chosen.records
                if entries := _proved_on(chosen, compared):
                    remember(built.model.proto, entries)
                    write(built.model.proto, staged)
                if verify:
                    proven = _proven(built, model, compared, proof, parity=chosen.parity, progress=progress)
        proto = proven.proto if proven else built.model.proto
        summary = OnnxModel.read(staged).summary()  # before another run can put its own in this place
    subject = Subject(
        name=path.name,
        model=summary.model_copy(update={"path": str(path)}),
        source=source_summary(model),
        conversion=ConversionRecord(
            opset=default_opset(proto),
            target=target,
            optimize=optimize,
            convert_s=built.seconds[0],
            finish_s=built.seconds[1],
            choices=[*sentences(records), *built.choices, *_foreign(proto)],
            input_dtypes=records,
            candidates=proven.candidates if proven else [],
            lowering=proven.lowering if proven else None,
        ),
        parity=proven.parity if proven else None,
        drift=proven.drift if proven else None,
        checks=[
            *(_gates(proven) if proven else []),
            *version_gates(model.saved_by, accept_version, proven.parity if proven else None),
        ],
    )
    return report_of("convert", [subject])


def _proven(
    built: Built, source: SourceModel, rows: Rows, proof: ProofOptions, *, parity: Parity, progress: Progress
) -> Proven:
    """The steps after a comparison; what becomes of the model's dimensions is one of its choices."""
    model, parity, settled = settle_dimensions(built.model, source, rows, proof, parity)
    built.choices.extend(settled)
    return prove(model, source, rows, proof, parity=parity, progress=progress)


def _first_rows(rows: Rows, model: SourceModel) -> Rows:
    """The first rows, where no verdict is given and they are for the choice of dtypes only."""
    batching = Batching.of(model.inputs)
    count = min(batching.count(rows.tensors), _CHOOSING_ROWS)
    auxiliary = {name: column[:count] for name, column in rows.auxiliary.items()}
    return replace(rows, tensors=batching.rows(rows.tensors, 0, count), auxiliary=auxiliary)


def _proved_on(chosen: Chosen, rows: Rows) -> dict[str, str]:
    """Metadata: the dtypes of the rows where they are not those of production, and what is accepted of them."""
    narrow = {
        record.name: record.rows
        for record in chosen.records
        if record.rows == "float32" and (rows.seed is None or record.requested == "given")
    }
    found = {ROWS: json.dumps(narrow)} if narrow else {}
    rounding = chosen.parity.input_rounding
    if rounding is not None and rounding.accepted:
        found["onnxtool.input_rounding"] = f"accepted: it moves {rounding.rows} of {chosen.parity.rows} rows"
    ties = chosen.parity.ties
    if ties is not None and ties.accepted:
        found["onnxtool.ties"] = f"accepted: another right answer to {ties.rows} of {chosen.parity.rows} rows"
    return found


def _gates(proven: Proven) -> list[Check]:
    gates = [parity_gate(proven.parity)]
    return gates if proven.lowering is None else [*gates, precision_gate(proven.lowering)]


def _check_proof(proof: ProofOptions, verify: bool, *, answers: bool, rows: bool) -> None:
    """Check that the options go together.

    Raises:
        UsageError: it does not.
    """
    if (proof.optimize != "none" or proof.precision) and not verify:
        raise UsageError("--optimize and --precision compare with the source: leave out --no-verify.")
    if proof.precision and proof.optimize == "full":
        raise UsageError("--precision changes ONNX's own operators only: give --optimize basic with it.")
    if not proof.precision and (proof.labels is not None or proof.max_loss is not None):
        raise UsageError(
            "--labels and --max-loss go with --precision. To compare the quality, use onnxtool verify."
        )
    if answers and not (rows and verify):
        raise UsageError(
            "--expected holds the answers to the rows of --data: give both, and leave out --no-verify."
        )


def _foreign(proto: onnx.ModelProto) -> list[str]:
    """Notes on operators that are not ONNX's own."""
    foreign = foreign_operators(proto)
    return [f"Only ONNX Runtime runs it: it has {', '.join(foreign)}."] if foreign else []


def _opset(opset: int | None, framework: Framework, target: Target) -> int | None:
    """The opset to convert to: the one given, else what the target holds the framework's default to.

    Raises:
        UsageError: there is none such.
    """
    if opset is None:
        held = target.max_opset is not None and not framework.keeps_opset
        return min(framework.default_opset, target.max_opset or framework.default_opset) if held else None
    if not 1 <= opset <= framework.max_opset:
        raise UsageError(
            f"--opset {opset} is out of range: {framework.name} models convert up to opset {framework.max_opset}."
        )
    if target.max_opset is not None and opset > target.max_opset:
        raise UsageError(
            f"--opset {opset} is out of range: {target.runtime} takes up to opset {target.max_opset}."
        )
    return opset


def _split_labels(labels: str, raw: Tensors, origin: str) -> tuple[Tensors, Tensors]:
    """The rows without their labels, and these.

    Raises:
        DataError: there are no such labels, or not as many as rows.
        UsageError: there are no rows.
    """
    if not raw:
        raise UsageError("--labels goes with --data: made-up rows have none.")
    auxiliary = LabelColumns(labels, None, raw, origin)
    rest, columns = auxiliary.take(raw, max(map(len, raw.values())), ())
    auxiliary.finish()
    return rest, columns


def _source_name(source: Any) -> str:
    if not isinstance(source, str | os.PathLike):
        return type(source).__name__
    file, _ = file_and_part(str(source))
    path = Path(file)
    return path.stem if path.exists() else path.name.rpartition(":")[2]


def _example(model: SourceModel, rows: Rows | None, seed: int) -> Tensors:
    if rows is None:
        sizes = workable_sizes(model, model.inputs, model.domains(), seed)
        return make_inputs(model.inputs, _EXAMPLE_ROWS, seed, model.domains(), sizes)
    batching = Batching.of(model.inputs)
    size = batching.size or _EXAMPLE_ROWS
    return batching.rows(rows.tensors, 0, min(size, batching.count(rows.tensors)), size)


def _provenance(model: SourceModel, proto: onnx.ModelProto, accepted: Sequence[str]) -> dict[str, str]:
    """The origin of the model, for its metadata. An ONNX model that already has one keeps it."""
    if any(entry.key.startswith("onnxtool.source.") for entry in proto.metadata_props):
        return {}
    summary = source_summary(model)
    known = {
        "onnxtool.source.framework": f"{summary.framework} {summary.framework_version}",
        "onnxtool.source.kind": summary.kind,
        "onnxtool.source.sha256": summary.sha256,
        "onnxtool.source.saved_by": ", ".join(f"{saved.library} {saved.version}" for saved in summary.saved_by),
        "onnxtool.source.accepted_version": ", ".join(
            f"{saved.library} {saved.version}"
            for saved in summary.saved_by
            if saved.version in accepted and not saved.same_meaning
        ),
    }
    return {key: value for key, value in known.items() if value}
