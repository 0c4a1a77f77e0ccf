"""Whether two models agree at other sizes of their dynamic dimensions than those of the rows.

A graph that was traced at one length may hold a branch, a table or a constant of that length. So each dynamic
dimension besides the batch gets a ladder of sizes, all dimensions together and each of them alone, and a few rows are
made up for each.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from onnxtool.errors import ModelError, OnnxtoolError, SourceError
from onnxtool.models.onnx.artifact import OnnxModel, bounds_of, first_line
from onnxtool.models.rows.inputs import IMAGE_RANK, make_inputs, resized, sizes_of
from onnxtool.models.signature import Tensors, TensorSpec
from onnxtool.models.source import SourceModel
from onnxtool.reports.model import DimensionSizes, Parity, SizeFailure
from onnxtool.validators.numerics.comparison import OutputComparison
from onnxtool.validators.numerics.tolerance import Limit
from onnxtool.validators.parity.feeds import Feeds
from onnxtool.validators.parity.pairs import Pair, Rows, known_domains, row_specs

LENGTHS = (1, 7, 12, 40, 128, 512)
SIDES = (17, 32, 33, 48, 96, 160)
"""Sizes of sequences, and of the sides of images, which networks halve some times."""

BUDGET_S = 20.0
"""Time for all sizes together: what would take longer is left out, and the report says so."""

_ROWS = 2
_COST = 2  # power of the size with which time grows: attention
_HALVINGS = 12
_LONGEST = 8192  # of bounds that are tried


@dataclass(slots=True)
class _Tried:
    """What came of the sizes of one dimension."""

    compared: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
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
    options: Mapping[str, str] = MappingProxyType({}),
    given: Collection[str] = (),
    budget_s: float = BUDGET_S,
) -> Parity:
    """Compare two models at several sizes of each dimension that the ONNX model declares dynamic.

    A size that the source refuses is no failure: it is a bound of its own, and the last size before it is compared.
    Nor is it one that the ONNX model fails beyond the bounds that its metadata states; a wrong answer there is one.

    Args:
        parity: The comparison on the rows. It is taken as it is where it did not pass: sizes would say no more.
        source: The reference.
        model: The ONNX model.
        rows: The rows that were compared, whose sizes are known to work.
        rtol: As for `check_parity`.
        atol: As for `check_parity`.
        accept_rounding: As for `check_parity`.
        provider: As for `check_parity`.
        options: As for `check_parity`.
        given: Dimensions whose sizes the user chose: they get no others.
        budget_s: Seconds for all sizes together.

    Returns:
        The comparison with its `sizes`; it has not passed where the two models do not agree at a size.
    """
    if not parity.passed or rows.expected is not None:  # the owner's answers are to these rows only
        return parity
    pair = Pair(source, model, provider, options, accept_rounding=accept_rounding)
    specs = as_declared(pair.feeds, row_specs(source, model))
    base = dict(sizes_of(specs, rows.tensors))
    if not base:
        return parity
    proof = _Proof(pair, specs, rows, base, _owners_bounds(source, specs), (rtol, atol), budget_s)
    for found in parity.sizes:
        if found.dimension in base:
            proof.tried[found.dimension].compared |= set(found.compared)
    for sizes in _probes(specs, base, given, proof.bounds):
        proof.probe(sizes)
    for name in base:
        if name not in given:
            proof.find_limits(name)
    records = [_record(name, entry, bounds_of(model.metadata).get(name)) for name, entry in proof.tried.items()]
    passed = not any(record.failures for record in records)
    return parity.model_copy(update={"sizes": records, "passed": passed})


@dataclass
class _Proof:
    """Two models at one size after another.

    Attributes:
        pair: The models.
        specs: The inputs, with the dimensions that the ONNX model leaves open.
        rows: The rows that were compared.
        base: Their sizes.
        bounds: The sizes that the source was exported for.
        limits: Relative and absolute tolerance, if the user gave any.
        budget_s: Seconds for all.
        tried: What came of each dimension's sizes.
        took: Seconds by the number of elements in a batch.
    """

    pair: Pair
    specs: Sequence[TensorSpec]
    rows: Rows
    base: Mapping[str, int]
    bounds: Mapping[str, tuple[int, int]]
    limits: tuple[Limit, Limit]
    budget_s: float
    tried: dict[str, _Tried] = field(init=False)
    took: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tried = {name: _Tried({size}) for name, size in self.base.items()}

    def probe(self, sizes: Mapping[str, int]) -> None:
        """Compare the models at some sizes, and note what came of them."""
        changed = [name for name in sizes if sizes[name] != self.base[name]]
        if not changed or any(_outside(sizes[name], *self.bounds.get(name, (None, None))) for name in changed):
            return
        made = self._made(sizes)
        if self._too_long(made):
            for name in changed:
                self.tried[name].skipped.add(sizes[name])
            return
        started = time.monotonic()
        outcome = _outcome(self.pair, made, self.limits)
        if isinstance(outcome, SourceError):  # it may take no other values than those of the rows
            outcome = _outcome(self.pair, self._resized(sizes), self.limits)
        self._spent(made, started)
        if isinstance(outcome, SourceError):
            if len(changed) == 1:
                self.tried[changed[0]].refused.add(sizes[changed[0]])
        elif outcome is None:
            for name in changed:
                self.tried[name].compared.add(sizes[name])
        else:
            blamed = [name for name in changed if sizes[name] not in self.tried[name].compared] or changed
            for name in blamed:
                if not (outcome.raised and self._stated(name, sizes[name])):
                    failure = outcome.model_copy(update={"size": sizes[name]})
                    self.tried[name].failures.setdefault(sizes[name], failure)

    def find_limits(self, name: str) -> None:
        """Compare at the least and the greatest size that the source takes, where it refuses some."""
        found = self.tried[name]
        works = found.compared | set(found.failures)
        refused = found.refused - works
        below = [size for size in refused if size < min(works)]
        above = [size for size in refused if size > max(works)]
        for right, wrong in ((min(works), max(below, default=None)), (max(works), min(above, default=None))):
            if wrong is not None:
                limit = self._limit(name, right, wrong)
                if limit not in works:
                    self.probe({**self.base, name: limit})

    def _limit(self, name: str, right: int, wrong: int) -> int:
        """The last size that the source takes, by halving between one that it takes and one that it refuses."""
        for _ in range(_HALVINGS):
            middle = (right + wrong) // 2
            made = self._made({**self.base, name: middle})
            if middle in (right, wrong) or self._too_long(made):
                break
            started = time.monotonic()
            try:
                self.pair.run_source(made)
                right = middle
            except OnnxtoolError:
                wrong = middle
            self._spent(made, started)
        return right

    def _made(self, sizes: Mapping[str, int]) -> Tensors:
        domains = known_domains(self.pair.source, self.pair.model)
        return make_inputs(self.specs, self.pair.batching.size or _ROWS, self.rows.seed or 0, domains, sizes)

    def _resized(self, sizes: Mapping[str, int]) -> Tensors:
        """The first rows, whose values are left out or stand several times in a row, in their order."""
        batching = self.pair.batching
        count = batching.size or _ROWS
        have = min(count, batching.count(self.rows.tensors))
        found = batching.rows(self.rows.tensors, 0, have, count) if batching.axes else dict(self.rows.tensors)
        return resized(found, self.specs, sizes)

    def _spent(self, made: Tensors, started: float) -> None:
        elements = _elements(made)
        self.took[elements] = self.took.get(elements, 0.0) + time.monotonic() - started

    def _too_long(self, made: Tensors) -> bool:
        elements = _elements(made)
        known = max((size for size in self.took if size <= elements), default=min(self.took, default=None))
        expected = self.took[known] * max(1.0, elements / max(known, 1)) ** _COST if known is not None else 0.0
        return sum(self.took.values()) + expected > self.budget_s

    def _stated(self, name: str, size: int) -> bool:
        """Whether a size is beyond the bounds that the ONNX model states."""
        return _outside(size, *bounds_of(self.pair.model.metadata).get(name, (None, None)))


def _elements(tensors: Tensors) -> int:
    return sum(array.size for array in tensors.values())


def _owners_bounds(source: SourceModel, specs: Sequence[TensorSpec]) -> dict[str, tuple[int, int]]:
    """The sizes that the source was exported for, by the ONNX model's names."""
    own = {spec.name: spec.shape for spec in source.inputs}
    pairs = [pair for spec in specs for pair in zip(spec.shape, own.get(spec.name, ()), strict=False)]
    return {
        str(dim): source.bounds[name] for dim, name in pairs if isinstance(name, str) and name in source.bounds
    }


