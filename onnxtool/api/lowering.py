"""Lower precision: convert a model to float16 or int8, as far as the loss is allowed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import onnx

from onnxtool.api.arguments import Progress
from onnxtool.api.optimizing import Measures, compare
from onnxtool.converters.graph.finish import write
from onnxtool.converters.graph.optimizers import restore
from onnxtool.converters.precision import half
from onnxtool.converters.precision.graph import float_tensors, prepared
from onnxtool.converters.precision.quantize import (
    QUANTIZED,
    Calibrated,
    Recipe,
    dynamically_quantized,
    quantizable,
)
from onnxtool.converters.precision.search import repair
from onnxtool.models.onnx.artifact import OnnxModel, size_of
from onnxtool.reports import units
from onnxtool.reports.model import LabelDrift, Lowering, LoweringAttempt
from onnxtool.validators.drift.trial import Outcome, Trial

Precision: TypeAlias = Literal["fp16", "int8"]

CALIBRATED = 256
"""Rows from which the ranges of tensors are taken."""

Kept: TypeAlias = frozenset[str]
"""Names of nodes that stay in float32."""


class _Way(NamedTuple):
    """A way to lower a model's precision.

    Attributes:
        recipe: For the report.
        measured: From the nodes that are kept to a model that rounds as the one that is written does.
        written: To that one.
    """

    recipe: str
    measured: Callable[[Kept], onnx.ModelProto]
    written: Callable[[Kept], onnx.ModelProto]


Measure: TypeAlias = Callable[[_Way, Kept], Outcome]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The ways to lower a model's precision.

    Attributes:
        nodes: Those that could be less precise, in their order.
        already: Those that must be kept.
        choose: Tries ways with nothing else kept; returns the best and what was found of it.
        notes: For the report.
    """

    nodes: list[str]
    already: Kept
    choose: Callable[[Measure], tuple[_Way, Outcome]]
    notes: list[str]


def lower(
    plain: OnnxModel,
    precision: Precision,
    trial: Trial,
    measures: Measures,
    *,
    repair_rules: Callable[[onnx.ModelProto], Any],
    progress: Progress,
) -> tuple[onnx.ModelProto, Lowering, LabelDrift | None]:
    """Lower a model's precision, with as few nodes kept in float32 as possible.

    Args:
        plain: The converted model, in a file.
        precision: The target precision.
        trial: Compares versions with the source; int8 is also calibrated on its rows, unless they are made up.
        measures: How the result is timed.
        repair_rules: Repairs a model in place so that it keeps the rules of its runtime.
        progress: See `Progress`.

    Returns:
        The model, what was tried, and its quality where rows are labelled. Where nothing passes, the model is the
        one with the least error and nothing kept that need not be.

    Raises:
        ConversionError: no node can be in lower precision, or the conversion fails.
    """
    proto = plain.load()
    ready = prepared(proto, precision, half.OPERATORS if precision == "fp16" else QUANTIZED)
    plan = _half(ready, trial) if precision == "fp16" else _int8(ready, trial)
    attempts: list[LoweringAttempt] = []
    kinds = {node.name: node.op_type for node in ready.graph.node}
    weighty = {name for name in plan.nodes if kinds[name] in half.OPERATORS}

    def measure(way: _Way, kept: Kept) -> Outcome:
        found = trial.compare(way.measured(kept), way.recipe, len(kept))
        if weighty <= kept:  # nothing is gained by the rest
            found = found._replace(attempt=found.attempt.model_copy(update={"passed": False}))
        return found

    def recorded(way: _Way, kept: Kept) -> Outcome:
        progress(f"Trying {precision}: {way.recipe}", 0, 0)
        attempts.append((found := measure(way, kept)).attempt)
        return found

    way, found = plan.choose(recorded)
    kept, sensitivity, notes, passed = plan.already, dict[str, float](), plan.notes, found.passed
    left = [name for name in plan.nodes if name not in kept]
    if not passed and left:
        progress(f"Looking for the nodes that {precision} hurts most", 0, 0)
        repaired = repair(left, lambda keep: measure(way, keep), kept)
        attempts += [tried.attempt for tried in repaired.tried]
        sensitivity = {name: error for group, error in repaired.sensitivity.items() for name in group}
        kept, passed = (repaired.kept, True) if repaired.kept is not None else (kept, False)
        if not passed:
            notes.append("It does not pass with any number of nodes kept in float32.")
    model = way.written(kept)
    restore(model, proto)
    repair_rules(model)
    final = trial.compare(model, way.recipe, len(kept), on_all=True)
    with tempfile.TemporaryDirectory() as folder:
        lowered = OnnxModel(Path(folder) / plain.path.name, model)
        write(model, lowered.path)
        progress(f"Timing {precision}", 0, 0)
        comparisons = compare(lowered, plain, measures)
    if any(found.outcome == "fail" for found in comparisons):
        notes.append("It is slower here than in float32.")
    if size_of(model) >= size_of(proto):
        notes.append("It is no smaller than in float32.")
    lowering = Lowering(
        precision=precision,
        recipe=way.recipe,
        data=trial.rows.origin,
        rows=trial.total,
        kept=[name for name in plan.nodes if name in kept],
        nodes=len(plan.nodes),
        sensitivity=sensitivity,
        attempts=attempts,
        losses=final.attempt.losses,
        size_bytes=size_of(model),
        full_size_bytes=size_of(proto),
        comparisons=comparisons,
        notes=notes,
        passed=passed and final.passed,
    )
    return model, lowering, final.drift


