"""Optimised graphs of a converted model: each is compared with the source and timed, and the best one is kept."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx

from onnxtool.api.arguments import Progress
from onnxtool.bench.against import run_against
from onnxtool.bench.choice import choose
from onnxtool.bench.runner import fixed_batch
from onnxtool.converters.graph.finish import write
from onnxtool.converters.graph.optimizers import Optimize, optimizers, rewrite
from onnxtool.errors import OnnxtoolError
from onnxtool.models.onnx.artifact import OnnxModel, all_nodes, first_line, size_of
from onnxtool.models.signature import Tensors
from onnxtool.reports.gates import parity_gate
from onnxtool.reports.model import Candidate, Comparison, Parity

BATCHES = (1, 64)
"""Rows in a run: a single one, and as many as keep all cores busy."""

EFFECT = 0.02
"""The smallest rise of the latency that matters."""

BUDGET_S = 5.0
"""Longest time of sampling for a candidate at a batch; two graphs that are alike take a tenth of it."""


@dataclass(frozen=True, slots=True)
class Measures:
    """The functions and data by which graphs are measured.

    Attributes:
        refusal: Why the runtime that the model is for would not take a graph, or None.
        parity: Compares a model with the source.
        rows: Inputs of the model, to be timed with.
        seed: Seed of the order of the runs.
    """

    refusal: Callable[[onnx.ModelProto], str | None]
    parity: Callable[[OnnxModel], Parity]
    rows: Tensors
    seed: int


Attempt: TypeAlias = tuple[onnx.ModelProto, Parity, Candidate]
"""A graph, its agreement with the source, and its record in the report."""


def optimize_model(
    plain: OnnxModel, agreement: Parity, level: Optimize, measures: Measures, progress: Progress
) -> tuple[onnx.ModelProto, Parity, list[Candidate]]:
    """Try what there is, and keep the best graph.

    Args:
        plain: The model as it was converted, in a file.
        agreement: How it agrees with the source.
        level: Which optimisers are tried.
        measures: How they are measured.
        progress: See `Progress`.

    Returns:
        The graph that is kept, how it agrees with the source, and what was found of each candidate.
    """
    proto = plain.load()
    first = described("converted graph", proto, agreement)
    if not agreement.passed:
        why = "The converted model drifts, so that no other graph can be compared with it."
        return proto, agreement, [first.model_copy(update={"outcome": "kept", "reason": why})]
    attempts: list[Attempt] = [(proto, agreement, first)]
    seen = {_operators(proto): first.name}
    tried = optimizers(level)
    with tempfile.TemporaryDirectory() as folder:
        for place, optimizer in enumerate(tried):
            progress(f"Optimising with {optimizer.name}", place, len(tried))
            try:
                model = OnnxModel(Path(folder) / f"{place}.onnx", rewrite(proto, optimizer))
                same = seen.setdefault(_operators(model.proto), optimizer.name)
                known = f"Same operators as: {same}." if same != optimizer.name else None
                reason = known or measures.refusal(model.proto)
                if reason is None:
                    attempts.append(_measured(model, optimizer.name, plain, measures))
                    continue
            except OnnxtoolError as error:
                reason = first_line(error)
            attempts.append((proto, agreement, Candidate(name=optimizer.name, outcome="refused", reason=reason)))
    assessed = choose(first, [candidate for _, _, candidate in attempts[1:]])
    kept = next(place for place, candidate in enumerate(assessed) if candidate.outcome == "kept")
    return attempts[kept][0], attempts[kept][1], assessed


def _measured(model: OnnxModel, name: str, plain: OnnxModel, measures: Measures) -> Attempt:
    """Compare a candidate with the source, and time it where it agrees.

    Raises:
        OnnxtoolError: it cannot be run.
    """
    write(model.proto, model.path)
    parity = measures.parity(model)
    candidate = described(name, model.proto, parity)
    if parity.passed:
        return model.proto, parity, candidate.model_copy(update={"comparisons": compare(model, plain, measures)})
    reason = parity_gate(parity).message
    return model.proto, parity, candidate.model_copy(update={"outcome": "refused", "reason": reason})


def described(name: str, graph: onnx.ModelProto, parity: Parity) -> Candidate:
    """The report's record of a graph that was compared with the source."""
    return Candidate(
        name=name,
        outcome="accepted",
        reason="",
        nodes=sum(1 for _ in all_nodes(graph.graph)),
        size_bytes=size_of(graph),
        max_absolute=parity.max_absolute,
        mismatched_rows=parity.mismatched_rows,
        label_flips=parity.label_flips,
    )


def compare(model: OnnxModel, plain: OnnxModel, measures: Measures) -> list[Comparison]:
    """The latency of a graph against that of the graph as it was converted, run in turn."""
    fixed = fixed_batch(plain.inputs)
    return run_against(
        model,
        plain,
        inputs=measures.rows,
        providers=("cpu",),
        batches=BATCHES if fixed is None else (fixed,),
        threads=(None,),
        effect=EFFECT,
        budget_s=BUDGET_S,
        seed=measures.seed,
    )


def _operators(graph: onnx.ModelProto) -> frozenset[tuple[tuple[str, str], int]]:
    return frozenset(Counter((node.domain, node.op_type) for node in all_nodes(graph.graph)).items())