def _outside(size: int, low: int | None, high: int | None) -> bool:
    return (low is not None and size < low) or (high is not None and size > high)


def _record(name: str, found: _Tried, bounds: tuple[int | None, int | None] | None) -> DimensionSizes:
    low, high = bounds or (None, None)
    return DimensionSizes(
        dimension=name,
        compared=sorted(found.compared - set(found.failures)),
        refused=sorted(found.refused - found.compared - set(found.failures)),
        failures=[found.failures[size] for size in sorted(found.failures)],
        skipped=sorted(found.skipped - found.compared - found.refused - set(found.failures)),
        low=low,
        high=high,
    )


def as_declared(feeds: Feeds, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The source's inputs with the dimensions that the ONNX model leaves open, by the ONNX model's names."""
    declared = {feed.columns[0]: feed.spec for feed in feeds.feeds if len(feed.columns) == 1}
    found = []
    for spec in specs:
        other = declared.get(spec.name)
        same = other is not None and len(other.shape) == len(spec.shape)
        found.append(replace(spec, shape=other.shape) if other is not None and same else spec)
    return found


def _probes(
    specs: Sequence[TensorSpec],
    base: Mapping[str, int],
    given: Collection[str],
    bounds: Mapping[str, tuple[int, int]],
) -> Iterator[dict[str, int]]:
    """Sizes to try, small ones first: of all dimensions together, then of each alone, then all different."""
    ladders = {
        name: [size] if name in given else _ladder(specs, name, size, bounds.get(name))
        for name, size in base.items()
    }
    for step in range(max(map(len, ladders.values()))):
        yield {name: ladder[min(step, len(ladder) - 1)] for name, ladder in ladders.items()}
    if len(ladders) == 1:
        return
    for name, ladder in ladders.items():
        yield from ({**base, name: size} for size in ladder)
    yield {name: ladder[place % len(ladder)] for place, (name, ladder) in enumerate(ladders.items(), 1)}


def _ladder(specs: Sequence[TensorSpec], name: str, base: int, bounds: tuple[int, int] | None) -> list[int]:
    rank = max(len(spec.shape) for spec in specs if name in spec.shape)
    known = SIDES if rank >= IMAGE_RANK else LENGTHS
    near = {base + 1, 2 * base, *([base - 1] if base > 1 else [])}
    sizes = {*known, *near} - {base}
    if bounds is None:
        return sorted(sizes)
    low, high = max(bounds[0], 1), bounds[1]
    sizes |= {low} | ({high} if high <= _LONGEST else set())
    return sorted(size for size in sizes - {base} if low <= size <= high) or [base]


def _outcome(pair: Pair, rows: Tensors, tolerances: tuple[Limit, Limit]) -> SourceError | SizeFailure | None:
    """What is wrong with some rows: an error of the source, a difference, or nothing."""
    try:
        truth = pair.run_source(rows)
    except OnnxtoolError as error:  # TensorFlow's are errors of the rows
        return SourceError(str(error))
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
