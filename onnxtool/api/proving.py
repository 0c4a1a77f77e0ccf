"""The steps after a conversion: compare the model with its source, optimise it, and lower its precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import onnx

from onnxtool.api.arguments import Progress
from onnxtool.api.lowering import Precision, lower
from onnxtool.api.optimizing import Measures, optimize_model
from onnxtool.converters.graph.finish import write
from onnxtool.converters.graph.optimizers import Optimize
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import Candidate, LabelDrift, Lowering, Parity
from onnxtool.targets.target import Target
from onnxtool.validators.drift.trial import Trial
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.feeds import match_inputs
from onnxtool.validators.parity.pairs import Pair, Rows, check_parity
from onnxtool.validators.parity.sizes import prove_sizes


@dataclass(frozen=True, slots=True)
class ProofOptions:
    """Options of the proof; see `convert`.

    Attributes:
        optimize: Which optimisers are tried.
        precision: The precision to compute in; None keeps the model's.
        labels: Where the labels of the rows come from, if there are any.
        max_loss: Largest loss that the precision may cause.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        seed: Seed of the order in which graphs are timed.
        target: The deployment target.
        accept_rounding: Whether the cost of casting the rows to the inputs is accepted.
        accept_ties: Whether another right answer by the source's own definition is.
    """

    optimize: Optimize
    precision: Precision | None
    labels: str | None
    max_loss: float | None
    rtol: Limit
    atol: Limit
    seed: int
    target: Target
    accept_rounding: bool = False
    accept_ties: bool = False


@dataclass(slots=True)
class Proven:
    """The model that is kept, and the results of each step; see `ConversionRecord`."""

    proto: onnx.ModelProto
    parity: Parity
    candidates: list[Candidate] = field(default_factory=list)
    lowering: Lowering | None = None
    drift: LabelDrift | None = None


def parity_of(
    model: OnnxModel, source: SourceModel, rows: Rows, options: ProofOptions, progress: Progress
) -> Parity:
    """Compare a model with its source on all rows, and at several sizes of its dynamic dimensions."""
    parity = check_parity(
        source,
        model,
        rows,
        rtol=options.rtol,
        atol=options.atol,
        accept_rounding=options.accept_rounding,
        accept_ties=options.accept_ties,
        on_progress=partial(progress, "Comparing rows"),
    )
    progress("Comparing other sizes", 0, 0)
    return sizes_parity(parity, model, source, rows, options)


def sizes_parity(
    parity: Parity, model: OnnxModel, source: SourceModel, rows: Rows, options: ProofOptions
) -> Parity:
    """A comparison on rows, with that at other sizes of the dynamic dimensions."""
    return prove_sizes(
        parity,
        source,
        model,
        rows,
        rtol=options.rtol,
        atol=options.atol,
        accept_rounding=options.accept_rounding,
    )


def prove(
    written: OnnxModel,
    source: SourceModel,
    rows: Rows,
    options: ProofOptions,
    *,
    parity: Parity,
    progress: Progress,
) -> Proven:
    """Compare a converted model with its source; optimise it and lower its precision while it agrees.

    Args:
        written: The model, in a file, which is replaced where another one is kept.
        source: The reference.
        rows: The rows that both are run on; labels are auxiliary columns.
        options: The options of the proof.
        parity: The comparison of the model with its source.
        progress: See `Progress`.

    Raises:
        OnnxtoolError: the model cannot be run, or an option cannot be met.
    """
    proven = Proven(written.proto, parity)
    if not (options.optimize != "none" or options.precision):
        return proven
    before = written.proto
    measures = Measures(
        refusal=partial(options.target.refusal, before=before),
        parity=partial(parity_of, source=source, rows=rows, options=options, progress=progress),
        rows=match_inputs(source.inputs, written.inputs, [])(rows.tensors),
        seed=options.seed,
    )
    if options.optimize != "none":
        proven.proto, proven.parity, proven.candidates = optimize_model(
            written, proven.parity, options.optimize, measures, progress
        )
        (kept,) = (candidate for candidate in proven.candidates if candidate.outcome == "kept")
        remember(proven.proto, {"onnxtool.graph": kept.name})
        write(proven.proto, written.path)
    if options.precision and proven.parity.passed:
        full = OnnxModel(written.path, proven.proto)
        trial = Trial(
            Pair(source, full, accept_rounding=options.accept_rounding), rows, options.labels, options.max_loss
        )
        readapt = partial(options.target.readapt, before=before)
        proven.proto, proven.lowering, proven.drift = lower(
            full, options.precision, trial, measures, repair_rules=readapt, progress=progress
        )
        remember(proven.proto, {"onnxtool.precision": options.precision})
        write(proven.proto, written.path)
        proven.parity.notes.append(f"That is the model before it was made {options.precision}.")
    return proven


def remember(model: onnx.ModelProto, entries: Mapping[str, str]) -> None:
    """Put entries into the model's metadata, in place."""
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**known, **entries})