def _half(model: onnx.ModelProto, trial: Trial) -> _Plan:
    floats, without = float_tensors(model), half.blocked()
    nodes = [
        node.name for node in model.graph.node if node.op_type not in without and floats.intersection(node.output)
    ]
    peaks: dict[str, float] = {}
    for feeds in trial.batches():
        for name, peak in half.overflowing(model, feeds).items():
            peaks[name] = max(peak, peaks.get(name, 0.0))
    notes = [
        f"{name} stays in float32: numbers go up to {units.number(peaks[name])}, and float16 ends at 65,504."
        for name in nodes
        if name in peaks
    ]
    way = _Way("float16", lambda kept: half.rounded(model, kept), lambda kept: half.to_half(model, kept))
    already = frozenset(peaks)
    return _Plan(nodes, already, lambda measure: (way, measure(way, already)), notes)


def _int8(model: onnx.ModelProto, trial: Trial) -> _Plan:
    nothing: Kept = frozenset()
    kinds = {node.op_type for node in model.graph.node}
    notes = []
    if trial.rows.seed is not None:
        notes = ["Not calibrated without --data: ranges are found in each run. It is compared on made-up rows."]
    elif "LSTM" in kinds and "Conv" not in kinds:
        notes = ["Not calibrated: with ranges that are found in each run, its LSTM is quantized too."]
    if notes:

        def better(measure: Measure) -> tuple[_Way, Outcome]:
            tried = [(way, measure(way, nothing)) for way in map(partial(_dynamic, model), (8, 7))]
            return min(tried, key=lambda one: (not one[1].passed, one[1].error))

        nodes = [node.name for node in model.graph.node if node.op_type in QUANTIZED]
        return _Plan(nodes, nothing, better, notes)
    calibrated = Calibrated(model, list(trial.batches(CALIBRATED)))

    def choose(measure: Measure) -> tuple[_Way, Outcome]:
        """Change one choice after the other, and keep what errs less."""
        recipe = Recipe()
        found = measure(_static(calibrated, recipe), nothing)
        changes: list[dict[str, Any]] = [
            {"method": "Percentile"},
            {"method": "Entropy"},
            {"reduce_range": True},
            {"per_channel": False},
            {"products_only": True},
        ]
        for change in changes:
            changed = replace(recipe, **change)
            other = measure(_static(calibrated, changed), nothing)
            if (not other.passed, other.error) < (not found.passed, found.error):
                recipe, found = changed, other
        return _static(calibrated, recipe), found

    known = set(quantizable())
    nodes = [node.name for node in model.graph.node if node.op_type in known]
    return _Plan(
        nodes, nothing, choose, [f"Calibrated on {units.plural(min(CALIBRATED, trial.searched), 'row')}."]
    )


def _dynamic(model: onnx.ModelProto, bits: int) -> _Way:
    def quantized(kept: Kept) -> onnx.ModelProto:
        return dynamically_quantized(model, kept, reduce_range=bits < 8)

    return _Way(f"ranges found in each run, weights of {bits} bits", quantized, quantized)


def _static(calibrated: Calibrated, recipe: Recipe) -> _Way:
    def quantized(kept: Kept) -> onnx.ModelProto:
        return calibrated.quantized(recipe, kept)

    return _Way(str(recipe), quantized, quantized)
