"""Whether two models agree at other sizes of their dynamic dimensions than those of the rows.

A graph that was traced at one length may hold a branch, a table or a constant of that length. So each dynamic
dimension besides the batch gets a ladder of sizes, all dimensions together and each of them alone, and a few rows are
made up for each.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxtool.errors import ModelError, SourceError
from onnxtool.models.onnx.artifact import OnnxModel, bounds_of, first_line
from onnxtool.models.rows.inputs import IMAGE_RANK, make_inputs, sizes_of
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import DimensionSizes, Parity, SizeFailure
from onnxtool.validators.numerics.comparison import OutputComparison
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.pairs import Pair, Rows, known_domains, row_specs

LENGTHS = (1, 12, 40, 128, 512)
SIDES = (32, 33, 48, 96, 160)
"""Sizes of sequences, and of the sides of images, which networks halve some times."""

BUDGET_S = 20.0
"""Time for all sizes together: what takes longer is left out, the largest first, and the report has what ran."""

_ROWS = 2


@dataclass(slots=True)
class _Tried:
    """What came of the sizes of one dimension."""

    compared: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    failures: dict[int, SizeFailure] = field(default_factory=dict)


def prove_sizes(
    parity: Parity,
    source: SourceModel,
    model: OnnxModel,
    rows: Rows,
    *,
    rtol: Limit = None,
    atol: Limit = None,
    accept_rounding: bool = False,
    provider: str = "cpu",
    given: Collection[str] = (),
    budget_s: float = BUDGET_S,
) -> Parity:
    """Compare two models at several sizes of each dimension that the ONNX model declares dynamic.

    A size that the source refuses is no failure: it is a bound of its own. A size outside of the bounds that the ONNX
    model states in its metadata is left out.

    Args:
        parity: The comparison on the rows. It is taken as it is where it did not pass: sizes would say no more.
        source: The reference.
        model: The ONNX model.
        rows: The rows that were compared, whose sizes are known to work.
        rtol: As for `check_parity`.
        atol: As for `check_parity`.
        accept_rounding: As for `check_parity`.
        provider: As for `check_parity`.
        given: Dimensions whose sizes the user chose: they get no others.
        budget_s: Seconds for all sizes together.

    Returns:
        The comparison with its `sizes`; it has not passed where the two models do not agree at a size.
    """
    if not parity.passed or rows.expected is not None:  # the owner's answers are to these rows only
        return parity
    pair = Pair(source, model, provider, accept_rounding=accept_rounding)
    specs = _as_declared(pair, row_specs(source, model))
    base = dict(sizes_of(specs, rows.tensors))
    if not base:
        return parity
    bounds = bounds_of(model.metadata)
    tried = {name: _Tried({size}) for name, size in base.items()}
    for block in rows.blocks() if rows.seed is not None else ():
        for name, size in sizes_of(specs, block.tensors):
            tried[name].compared.add(size)
    domains = known_domains(source, model)
    began, longest = time.monotonic(), 0.0
    for sizes in _probes(specs, base, given):
        changed = [name for name in sizes if sizes[name] != base[name]]
        if any(_outside(sizes[name], *bounds.get(name, (None, None))) for name in changed):
            continue
        started = time.monotonic()
        if started - began + longest > budget_s:
            continue  # a later one may be smaller
        made = make_inputs(specs, pair.batching.size or _ROWS, rows.seed or 0, domains, sizes)
        outcome = _outcome(pair, made, (rtol, atol))
        if outcome is None:
            longest = max(longest, time.monotonic() - started)
            for name in changed:
                tried[name].compared.add(sizes[name])
        elif isinstance(outcome, SourceError):
            if len(changed) == 1:
                tried[changed[0]].refused.add(sizes[changed[0]])
        else:
            blamed = [name for name in changed if sizes[name] not in tried[name].compared] or changed
            for name in blamed:
                tried[name].failures.setdefault(sizes[name], outcome.model_copy(update={"size": sizes[name]}))
    found = [_record(name, entry, bounds.get(name, (None, None))) for name, entry in tried.items()]
    return parity.model_copy(update={"sizes": found, "passed": not any(entry.failures for entry in found)})


def _outside(size: int, low: int | None, high: int | None) -> bool:
    return (low is not None and size < low) or (high is not None and size > high)


def _record(name: str, found: _Tried, bounds: tuple[int | None, int | None]) -> DimensionSizes:
    return DimensionSizes(
        dimension=name,
        compared=sorted(found.compared - set(found.failures)),
        refused=sorted(found.refused - found.compared - set(found.failures)),
        failures=[found.failures[size] for size in sorted(found.failures)],
        low=bounds[0],
        high=bounds[1],
    )


def _as_declared(pair: Pair, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The source's inputs with the dimensions that the ONNX model leaves open, by the ONNX model's names."""
    declared = {feed.columns[0]: feed.spec for feed in pair.feeds.feeds if len(feed.columns) == 1}
    found = []
    for spec in specs:
        other = declared.get(spec.name)
        same = other is not None and len(other.shape) == len(spec.shape)
        found.append(replace(spec, shape=other.shape) if other is not None and same else spec)
    return found


def _probes(
    specs: Sequence[TensorSpec], base: Mapping[str, int], given: Collection[str]
) -> Iterator[dict[str, int]]:
    """Sizes to try, small ones first: of all dimensions together, then of each alone, then all different."""
    ladders = {name: [size] if name in given else _ladder(specs, name, size) for name, size in base.items()}
    for step in range(max(map(len, ladders.values()))):
        yield {name: ladder[min(step, len(ladder) - 1)] for name, ladder in ladders.items()}
    if len(ladders) == 1:
        return
    for name, ladder in ladders.items():
        yield from ({**base, name: size} for size in ladder)
    yield {name: ladder[place % len(ladder)] for place, (name, ladder) in enumerate(ladders.items(), 1)}


def _ladder(specs: Sequence[TensorSpec], name: str, base: int) -> list[int]:
    rank = max(len(spec.shape) for spec in specs if name in spec.shape)
    known = SIDES if rank >= IMAGE_RANK else LENGTHS
    near = {base + 1, 2 * base, *([base - 1] if base > 1 else [])}
    return sorted({*known, *near} - {base})


def _outcome(pair: Pair, rows: Tensors, tolerances: tuple[Limit, Limit]) -> SourceError | SizeFailure | None:
    """What is wrong with some rows: an error of the source, a difference, or nothing."""
    try:
        truth = pair.run_source(rows)
    except SourceError as error:
        return error
    try:
        found = pair.renamed(truth, pair.run_onnx(rows))
    except ModelError as error:
        return SizeFailure(size=0, problem=f"the ONNX model fails: {first_line(error)}", raised=True)
    allowed = pair.tolerances(rows, truth, *tolerances)
    for name, expected in truth.items():
        if name not in found:
            continue  # which the comparison of the rows reports
        if np.shape(expected) != np.shape(found[name]):
            shapes = f"{list(np.shape(found[name]))} and not {list(np.shape(expected))}"
            return SizeFailure(size=0, problem=f"{name} has the shape {shapes}", raised=False)
        comparison = OutputComparison(name, pair.source.roles.get(name, "values"), allowed)
        comparison.update(np.atleast_1d(expected), np.atleast_1d(found[name]))
        result = comparison.result()
        if result.problem or result.mismatched_elements:
            problem = result.problem or f"{name} is off by up to {result.max_absolute:.3g}"
            return SizeFailure(size=0, problem=problem, raised=False)
    return None
